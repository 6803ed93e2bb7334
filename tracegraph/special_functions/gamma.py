"""The logarithm of the gamma function and its derivatives."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.special_functions.polynomial import at_least, polynomial

_LOG_PI = 1.1447298858494002
# log(2 pi) / 2 - 1 / 2, for Stirling's formula written with (x - 1/2) (log(x) - 1).
_STIRLING_CONSTANT = 0.4189385332046727

# Own fits, made by tests/tools/fit_special.py; polynomials, lowest degree first.
# digamma(1 + x) / (1 + x - root) on [0, 1], and the root less 1 in three parts, the first two
# short enough for float32.
DIGAMMA_ROOT = (
    0.461639404296875, -7.25932841305621e-06, -9.96025276570394e-14,
)  # fmt: skip
DIGAMMA_NUMERATOR = (
    1.2503801375034054, 1.7395236015248232, 0.8009632637053631, 0.14385775347704502,
    0.008578049712380615, 4.8862711602068775e-05, -5.255928232683594e-07,
)  # fmt: skip
DIGAMMA_DENOMINATOR = (
    1.0, 2.074742619717552, 1.4569679082420655, 0.4338530757240686,
    0.053737122083413066, 0.0021092941228867614,
)  # fmt: skip
# log Gamma(2 + x) / x on [-1/2, 1/2].
LGAMMA = (
    0.42278433509846713, 0.3224670334241132, -0.06735230105319563, 0.02058080842778338,
    -0.007385551028935545, 0.002890510330865901, -0.0011927539009983087, 0.0005096695196526673,
    -0.00022315497746292723, 9.945761692157133e-05, -4.4923727564247656e-05, 2.050601970174762e-05,
    -9.45628851510172e-06, 4.3828545383846665e-06, -1.9743106888421067e-06, 9.242852225162277e-07,
    -5.811277768921246e-07, 2.7475390051909663e-07,
)  # fmt: skip

# Bernoulli numbers B(2), B(4), ... (Abramowitz and Stegun 1964, table 23.2).
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
    -174611 / 330,
)  # fmt: skip
# Abramowitz and Stegun 6.1.41 and 6.3.18: the tails of log Gamma and digamma, in 1/x^2.
_STIRLING_SERIES = tuple(
    number / (2 * k * (2 * k - 1)) for k, number in enumerate(_BERNOULLI[:8], start=1)
)
_DIGAMMA_SERIES = tuple(number / (2 * k) for k, number in enumerate(_BERNOULLI, start=1))

_ASYMPTOTIC_FROM = 8.0
_ALL_INTEGERS_FROM = 9007199254740992.0
_POLYGAMMA_TERMS = 8
_POLYGAMMA_LIMIT = 30


def _fraction(m: Any, y: Any) -> Any:
    """Return y - floor(y) for y >= 0, exactly, and 0 for inf and NaN."""
    finite = m.where(y < _ALL_INTEGERS_FROM, y, 0.0)
    return finite - m.floor(finite)


def _lgamma_positive(m: Any, x: Any) -> Any:
    """Return log Gamma(x), x > 0: a polynomial around 2, recurrence to 8, then Stirling."""
    near = m.where(x < _ASYMPTOTIC_FROM, x, 2.0)
    steps = m.floor(near - 1.5)
    offset = near - (steps + 2.0)
    below = m.where(steps < -1.0, near * (near + 1.0), near)
    above = m.where(steps >= 1.0, near - 1.0, 1.0)
    for step in range(2, 7):
        above = above * m.where(steps >= float(step), near - float(step), 1.0)
    product = m.where(steps < 0.0, below, above)
    far = at_least(m, x, _ASYMPTOTIC_FROM)
    inverse = 1.0 / far
    logarithm = m.log(m.where(x < _ASYMPTOTIC_FROM, product, far))
    series = inverse * polynomial(_STIRLING_SERIES, inverse * inverse)
    stirling = (far - 0.5) * (logarithm - 1.0) + (_STIRLING_CONSTANT + series)
    logarithm = m.where(steps < 0.0, -logarithm, logarithm)
    return m.where(x < _ASYMPTOTIC_FROM, offset * polynomial(LGAMMA, offset) + logarithm, stirling)


def lgamma(m: Any, x: Any) -> Any:
    """Logarithm of |Gamma(x)|: inf at 0, -1, -2, ... and at +-inf.

    Method: own fit around 2 and Stirling's series (Abramowitz and Stegun 1964, 6.1.41);
    reflection (6.1.17) for x < 0.
    """
    y = m.abs(x)
    positive = _lgamma_positive(m, m.where(x < 0.0, 1.0 + y, m.where(x == 0.0, 1.0, x)))
    fraction = _fraction(m, y)
    fraction = m.where(fraction > 0.5, 1.0 - fraction, fraction)
    # sin(pi f) / pi is f to all digits below 1e-9; the product with pi is coarse if subnormal.
    tiny = fraction < 1e-9
    sine = m.where(tiny, fraction, m.sin(math.pi * fraction))
    logarithm = m.log(m.where(fraction > 0.0, sine, 1.0))
    reflected = m.where(tiny, -logarithm, _LOG_PI - logarithm) - positive
    result = m.where(x < 0.0, m.where(fraction > 0.0, reflected, math.inf), positive)
    return m.where(x == 0.0, math.inf, result)


def _digamma_positive(m: Any, x: Any) -> Any:
    """Return digamma(x), x >= 0: a fit on [1, 2], recurrence to 8, then the series in 1/x^2."""
    near = m.where(x < _ASYMPTOTIC_FROM, x, 1.0)
    whole = m.floor(near)
    offset = near - whole
    # The sum of 1 / (x - k) that the recurrence adds, or -1 / x below 1, over one denominator.
    numerator = m.where(whole < 1.0, whole - 1.0, 0.0)
    denominator = m.where(whole < 1.0, near, 1.0)
    for step in range(1, 7):
        taken = whole >= float(step + 1)
        factor = m.where(taken, near - float(step), 1.0)
        numerator = m.where(taken, numerator * factor + denominator, numerator)
        denominator = denominator * factor
    from_root = ((offset - DIGAMMA_ROOT[0]) - DIGAMMA_ROOT[1]) - DIGAMMA_ROOT[2]
    ratio = polynomial(DIGAMMA_NUMERATOR, offset) / polynomial(DIGAMMA_DENOMINATOR, offset)
    far = at_least(m, x, _ASYMPTOTIC_FROM)
    inverse = 1.0 / far
    square = inverse * inverse
    series = 0.5 * inverse + square * polynomial(_DIGAMMA_SERIES, square)
    return m.where(
        x < _ASYMPTOTIC_FROM, from_root * ratio + numerator / denominator, m.log(far) - series
    )


def _cotangent(m: Any, y: Any) -> Any:
    """Return cot(pi y) for y >= 0, and 0 where y is an integer."""
    fraction = _fraction(m, y)
    fraction = m.where(fraction > 0.5, fraction - 1.0, fraction)
    return m.where(
        fraction == 0.0, 0.0, 1.0 / m.tan(math.pi * m.where(fraction == 0.0, 0.25, fraction))
    )


def digamma(m: Any, x: Any) -> Any:
    """Derivative of log Gamma: -inf at 0, inf at -0, NaN at -1, -2, ... and at -inf.

    Method: own fit on [1, 2] and the asymptotic series (Abramowitz and Stegun 1964, 6.3.18);
    reflection (6.3.7) for x < 0.  The sign at 0 comes from a division by it.
    """
    y = m.where(x < 0.0, -x, 0.0)
    positive = _digamma_positive(m, m.where(x < 0.0, 1.0 + y, x))
    reflected = m.where(_fraction(m, y) == 0.0, math.nan, positive + math.pi * _cotangent(m, y))
    return m.where(x < 0.0, reflected, positive)


def _cotangent_derivative(order: int) -> list[float]:
    """Return d^n cot / dx^n as a polynomial in cot, from cot' = -(1 + cot^2)."""
    coefficients = [0.0, 1.0]
    for _ in range(order):
        slope = [power * value for power, value in enumerate(coefficients)][1:]
        coefficients = [
            -(low + high) for low, high in zip([*slope, 0.0, 0.0], [0.0, 0.0, *slope], strict=True)
        ]
    return coefficients


