"""exp and what is made of it: exp2, expm1, sinh, cosh, tanh, sigmoid.

Method (Cody and Waite 1980): x = k ln 2 + r with |r| <= ln 2 / 2; exp(x) = 2^k exp(r), exp(r) by a
polynomial. ln 2 is taken in two words, the first so short that its product with k is exact.
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import float32, float64
from tracegraph.runtime.cpu.code.elementary.coefficients import EXP, EXP2, LN_2, SINH, TANH
from tracegraph.runtime.cpu.code.elementary.floats import (
    FORMATS,
    fast_two_sum,
    flip_sign,
    nearest_integer,
    polynomial,
    power_of_two,
    scaled,
    sign_of,
)
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

_LOG2_E: Final = 1 / math.log(2)

# From where on the result is 0, and infinite.
_EXP_RANGE: Final = {float32: (-104.0, 89.0), float64: (-746.0, 710.0)}
_EXP2_RANGE: Final = {float32: (-151.0, 129.0), float64: (-1076.0, 1025.0)}
_SINH_MOST: Final = {float32: 90.0, float64: 711.0}
# From where on tanh rounds to 1, and expm1 (downward) to -1.
_ONE_FROM: Final = {float32: 10.0, float64: 20.0}


def clamped(m: Emitter, x: Value, low: float, high: float) -> Value:
    """Return x limited to [low, high]; NaN stays."""
    x = m.where(x > high, high, x)
    return m.where(x < low, low, x)


def _reduced(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return k (as bits, see `scaled`) and r in two words, x = k ln 2 + r."""
    k, bits = nearest_integer(m, x, _LOG2_E)
    high, low = LN_2[x.dtype]
    near, far = m.fma(k, -high, x), k * low
    r = near - far
    return bits, r, (near - r) - far


def _exp_less_one(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return k (as bits), r and p, exp(r) = 1 + r p, for x in range."""
    k, bits = nearest_integer(m, x, _LOG2_E)
    high, low = LN_2[x.dtype]
    r = m.fma(k, -low, m.fma(k, -high, x))
    return bits, r, m.fma(polynomial(m, EXP[x.dtype], r), r, 1.0)


def _exp_part(m: Emitter, x: Value) -> tuple[Value, Value]:
    """Return k (as bits) and exp(r), for x in range."""
    bits, r, slope = _exp_less_one(m, x)
    return bits, m.fma(slope, r, 1.0)


def exp(m: Emitter, x: Value) -> Value:
    """e to the power x."""
    bits, value = _exp_part(m, clamped(m, x, *_EXP_RANGE[x.dtype]))
    return scaled(m, value, bits)


def short_exp(m: Emitter, x: Value) -> Value:
    """Return e to the power x of float64, −700 < x < 700, to what float32 holds."""
    k, bits = nearest_integer(m, x, _LOG2_E)
    r = m.fma(k, -math.log(2), x)
    value = m.fma(m.fma(polynomial(m, EXP[float32], r), r, 1.0), r, 1.0)
    return value * power_of_two(m, bits, float64)


def exp2(m: Emitter, x: Value) -> Value:
    """2 to the power x."""
    x = clamped(m, x, *_EXP2_RANGE[x.dtype])
    k, bits = nearest_integer(m, x, 1.0)
    r = x - k
    return scaled(m, m.fma(polynomial(m, EXP2[x.dtype], r), r, 1.0), bits)


def expm1(m: Emitter, x: Value) -> Value:
    """exp(x) − 1, as exact near 0 as elsewhere.

    (2^k − 1) / 2 and 2^k r / 2 are summed in two words, as they nearly cancel for k = ±1; halves,
    as 2^k overflows too early.
    """
    most = _EXP_RANGE[x.dtype][1]
    bits, r, rest = _reduced(m, clamped(m, x, -2 * _ONE_FROM[x.dtype], most))
    half = power_of_two(m, bits, x.dtype, less=1)
    tail = m.fma(polynomial(m, EXP[x.dtype], r), r * r, rest)
    total, error = fast_two_sum(m, half - 0.5, half * r)
    result = 2.0 * (total + m.fma(half, tail, error))
    tiny = 2.0 ** -(FORMATS[x.dtype].mantissa + 2)
    return m.where(m.abs(x) < tiny, x, result)


def tanh(m: Emitter, x: Value) -> Value:
    """Hyperbolic tangent: a polynomial below 5/8, 1 − 2 / (exp(2|x|) + 1) beyond."""
    limit = _ONE_FROM[x.dtype]
    magnitude = m.abs(x)
    double = 2.0 * m.where(magnitude > limit, limit, magnitude)
    bits, value = _exp_part(m, double)
    power = value * power_of_two(m, bits, x.dtype)
    square = x * x
    near = m.fma(polynomial(m, TANH[x.dtype], square), square * magnitude, magnitude)
    value = m.where(magnitude < 0.625, near, 1.0 - 2.0 / (power + 1.0))
    return flip_sign(m, value, sign_of(m, x))


def sigmoid(m: Emitter, x: Value) -> Value:
    """1 / (1 + exp(−x)): t / (1 + t) with t = exp(−|x|), or 1 less that for positive x.

    The quotient q is corrected by what rounding t (relatively) and 1 + t has lost; the derivative
    of q by either is about q (1 − q).
    """
    bits, r, slope = _exp_less_one(m, clamped(m, -m.abs(x), _EXP_RANGE[x.dtype][0], 0.0))
    part = r * slope
    value, lost = fast_two_sum(m, m.constant(1.0, x.dtype), part)
    t = scaled(m, value, bits)
    divisor, error = fast_two_sum(m, m.constant(1.0, x.dtype), t)
    quotient = t / divisor
    below = m.fma((error - lost) * quotient, quotient - 1.0, quotient)
    return m.where(x < 0.0, below, 1.0 - below)


def _half_exp(m: Emitter, x: Value) -> Value:
    """Return exp(|x|) / 2, which overflows only where sinh and cosh do."""
    most = _SINH_MOST[x.dtype]
    magnitude = m.abs(x)
    bits, value = _exp_part(m, m.where(magnitude > most, most, magnitude))
    return scaled(m, value, bits, less=1)


def cosh(m: Emitter, x: Value) -> Value:
    """Hyperbolic cosine."""
    half = _half_exp(m, x)
    return half + 0.25 / half


def sinh(m: Emitter, x: Value) -> Value:
    """Hyperbolic sine: a polynomial below 1, exponentials beyond."""
    half = _half_exp(m, x)
    far = flip_sign(m, half - 0.25 / half, sign_of(m, x))
    square = x * x
    near = m.fma(polynomial(m, SINH[x.dtype], square), square * x, x)
    return m.where(m.abs(x) < 1.0, near, far)
