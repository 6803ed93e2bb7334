"""How elements lie in memory, and casts: between dtypes, and to and from what is computed with.

float16 and bfloat16 are stored as 16 bits and computed as float32; bool is stored as a byte. Casts
mean what NumPy's do on x86: a float that does not fit an integer becomes the smallest integer (of
32 or 64 bits, cut to the dtype); nothing is undefined.
"""

from __future__ import annotations

from typing import Final

from tracegraph.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

_STORED: Final = {bool_: uint8, float16: uint16, bfloat16: uint16}


def stored_dtype(dtype: DType) -> DType:
    """Return the dtype of the bits in memory, which an Emitter can load and store."""
    return _STORED.get(dtype, dtype)


def load(m: Emitter, pointer: str, dtype: DType, align: int | None = None) -> Value:
    """Load consecutive elements from a pointer (an SSA name), ready to compute with."""
    stored = stored_dtype(dtype)
    size = align or dtype.itemsize
    return widened(
        m, m.emit(stored, f"load {m.type_of(stored)}, ptr {pointer}, align {size}"), dtype
    )


def store(m: Emitter, value: Value, pointer: str, dtype: DType, align: int | None = None) -> None:
    """Store consecutive elements of a Value of the compute dtype of `dtype`."""
    m.lines.append(
        f"  store {narrowed(m, value, dtype)}, ptr {pointer}, align {align or dtype.itemsize}"
    )


def widened(m: Emitter, bits: Value, dtype: DType) -> Value:
    """Return what to compute with, from the bits in memory."""
    if dtype is bool_:
        return bits != 0
    if dtype is bfloat16:
        return m.view(m.convert("zext", bits, uint32) << 16, float32)
    if dtype is float16:
        return _half_to_single(m, bits)
    return bits


def narrowed(m: Emitter, value: Value, dtype: DType) -> Value:
    """Return the bits to store, rounded to nearest, ties to even."""
    if dtype is bool_:
        return m.convert("zext", value, uint8)
    if dtype is bfloat16:
        return _single_to_brain(m, value)
    if dtype is float16:
        return _single_to_half(m, value)
    return value


# 16-bit floats.


