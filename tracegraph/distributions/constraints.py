"""What parameters and values of distributions must satisfy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.api.creation import full
from tracegraph.dtypes import bool_
from tracegraph.eager.tensors import Tensor
from tracegraph.linalg import eigvalsh


class Constraint:
    """A predicate over tensors whose last `event_dim` dims are one value.

    A subclass defines `check`, and `event_dim` and `is_discrete` where they are not 0 and False.
    """

    name = ""
    event_dim = 0
    is_discrete = False
    bounds: tuple[Any, ...] = ()

    def __init__(
        self, name: str = "", check: Callable[[Any], Any] | None = None, event_dim: int = 0,
        discrete: bool = False, bounds: tuple[Any, ...] = (),
    ) -> None:  # fmt: skip
        if check is None:  # of a subclass, which has all in its class
            return
        self.name, self.event_dim, self.is_discrete = name, event_dim, discrete
        self.bounds = bounds
        self._check = check

    def check(self, value: Tensor) -> Any:
        """Return where a value satisfies the constraint, a bool tensor."""
        return self._check(value)

    def __repr__(self) -> str:
        return self.name or f"{type(self).__name__.removeprefix('_')}()"


class _Dependent(Constraint):
    """Stands for a constraint that depends on other parameters: nothing can be checked."""

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def check(self, value: Tensor) -> Any:
        """Raise: a value alone does not tell.

        Raises:
            ValueError: always.
        """
        raise ValueError("Cannot determine validity of dependent constraint")


class dependent_property(property, _Dependent):  # noqa: N801
    """A property that returns the constraint of one distribution; with or without arguments."""

    def __init__(
        self, fn: Callable[[Any], Any] | None = None, *, is_discrete: bool = False,
        event_dim: int = 0,
    ) -> None:  # fmt: skip
        property.__init__(self, fn)
        _Dependent.__init__(self, is_discrete=is_discrete, event_dim=event_dim)

    def __call__(self, fn: Callable[[Any], Any]) -> dependent_property:
        """Make the property, after the arguments."""
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether a constraint depends on other parameters."""
    return isinstance(constraint, _Dependent)


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
dependent = _Dependent()
lower_triangular = Constraint("LowerTriangular()", lambda x: (x.tril() == x).all(-1).all(-1), 2)
square = Constraint(
    "Square()",
    lambda x: full(x.shape[:-2], x.shape[-2] == x.shape[-1], dtype=bool_, device=x.device),
    2,
)
symmetric = Constraint("Symmetric()", _symmetric, 2)
positive_semidefinite = Constraint(
    "PositiveSemidefinite()", lambda x: _symmetric(x) & (eigvalsh(x) >= 0).all(-1), 2
)
positive_definite = Constraint("PositiveDefinite()", _symmetric, 2)
