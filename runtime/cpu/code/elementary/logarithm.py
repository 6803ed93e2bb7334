"""log and what is made of it: log2, log10, log1p, asinh, acosh, atanh.

Method: x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = f + a correction, which is
a polynomial in f (float32), or one in s² with s = f / (2 + f) (float64: a third of the degree,
for a division; Cody and Waite 1980). f is exact, so only the correction carries errors.
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import float32, float64
from tracegraph.runtime.cpu.code.elementary.coefficients import (
    LN_2,
    LOG,
    LOG2_E,
    LOG10_2,
    LOG10_E,
    LOG_SERIES,
)
from tracegraph.runtime.cpu.code.elementary.floats import (
    FORMATS,
    bits_of,
    fast_two_sum,
    flip_sign,
    polynomial,
    sign_of,
    two_product,
    two_sum,
)
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

# The bits of sqrt(1/2).
_ROOT_HALF: Final = {float32: 0x3F3504F3, float64: 0x3FE6A09E667F3BCD}


def split(m: Emitter, x: Value) -> tuple[Value, Value]:
    """Return k and f, x = 2^k (1 + f), for positive finite x.

    Method: adding 1 − sqrt(1/2) to the bits carries into the exponent from sqrt(2) on.
    """
    form, low = FORMATS[x.dtype], _ROOT_HALF[x.dtype]
    one = form.bias << form.mantissa
    subnormal = x < form.smallest_normal
    bits = bits_of(m, m.where(subnormal, x * 2.0**form.mantissa, x))
    moved = bits + (one - low)
    f = m.view((moved & ((1 << form.mantissa) - 1)) + low, x.dtype) - 1.0
    # An integer below 2^mantissa in the low bits of 2^mantissa is their sum.
    whole = 2.0**form.mantissa
    exponent = m.view((moved >> form.mantissa) | bits_of(m, m.constant(whole, x.dtype)), x.dtype)
    zero = m.constant(whole + form.bias, x.dtype)
    k = exponent - m.where(subnormal, whole + form.bias + form.mantissa, zero)
    return k, f


def log_rest(m: Emitter, f: Value) -> Value:
    """Return log(1 + f) − f."""
    square = f * f
    if f.dtype is float32:
        return square * polynomial(m, LOG[float32], f)
    s = f / (2.0 + f)
    half = 0.5 * square
    z = s * s
    return m.fma(s, m.fma(polynomial(m, LOG_SERIES[float64], z), z, half), -half)


def _with_limits(m: Emitter, x: Value, result: Value) -> Value:
    """Return the logarithm of x: the result for positive x, -inf at 0, NaN below."""
    limit = m.where(x == 0.0, -math.inf, m.where(x < 0.0, math.nan, x))
    return m.where((x > 0.0) & (x < math.inf), result, limit)


def log(m: Emitter, x: Value) -> Value:
    """Natural logarithm."""
    k, f = split(m, x)
    high, low = LN_2[x.dtype]
    return _with_limits(m, x, m.fma(k, high, f + m.fma(k, low, log_rest(m, f))))


def _log_to_base(
    m: Emitter, x: Value, unit: tuple[float, float], scale: tuple[float, float]
) -> Value:
    """Return k · unit + log(1 + f) · scale, both constants in two words.

    f · scale is taken in two words, as the sum is: so the result is good near 1.
    """
    k, f = split(m, x)
    product, error = two_product(m, f, m.constant(scale[0], x.dtype))
    rest = m.fma(log_rest(m, f), scale[0], m.fma(f, scale[1], error))
    total, error = fast_two_sum(m, k * unit[0], product)
    return _with_limits(m, x, total + (error + m.fma(k, unit[1], rest)))


def log2(m: Emitter, x: Value) -> Value:
    """Logarithm to base 2; exact for powers of 2."""
    return _log_to_base(m, x, (1.0, 0.0), LOG2_E[x.dtype])


def log10(m: Emitter, x: Value) -> Value:
    """Logarithm to base 10."""
    return _log_to_base(m, x, LOG10_2[x.dtype], LOG10_E[x.dtype])


def _log_of_sum(m: Emitter, x: Value, rest: Value, more: Value | None = None) -> Value:
    """Return log(x + rest) for a second word: |rest| is below the last bit of x.

    `more` is a whole number of ln 2 to add.
    """
    k, f = split(m, x)
    k = k if more is None else k + more
    high, low = LN_2[x.dtype]
    total, error = fast_two_sum(m, k * high, f)
    small = m.fma(k, low, log_rest(m, f)) + rest / x
    return _with_limits(m, x, total + (error + small))


def log1p(m: Emitter, x: Value) -> Value:
    """log(1 + x), as exact near 0 as elsewhere."""
    total, rest = two_sum(m, m.constant(1.0, x.dtype), x)
    return m.where(x == 0.0, x, _log_of_sum(m, total, rest))


def _log1p_of_sum(m: Emitter, x: Value, rest: Value, huge: Value, instead: Value) -> Value:
    """Return log(1 + x + rest) of two words, and log(2 · instead) where that is huge."""
    total, error = two_sum(m, m.constant(1.0, x.dtype), x)
    one = m.where(huge, m.constant(1.0, x.dtype), 0.0)
    rest = m.where(huge, 0.0, error + rest)
    return _log_of_sum(m, m.where(huge, instead, total), rest, one)


# From where on the square is not needed, and may overflow.
_HUGE: Final = {float32: 2.0**13, float64: 2.0**28}


def asinh(m: Emitter, x: Value) -> Value:
    """Inverse hyperbolic sine: log(1 + a + a² / (1 + sqrt(1 + a²))) with a = |x|."""
    a = m.abs(x)
    square = a * a
    total, rest = fast_two_sum(m, a, square / (1.0 + m.sqrt(1.0 + square)))
    result = _log1p_of_sum(m, total, rest, a > _HUGE[x.dtype], a)
    return m.where(x == 0.0, x, flip_sign(m, result, sign_of(m, x)))


def _root_words(m: Emitter, square: Value, low: Value) -> tuple[Value, Value]:
    """Return the square root of a number > 0 in two words, in two words."""
    root = m.sqrt(square)
    back, back_low = two_product(m, root, root)
    return root, (((square - back) - back_low) + low) / (root + root)


def acosh(m: Emitter, x: Value) -> Value:
    """Inverse hyperbolic cosine: log(1 + w + sqrt(w (w + 2))) with w = x − 1; NaN below 1."""
    usual = (x > 1.0) & (x <= _HUGE[x.dtype])
    w = m.where(usual, x, 2.0) - 1.0
    factor, factor_low = two_sum(m, w, m.constant(2.0, x.dtype))
    square, low = two_product(m, w, factor)
    root, root_low = _root_words(m, square, m.fma(w, factor_low, low))
    total, rest = two_sum(m, root, w)
    result = _log1p_of_sum(m, total, rest + root_low, x > _HUGE[x.dtype], x)
    limit = m.where(x == 1.0, m.constant(0.0, x.dtype), math.nan)
    return m.where(x > 1.0, result, limit)


def atanh(m: Emitter, x: Value) -> Value:
    """Inverse hyperbolic tangent: log(1 + 2a / (1 − a)) / 2 with a = |x|; two-word quotient."""
    a = m.abs(x)
    divisor, error = fast_two_sum(m, m.constant(1.0, x.dtype), -a)
    quotient = (2.0 * a) / divisor
    product, low = two_product(m, quotient, divisor)
    rest = (((2.0 * a - product) - low) - quotient * error) / divisor
    total, low = two_sum(m, m.constant(1.0, x.dtype), quotient)
    result = 0.5 * _log_of_sum(m, total, rest + low)
    return m.where(x == 0.0, x, flip_sign(m, result, sign_of(m, x)))


def logaddexp(m: Emitter, x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)), without overflow."""
    larger, gap = m.maximum(x, y), m.abs(x - y)
    return m.where(x == y, x + math.log(2), larger + m.log1p(m.exp(-gap)))


def logaddexp2(m: Emitter, x: Value, y: Value) -> Value:
    """log2(2^x + 2^y), without overflow."""
    larger, gap = m.maximum(x, y), m.abs(x - y)
    rest = m.log1p(m.exp2(-gap)) * (1 / math.log(2))
    return m.where(x == y, x + 1.0, larger + rest)
