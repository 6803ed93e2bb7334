"""Normal and log-normal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.random import randn
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.eager.tensors import Tensor

_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


class Normal(Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale`."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    loc: Any
    scale: Any

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    mode = mean

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.scale * self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return loc + scale·z with standard normal z."""
        shape = self._extended_shape(sample_shape)
        z = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + z * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        return self._log_density(value)

    def _log_density(self, x: Tensor) -> Tensor:
        z = (x - self.loc) / self.scale
        return -(z * z) / 2 - self.scale.log() - _HALF_LOG_TWO_PI

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return self._below(value)

    def _below(self, x: Tensor) -> Tensor:
        return 0.5 * (1 + ((x - self.loc) / (self.scale * math.sqrt(2))).erf())

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self.loc + self.scale * (2 * value - 1).erfinv() * math.sqrt(2)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return 0.5 + _HALF_LOG_TWO_PI + self.scale.log()


class LogNormal(Normal):
    """The distribution of exp(x) with normal x."""

    support = constraints.positive

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (self.loc + self.scale * self.scale / 2).exp()

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return (self.loc - self.scale * self.scale).exp()

    @property
    def variance(self) -> Tensor:
        """The variance."""
        square = self.scale * self.scale
        return square.expm1() * (2 * self.loc + square).exp()

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return exp(loc + scale·z) with standard normal z."""
        return super().rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        x = value.log()
        return self._log_density(x) - x

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return self._below(value.log())

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return super().icdf(value).exp()

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return super().entropy() + self.loc