def _single_to_brain(m: Emitter, x: Value) -> Value:
    """Round float32 to bfloat16. The processor's instruction for it loses subnormal numbers."""
    bits = m.view(x, uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return m.convert("trunc", m.where(x != x, bits | 0x400000, rounded) >> 16, uint16)


def _half_to_single(m: Emitter, bits: Value) -> Value:
    """Widen float16: exact. Without an instruction: move the bits, and multiply by 2^112."""
    if m.library.abilities.halves:
        half = m.emit(uint16, f"bitcast {bits} to {_half_type(m)}").text
        return _fenced(m, m.emit(float32, f"fpext {_half_type(m)} {half} to {m.type_of(float32)}"))
    wide = m.convert("zext", bits, uint32)
    magnitude = wide & 0x7FFF
    value = m.view(magnitude << 13, float32) * 2.0**112
    special = m.view((magnitude << 13) | 0x7F800000, float32)
    value = m.where(magnitude >= 0x7C00, special, value)
    return m.view(m.view(value, uint32) | ((wide & 0x8000) << 16), float32)


def _single_to_half(m: Emitter, x: Value) -> Value:
    """Round float32 to float16.

    Without an instruction: a number is added whose last bit is that of the result, so that the
    addition rounds; the result's bits are the difference.
    """
    if m.library.abilities.halves:
        half = m.emit(uint16, f"fptrunc {x} to {_half_type(m)}").text
        return m.emit(uint16, f"bitcast {_half_type(m)} {half} to {m.type_of(uint16)}")
    bits = m.view(x, uint32)
    sign, magnitude = (bits >> 16) & 0x8000, bits & 0x7FFFFFFF
    rounded = (magnitude + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    normal = rounded - (112 << 10)
    # Below 2^-14 the last bit is 2^-24, that of 1/2.
    small = m.view(m.view(magnitude, float32) + 0.5, uint32) - 0x3F000000
    value = m.where(magnitude < (113 << 23), small, normal)
    value = m.where(magnitude >= 0x477FF000, m.constant(0x7C00, uint32), value)
    value = m.where(magnitude > 0x7F800000, m.constant(0x7E00, uint32), value)
    return m.convert("trunc", value | sign, uint16)


def _half_type(m: Emitter) -> str:
    return "half" if m.width == 1 else f"<{m.width} x half>"


# Casts.


def cast(m: Emitter, x: Value, dtype: DType) -> Value:
    """Return x, of any dtype that is computed with, as the cast op has it in `dtype`.

    The result has the compute dtype of `dtype`; its value is one that `dtype` holds.
    """
    if dtype is float16 or dtype is bfloat16:
        single = _to_odd_single(m, x) if x.dtype is float64 and dtype is float16 else None
        single = _to_float(m, x, float32) if single is None else single
        return widened(m, narrowed(m, single, dtype), dtype)
    if dtype.is_floating_point:
        return _to_float(m, x, dtype)
    if dtype is bool_:
        return x if x.dtype is bool_ else x != 0
    return _float_to_integer(m, x, dtype) if x.dtype.is_floating_point else _resized(m, x, dtype)


def _fenced(m: Emitter, x: Value) -> Value:
    """Return x, of which LLVM does not see where it comes from; costs nothing.

    LLVM 22 moves a choice between an extended number and 0 before the extension, and takes the
    other zero: `where(x > 0, 0, x)` is then 0 for -0.
    """
    return m.intrinsic("arithmetic.fence", x.dtype, x)


def _to_float(m: Emitter, x: Value, dtype: DType) -> Value:
    if x.dtype is dtype:
        return x
    if x.dtype.is_floating_point:
        if dtype is float64:
            return _fenced(m, m.convert("fpext", x, float64))
        return m.convert("fptrunc", x, float32)
    return m.convert("sitofp" if x.dtype.is_signed else "uitofp", x, dtype)


def _to_odd_single(m: Emitter, x: Value) -> Value:
    """Round float64 to float32 toward zero, the last bit 1 if anything was lost.

    So that rounding the result to float16 rounds x (Boldo and Melquiond 2008, When double rounding
    is odd).
    """
    nearest = m.convert("fptrunc", x, float32)
    back = m.convert("fpext", nearest, float64)
    beyond = m.abs(back) > m.abs(x)
    bits = m.view(nearest, uint32)
    bits = m.where(beyond, bits - 1, bits)
    return m.view(m.where((back < x) | (back > x), bits | 1, bits), float32)


def _resized(m: Emitter, x: Value, dtype: DType) -> Value:
    """Return an integer or bool in another size, modulo its range."""
    if x.dtype is bool_ or dtype.itemsize > x.dtype.itemsize:
        return m.convert("sext" if x.dtype.is_signed else "zext", x, dtype)
    return m.view(x, dtype) if dtype.itemsize == x.dtype.itemsize else m.convert("trunc", x, dtype)


def _float_to_integer(m: Emitter, x: Value, dtype: DType) -> Value:
    """Truncate to 32 or 64 bits, cut to the dtype; out of range and NaN give the smallest."""
    wide = int64 if dtype.itemsize == 8 else int32
    if dtype not in (uint32, uint64):
        return _resized(m, _truncated(m, x, wide), dtype)
    half = 2.0 ** (8 * dtype.itemsize - 1)
    upper = x >= half
    value = _truncated(m, m.where(upper, x - half, x), wide)
    return m.view(m.where(upper, value ^ -int(half), value), dtype)


def _truncated(m: Emitter, x: Value, dtype: DType) -> Value:
    limit = 2.0 ** (8 * dtype.itemsize - 1)
    fits = (x >= -limit) & (x < limit)
    return m.where(fits, m.convert("fptosi", x, dtype), -int(limit))
