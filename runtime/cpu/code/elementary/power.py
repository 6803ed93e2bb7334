"""Powers of floats, and hypot."""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import float32, float64
from tracegraph.runtime.cpu.code.elementary.coefficients import (
    EXP2,
    EXP2_SHORT,
    LOG2_SHORT,
    POW_SERIES,
    THIRD,
    TWO_LOG2_E,
)
from tracegraph.runtime.cpu.code.elementary.exponential import clamped
from tracegraph.runtime.cpu.code.elementary.floats import (
    FORMATS,
    bits_of,
    fast_two_sum,
    flip_sign,
    nearest_integer,
    polynomial,
    power_of_two,
    scaled,
    sign_of,
    two_product,
)
from tracegraph.runtime.cpu.code.elementary.logarithm import split
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

# Any greater power gives what this one does: 0, 1 or infinity.
_MOST_POWER: Final = 2.0**64


def _power_single(m: Emitter, x: Value, y: Value) -> Value:
    """Return x^y of positive finite float32 x, computed in float64: 2^(y log2(x)).

    s = f / (2 + f) by a step of Newton's method from the float32 quotient: to 2^-46.
    """
    k, f = split(m, x)
    inverse = m.convert("fpext", 1.0 / (2.0 + f), float64)
    f = m.convert("fpext", f, float64)
    s = f * m.fma(inverse, m.fma(inverse, -(2.0 + f), 1.0), inverse)
    logarithm = polynomial(m, LOG2_SHORT[float64], s * s)
    logarithm = m.fma(logarithm, s, m.convert("fpext", k, float64))
    y = m.convert("fpext", clamped(m, y, -_MOST_POWER, _MOST_POWER), float64)
    exponent = clamped(m, y * logarithm, -200.0, 200.0)
    k, bits = nearest_integer(m, exponent, 1.0)
    r = exponent - k
    power = m.fma(polynomial(m, EXP2_SHORT[float64], r), r, 1.0)
    return m.convert("fptrunc", power * power_of_two(m, bits, float64), float32)


def _log2_words(m: Emitter, x: Value) -> tuple[Value, Value]:
    """Return log2 of positive finite float64 x in two words, to some 2^-66 of itself.

    Method: log(1 + f) = 2 atanh(s), s = f / (2 + f); atanh(s) = s + s³ (1/3 + s² P(s²)), all but
    P in two words.
    """
    k, f = split(m, x)
    divisor, low = fast_two_sum(m, m.constant(2.0, float64), f)
    inverse = 1.0 / divisor
    s = f * inverse
    back, back_low = two_product(m, s, divisor)
    s_low = m.fma(-s, low, (f - back) - back_low) * inverse
    z, z_low = two_product(m, s, s)
    z_low = m.fma(s + s, s_low, z_low)
    third, third_low = fast_two_sum(
        m, m.constant(THIRD[0], float64), polynomial(m, POW_SERIES[float64], z) * z
    )
    third_low = third_low + THIRD[1]
    u, u_low = two_product(m, z, third)
    u_low = u_low + m.fma(z, third_low, z_low * third)
    v, v_low = two_product(m, s, u)
    v_low = v_low + m.fma(s, u_low, s_low * u)
    total, total_low = fast_two_sum(m, s, v)
    total_low = total_low + (v_low + s_low)
    high, high_low = two_product(m, total, m.constant(TWO_LOG2_E[0], float64))
    high_low = high_low + m.fma(total, TWO_LOG2_E[1], total_low * TWO_LOG2_E[0])
    whole, rest = fast_two_sum(m, k, high)
    return fast_two_sum(m, whole, rest + high_low)


def _power_double(m: Emitter, x: Value, y: Value) -> Value:
    """Return x^y of positive finite float64 x."""
    logarithm, low = _log2_words(m, x)
    y = clamped(m, y, -_MOST_POWER, _MOST_POWER)
    high, error = two_product(m, y, logarithm)
    exponent = clamped(m, high, -1100.0, 1100.0)
    k, bits = nearest_integer(m, exponent, 1.0)
    r = (exponent - k) + m.where(exponent == high, m.fma(y, low, error), 0.0)
    return scaled(m, m.fma(polynomial(m, EXP2[float64], r), r, 1.0), bits)


def _is_odd(m: Emitter, y: Value) -> Value:
    """Whether y is an odd whole number."""
    half = 0.5 * y
    return (m.floor(y) == y) & (m.floor(half) != half)


def power(m: Emitter, x: Value, y: Value) -> Value:
    """x to the power y, with the special cases of IEEE 754."""
    a = m.abs(x)
    usual = (a > 0.0) & (a < math.inf)
    base = m.where(usual, a, 1.0)
    value = _power_single(m, base, y) if x.dtype is float32 else _power_double(m, base, y)
    # 0 or infinity, or NaN as a base: as it is for y > 0, inverted for y < 0.
    value = m.where(usual, value, m.where(y < 0.0, 1.0 / a, a))
    sign = m.where(_is_odd(m, y), sign_of(m, x), m.constant(0, FORMATS[x.dtype].unsigned))
    value = flip_sign(m, value, sign)
    value = m.where((x < 0.0) & (x > -math.inf) & (m.floor(y) != y), math.nan, value)
    value = m.where(y != y, y, value)
    return m.where((y == 0.0) | (x == 1.0), 1.0, value)


def _hypot_double(m: Emitter, x: Value, y: Value) -> Value:
    """Return sqrt(x² + y²) of float64, scaled by a power of 2 near the larger."""
    larger, smaller = m.where(x > y, x, y), m.where(x > y, y, x)
    form = FORMATS[float64]
    exponent = bits_of(m, larger) >> form.mantissa
    low, high = m.constant(60, form.unsigned), m.constant(2 * form.bias - 60, form.unsigned)
    exponent = m.where(exponent < 60, low, m.where(exponent > 2 * form.bias - 60, high, exponent))
    unit = m.view(exponent << form.mantissa, float64)
    inverse = m.view((2 * form.bias - exponent) << form.mantissa, float64)
    larger, smaller = larger * inverse, smaller * inverse
    square, low_word = two_product(m, larger, larger)
    return m.sqrt(square + m.fma(smaller, smaller, low_word)) * unit


def hypot(m: Emitter, x: Value, y: Value) -> Value:
    """sqrt(x² + y²) without overflow; infinite if either is, even beside NaN."""
    x, y = m.abs(x), m.abs(y)
    if x.dtype is float32:
        wide, other = m.convert("fpext", x, float64), m.convert("fpext", y, float64)
        value = m.convert("fptrunc", m.sqrt(wide * wide + other * other), float32)
    else:
        value = _hypot_double(m, x, y)
    return m.where((x == math.inf) | (y == math.inf), math.inf, value)
