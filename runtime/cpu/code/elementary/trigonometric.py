"""sin, cos, tan: reduction to |r| <= pi / 4 and a quadrant, then polynomials.

Method: k = the integer nearest to x · 2 / pi and r = x − k · pi / 2, pi / 2 in words so short that
their products with k are exact (Cody and Waite 1980); float32 arguments are reduced in float64.
Arguments beyond 2^20 are multiplied, lane by lane, by as many digits of 2 / pi as it takes (Payne
and Hanek, Radian reduction for trigonometric functions, 1983).
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import float32, float64, int64, uint32, uint64
from tracegraph.runtime.cpu.code.elementary.coefficients import (
    COS,
    HALF_PI,
    HALF_PI_WORDS,
    SIN,
    TWO_OVER_PI,
    TWO_OVER_PI_PLACES,
)
from tracegraph.runtime.cpu.code.elementary.floats import (
    FORMATS,
    fast_two_sum,
    flip_sign,
    nearest_integer,
    polynomial,
    sign_of,
    two_product,
    two_sum,
)
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

_FAR: Final = 2.0**20
# What of 2 / pi counts for one argument: 192 binary places, from weight 2 down to 2^-190.
_WINDOW: Final = 192
_LOW_HALF: Final = 2**32 - 1


def _window(m: Emitter, exponent: Value) -> tuple[list[Value], Value]:
    """Return three words of 2 / pi · 2^exponent, low first, less 2^j; and j, 0 <= j < 8.

    They are read from the byte where that number's last place is, or the next one.
    """
    digits = TWO_OVER_PI.to_bytes(TWO_OVER_PI_PLACES // 8 + 8, "little")
    text = "".join(f"\\{byte:02X}" for byte in digits)
    table = m.library.constant("two_over_pi", f'[{len(digits)} x i8] c"{text}"')
    place = (TWO_OVER_PI_PLACES + 2 - _WINDOW) - exponent
    byte = (place + 7) >> 3
    words = []
    for offset in (0, 8, 16):
        pointer = m.emit(uint64, f"getelementptr i8, ptr {table}, {byte + offset}").text
        words.append(m.emit(uint64, f"load i64, ptr {pointer}, align 1"))
    return words, (byte << 3) - place


def _product(m: Emitter, words: list[Value], factor: Value) -> list[Value]:
    """Return three words of a product, low first, modulo 2^192."""

    def wide(instruction: str) -> str:
        return m.emit(uint64, instruction).text

    by = wide(f"zext {factor} to i128")
    low = wide(f"mul i128 {wide(f'zext {words[0]} to i128')}, {by}")
    middle = wide(f"mul i128 {wide(f'zext {words[1]} to i128')}, {by}")
    middle = wide(f"add i128 {middle}, {wide(f'lshr i128 {low}, 64')}")
    carry = m.emit(uint64, f"trunc i128 {wide(f'lshr i128 {middle}, 64')} to i64")
    ends = [m.emit(uint64, f"trunc i128 {part} to i64") for part in (low, middle)]
    return [*ends, words[2] * factor + carry]


def _far_reduction(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return r in two words, and the quadrant's bits, of one float64 x >= 2^20; NaN for inf.

    x = M · 2^e with a whole M below 2^53. The window of 2 / pi · 2^e, times M, is x · 2 / pi modulo
    4, to 137 places; what is left after the nearest whole number is at least 2^-62 (Muller et al.
    2018, 11.3), so that 75 places are right.
    """
    bits = m.view(x, uint64)
    words, extra = _window(m, (bits >> 52) - 1075)
    whole = (bits & (2**52 - 1)) | 2**52
    low, middle, high = _product(m, words, m.emit(uint64, f"shl {whole}, {extra.text}"))
    quadrant = (high + 2**61) >> 62
    signed = m.view(high << 2, int64) >> 2
    fraction, rest = m.convert("sitofp", signed >> 32, float64) * 2.0**-30, m.constant(0.0, float64)
    parts = (signed & _LOW_HALF, middle >> 32, middle & _LOW_HALF, low >> 32)
    for index, part in enumerate(parts):
        value = m.convert("uitofp", part, float64) * 2.0 ** (-62 - 32 * index)
        fraction, lost = fast_two_sum(m, fraction, value)
        rest = rest + lost
    r, error = two_product(m, fraction, m.constant(HALF_PI[float64][0], float64))
    error = error + m.fma(fraction, HALF_PI[float64][1], rest * HALF_PI[float64][0])
    r, rest = fast_two_sum(m, r, error)
    return m.where(x < math.inf, r, math.nan), rest, quadrant


