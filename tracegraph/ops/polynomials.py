"""Orthogonal polynomials of an order that differs from element to element.

By their recurrences (Abramowitz & Stegun 1964, 22.7), in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tracegraph.dtypes import FLOATS
from tracegraph.errors import OpError
from tracegraph.ops.core import LAID_ALIKE, NOT_DIFFERENTIABLE, Case, Spec, define, elementwise_type
from tracegraph.tensor_type import TensorType


class Family(NamedTuple):
    """The polynomial of order 1, and that of order k + 1 from those of orders k and k − 1."""

    first: Callable[[Any], Any]
    following: Callable[[Any, int, Any, Any], Any]


def _chebyshev(first: Callable[[Any], Any]) -> Family:
    return Family(first, lambda x, k, p, before: 2 * x * p - before)


FAMILIES: Final[dict[str, Family]] = {
    "chebyshev_polynomial_t": _chebyshev(lambda x: x),
    "chebyshev_polynomial_u": _chebyshev(lambda x: 2 * x),
    "chebyshev_polynomial_v": _chebyshev(lambda x: 2 * x - 1),
    "chebyshev_polynomial_w": _chebyshev(lambda x: 2 * x + 1),
    "hermite_polynomial_h": Family(lambda x: 2 * x, lambda x, k, p, b: 2 * x * p - 2 * k * b),
    "hermite_polynomial_he": Family(lambda x: x, lambda x, k, p, b: x * p - k * b),
    "laguerre_polynomial_l": Family(
        lambda x: 1 - x, lambda x, k, p, b: ((2 * k + 1 - x) * p - k * b) / (k + 1)
    ),
    "legendre_polynomial_p": Family(
        lambda x: x, lambda x, k, p, b: ((2 * k + 1) * x * p - k * b) / (k + 1)
    ),
}


def _type(x: TensorType, n: TensorType, *, family: str) -> TensorType:
    if family not in FAMILIES:
        raise OpError(f"no polynomials {family!r}; there are {', '.join(FAMILIES)}")
    return elementwise_type(FLOATS)(x, n)


def _kernel(xp: Any, x: Any, n: Any, *, family: str) -> Any:
    rule = FAMILIES[family]
    dtype = x.dtype
    x, order = (a.astype(xp.float64) for a in xp.broadcast_arrays(x, n))
    order = xp.trunc(order)
    before, present = xp.ones_like(x), rule.first(x)
    out = xp.where(order < 0, 0.0, xp.where(order == 0, before, present))
    most = int(xp.max(xp.where(xp.isfinite(order), order, 0.0))) if order.size else 0
    for k in range(1, most):
        before, present = present, rule.following(x, k, present, before)
        out = xp.where(order == k + 1, present, out)
    return out.astype(dtype)


_CASES = (
    *(Case((Spec((3, 4), -1, 1), Spec((4,), 0, 6)), {"family": family}) for family in FAMILIES),
    Case((Spec((0, 2), -1, 1), Spec((), 0, 6)), {"family": "legendre_polynomial_p"}),
)

orthogonal_polynomial = define(
    "orthogonal_polynomial(x, n) -> y", type=_type, kernel=_kernel, vjp=NOT_DIFFERENTIABLE,
    traits=(LAID_ALIKE,),
    sample=_CASES, doc="Polynomial of order n (cut to a whole number) of a family, at x.",
)  # fmt: skip
