"""Functions of one or a few instructions, written where they are used: signs, rounding, choices.

They mean what NumPy's do, on integers and bools too.
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import bool_, uint8, uint16, uint32, uint64
from tracegraph.runtime.cpu.code.elementary.floats import FORMATS, bits_of, flip_sign, sign_of
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value

_UNSIGNED: Final = {d.itemsize: d for d in (uint8, uint16, uint32, uint64)}


def _is_float(x: Value) -> bool:
    return x.dtype.is_floating_point


def absolute(m: Emitter, x: Value) -> Value:
    """|x|; the smallest integer stays what it is."""
    if _is_float(x):
        return m.intrinsic("fabs", x.dtype, x)
    return m.where(x < 0, -x, x) if x.dtype.is_signed else x


def sign(m: Emitter, x: Value) -> Value:
    """-1, 0 or 1; 0 for NaN."""
    if x.dtype is bool_:
        return x
    one, zero = m.constant(1, x.dtype), m.constant(0, x.dtype)
    positive = m.where(x > 0, one, zero)
    return m.where(x < 0, m.constant(-1, x.dtype), positive) if x.dtype.is_signed else positive


def signbit(m: Emitter, x: Value) -> Value:
    """Whether the sign bit is set."""
    if _is_float(x):
        return m.view(x, FORMATS[x.dtype].signed) < 0
    return x < 0 if x.dtype.is_signed else m.constant(0, bool_)


def copysign(m: Emitter, x: Value, y: Value) -> Value:
    """|x| with the sign of y."""
    return m.intrinsic("copysign", x.dtype, x, y)


def square(m: Emitter, x: Value) -> Value:
    """x · x."""
    return x * x


def sqrt(m: Emitter, x: Value) -> Value:
    """Square root, correctly rounded."""
    return m.intrinsic("sqrt", x.dtype, x)


def rsqrt(m: Emitter, x: Value) -> Value:
    """1 / sqrt(x): two roundings."""
    return 1 / sqrt(m, x)


# Rounding.


def _rounding(m: Emitter, name: str, x: Value) -> Value | None:
    """Return what the instruction gives, where there is one or x is whole already."""
    if not _is_float(x):
        return x
    return m.intrinsic(name, x.dtype, x) if m.library.abilities.rounding else None


def nearest(m: Emitter, x: Value) -> Value:
    """The nearest whole number, halves to even: x + 2^mantissa drops the fraction."""
    done = _rounding(m, "roundeven", x)
    if done is not None:
        return done
    whole = 2.0 ** FORMATS[x.dtype].mantissa
    a = absolute(m, x)
    return flip_sign(m, m.where(a < whole, (a + whole) - whole, a), sign_of(m, x))


def _corrected(m: Emitter, x: Value, step: float) -> Value:
    """Return the whole number next to x on the side of `step`, with the sign of x."""
    rounded = nearest(m, x)
    wrong = rounded > x if step < 0 else rounded < x
    return copysign(m, m.where(wrong, rounded + step, rounded), x)


def floor(m: Emitter, x: Value) -> Value:
    """The largest whole number not above x."""
    done = _rounding(m, "floor", x)
    return _corrected(m, x, -1.0) if done is None else done


def ceil(m: Emitter, x: Value) -> Value:
    """The smallest whole number not below x."""
    done = _rounding(m, "ceil", x)
    return _corrected(m, x, 1.0) if done is None else done


def trunc(m: Emitter, x: Value) -> Value:
    """x rounded toward zero."""
    done = _rounding(m, "trunc", x)
    if done is not None:
        return done
    return copysign(m, _corrected(m, absolute(m, x), -1.0), x)


# Choices. Of equal zeros the second is taken, but x beside a constant: as the interpreter does.


def _is_bound(y: Value) -> bool:
    """Whether y is a constant and not NaN: then one instruction does."""
    return y.number is not None and y.number == y.number


def maximum(m: Emitter, x: Value, y: Value) -> Value:
    """The larger; NaN if either is NaN."""
    if _is_bound(y):
        return m.where(x < y, y, x)
    larger = m.where(x > y, x, y)
    return m.where(x != x, x, larger) if _is_float(x) else larger


def minimum(m: Emitter, x: Value, y: Value) -> Value:
    """The smaller; NaN if either is NaN."""
    if _is_bound(y):
        return m.where(x > y, y, x)
    smaller = m.where(x < y, x, y)
    return m.where(x != x, x, smaller) if _is_float(x) else smaller


def fmax(m: Emitter, x: Value, y: Value) -> Value:
    """The larger; the other one where one is NaN."""
    larger = m.where(x > y, x, y)
    return m.where(y != y, x, larger) if _is_float(x) else larger


def fmin(m: Emitter, x: Value, y: Value) -> Value:
    """The smaller; the other one where one is NaN."""
    smaller = m.where(x < y, x, y)
    return m.where(y != y, x, smaller) if _is_float(x) else smaller


# Tests and logic.


def isnan(m: Emitter, x: Value) -> Value:
    """Whether x is NaN."""
    return x != x


def isinf(m: Emitter, x: Value) -> Value:
    """Whether x is infinite."""
    return absolute(m, x) == math.inf if _is_float(x) else m.constant(0, bool_)


def isfinite(m: Emitter, x: Value) -> Value:
    """Whether x is neither infinite nor NaN."""
    return absolute(m, x) < math.inf if _is_float(x) else m.constant(1, bool_)


def truth(x: Value) -> Value:
    """Whether x is not 0; NaN is not."""
    return x if x.dtype is bool_ else x != 0


def logical_and(m: Emitter, x: Value, y: Value) -> Value:
    """Whether both are nonzero."""
    return truth(x) & truth(y)


def logical_or(m: Emitter, x: Value, y: Value) -> Value:
    """Whether either is nonzero."""
    return truth(x) | truth(y)


def logical_xor(m: Emitter, x: Value, y: Value) -> Value:
    """Whether exactly one is nonzero."""
    return truth(x) ^ truth(y)


def logical_not(m: Emitter, x: Value) -> Value:
    """Whether x is 0."""
    return ~truth(x)


# Bits. A shift by the width or more leaves nothing but copies of the sign, as in NumPy.


def _shift(m: Emitter, instruction: str, x: Value, y: Value, beyond: Value) -> Value:
    if x.dtype is bool_:
        raise UnsupportedError(f"{instruction} of bool")
    inside = m.view(y, _UNSIGNED[y.dtype.itemsize]) < 8 * y.dtype.itemsize
    safe = m.where(inside, y, 0)
    return m.where(inside, m.emit(x.dtype, f"{instruction} {x}, {safe.text}"), beyond)


def left_shift(m: Emitter, x: Value, y: Value) -> Value:
    """x · 2^y; 0 for a y below 0 or beyond the width."""
    return _shift(m, "shl", x, y, m.constant(0, x.dtype))


def right_shift(m: Emitter, x: Value, y: Value) -> Value:
    """The floor of x / 2^y; the sign (0 or -1) for a y below 0 or beyond the width."""
    if not x.dtype.is_signed:
        return _shift(m, "lshr", x, y, m.constant(0, x.dtype))
    return _shift(m, "ashr", x, y, x >> (8 * x.dtype.itemsize - 1))


def nextafter(m: Emitter, x: Value, y: Value) -> Value:
    """The number next to x on the side of y; y where they are equal; NaN if either is NaN.

    Away from 0 the bits go up by one, toward 0 down; the smallest numbers follow 0.
    """
    form = FORMATS[x.dtype]
    bits = bits_of(m, x)
    outward = (x < y) ^ signbit(m, x)
    moved = m.where(outward, bits + 1, bits - 1)
    smallest = bits_of(m, y) & form.sign_bit | 1
    moved = m.view(m.where(x == 0.0, smallest, moved), x.dtype)
    return m.where(x == y, y, m.where((x != x) | (y != y), x + y, moved))
