"""Quotients and remainders, and powers of integers.

No integer division traps: a divisor 0, and −1 under the smallest number, are replaced by 1, and
division by 0 is reported as a fault. Vectors of 8 to 32 bits are divided as floats that hold them
exactly: processors have no vector division of integers.
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import DType, bool_, float32, float64, uint64
from tracegraph.runtime.cpu.code.elementary.floats import FORMATS, two_product
from tracegraph.runtime.cpu.code.elementary.power import power as float_power
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value

DIVISION_BY_ZERO: Final = "integer division or modulo by zero"
NEGATIVE_POWER: Final = "Integers to negative integer powers are not allowed."
# Beyond it, a product in two words overflows as it splits its factors.
_MOST_DIVISOR: Final = {float32: math.inf, float64: 2.0**990}


# Integers.


def _smallest(dtype: DType) -> int:
    return -(1 << (8 * dtype.itemsize - 1))


def _safe_divisor(m: Emitter, x: Value, y: Value) -> Value:
    """Return y, or 1 where x / y would trap."""
    bad = y == 0
    if y.dtype.is_signed:
        bad = bad | ((x == _smallest(x.dtype)) & (y == -1))
    return m.where(bad, 1, y)


def _quotient(m: Emitter, x: Value, y: Value) -> Value:
    """Return x / y rounded toward zero, y a safe divisor.

    A float of twice the digits is far enough from the next whole number to truncate rightly.
    """
    letter = "s" if x.dtype.is_signed else "u"
    if x.dtype.itemsize == 8:
        return m.emit(x.dtype, f"{letter}div {x}, {y.text}")
    wide = float64 if x.dtype.itemsize == 4 else float32
    top, bottom = (m.convert(f"{letter}itofp", v, wide) for v in (x, y))
    return m.convert(f"fpto{letter}i", top / bottom, x.dtype)


def _divided(m: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return quotient toward zero and remainder of integers; x and 0 for a divisor 0."""
    if x.dtype is bool_:
        raise UnsupportedError("division of bool")
    safe = _safe_divisor(m, x, y)
    quotient = _quotient(m, x, safe)
    return quotient, x - quotient * safe


def _differs(x: Value, rest: Value) -> Value:
    """Whether a remainder is not 0 and of the other sign than x."""
    return (rest != 0) & ((rest < 0) ^ (x < 0))


def _powers(m: Emitter, x: Value, y: Value) -> Value:
    """Return x^y of integers, modulo 2^bits, by squaring; y >= 0."""

    def step(result: Value, base: Value, rest: Value) -> tuple[Value, list[Value]]:
        result = m.where((rest & 1) != 0, result * base, result)
        rest = rest >> 1
        return rest != 0, [result, base * base, rest]

    return m.repeated([m.constant(1, x.dtype), x, y], step)[0]


# Floats.


