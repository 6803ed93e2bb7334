"""Python's operators on Tensors.

Arithmetic between operands of one common dtype takes a short way: compute, wrap, and put a node
on the tape only where an operand has history. All else (promotion, traces, 16-bit floats,
other types) goes through `elementwise` and `dispatch`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tracegraph.api.promotion import elementwise
from tracegraph.dims.symint import SymInt
from tracegraph.eager import modes
from tracegraph.eager.dispatch import refresh
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tape import attach, record_node
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import SparseError
from tracegraph.ops.array_math import math_over
from tracegraph.ops.core import Op
from tracegraph.ops.heavy import Native
from tracegraph.ops.table import OPS

FAST_FLOATS: Final = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_NUMBERS: Final = FAST_FLOATS | {np.dtype(np.int64), np.dtype(np.int32)}
_ndarray: Final = np.ndarray
_allocate: Final = object.__new__
_grad_on: Final = modes.GRAD.get
_recorder: Final = modes.RECORDER.get
_FLOAT32: Final = np.dtype(np.float32)
_scalars: Final[dict[float, Any]] = {}
_NO_ATTRS: Final[dict[str, Any]] = {}


def on_tape(op: Op, args: tuple[Any, ...], out: Tensor) -> None:
    """Put a result on the tape if gradients are on and an operand has history."""
    if op.differentiable and _grad_on():
        needed = False
        for t in args:
            if isinstance(t, Tensor):
                if t._lineage is not None:
                    refresh(t)
                if t._node is not None:
                    needed = True
        if needed:
            record_node(op, args, _NO_ATTRS, (out,))


def _scalar_array(value: float) -> Any:
    """Return a Python number as a 0-d float32 array, kept: NumPy converts a number in 0.3 us.

    Zeros are not kept, since 0.0 and -0.0 are one key.
    """
    with np.errstate(all="ignore"):
        array = np.asarray(value, _FLOAT32)
    if value != 0:
        if len(_scalars) >= 4096:
            _scalars.clear()
        _scalars[value] = array
    return array


def _arithmetic(  # noqa: C901, PLR0915 (holds the hot path below)
    op: Op, compute: Callable[[Any, Any], Any], fast: frozenset[Any], reflected: bool = False
) -> Any:
    """Return `x.__op__(y)` (or `__rop__`) with the short way for operands of one dtype."""

    def method(self: Tensor, other: Any) -> Any:  # noqa: C901, PLR0912 (the hot path)
        a = self._data
        if a.__class__ is not _ndarray:
            return slow(self, other)
        dtype = a.dtype
        if dtype is not _FLOAT32 and dtype not in fast:
            return slow(self, other)
        kind = other.__class__
        peer = None
        if kind is float or (kind is int and -2147483648 <= other <= 2147483647):
            if dtype is _FLOAT32:
                b = _scalars.get(other)
                if b is None:
                    b = _scalar_array(other)
            elif kind is float and dtype not in FAST_FLOATS:
                return slow(self, other)
            else:
                b = other
        elif kind is Tensor or (isinstance(other, Tensor) and not other.is_sparse):
            peer = other
            b = other._data
            if b.__class__ is not _ndarray or b.dtype is not dtype or reflected:
                return slow(self, other)
        else:
            return slow(self, other)
        recorder = _recorder() if modes.recording else None
        if recorder is not None and (
            self._lineage is not None
            or (peer is not None and peer._lineage is not None)
            or modes.sizes
        ):  # a trace has to see more than the result: views, symbolic sizes
            return slow(self, other)
        try:
            r = compute(b, a) if reflected else compute(a, b)
        except (RuntimeWarning, ValueError):
            return slow(self, other)
        out = _allocate(Tensor)
        out._data = r if r.__class__ is _ndarray else np.asarray(r)
        out._node = None
        out._index = 0
        out._storage = None
        out._chain = ()
        out._lineage = None
        out._seen = 0
        out._grad = None
        args = (other, self) if reflected else (self, other)
        if self._lineage is not None or (peer is not None and peer._lineage is not None):
            on_tape(op, args, out)
        elif self._node is not None:
            if _grad_on():
                edge = (self._node, self._index)
                if peer is not None and peer._node is not None:
                    attach(op, (edge, (peer._node, peer._index)), 3, args, _NO_ATTRS, out)
                elif reflected:
                    attach(op, (None, edge), 2, args, _NO_ATTRS, out)
                else:
                    attach(op, (edge, None), 1, args, _NO_ATTRS, out)
        elif peer is not None and peer._node is not None and _grad_on():
            attach(op, (None, (peer._node, peer._index)), 2, args, _NO_ATTRS, out)
        if recorder is not None:
            recorder.record_one(op, args, _NO_ATTRS, out)
        return out

    def slow(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        x, y = (other, self) if reflected else (self, other)
        try:
            return elementwise(op, x, y, floating=op.name == "div")
        except SparseError:
            return NotImplemented  # the operator of the sparse operand is asked next

    return method


def _operand(x: Any) -> bool:
    return isinstance(x, (Tensor, bool, int, float, complex, np.generic, SymInt))


def _binary(op: Op, floating: bool = False) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return elementwise(op, self, other, floating=floating)

    return method


def _reflected(op: Op) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return elementwise(op, other, self)

    return method


def _reflected_pow(self: Tensor, other: Any) -> Any:
    return in_rows(elementwise(OPS["pow"], other, self)) if _operand(other) else NotImplemented


def bind(cls: type[Tensor]) -> None:
    """Give `cls` Python's operators."""
    table: dict[str, Any] = {
        "add": _arithmetic(OPS["add"], operator.add, _NUMBERS),
        "sub": _arithmetic(OPS["sub"], operator.sub, _NUMBERS),
        "mul": _arithmetic(OPS["mul"], operator.mul, _NUMBERS),
        "truediv": _arithmetic(OPS["div"], operator.truediv, FAST_FLOATS),
        "radd": _arithmetic(OPS["add"], operator.add, _NUMBERS, reflected=True),
        "rsub": _arithmetic(OPS["sub"], operator.sub, _NUMBERS, reflected=True),
        "rmul": _arithmetic(OPS["mul"], operator.mul, _NUMBERS, reflected=True),
        "rtruediv": _arithmetic(OPS["div"], operator.truediv, FAST_FLOATS, reflected=True),
        "pow": _binary(OPS["pow"]),
        "rpow": _reflected_pow,
        "floordiv": _binary(OPS["floor_divide"]),
        "rfloordiv": _reflected(OPS["floor_divide"]),
        "mod": _binary(OPS["remainder"]),
        "rmod": _reflected(OPS["remainder"]),
        "and": _binary(OPS["bitwise_and"]),
        "rand": _reflected(OPS["bitwise_and"]),
        "or": _binary(OPS["bitwise_or"]),
        "ror": _reflected(OPS["bitwise_or"]),
        "xor": _binary(OPS["bitwise_xor"]),
        "rxor": _reflected(OPS["bitwise_xor"]),
        "lshift": _binary(OPS["bitwise_left_shift"]),
        "rshift": _binary(OPS["bitwise_right_shift"]),
        "eq": _binary(OPS["eq"]),
        "ne": _binary(OPS["ne"]),
        "lt": _binary(OPS["lt"]),
        "le": _binary(OPS["le"]),
        "gt": _binary(OPS["gt"]),
        "ge": _binary(OPS["ge"]),
        "neg": unary_method(OPS["neg"], floating=False),
        "pos": lambda self: self,
        "abs": unary_method(OPS["abs"], floating=False),
        "invert": unary_method(OPS["bitwise_not"], floating=False),
    }
    for name, method in table.items():
        method.__name__ = f"__{name}__"
        setattr(cls, f"__{name}__", method)
    cls.__hash__ = object.__hash__  # type: ignore[method-assign]


