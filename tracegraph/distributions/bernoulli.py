"""Distributions of trials that succeed or fail, and counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.random import bernoulli, poisson, rand
from tracegraph.api.ranges import arange
from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.dtypes import finfo
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.functional import logsigmoid


def clamp_probs(probs: Any) -> Any:
    """Return probabilities kept off 0 and 1 by the precision of their dtype."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(eps, 1 - eps)


def cross_entropy(logits: Any, target: Any) -> Any:
    """Return −target·log σ(logits) − (1 − target)·log(1 − σ(logits)), without overflow."""
    return logits * (1 - target) - logsigmoid(logits)


class _Trials(Distribution):
    """What distributions with a probability, given as `probs` or `logits`, share."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        given = "logits" if probs is None else "probs"
        (vars(self)[given],) = broadcast_all(logits if probs is None else probs)
        super().__init__(vars(self)[given].shape, validate_args=validate_args)

    def __getattr__(self, name: str) -> Any:
        # The other form of the parameter, computed and kept when it is first asked for.
        given = vars(self)
        if name == "logits" and "probs" in given:
            p = clamp_probs(given["probs"])
            given[name] = p.log() - (-p).log1p()
        elif name == "probs" and "logits" in given:
            given[name] = given["logits"].sigmoid()
        else:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return given[name]


class Bernoulli(_Trials):
    """1 with probability `probs`, else 0."""

    support = constraints.boolean
    has_enumerate_support = True

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The more probable value; NaN where both are equal."""
        mode = (self.probs >= 0.5).to(self.probs.dtype)
        mode[self.probs == 0.5] = math.nan
        return mode

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient."""
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        return -cross_entropy(self.logits, value)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return cross_entropy(self.logits, self.probs)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return 0 and 1, along a new first dim."""
        return self._enumerated(arange(2, dtype=self.probs.dtype), expand)


class Geometric(_Trials):
    """The number of failures before the first success."""

    support = constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.probs * 0

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient."""
        with no_grad():
            p = self.probs.expand(self._extended_shape(sample_shape))
            u = rand(p.shape, dtype=p.dtype, device=p.device).clamp(min=finfo(p.dtype).tiny)
            return (u.log() / (-p).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        return value * (-self.probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return cross_entropy(self.logits, self.probs) / self.probs


class Poisson(Distribution):
    """Counts of a rate."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer
    rate: Any

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.rate

    variance = mean

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.rate.floor()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient."""
        with no_grad():
            return poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        return value.xlogy(self.rate) - self.rate - (value + 1).lgamma()