def _long_division(m: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return the remainder of finite float64 x >= y > 0, and y: eleven binary digits at a time.

    x = M · 2^e and y = N · 2^f with whole M and N below 2^53; what is wanted is M · 2^(e−f) mod N.
    """
    form = FORMATS[float64]

    def parts(value: Value) -> tuple[Value, Value]:
        bits = m.view(value, uint64)
        exponent, fraction = bits >> form.mantissa, bits & ((1 << form.mantissa) - 1)
        normal = exponent != 0
        return m.where(normal, exponent, 1), m.where(normal, fraction | (1 << 52), fraction)

    def remainder(value: Value) -> Value:
        return m.emit(uint64, f"urem {value}, {divisor.text}")

    (exponent, whole), (lowest, divisor) = parts(x), parts(y)

    def step(rest: Value, count: Value) -> tuple[Value, list[Value]]:
        digits = m.where(count > 11, m.constant(11, uint64), count)
        rest = remainder(m.emit(uint64, f"shl {rest}, {digits.text}"))
        return count > 11, [rest, count - digits]

    rest, _ = m.repeated([remainder(whole), exponent - lowest], step)
    unit = m.view(lowest << form.mantissa, float64)  # 2^52 times that of y
    return m.convert("uitofp", rest, float64) * 2.0**-52 * unit, y


def _near_remainder(m: Emitter, x: Value, y: Value, quotient: Value) -> Value:
    """Return x − quotient · y, exactly; y more where the quotient was rounded up."""
    if x.dtype is float32:
        wide, other = m.convert("fpext", x, float64), m.convert("fpext", y, float64)
        rest = m.convert("fptrunc", wide - m.convert("fpext", quotient, float64) * other, float32)
    else:
        product, low = two_product(m, quotient, y)
        rest = (x - product) - low
    return m.where(rest < 0.0, rest + y, rest)


def _far_remainder(m: Emitter, x: Value, y: Value) -> Value:
    """Return the remainder of x >= y > 0 by long division, lane by lane."""
    if x.dtype is float64:
        return m.per_lane("long_division", _long_division, x, y)[0]
    wide, other = m.convert("fpext", x, float64), m.convert("fpext", y, float64)
    return m.convert("fptrunc", _far_remainder(m, wide, other), float32)


def _float_fmod(m: Emitter, x: Value, y: Value) -> Value:
    """Remainder with the sign of x, exact; NaN for infinite x and for y = 0.

    Quotients below 2^22 (float32) or 2^51 are right but for one, and their products with y are
    exact in two words; others, and divisors near overflow, take long division.
    """
    a, b = m.abs(x), m.abs(y)
    ratio = a / b
    far = (ratio >= 2.0 ** (FORMATS[x.dtype].mantissa - 1)) | (b > _MOST_DIVISOR[x.dtype])
    far = far & (a >= b) & (b > 0.0) & (a < math.inf)

    def repair() -> tuple[Value]:
        return (_far_remainder(m, m.where(far, a, 1.0), m.where(far, b, 1.0)),)

    near = _near_remainder(m, a, b, m.trunc(ratio))
    (rest,) = m.repaired(far, (m.where(a < b, a, near),), repair)
    rest = m.where((a < math.inf) & (b > 0.0), rest, math.nan)
    return m.copysign(m.where(b != b, b, rest), x)


# The functions of the language.


def fmod(m: Emitter, x: Value, y: Value) -> Value:
    """Remainder with the sign of x; of integers 0 for y = 0."""
    if x.dtype.is_floating_point:
        return m.outline("fmod", _float_fmod, x, y)
    return _divided(m, x, y)[1]


def remainder(m: Emitter, x: Value, y: Value) -> Value:
    """Remainder with the sign of y; of integers 0 for y = 0."""
    rest = fmod(m, x, y)
    if not x.dtype.is_signed:
        return rest
    moved = m.where(_differs(y, rest), rest + y, rest)
    if not x.dtype.is_floating_point:
        return moved
    return m.where(rest == 0, m.copysign(rest, y), moved)


def floor_divide(m: Emitter, x: Value, y: Value) -> Value:
    """Floor of x / y; integer division by 0 is a fault. Floats are done as NumPy and Python do."""
    if not x.dtype.is_floating_point:
        m.faults.append((DIVISION_BY_ZERO, y == 0))
        quotient, rest = _divided(m, x, y)
        return m.where(_differs(y, rest), quotient - 1, quotient) if x.dtype.is_signed else quotient
    rest, plain = fmod(m, x, y), x / y
    quotient = (x - rest) / y
    quotient = m.where(_differs(y, rest), quotient - 1.0, quotient)
    whole = m.floor(quotient)
    whole = m.where(quotient - whole > 0.5, whole + 1.0, whole)
    zero = m.copysign(m.constant(0.0, x.dtype), plain)
    whole = m.where(quotient != 0.0, whole, zero)
    return m.where((y == 0.0) | (m.abs(x) == math.inf), plain, whole)


def trunc_divide(m: Emitter, x: Value, y: Value) -> Value:
    """x / y rounded toward zero; integer division by 0 is a fault."""
    if x.dtype.is_floating_point:
        return m.trunc(x / y)
    m.faults.append((DIVISION_BY_ZERO, y == 0))
    return _divided(m, x, y)[0]


def power(m: Emitter, x: Value, y: Value) -> Value:
    """x to the power y; a negative power of an integer is a fault."""
    if x.dtype.is_floating_point:
        return m.outline("power", float_power, x, y)
    if x.dtype is bool_:
        raise UnsupportedError("power of bool")
    if x.dtype.is_signed:
        m.faults.append((NEGATIVE_POWER, y < 0))
        y = m.where(y < 0, 0, y)
    return m.outline("integer_power", _powers, x, y)
