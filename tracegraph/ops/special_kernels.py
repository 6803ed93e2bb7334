"""Special functions that take loops over whole arrays: computed in float64, rounded once.

Incomplete gamma functions: P(a, x) = x^a·e^−x·Σ x^n / Γ(a + n + 1) for x ≤ a + 1, else 1 − Q(a, x)
with Q by Legendre's continued fraction (Abramowitz & Stegun 1964, 6.5.29 and 6.5.31).
"""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import FLOATS
from tracegraph.ops.array_math import math_over
from tracegraph.ops.core import (
    LAID_ALIKE,
    NOT_DIFFERENTIABLE,
    Case,
    Spec,
    define,
    elementwise_type,
    reals,
)
from tracegraph.special_functions.normal import erfc_scaled

_FLOAT = elementwise_type(FLOATS)
_MOST_TERMS = 20_000
_CASES = (
    Case((Spec((3, 4), 0.2, 6), Spec((3, 4), 0.1, 8)), {}),
    Case((Spec((), 0.2, 6), Spec((2,), 0.1, 8)), {}),
    Case((Spec((0, 2), 0.2, 6), Spec((1, 2), 0.1, 8)), {}),
)


def _wide(xp: Any, *arrays: Any) -> list[Any]:
    return [a.astype(xp.float64) for a in xp.broadcast_arrays(*arrays)]


def _series(xp: Any, a: Any, x: Any) -> Any:
    """Σ x^n·Γ(a + 1) / Γ(a + n + 1)."""
    total = term = xp.ones_like(x)
    for n in range(1, _MOST_TERMS):
        term = term * (x / (a + n))
        total = total + term
        if not bool((term > total * 1e-17).any()):
            break
    return total


def _fraction(xp: Any, a: Any, x: Any) -> Any:
    """The continued fraction of Q(a, x)·Γ(a)·x^−a·e^x, by the method of Lentz (1976)."""
    b = x + 1 - a
    d = 1 / b
    total, c = d, xp.full_like(x, 1e300)
    for n in range(1, _MOST_TERMS):
        factor = -n * (n - a)
        b = b + 2
        d = factor * d + b
        d = 1 / xp.where(d == 0, 1e-300, d)
        c = b + factor / c
        c = xp.where(c == 0, 1e-300, c)
        step = c * d
        total = total * step
        if not bool((xp.abs(step - 1) > 3e-16).any()):
            break
    return total


def _both(xp: Any, a: Any, x: Any) -> tuple[Any, Any]:
    """P and Q of float64 arrays."""
    m = math_over(xp)
    known = (a > 0) & (x > 0) & xp.isfinite(a) & xp.isfinite(x)
    safe_a, safe_x = xp.where(known, a, 1.0), xp.where(known, x, 1.0)
    near = safe_x < safe_a + 1
    front = xp.exp(safe_a * xp.log(safe_x) - safe_x - m.lgamma(safe_a))
    low = front * _series(xp, safe_a, xp.where(near, safe_x, 0.0)) / safe_a
    far = front * _fraction(xp, xp.where(near, 1.0, safe_a), xp.where(near, 2.0, safe_x))
    p = xp.where(near, low, 1 - far)
    wrong = (a < 0) | (x < 0) | xp.isnan(a) | xp.isnan(x) | ((a == 0) & (x == 0))
    wrong |= xp.isinf(a) & xp.isinf(x)
    one = ((a == 0) & (x > 0)) | (xp.isinf(x) & (a > 0))
    p = xp.where(known, p, xp.where(wrong, xp.nan, xp.where(one, 1.0, 0.0)))
    q = xp.where(known & near, 1 - low, xp.where(known, far, 1 - p))
    return p, q


def _lower(xp: Any, a: Any, x: Any) -> Any:
    return _both(xp, *_wide(xp, a, x))[0].astype(a.dtype)


def _upper(xp: Any, a: Any, x: Any) -> Any:
    return _both(xp, *_wide(xp, a, x))[1].astype(a.dtype)


def _density(m: Any, a: Any, x: Any) -> Any:
    return m.exp((a - 1) * m.log(x) - x - m.lgamma(a))


igamma = define(
    "igamma(a, x) -> y", type=_FLOAT, kernel=_lower,
    vjp=(None, lambda m, g, a, x: g * _density(m, a, x)),
    traits=(LAID_ALIKE,), sample=_CASES, doc="Regularised lower incomplete gamma function P(a, x).",
)  # fmt: skip
igammac = define(
    "igammac(a, x) -> y", type=_FLOAT, kernel=_upper,
    vjp=(None, lambda m, g, a, x: -(g * _density(m, a, x))),
    traits=(LAID_ALIKE,),
    sample=_CASES, doc="Regularised upper incomplete gamma function Q(a, x) = 1 − P(a, x).",
)  # fmt: skip


