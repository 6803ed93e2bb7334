"""One value of native code: an SSA name or a constant, with Python's operators."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tracegraph.dtypes import FLOAT_KIND, DType, bool_, float32, float64
from tracegraph.errors import TraceGraphError

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.code.scalars import Emitter


class UnsupportedError(TraceGraphError):
    """An expression that has no native form; the runtime calls the host instead."""


class Value:
    """One value of the function being written: `text` is its LLVM name, or a constant.

    `number` is what a constant holds, None for others.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("dtype", "m", "number", "text")

    def __init__(self, m: Emitter, text: str, dtype: DType, number: float | None = None) -> None:
        self.m, self.text, self.dtype, self.number = m, text, dtype, number

    def __add__(self, other: Operand) -> Value:
        return self.m.arithmetic("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.m.arithmetic("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.m.arithmetic("sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.m.arithmetic("sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.m.arithmetic("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.m.arithmetic("mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.m.arithmetic("div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.m.arithmetic("div", other, self)

    def __and__(self, other: Operand) -> Value:
        return self.m.arithmetic("and", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.m.arithmetic("or", self, other)

    def __xor__(self, other: Operand) -> Value:
        return self.m.arithmetic("xor", self, other)

    def __invert__(self) -> Value:
        return self.m.arithmetic("xor", self, True if self.dtype is bool_ else -1)

    def __neg__(self) -> Value:
        if self.dtype.is_floating_point:
            return self.m.emit(self.dtype, f"fneg {self}")
        return self.m.arithmetic("sub", 0, self)

    def __lshift__(self, count: int) -> Value:
        return self.m.emit(self.dtype, f"shl {self}, {self.m.constant(count, self.dtype).text}")

    def __rshift__(self, count: int) -> Value:
        kind = "ashr" if self.dtype.is_signed else "lshr"
        return self.m.emit(self.dtype, f"{kind} {self}, {self.m.constant(count, self.dtype).text}")

    def __lt__(self, other: Operand) -> Value:
        return self.m.compare("lt", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.m.compare("le", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.m.compare("gt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.m.compare("ge", self, other)

    def __eq__(self, other: Operand) -> Value:  # type: ignore[override]
        return self.m.compare("eq", self, other)

    def __ne__(self, other: Operand) -> Value:  # type: ignore[override]
        return self.m.compare("ne", self, other)

    def __bool__(self) -> bool:
        raise UnsupportedError("a value of native code steers no Python")

    def __str__(self) -> str:
        return f"{self.m.type_of(self.dtype)} {self.text}"


Operand = Value | int | float


def element_type(dtype: DType) -> str:
    """Return the LLVM type of one element as it is computed with.

    Raises:
        UnsupportedError: a 16-bit float, which is only stored.
    """
    if dtype is float32:
        return "float"
    if dtype is float64:
        return "double"
    if dtype.kind >= FLOAT_KIND:
        raise UnsupportedError(f"{dtype} is stored, not computed with")
    return "i1" if dtype is bool_ else f"i{8 * dtype.itemsize}"


def constant_text(number: float, dtype: DType) -> str:
    """Return a constant as LLVM writes it; a float is rounded to the dtype."""
    if dtype.is_floating_point:
        rounded = dtype.np.type(number)  # NumPy rounds to nearest; overflow gives inf
        return f"0x{struct.unpack('>Q', struct.pack('>d', rounded))[0]:016X}"
    if dtype is bool_:
        return "true" if number else "false"
    if isinstance(number, float) and not number.is_integer():
        raise UnsupportedError(f"{number} among operands of {dtype}")
    return str(int(number))