def unary_method(op: Op, floating: bool = True) -> Callable[[Tensor], Tensor]:
    """Return `f(input)` for a unary elementwise op, with the short way for float32/float64."""
    scalar = op.scalar
    assert scalar is not None
    m = math_over(np)
    differentiable, least = op.differentiable, op.heavy

    def function(input: Tensor) -> Tensor:
        a = input._data
        recorder = _recorder() if modes.recording else None
        if (
            (recorder is not None and (input._lineage is not None or modes.sizes))
            or a.__class__ is not _ndarray
            or (a.dtype is not _FLOAT32 and a.dtype not in FAST_FLOATS)
            or (least and a.size >= least * Native.factor)
        ):
            return elementwise(op, input, floating=floating)
        try:
            r = scalar(m, a)
        except RuntimeWarning:
            return elementwise(op, input, floating=floating)
        out = _allocate(Tensor)
        out._data = r if r.__class__ is _ndarray else np.asarray(r)
        out._node = None
        out._index = 0
        out._storage = None
        out._chain = ()
        out._lineage = None
        out._seen = 0
        out._grad = None
        if input._lineage is not None:
            on_tape(op, (input,), out)
        elif input._node is not None and differentiable and _grad_on():
            attach(op, ((input._node, input._index),), 1, (input,), _NO_ATTRS, out)
        if recorder is not None:
            recorder.record_one(op, (input,), _NO_ATTRS, out)
        return out

    function.__name__ = op.name
    function.__doc__ = op.doc
    return function
