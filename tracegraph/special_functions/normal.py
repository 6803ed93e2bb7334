"""The error function, the distribution function of the standard normal, and their inverses."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.special_functions.polynomial import at_least, at_most, polynomial

_INVERSE_SQRT_2 = 0.7071067811865476
_INVERSE_SQRT_PI = 0.5641895835477563

# Tables are polynomials, lowest degree first.
#
# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
# Computation 23 (1969) 631-637: erf in x^2 for |x| <= 0.46875, then exp(x^2) erfc in x up to 4
# and in 1/x^2 beyond.
ERF_NUMERATOR = (
    3209.3775891384694, 377.485237685302, 113.86415415105016, 3.1611237438705655,
    0.18577770618460315,
)  # fmt: skip
ERF_DENOMINATOR = (
    2844.236833439171, 1282.6165260773723, 244.02463793444417, 23.601290952344122,
    1.0,
)  # fmt: skip
ERFC_NUMERATOR = (
    1230.3393547979972, 2051.0783778260716, 1712.0476126340707, 881.952221241769,
    298.6351381974001, 66.11919063714163, 8.883149794388377, 0.5641884969886701,
    2.1531153547440383e-08,
)  # fmt: skip
ERFC_DENOMINATOR = (
    1230.3393548037495, 3439.3676741437216, 4362.619090143247, 3290.7992357334597,
    1621.3895745666903, 537.1811018620099, 117.6939508913125, 15.744926110709835,
    1.0,
)  # fmt: skip
ERFC_FAR_NUMERATOR = (
    0.0006587491615298378, 0.016083785148742275, 0.12578172611122926, 0.36034489994980445,
    0.30532663496123236, 0.016315387137302097,
)  # fmt: skip
ERFC_FAR_DENOMINATOR = (
    0.0023352049762686918, 0.06051834131244132, 0.5279051029514285, 1.8729528499234604,
    2.568520192289822, 1.0,
)  # fmt: skip

# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied
# Statistics 37 (1988) 477-484, routine PPND16.
QUANTILE_CENTRAL_NUMERATOR = (
    3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946,
    45921.95393154987, 67265.7709270087, 33430.57558358813, 2509.0809287301227,
)  # fmt: skip
QUANTILE_CENTRAL_DENOMINATOR = (
    1.0, 42.31333070160091, 687.1870074920579, 5394.196021424751,
    21213.794301586597, 39307.89580009271, 28729.085735721943, 5226.495278852854,
)  # fmt: skip
QUANTILE_MIDDLE_NUMERATOR = (
    1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045,
    1.2704582524523684, 0.2417807251774506, 0.022723844989269184, 0.0007745450142783414,
)  # fmt: skip
QUANTILE_MIDDLE_DENOMINATOR = (
    1.0, 2.053191626637759, 1.6763848301838038, 0.6897673349851,
    0.14810397642748008, 0.015198666563616457, 0.0005475938084995345, 1.0507500716444169e-09,
)  # fmt: skip
QUANTILE_FAR_NUMERATOR = (
    6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487,
    0.026532189526576124, 0.0012426609473880784, 2.7115555687434876e-05, 2.0103343992922881e-07,
)  # fmt: skip
QUANTILE_FAR_DENOMINATOR = (
    1.0, 0.599832206555888, 0.1369298809227358, 0.014875361290850615,
    0.0007868691311456133, 1.8463183175100548e-05, 1.421511758316446e-07, 2.0442631033899397e-15,
)  # fmt: skip


# Own fit, made by tests/tools/fit_special.py: atanh(erf(x)) / x in x^2 for |x| <= 2.5; beyond, it
# is far enough off 0 that tanh rounds it to the same number.
ERF_SINGLE_NUMERATOR = (
    1.1283792671096395, 0.2804390325037068, 0.042342980282967194, 0.002131523978020081,
)  # fmt: skip
ERF_SINGLE_DENOMINATOR = (
    1.0, 0.15745414996323892, 0.023366638714896887, 0.0003157286434058355,
)  # fmt: skip


def _erf_near(x: Any) -> tuple[Any, Any]:
    """Return numerator and denominator of erf(x), |x| <= 0.46875 (Cody 1969)."""
    square = x * x
    return x * polynomial(ERF_NUMERATOR, square), polynomial(ERF_DENOMINATOR, square)


def erfc_scaled(m: Any, y: Any) -> tuple[Any, Any]:
    """Return numerator and denominator of exp(y^2) erfc(y), 0.46875 <= y <= 1e18 (Cody 1969)."""
    middle = at_most(m, y, 4.0)
    far = at_least(m, y, 4.0)
    square = (1.0 / far) * (1.0 / far)
    far_divisor = polynomial(ERFC_FAR_DENOMINATOR, square)
    far_value = _INVERSE_SQRT_PI * far_divisor - square * polynomial(ERFC_FAR_NUMERATOR, square)
    numerator = m.where(y <= 4.0, polynomial(ERFC_NUMERATOR, middle), far_value)
    denominator = m.where(y <= 4.0, polynomial(ERFC_DENOMINATOR, middle), far * far_divisor)
    return numerator, denominator


def _exp_minus_square(m: Any, y: Any, scale: float) -> Any:
    """Return exp(-scale y^2), 0 <= y <= 100, without the loss from rounding the square.

    Cody's device: y is cut at a multiple of 1/16, whose square is exact.
    """
    head = m.floor(y * 16.0) * 0.0625
    return m.exp(-scale * (head * head)) * m.exp(-scale * ((y - head) * (y + head)))


def erf(m: Any, x: Any) -> Any:
    """Error function; odd, +-1 at +-inf.  Method: Cody (1969)."""
    y = at_most(m, m.abs(x), 6.0)
    small = y <= 0.46875
    numerator, denominator = _erf_near(m.where(small, x, 0.0))
    middle = polynomial(ERFC_DENOMINATOR, y)
    rest = middle - m.exp(-(y * y)) * polynomial(ERFC_NUMERATOR, y)
    rest = m.where(x < 0.0, -rest, rest)
    return m.where(small, numerator, rest) / m.where(small, denominator, middle)


def erf_single(m: Any, x: Any) -> Any:
    """Error function for float32, to 5 units in the last place and a third of the work of `erf`.

    `m` has `minimum` and `tanh` as well.
    """
    square = m.minimum(x * x, 100.0)
    ratio = polynomial(ERF_SINGLE_NUMERATOR, square)
    ratio /= polynomial(ERF_SINGLE_DENOMINATOR, square)
    ratio *= x
    return m.tanh(ratio)


def erfc(m: Any, x: Any) -> Any:
    """1 - erf(x), accurate where it is small; 2 at -inf.  Method: Cody (1969)."""
    y = at_most(m, m.abs(x), 30.0)
    small = y <= 0.46875
    numerator, denominator = _erf_near(m.where(small, x, 0.0))
    top, bottom = erfc_scaled(m, y)
    ratio = m.where(small, denominator - numerator, top) / m.where(small, denominator, bottom)
    tail = _exp_minus_square(m, y, 1.0) * ratio
    return m.where(small, ratio, m.where(x < 0.0, 2.0 - tail, tail))


def _normal_parts(m: Any, x: Any) -> tuple[Any, Any, Any]:
    """Return |x| <= 0.66, the probability there, and exp(x^2/2) times the tail beyond |x|."""
    z = at_most(m, m.abs(x) * _INVERSE_SQRT_2, 1e18)
    small = z <= 0.46875
    numerator, denominator = _erf_near(m.where(small, x * _INVERSE_SQRT_2, 0.0))
    top, bottom = erfc_scaled(m, z)
    return small, 0.5 + 0.5 * (numerator / denominator), 0.5 * (top / bottom)


def ndtr(m: Any, x: Any) -> Any:
    """Distribution function of the standard normal, erfc(-x / sqrt(2)) / 2 (Cody 1969)."""
    small, near, scaled = _normal_parts(m, x)
    tail = _exp_minus_square(m, at_most(m, m.abs(x), 40.0), 0.5) * scaled
    return m.where(small, near, m.where(x < 0.0, tail, 1.0 - tail))


def log_ndtr(m: Any, x: Any) -> Any:
    """Logarithm of ndtr(x), accurate in both tails; -inf at -inf (Cody 1969)."""
    small, near, scaled = _normal_parts(m, x)
    tail = _exp_minus_square(m, at_most(m, m.abs(x), 40.0), 0.5) * scaled
    negative = m.where(x < 0.0, x, 0.0)
    logarithm = m.log(m.where(small, near, scaled))
    lower = m.where(small, logarithm, logarithm - 0.5 * (negative * negative))
    upper = m.log1p(-m.where(small, 0.0, tail))
    return m.where(x < 0.0, lower, m.where(small, lower, upper))


def _quantile(m: Any, central: Any, offset: Any, tail: Any) -> Any:
    """Return the normal quantile over ``offset`` where central, else its magnitude.

    ``offset`` is the probability less 1/2, central is |offset| <= 0.425, and ``tail`` > 0 is
    the smaller of the probability and its complement.  Method: Wichura's AS 241 (1988).
    """
    square = 0.180625 - offset * offset
    distance = m.sqrt(-m.log(tail))
    middle = distance - 1.6
    far = distance - 5.0
    beyond = distance > 5.0
    numerator = m.where(
        beyond,
        polynomial(QUANTILE_FAR_NUMERATOR, far),
        polynomial(QUANTILE_MIDDLE_NUMERATOR, middle),
    )
    denominator = m.where(
        beyond,
        polynomial(QUANTILE_FAR_DENOMINATOR, far),
        polynomial(QUANTILE_MIDDLE_DENOMINATOR, middle),
    )
    numerator = m.where(central, polynomial(QUANTILE_CENTRAL_NUMERATOR, square), numerator)
    divisor = m.where(central, polynomial(QUANTILE_CENTRAL_DENOMINATOR, square), denominator)
    return numerator / divisor


def ndtri(m: Any, x: Any) -> Any:
    """Inverse of ndtr: -inf at 0, inf at 1, NaN outside [0, 1].  Method: AS 241 (Wichura 1988)."""
    inside = m.where(x > 0.0, m.where(x < 1.0, x, 0.5), 0.5)
    offset = inside - 0.5
    central = m.abs(offset) <= 0.425
    ratio = _quantile(m, central, offset, m.where(offset > 0.0, 1.0 - inside, inside))
    result = m.where(central, offset * ratio, m.where(offset < 0.0, -ratio, ratio))
    result = m.where(x > 0.0, result, math.nan)
    result = m.where(x < 1.0, result, math.nan)
    result = m.where(x == 0.0, -math.inf, result)
    return m.where(x == 1.0, math.inf, result)


def erfinv(m: Any, x: Any) -> Any:
    """Inverse of erf: +-inf at +-1, NaN outside [-1, 1].  Method: AS 241 (Wichura 1988)."""
    y = m.abs(x)
    inside = m.where(y < 1.0, x, 0.0)
    central = m.abs(inside) <= 0.85
    ratio = _quantile(m, central, 0.5 * inside, 0.5 - 0.5 * m.abs(inside))
    tail = _INVERSE_SQRT_2 * ratio
    result = m.where(
        central, inside * (0.5 * _INVERSE_SQRT_2 * ratio), m.where(x < 0.0, -tail, tail)
    )
    result = m.where(y < 1.0, result, math.nan)
    result = m.where(x == 1.0, math.inf, result)
    return m.where(x == -1.0, -math.inf, result)
