"""Modified Bessel functions of the first kind, orders 0 and 1, plain and scaled by exp(-|x|)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.special_functions.polynomial import at_least, at_most, polynomial

# Own fits, made by tests/tools/fit_special.py; polynomials, lowest degree first.  NEAR:
# I(x) / (x/2)^order in (x/16)^2 for x <= 10; FAR: sqrt(x) exp(-x) I(x) in 10/x - 1/2 beyond.
I0_NEAR = (
    1.0, 64.00000000000003, 1023.9999999999912, 7281.777777778734,
    29127.111111056074, 74565.4044463695, 132560.71896780195, 173140.5316744521,
    173140.52254511684, 136802.46763924015, 87553.0588842576, 46311.64007914849,
    20573.218680440816, 7818.641960369085, 2495.0759378321904, 797.0200850269105,
    110.02782408624445, 79.74187419841796,
)  # fmt: skip
I0_FAR = (
    0.4015097608312065, 0.005291771934372408, 0.000332453090548865, 4.121627161018018e-05,
    8.066011933152437e-06, 2.265088088872087e-06, 8.726586195971147e-07, 4.556123979040328e-07,
    3.275482837628545e-07, 3.243883548687664e-07, 3.834200791730509e-07, 3.1041161077056403e-07,
    -4.516856069287476e-07, -1.9863893796235055e-06,
    -1.5919560560324293e-06, 3.3361555099933373e-06,
    5.4685647030631895e-06, -3.1753380656439308e-06, -8.011017382754924e-06, 1.4508829890602609e-06,
    5.047850977198429e-06,
)  # fmt: skip
I1_NEAR = (
    1.0, 32.0, 341.33333333333286, 1820.4444444444932,
    5825.422222219412, 12427.567407505721, 18937.245570917137, 21642.566406119397,
    19237.83634309282, 13680.243203750968, 7959.387842584691, 3859.2282089371547,
    1582.7792875321545, 557.9825900242474, 167.10984921129668, 48.99610017304013,
    6.996786497899903, 4.276299687210461,
)  # fmt: skip
I1_FAR = (
    0.39133972251206706, -0.015461810253511876, -0.0005392058653515518, -5.609889050801017e-05,
    -1.0070874114435314e-05, -2.68468570934436e-06, -9.982916221301974e-07, -5.07523709600793e-07,
    -3.570938297886877e-07, -3.47862999543306e-07, -4.0841393208771075e-07, -3.3781576158049716e-07,
    4.48103138013136e-07, 2.068800599681601e-06, 1.7275306270552062e-06, -3.399817653361911e-06,
    -5.766883057347795e-06, 3.1711123050548484e-06, 8.365663440940718e-06, -1.420420057191482e-06,
    -5.244786544279424e-06,
)  # fmt: skip


def _bessel_near(m: Any, coefficients: Sequence[float], y: Any) -> Any:
    """Return I(y) / (y/2)^order, 0 <= y <= 10."""
    scaled = 0.0625 * at_most(m, y, 10.0)
    return polynomial(coefficients, scaled * scaled)


def _bessel_far(m: Any, coefficients: Sequence[float], y: Any) -> Any:
    """Return exp(-y) I(y), y >= 10."""
    return polynomial(coefficients, 10.0 / y - 0.5) / m.sqrt(y)


def _bessel_growing(m: Any, coefficients: Sequence[float], y: Any) -> Any:
    """Return I(y), y >= 10; the exponential in two halves, since it overflows before I does."""
    bounded = at_most(m, at_least(m, y, 10.0), 800.0)
    half = m.exp(0.5 * bounded)
    return half * (_bessel_far(m, coefficients, bounded) * half)


def i0(m: Any, x: Any) -> Any:
    """Modified Bessel function of the first kind, order 0; own fits."""
    y = m.abs(x)
    return m.where(y <= 10.0, _bessel_near(m, I0_NEAR, y), _bessel_growing(m, I0_FAR, y))


def i0e(m: Any, x: Any) -> Any:
    """exp(-|x|) i0(x); 0 at +-inf; own fits."""
    y = m.abs(x)
    near = m.exp(-y) * _bessel_near(m, I0_NEAR, y)
    return m.where(y <= 10.0, near, _bessel_far(m, I0_FAR, at_least(m, y, 10.0)))


def i1(m: Any, x: Any) -> Any:
    """Modified Bessel function of the first kind, order 1; odd; own fits."""
    y = m.abs(x)
    far = _bessel_growing(m, I1_FAR, y)
    near = m.where(y <= 10.0, x, 0.0) * (0.5 * _bessel_near(m, I1_NEAR, y))
    return m.where(y <= 10.0, near, m.where(x < 0.0, -far, far))


def i1e(m: Any, x: Any) -> Any:
    """exp(-|x|) i1(x); odd; 0 at +-inf; own fits."""
    y = m.abs(x)
    far = _bessel_far(m, I1_FAR, at_least(m, y, 10.0))
    near = m.where(y <= 10.0, x, 0.0) * (0.5 * m.exp(-y) * _bessel_near(m, I1_NEAR, y))
    return m.where(y <= 10.0, near, m.where(x < 0.0, -far, far))
