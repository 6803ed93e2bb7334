"""What parameters and values of distributions must satisfy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.eager.tensors import Tensor


class Constraint:
    """A predicate over tensors whose last `event_dim` dims are one value."""

    def __init__(
        self, name: str, check: Callable[[Any], Any], event_dim: int = 0, discrete: bool = False,
        bounds: tuple[Any, ...] = (),
    ) -> None:  # fmt: skip
        self.name, self.event_dim, self.is_discrete = name, event_dim, discrete
        self.bounds = bounds
        self._check = check

    def check(self, value: Tensor) -> Any:
        """Return where a value satisfies the constraint, a bool tensor."""
        return self._check(value)

    def __repr__(self) -> str:
        return self.name


def _whole(x: Any) -> Any:
    return x % 1 == 0


def greater_than(bound: Any) -> Constraint:
    """Return the constraint x > bound."""
    name = f"GreaterThan(lower_bound={bound})"
    return Constraint(name, lambda x: x > bound, bounds=(bound,))


def greater_than_eq(bound: Any) -> Constraint:
    """Return the constraint x ≥ bound."""
    name = f"GreaterThanEq(lower_bound={bound})"
    return Constraint(name, lambda x: x >= bound, bounds=(bound,))


def less_than(bound: Any) -> Constraint:
    """Return the constraint x < bound."""
    name = f"LessThan(upper_bound={bound})"
    return Constraint(name, lambda x: x < bound, bounds=(bound,))


def half_open_interval(low: Any, high: Any) -> Constraint:
    """Return the constraint low ≤ x < high."""
    return Constraint(
        f"HalfOpenInterval(lower_bound={low}, upper_bound={high})",
        lambda x: (x >= low) & (x < high),
    )


def independent(base: Constraint, dims: int) -> Constraint:
    """Return a constraint of several values as one of a value with more dims."""

    def check(x: Any) -> Any:
        where = base.check(x)
        for _ in range(dims):
            where = where.all(-1)
        return where

    name = f"IndependentConstraint({base!r}, {dims})"
    return Constraint(name, check, base.event_dim + dims, base.is_discrete, (base, dims))


def multinomial(total: int) -> Constraint:
    """Return the constraint that whole numbers sum to at most `total`."""
    return Constraint(
        "Multinomial()", lambda x: (_whole(x) & (x >= 0)).all(-1) & (x.sum(-1) <= total), 1, True
    )


def interval(low: Any, high: Any) -> Constraint:
    """Return the constraint low ≤ x ≤ high."""
    name = f"Interval(lower_bound={low}, upper_bound={high})"
    return Constraint(name, lambda x: (x >= low) & (x <= high), bounds=(low, high))


def integer_interval(low: Any, high: Any) -> Constraint:
    """Return the constraint that x is one of low, ..., high."""
    return Constraint(
        f"IntegerInterval(lower_bound={low}, upper_bound={high})",
        lambda x: _whole(x) & (x >= low) & (x <= high),
        discrete=True,
    )


def _symmetric(x: Any) -> Any:
    return ((x - x.mT).abs() <= 1e-6).all(-1).all(-1)


real = Constraint("Real()", lambda x: ~x.isnan())
real_vector = independent(real, 1)
positive = greater_than(0.0)
nonnegative = greater_than_eq(0.0)
unit_interval = interval(0.0, 1.0)
boolean = Constraint("Boolean()", lambda x: (x == 0) | (x == 1), discrete=True)
nonnegative_integer = Constraint(
    "IntegerGreaterThan(lower_bound=0)", lambda x: _whole(x) & (x >= 0), discrete=True
)
positive_integer = Constraint(
    "IntegerGreaterThan(lower_bound=1)", lambda x: _whole(x) & (x >= 1), discrete=True
)
simplex = Constraint("Simplex()", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6), 1)
one_hot = Constraint(
    "OneHot()", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1, discrete=True
)
lower_cholesky = Constraint(
    "LowerCholesky()",
    lambda x: (x.tril() == x).all(-1).all(-1) & (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1),
    2,
)
corr_cholesky = Constraint(
    "CorrCholesky()",
    lambda x: (
        lower_cholesky.check(x) & (((x * x).sum(-1).sqrt() - 1).abs() < 1e-5 * x.shape[-1]).all(-1)
    ),
    2,
)
positive_definite = Constraint("PositiveDefinite()", _symmetric, 2)