def _reduced(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return r in two words, and bits whose lowest two are the quadrant, of float64 x >= 0."""
    k, bits = nearest_integer(m, x, 2 / math.pi)
    first, second, third, fourth = HALF_PI_WORDS
    near, low = two_sum(m, m.fma(k, -first, x), k * -second)
    near, lower = two_sum(m, near, k * -third)
    r, rest = fast_two_sum(m, near, m.fma(k, -fourth, low + lower))
    return _repaired(m, x, (r, rest, bits))


def _reduced_single(m: Emitter, x: Value) -> tuple[Value, Value]:
    """Return r as float64, and bits of the quadrant, of float32 x >= 0."""
    wide = m.convert("fpext", x, float64)
    k, bits = nearest_integer(m, wide, 2 / math.pi)
    first, second, third, _ = HALF_PI_WORDS
    r = m.fma(k, -(second + third), m.fma(k, -first, wide))
    r, _, bits = _repaired(m, wide, (r, m.constant(0.0, float64), bits))
    return r, m.convert("trunc", bits, uint32)


def _repaired(
    m: Emitter, x: Value, usual: tuple[Value, Value, Value]
) -> tuple[Value, Value, Value]:
    """Return a reduction with the arguments beyond reach done by `_far_reduction`."""
    far = x >= _FAR

    def repair() -> tuple[Value, ...]:
        return m.per_lane("far_reduction", _far_reduction, m.where(far, x, _FAR))

    r, rest, bits = m.repaired(far, usual, repair)
    return r, rest, bits


def _sin_tail(m: Emitter, r: Value, square: Value) -> Value:
    """Return sin(r) − r, |r| <= pi / 4."""
    return polynomial(m, SIN[r.dtype], square) * (square * r)


def _sin_and_cos(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return sin(r) and cos(r), and bits of the quadrant, of x >= 0."""
    if x.dtype is float32:
        wide, bits = _reduced_single(m, x)
        r = m.convert("fptrunc", wide, float32)
        square = r * r
        sine = m.fma(polynomial(m, SIN[float32], square), square * r, r)
        return sine, m.fma(polynomial(m, COS[float32], square), square, 1.0), bits
    r, rest, bits = _reduced(m, x)
    square = r * r
    sine = r + (_sin_tail(m, r, square) + m.fma(square * -0.5, rest, rest))
    cosine = 1.0 + m.fma(polynomial(m, COS[float64], square), square, -(r * rest))
    return sine, cosine, bits


def _signed(m: Emitter, value: Value, quadrant: Value) -> Value:
    """Return −value in the quadrants 2 and 3."""
    form = FORMATS[value.dtype]
    return flip_sign(m, value, (quadrant & 2) << (8 * form.unsigned.itemsize - 2))


def sin(m: Emitter, x: Value) -> Value:
    """Sine of x radians."""
    sine, cosine, quadrant = _sin_and_cos(m, m.abs(x))
    value = m.where((quadrant & 1) == 0, sine, cosine)
    return flip_sign(m, _signed(m, value, quadrant), sign_of(m, x))


def cos(m: Emitter, x: Value) -> Value:
    """Cosine of x radians."""
    sine, cosine, quadrant = _sin_and_cos(m, m.abs(x))
    return _signed(m, m.where((quadrant & 1) == 0, cosine, sine), quadrant + 1)


def _tan_single(m: Emitter, x: Value) -> Value:
    """Return tan(r), or −cot(r) in odd quadrants, of float32 x >= 0, computed in float64."""
    r, quadrant = _reduced_single(m, x)
    square = r * r
    sine = m.fma(polynomial(m, SIN[float32], square), square * r, r)
    cosine = m.fma(polynomial(m, COS[float32], square), square, 1.0)
    even = (quadrant & 1) == 0
    ratio = m.where(even, sine, -cosine) / m.where(even, cosine, sine)
    return m.convert("fptrunc", ratio, float32)


def _tan_double(m: Emitter, x: Value) -> Value:
    """Return tan(r), or −cot(r) in odd quadrants, of float64 x >= 0; a quotient of two words."""
    r, rest, quadrant = _reduced(m, x)
    square = r * r
    tail = _sin_tail(m, r, square) + m.fma(square * -0.5, rest, rest)
    sine, sine_low = fast_two_sum(m, r, tail)
    tail = m.fma(polynomial(m, COS[float64], square), square, -(r * rest))
    cosine, cosine_low = fast_two_sum(m, m.constant(1.0, float64), tail)
    even = (quadrant & 1) == 0
    top, top_low = m.where(even, sine, -cosine), m.where(even, sine_low, -cosine_low)
    bottom, bottom_low = m.where(even, cosine, sine), m.where(even, cosine_low, sine_low)
    quotient = top / bottom
    product, low = two_product(m, quotient, bottom)
    correction = ((top - product) - low) + m.fma(-quotient, bottom_low, top_low)
    return quotient + correction / bottom


def tan(m: Emitter, x: Value) -> Value:
    """Tangent of x radians."""
    a = m.abs(x)
    value = _tan_single(m, a) if x.dtype is float32 else _tan_double(m, a)
    return flip_sign(m, value, sign_of(m, x))