def _slope(xp: Any, a: Any, x: Any) -> Any:
    """dx/da where P(a, x) stays: Σ r(n)·(ψ(a + n + 1) − log x), r(n) = x^(n+1)·Γ(a)/Γ(a + n + 1).

    The series of P, differentiated by its terms and divided by the density.
    """
    dtype = a.dtype
    a, x = _wide(xp, a, x)
    term = x / a
    psi = math_over(xp).digamma(a + 1) - xp.log(x)
    total = term * psi
    for n in range(1, _MOST_TERMS):
        term = term * (x / (a + n))
        psi = psi + 1 / (a + n)
        total = total + term * psi
        if not bool((xp.abs(term * psi) > xp.abs(total) * 1e-15).any()):
            break
    return total.astype(dtype)


gamma_slope = define(
    "gamma_slope(a, x) -> y", type=_FLOAT, kernel=_slope, vjp=NOT_DIFFERENTIABLE,
    traits=(LAID_ALIKE,), sample=_CASES,
    doc="How a gamma variable x of concentration a moves with a (Figurnov et al. 2018, "
        "arXiv:1805.08498).",
)  # fmt: skip


def _scaled(xp: Any, x: Any) -> Any:
    """exp(x²)·erfc(x): Cody's fit where erfc is small."""
    m = math_over(xp)
    (wide,) = _wide(xp, x)
    far = xp.where(xp.abs(wide) > 0.46875, xp.minimum(xp.abs(wide), 1e18), 1.0)
    above, below = erfc_scaled(m, far)
    near = xp.where(xp.abs(wide) <= 0.46875, wide, 0.0)
    direct = xp.exp(near * near) * m.erfc(near)
    turned = 2 * xp.exp(xp.where(wide < 0, wide * wide, 0.0)) - above / below
    value = xp.where(wide < 0, turned, above / below)
    value = xp.where(xp.abs(wide) <= 0.46875, direct, value)
    value = xp.where(wide == xp.inf, 0.0, value)
    return xp.where(xp.isnan(wide), wide, value).astype(x.dtype)


erfcx = define(
    "erfcx(x) -> y", type=_FLOAT, kernel=_scaled,
    vjp=(lambda g, x, y: g * (x * y * 2 - 2 / math.sqrt(math.pi)),),
    traits=(LAID_ALIKE,), sample=reals(-2, 4),
    doc="exp(x²)·erfc(x) (Cody 1969).",
)  # fmt: skip

# Numbers B(2k) / (2k)! of Euler and Maclaurin's formula.
_BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160,
              -691 / 1307674368000, 1 / 74724249600)  # fmt: skip
_DIRECT = 12


def _zeta(xp: Any, x: Any, q: Any) -> Any:
    """Terms up to q + k >= 12 directly, the rest by Euler and Maclaurin's formula."""
    dtype = x.dtype
    x, q = _wide(xp, x, q)
    whole = xp.floor(q) == q
    pole = (q <= 0) & whole
    defined = (x > 1) & ~pole & ~((q <= 0) & (xp.floor(x) != x)) & ~xp.isnan(q)
    s, start = xp.where(defined, x, 2.0), xp.where(defined, q, 1.0)
    count = _DIRECT + (math.ceil(max(0.0, -float(start.min()))) if start.size else 0)
    total = xp.zeros_like(s)
    for k in range(count):
        total = total + (start + k) ** -s
    w = start + count
    power = w**-s
    total = total + power * w / (s - 1) + power / 2
    factor = s
    for k, number in enumerate(_BERNOULLI):
        power = power / w
        total = total + number * factor * power
        factor = factor * (s + 2 * k + 1) * (s + 2 * k + 2)
        power = power / w
    outside = xp.where((x == 1) | ((x > 1) & pole), xp.inf, xp.nan)
    return xp.where(defined, total, outside).astype(dtype)


zeta = define(
    "zeta(x, q) -> y", type=_FLOAT, kernel=_zeta,
    vjp=(None, lambda m, g, x, q: -(g * x * m.zeta(x + 1, q))),
    traits=(LAID_ALIKE,),
    sample=(Case((Spec((3, 4), 1.2, 6), Spec((3, 4), 0.3, 8)), {}),
            Case((Spec((), 1.2, 6), Spec((2,), 0.3, 8)), {}),
            Case((Spec((0, 2), 1.2, 6), Spec((1, 2), 0.3, 8)), {})),
    doc="Hurwitz zeta function, Σ (q + k)^−x over k >= 0 (Abramowitz & Stegun 1964, 23.1.30).",
)  # fmt: skip
