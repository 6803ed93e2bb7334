"""Distributions of the size of a symmetric variable."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.distributions import constraints
from tracegraph.distributions.continuous import Cauchy
from tracegraph.distributions.distribution import Distribution
from tracegraph.distributions.elementwise_transforms import AbsTransform
from tracegraph.distributions.normal import Normal
from tracegraph.distributions.transformed_distribution import TransformedDistribution
from tracegraph.eager.tensors import Tensor


class _Half(TransformedDistribution):
    """|x| for x symmetric around 0."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    base_dist: Any

    def __init__(self, base: Distribution, validate_args: bool | None) -> None:
        super().__init__(base, AbsTransform(), validate_args)

    @property
    def scale(self) -> Any:
        """The scale of the base."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.scale * 0

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, −inf below 0."""
        self._validate_sample(value)
        inside = self.base_dist.log_prob(value) + math.log(2)
        return where(value >= 0, inside, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self.base_dist.entropy() - math.log(2)


class HalfNormal(_Half):
    """The distribution of |x| with normal x of mean 0."""

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(0, scale, validate_args=False), validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.scale * self.scale * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """The distribution of |x| with x of the Cauchy distribution around 0."""

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Cauchy(0, scale, validate_args=False), validate_args)

    @property
    def mean(self) -> Tensor:
        """Infinity."""
        return self.scale * math.inf

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return self.base_dist.variance
