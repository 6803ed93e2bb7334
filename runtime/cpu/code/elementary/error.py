"""erf, erfc and erfinv."""

from __future__ import annotations

import math
from typing import Final

from tracegraph.dtypes import float32, float64
from tracegraph.runtime.cpu.code.elementary.coefficients import (
    ERF,
    ERF_TAIL,
    ERFC,
    ERFC_SCALE,
    ERFC_SHORT,
    ERFC_SHORT_SCALE,
    ERFINV,
    ERFINV_FAR_TAIL,
    ERFINV_TAIL,
    EXP,
    LN_2,
)
from tracegraph.runtime.cpu.code.elementary.exponential import exp, short_exp
from tracegraph.runtime.cpu.code.elementary.floats import (
    fast_two_sum,
    flip_sign,
    nearest_integer,
    polynomial,
    scaled,
    sign_of,
    two_product,
    two_sum,
)
from tracegraph.runtime.cpu.code.elementary.logarithm import log
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value

# From where on erf rounds to 1, and erfc to 0.
_ERF_ONE: Final = {float32: 4.0, float64: 6.0}
_ERFC_ZERO: Final = {float32: 10.5, float64: 27.5}
_LOG2_E: Final = 1 / math.log(2)
# Up to where 1 − erf has no cancellation: erf is below 1/2.
_ERFC_NEAR: Final = 0.47


def _erf_near(m: Emitter, x: Value) -> Value:
    """Return erf(x), |x| < 1."""
    return m.fma(polynomial(m, ERF[x.dtype], x * x), x, x)


def erf(m: Emitter, x: Value) -> Value:
    """Error function: a polynomial below 1; beyond, 1 − exp(a polynomial), which fits log(erfc)."""
    most = _ERF_ONE[x.dtype]
    magnitude = m.abs(x)
    a = m.where(magnitude > most, most, magnitude)
    far = 1.0 - exp(m, polynomial(m, ERF_TAIL[x.dtype], a))
    return m.where(magnitude < 1.0, _erf_near(m, x), flip_sign(m, far, sign_of(m, x)))


def _erfc_single(m: Emitter, a: Value) -> Value:
    """Return erfc(a), 0 <= a <= 10.5, in float64 to a little more than float32 holds."""
    inverse = 1.0 / (a + ERFC_SHORT_SCALE)
    t = (a - ERFC_SHORT_SCALE) * inverse
    return short_exp(m, -(a * a)) * (polynomial(m, ERFC_SHORT[float64], t) * inverse)


def _exp_minus_square(m: Emitter, a: Value) -> tuple[Value, Value, Value]:
    """Return exp(−a²) of float64 as a power of 2 (bits) and two words."""
    square, square_low = two_product(m, a, a)
    k, bits = nearest_integer(m, -square, _LOG2_E)
    high, low = LN_2[float64]
    near = m.fma(k, -high, -square)
    r = m.fma(k, -low, near)
    lost = m.fma(k, -low, near - r) - square_low
    value, rest = fast_two_sum(m, m.constant(1.0, float64), r)
    rest = m.fma(polynomial(m, EXP[float64], r), r * r, rest)
    return bits, value, m.fma(lost, value + rest, rest)


def _erfc_double(m: Emitter, a: Value) -> Value:
    """Return erfc(a), 0 <= a <= 27.5: every step that counts in two words."""
    first, *rest = ERFC[float64]
    t = (a - ERFC_SCALE) / (a + ERFC_SCALE)
    top, top_low = fast_two_sum(m, m.constant(first, float64), polynomial(m, rest, t) * t)
    bits, power, power_low = _exp_minus_square(m, a)
    product, product_low = two_product(m, top, power)
    product_low = product_low + m.fma(top, power_low, top_low * power)
    divisor, divisor_low = two_sum(m, m.constant(1.0, float64), 2.0 * a)
    quotient = product / divisor
    back, back_low = two_product(m, quotient, divisor)
    correction = ((product - back) - back_low) + m.fma(-quotient, divisor_low, product_low)
    return scaled(m, quotient + correction / divisor, bits)


def erfc(m: Emitter, x: Value) -> Value:
    """1 − erf(x), as exact where it is small as elsewhere.

    Method: (1 + 2a) exp(a²) erfc(a) as a polynomial in t = (a − K) / (a + K), which maps [0, inf)
    to [−1, 1) (Shepherd and Laframboise 1981, Mathematics of Computation 36, 249–253); in float32
    (a + K) exp(a²) erfc(a), which saves a division; near 0 it is 1 − erf.
    """
    most = _ERFC_ZERO[x.dtype]
    a = m.abs(x)
    a = m.where(a > most, most, a)
    if x.dtype is float32:
        value = _erfc_single(m, m.convert("fpext", a, float64))
        value = m.where(m.convert("fpext", x, float64) < 0.0, 2.0 - value, value)
        return m.convert("fptrunc", value, float32)
    value = _erfc_double(m, a)
    far = m.where(x < 0.0, 2.0 - value, value)
    return m.where(a < _ERFC_NEAR, 1.0 - _erf_near(m, x), far)


def _erfinv_fit(m: Emitter, x: Value, tail: tuple[float, ...]) -> Value:
    """Return erfinv of |x| < 1 in float64 to some 23 digits, by fits in log(1 − x²).

    Method: M. Giles, Approximating the erfinv function (GPU Computing Gems 2011).
    """
    w = -log(m, (1.0 - x) * (1.0 + x))
    far = m.sqrt(m.where(w < 5.0, 5.0, w)) - 3.0
    fit = m.where(w < 5.0, polynomial(m, ERFINV[float64], w - 2.5), polynomial(m, tail, far))
    return x * fit


def _erfinv_double(m: Emitter, x: Value) -> Value:
    """Return erfinv of 0 <= x < 1: the fit, and a step of Halley's method with our erf and erfc."""
    y = _erfinv_fit(m, x, ERFINV_FAR_TAIL[float64])
    excess = m.where(x < 0.5, m.erf(y) - x, (1.0 - x) - m.erfc(y))
    step = excess * (math.sqrt(math.pi) / 2) * m.exp(y * y)
    return y - step / m.fma(y, step, 1.0)


def erfinv(m: Emitter, x: Value) -> Value:
    """The number whose erf is x; NaN outside [−1, 1]."""
    a = m.abs(x)
    inside = m.where(a < 1.0, a, 0.0)
    if x.dtype is float32:
        wide = _erfinv_fit(m, m.convert("fpext", inside, float64), ERFINV_TAIL[float64])
        value = m.convert("fptrunc", wide, float32)
    else:
        value = _erfinv_double(m, inside)
    edge = m.where(a == 1.0, m.constant(math.inf, x.dtype), math.nan)
    value = m.where(a < 1.0, value, edge)
    return flip_sign(m, value, sign_of(m, x))
