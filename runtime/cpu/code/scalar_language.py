"""The tables of the scalar language, and which rows of the op table have a native form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from tracegraph import special_functions
from tracegraph.dtypes import DType
from tracegraph.errors import OpError
from tracegraph.ops.core import Op
from tracegraph.runtime.cpu.code import storage
from tracegraph.runtime.cpu.code.elementary import (
    basic,
    division,
    error,
    exponential,
    inverse_trigonometric,
    logarithm,
    power,
    trigonometric,
)
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities, Emitter, Function, Library
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value
from tracegraph.tensor_type import TensorType


def _polygamma(m: Emitter, n: Value, x: Value) -> Any:
    """Derivative of order n, a constant, of digamma."""
    if n.number is None:
        raise UnsupportedError("polygamma of an order that is not a constant")
    order = int(n.number)

    def body(inner: Emitter, value: Value) -> Any:
        return special_functions.polygamma(inner, order, value)

    return m.outline(f"polygamma{order}", body, x)


# Written where they are used.
INLINE: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "abs": basic.absolute,
        "bitwise_and": lambda m, x, y: x & y,
        "bitwise_or": lambda m, x, y: x | y,
        "bitwise_xor": lambda m, x, y: x ^ y,
        "ceil": basic.ceil,
        "copysign": basic.copysign,
        "equal": lambda m, x, y: x == y,
        "floor": basic.floor,
        "floor_divide": division.floor_divide,
        "fmax": basic.fmax,
        "fmin": basic.fmin,
        "fmod": division.fmod,
        "greater": lambda m, x, y: x > y,
        "greater_equal": lambda m, x, y: x >= y,
        "invert": lambda m, x: ~x,
        "isfinite": basic.isfinite,
        "isinf": basic.isinf,
        "isnan": basic.isnan,
        "left_shift": basic.left_shift,
        "less": lambda m, x, y: x < y,
        "less_equal": lambda m, x, y: x <= y,
        "logical_and": basic.logical_and,
        "logical_not": basic.logical_not,
        "logical_or": basic.logical_or,
        "logical_xor": basic.logical_xor,
        "maximum": basic.maximum,
        "minimum": basic.minimum,
        "nextafter": basic.nextafter,
        "not_equal": lambda m, x, y: x != y,
        "polygamma": _polygamma,
        "power": division.power,
        "remainder": division.remainder,
        "right_shift": basic.right_shift,
        "round": basic.nearest,
        "rsqrt": basic.rsqrt,
        "sign": basic.sign,
        "signbit": basic.signbit,
        "sqrt": basic.sqrt,
        "square": basic.square,
        "trunc": basic.trunc,
        "trunc_divide": division.trunc_divide,
    }
)

_SPECIAL: Final = (
    "lgamma", "digamma", "ndtr", "ndtri", "log_ndtr", "i0", "i0e", "i1", "i1e", "entr", "xlogy",
    "xlog1py", "sinc", "logit",
)  # fmt: skip

# Functions of floats; they become functions of the module.
OUTLINED: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "arccos": inverse_trigonometric.acos,
        "arccosh": logarithm.acosh,
        "arcsin": inverse_trigonometric.asin,
        "arcsinh": logarithm.asinh,
        "arctan": inverse_trigonometric.atan,
        "arctan2": inverse_trigonometric.atan2,
        "arctanh": logarithm.atanh,
        "cos": trigonometric.cos,
        "cosh": exponential.cosh,
        "erf": error.erf,
        "erfc": error.erfc,
        "erfinv": error.erfinv,
        "exp": exponential.exp,
        "exp2": exponential.exp2,
        "expm1": exponential.expm1,
        "hypot": power.hypot,
        "log": logarithm.log,
        "log10": logarithm.log10,
        "log1p": logarithm.log1p,
        "log2": logarithm.log2,
        "logaddexp": logarithm.logaddexp,
        "logaddexp2": logarithm.logaddexp2,
        "sigmoid": exponential.sigmoid,
        "sin": trigonometric.sin,
        "sinh": exponential.sinh,
        "tan": trigonometric.tan,
        "tanh": exponential.tanh,
    }
    | {name: getattr(special_functions, name) for name in _SPECIAL}
)


def new_library(target: Target) -> Library:
    """Return an empty library with the functions of the scalar language for a target."""
    return Library(Abilities.of(target), INLINE, OUTLINED)


def emit_row(m: Emitter, op: Op, operands: Sequence[Value], attrs: Mapping[str, Any]) -> Value:
    """Write what an elementwise row computes; the result has the compute dtype of the row's.

    Raises:
        UnsupportedError: there is no native form.
    """
    if op.name == "cast":
        return storage.cast(m, operands[0], attrs["dtype"])
    if op.scalar is None:
        raise UnsupportedError(f"{op.name} has no scalar expression")
    result = op.scalar(m, *operands, **attrs)
    if not isinstance(result, Value):
        raise UnsupportedError(f"{op.name} gives no value")
    return result


def supports(op: Op, dtypes: Sequence[DType], attrs: Mapping[str, Any]) -> bool:
    """Whether a row has a native form for operands of these dtypes; else the host computes it."""
    return _tried(op, tuple(dtypes), tuple(sorted(attrs.items())))[0]


def may_fail(op: Op, dtypes: Sequence[DType], attrs: Mapping[str, Any]) -> bool:
    """Whether a row with a native form may have to raise: integers divided by zero."""
    return _tried(op, tuple(dtypes), tuple(sorted(attrs.items())))[1]


@cache
def _tried(
    op: Op, dtypes: tuple[DType, ...], attrs: tuple[tuple[str, Any], ...]
) -> tuple[bool, bool]:
    m = Emitter(Library(Abilities(True, True, True, False), INLINE, OUTLINED), 1)
    operands = [Value(m, f"%x{i}", dtype.compute) for i, dtype in enumerate(dtypes)]
    types = [TensorType(dtype, ()) for dtype in dtypes]
    try:
        (result,) = op.infer(types, dict(attrs))
        if any(dtype.is_complex for dtype in (*dtypes, result.dtype)):
            return False, False
        made = emit_row(m, op, operands, dict(attrs))
    except (UnsupportedError, OpError):
        return False, False
    return made.dtype is result.dtype.compute, bool(m.faults)
