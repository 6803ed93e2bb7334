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

from tracegraph import modes
from tracegraph.api.promotion import elementwise
from tracegraph.dispatch import refresh
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.tape import record_node
from tracegraph.tensors import Tensor, wrap

_FLOATS: Final = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_NUMBERS: Final = _FLOATS | {np.dtype(np.int64), np.dtype(np.int32)}
_ndarray: Final = np.ndarray
_allocate: Final = object.__new__


def on_tape(op: Op, args: tuple[Any, ...], out: Tensor) -> None:
    """Put a result on the tape if gradients are on and an operand has history."""
    if modes.GRAD.get():
        needed = False
        for t in args:
            if isinstance(t, Tensor):
                if t._lineage is not None:
                    refresh(t)
                if t._node is not None:
                    needed = True
        if needed:
            record_node(op, args, {}, (out,))


def _arithmetic(op: Op, compute: Callable[[Any, Any], Any], fast: frozenset[Any]) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        a = self._data
        if modes.recording or a.__class__ is not _ndarray or a.dtype not in fast:
            return slow(self, other)
        kind = other.__class__
        if kind is Tensor or kind is float or isinstance(other, Tensor):
            if kind is float:
                if a.dtype not in _FLOATS:
                    return slow(self, other)
                b = other
            else:
                b = other._data
                if b.__class__ is not _ndarray or b.dtype is not a.dtype:
                    return slow(self, other)
        elif kind is int and -2147483648 <= other <= 2147483647:
            b = other
        else:
            return slow(self, other)
        try:
            r = compute(a, b)
        except (RuntimeWarning, ValueError):
            return slow(self, other)
        if r.__class__ is not _ndarray:
            r = np.asarray(r)
        out = _allocate(Tensor)
        out._data = r
        out._node = None
        out._index = 0
        out._storage = None
        out._chain = ()
        out._lineage = None
        out._seen = 0
        out._grad = None
        if self._node is not None or self._lineage is not None:
            on_tape(op, (self, other), out)
        elif b is not other and (other._node is not None or other._lineage is not None):
            on_tape(op, (self, other), out)
        return out

    def slow(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return elementwise(op, self, other, floating=op.name == "div")

    return method


def _operand(x: Any) -> bool:
    return isinstance(x, (Tensor, bool, int, float, np.generic))


def _binary(op: Op, floating: bool = False) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return elementwise(op, self, other, floating=floating)

    return method


def _reflected(op: Op, floating: bool = False) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return elementwise(op, other, self, floating=floating)

    return method


def _unary(op: Op) -> Any:
    def method(self: Tensor) -> Any:
        return elementwise(op, self)

    return method


def bind(cls: type[Tensor]) -> None:
    """Give `cls` Python's operators."""
    table: dict[str, Any] = {
        "add": _arithmetic(OPS["add"], operator.add, _NUMBERS),
        "sub": _arithmetic(OPS["sub"], operator.sub, _NUMBERS),
        "mul": _arithmetic(OPS["mul"], operator.mul, _NUMBERS),
        "truediv": _arithmetic(OPS["div"], operator.truediv, _FLOATS),
        "radd": _reflected(OPS["add"]),
        "rsub": _reflected(OPS["sub"]),
        "rmul": _reflected(OPS["mul"]),
        "rtruediv": _reflected(OPS["div"], floating=True),
        "pow": _binary(OPS["pow"]),
        "rpow": _reflected(OPS["pow"]),
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
        "neg": _unary(OPS["neg"]),
        "pos": lambda self: self,
        "abs": _unary(OPS["abs"]),
        "invert": _unary(OPS["bitwise_not"]),
    }
    for name, method in table.items():
        method.__name__ = f"__{name}__"
        setattr(cls, f"__{name}__", method)
    cls.__hash__ = object.__hash__  # type: ignore[method-assign]


def unary_method(op: Op, floating: bool = True) -> Callable[[Tensor], Tensor]:
    """Return `f(input)` for a unary elementwise op, with the short way for float32/float64."""
    kernel = op.kernel
    assert kernel is not None

    def function(input: Tensor) -> Tensor:  # noqa: A002
        a = input._data
        if modes.recording or a.__class__ is not _ndarray or a.dtype not in _FLOATS:
            return elementwise(op, input, floating=floating)
        try:
            r = kernel(np, a)
        except RuntimeWarning:
            return elementwise(op, input, floating=floating)
        out = wrap(r if r.__class__ is _ndarray else np.asarray(r))
        if input._node is not None or input._lineage is not None:
            on_tape(op, (input,), out)
        return out

    function.__name__ = op.name
    function.__doc__ = op.doc
    return function
