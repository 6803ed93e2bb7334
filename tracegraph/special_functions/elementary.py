"""Short functions made of logarithms, exponentials and sines, with their limits filled in."""

from __future__ import annotations

import math
from typing import Any

# From here on every float64 is an integer.
_ALL_INTEGERS_FROM = 4503599627370496.0


def sinc(m: Any, x: Any) -> Any:
    """sin(pi x) / (pi x), 1 at 0, NaN at +-inf; exactly 0 at the other integers."""
    y = m.abs(x)
    bounded = m.where(y < _ALL_INTEGERS_FROM, m.where(y > 0.0, y, 0.5), 1.0)
    whole = m.floor(bounded)
    fraction = bounded - whole
    sine = m.sin(math.pi * m.where(fraction > 0.5, 1.0 - fraction, fraction))
    half = 0.5 * whole
    ratio = m.where(half > m.floor(half), -sine, sine) / (math.pi * bounded)
    return m.where(y < math.inf, m.where(y == 0.0, 1.0, ratio), math.nan)


def xlogy(m: Any, x: Any, y: Any) -> Any:
    """x log(y), and 0 where x is 0 and y is not NaN."""
    logarithm = m.log(m.where(x == 0.0, 1.0, y))
    return m.where(x == 0.0, m.where(m.isnan(y), y, 0.0), x * logarithm)


def xlog1py(m: Any, x: Any, y: Any) -> Any:
    """x log(1 + y), and 0 where x is 0 and y is not NaN."""
    logarithm = m.log1p(m.where(x == 0.0, 0.0, y))
    return m.where(x == 0.0, m.where(m.isnan(y), y, 0.0), x * logarithm)


def entr(m: Any, x: Any) -> Any:
    """Entropy -x log(x): 0 at 0, -inf below."""
    positive = m.where(x > 0.0, x, 1.0)
    result = -positive * m.log(positive)
    return m.where(x > 0.0, result, m.where(x == 0.0, 0.0, m.where(x < 0.0, -math.inf, x)))


def logit(m: Any, x: Any) -> Any:
    """log(x / (1 - x)): -inf at 0, inf at 1, NaN outside [0, 1]."""
    inside = m.where(x > 0.0, m.where(x < 1.0, x, 0.5), 0.5)
    low = inside < 0.25
    ratio = m.where(low, inside, 2.0 * inside - 1.0) / (1.0 - inside)
    result = m.where(low, m.log(m.where(low, ratio, 1.0)), m.log1p(m.where(low, 0.0, ratio)))
    result = m.where(x > 0.0, result, math.nan)
    result = m.where(x < 1.0, result, math.nan)
    result = m.where(x == 0.0, -math.inf, result)
    return m.where(x == 1.0, math.inf, result)


def expit(m: Any, x: Any) -> Any:
    """Logistic function 1 / (1 + exp(-x)), without overflow and accurate where it is small."""
    decay = m.exp(-m.abs(x))
    return m.where(x < 0.0, decay, 1.0) / (1.0 + decay)
