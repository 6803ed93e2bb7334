"""From a constraint to a map of real numbers onto what satisfies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.distributions import constraints, transforms
from tracegraph.distributions.constraints import Constraint
from tracegraph.distributions.transforms import Transform

Factory = Callable[[Constraint], Transform]


class ConstraintRegistry:
    """Maps by the names of constraints."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}

    def register(self, constraint: Constraint, factory: Factory | None = None) -> Any:
        """Enter a factory of maps; without one, return a decorator that does."""
        if factory is None:
            return lambda made: self.register(constraint, made)
        self._factories[_kind(constraint)] = factory
        return factory

    def __call__(self, constraint: Constraint) -> Transform:
        """Return the map for a constraint.

        Raises:
            NotImplementedError: none is known.
        """
        factory = self._factories.get(_kind(constraint))
        if factory is None:
            raise NotImplementedError(f"Cannot transform {constraint} constraints")
        return factory(constraint)


def _kind(constraint: Constraint) -> str:
    """The name of a constraint without its bounds."""
    return constraint.name.partition("(")[0]


def _between(constraint: Constraint) -> Transform:
    low, high = constraint.bounds
    if (low, high) == (0.0, 1.0):
        return transforms.SigmoidTransform()
    return transforms.ComposeTransform(
        [transforms.SigmoidTransform(), transforms.AffineTransform(low, high - low)]
    )


def _above(constraint: Constraint) -> Transform:
    (bound,) = constraint.bounds
    return transforms.ComposeTransform(
        [transforms.ExpTransform(), transforms.AffineTransform(bound, 1)]
    )


def _below(constraint: Constraint) -> Transform:
    (bound,) = constraint.bounds
    return transforms.ComposeTransform(
        [transforms.ExpTransform(), transforms.AffineTransform(bound, -1)]
    )


def _independent(registry: ConstraintRegistry) -> Factory:
    def factory(constraint: Constraint) -> Transform:
        base, dims = constraint.bounds
        return transforms.IndependentTransform(registry(base), dims)

    return factory


biject_to, transform_to = ConstraintRegistry(), ConstraintRegistry()
for _registry in (biject_to, transform_to):
    _registry.register(constraints.real, lambda c: transforms.identity_transform)
    _registry.register(constraints.positive, _above)
    _registry.register(constraints.nonnegative, _above)
    _registry.register(constraints.less_than(0), _below)
    _registry.register(constraints.interval(0, 1), _between)
    _registry.register(constraints.half_open_interval(0, 1), _between)
    _registry.register(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
    _registry.register(
        constraints.positive_definite, lambda c: transforms.PositiveDefiniteTransform()
    )
    _registry.register(constraints.corr_cholesky, lambda c: transforms.CorrCholeskyTransform())
    _registry.register(constraints.real_vector, _independent(_registry))
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())