def _polygamma_positive(m: Any, order: int, x: Any) -> Any:
    """Return order! times the sum of (x + k)^(-order - 1), k = 0, 1, ..., for x > 0.

    Method: the terms below 8 directly, the rest by the Euler-Maclaurin formula (Abramowitz and
    Stegun 1964, 23.1.30).
    """
    total = 0.0
    for term in range(_POLYGAMMA_TERMS):
        inverse = 1.0 / (x + float(term))
        power = inverse
        for factor in range(1, order + 1):
            power = power * (float(factor) * inverse)
        total = power + total
    inverse = 1.0 / (x + float(_POLYGAMMA_TERMS))
    power = inverse
    for factor in range(2, order + 1):
        power = power * (float(factor) * inverse)
    series = [1.0 / order]
    for index, number in enumerate(_BERNOULLI, start=1):
        falling = math.perm(order + 2 * index - 1, 2 * index - 1)
        series.append(number * falling / math.factorial(2 * index))
    return power * (0.5 * inverse + polynomial(series, inverse * inverse)) + total


def polygamma(m: Any, n: int, x: Any) -> Any:
    """Derivative of order ``n`` of digamma, 0 <= n <= 30.

    Where x is 0 or a negative integer it is inf for odd n and -inf for even n.  Method:
    Euler-Maclaurin summation; reflection (Abramowitz and Stegun 1964, 6.4.7) for x < 0.

    Raises:
        ValueError: n is not an integer from 0 to 30.
    """
    if not isinstance(n, int) or not 0 <= n <= _POLYGAMMA_LIMIT:
        raise ValueError(f"polygamma needs an integer order from 0 to {_POLYGAMMA_LIMIT}, got {n}")
    if n == 0:
        return digamma(m, x)
    y = m.where(x < 0.0, -x, 0.0)
    positive = _polygamma_positive(m, n, m.where(x < 0.0, 1.0 + y, m.where(x == 0.0, 1.0, x)))
    # cot(pi x) = -cot(pi y).
    reflection = polynomial(_cotangent_derivative(n), -_cotangent(m, y)) * math.pi ** (n + 1)
    sign = 1.0 if n % 2 else -1.0
    result = m.where(x < 0.0, -positive - reflection, sign * positive)
    pole = m.where(x < 0.0, _fraction(m, y), x)
    return m.where(pole == 0.0, sign * math.inf, result)
