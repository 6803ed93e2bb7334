"""Distributions given by the inverse of their distribution function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.random import rand
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.dtypes import finfo
from tracegraph.eager.tensors import Tensor

EULER = 0.5772156649015329
"""The mean of the standard Gumbel distribution."""


def open_uniform(shape: Sequence[int], like: Tensor) -> Any:
    """Return uniform numbers in (0, 1)."""
    tiny = finfo(like.dtype).eps / 2
    return rand(shape, dtype=like.dtype, device=like.device).clamp(tiny, 1 - tiny)


class Inverted(Distribution):
    """Samples by `icdf` of uniform numbers; a base class."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the quantiles of uniform numbers."""
        like = vars(self)[next(iter(self.arg_constraints))]
        return self.icdf(open_uniform(self._extended_shape(sample_shape), like))


class Uniform(Inverted):
    """The uniform distribution on [low, high)."""

    arg_constraints = {"low": constraints.real, "high": constraints.real}
    low: Any
    high: Any

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The interval [low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def mode(self) -> Tensor:
        """NaN: all values are as probable."""
        return self.low * math.nan

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (self.low + self.high) / 2

    @property
    def variance(self) -> Tensor:
        """The variance."""
        width = self.high - self.low
        return width * width / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return low + (high − low)·u with u uniform on [0, 1)."""
        shape = self._extended_shape(sample_shape)
        u = rand(shape, dtype=self.low.dtype, device=self.low.device)
        return self.low + u * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, −inf outside of [low, high)."""
        self._validate_sample(value)
        inside = (self.low <= value) & (self.high > value)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return (self.high - self.low).log()


class Exponential(Inverted):
    """The exponential distribution of a rate."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    rate: Any

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.rate.reciprocal()

    stddev = mean

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.rate * 0

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.rate**-2

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return 1 - (-self.rate * value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return -(-value).log1p() / self.rate

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return 1.0 - self.rate.log()


class _LocationScale(Inverted):
    """Shifted and stretched forms of a standard distribution."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    loc: Any
    scale: Any

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc

    def _standard(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        z: Tensor = (value - self.loc) / self.scale
        return z


class Laplace(_LocationScale):
    """The Laplace (double exponential) distribution."""

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return 2 * self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return math.sqrt(2) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        return -self._standard(value).abs() - (2 * self.scale).log()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        z = self._standard(value)
        return 0.5 - 0.5 * z.sign() * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        term = value - 0.5
        return self.loc - self.scale * term.sign() * (-2 * term.abs()).log1p()

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return 1 + (2 * self.scale).log()


class Cauchy(_LocationScale):
    """The Cauchy distribution."""

    @property
    def mean(self) -> Tensor:
        """NaN: there is no mean."""
        return self.loc * math.nan

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return self.loc * 0 + math.inf

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        z = self._standard(value)
        return -math.log(math.pi) - self.scale.log() - (z * z).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        return self._standard(value).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The Gumbel (extreme value) distribution."""

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.scale * self.scale * (math.pi**2 / 6)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        z = self._standard(value)
        return -z - (-z).exp() - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        return (-(-self._standard(value)).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self.scale.log() + (1 + EULER)
