"""Gamma and what is made of gamma variables: chi², beta, Dirichlet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.api.random import rand, randn
from tracegraph.api.shape import stack
from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.dtypes import finfo
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, grad_enabled
from tracegraph.nn.functional import one_hot

# Each candidate is accepted with probability above 0.95, so all fail with less than 4e-11.
_CANDIDATES = 8


def standard_gamma(shape: Sequence[int], concentration: Any) -> Any:
    """Return samples of the gamma distribution of rate 1, [*shape].

    A sample moves with the concentration so that its distribution function stays (Figurnov et al.
    2018, arXiv:1805.08498).
    """
    with no_grad():
        x = _drawn(shape, concentration)
    if not (grad_enabled() and concentration.requires_grad):
        return x
    a = concentration.expand(shape)
    return x + (a - a.detach()) * front.gamma_slope(a.detach(), x)


def _drawn(shape: Sequence[int], concentration: Any) -> Any:
    """Samples by a fixed number of tries.

    Marsaglia & Tsang 2000; below a concentration of 1 that of concentration + 1 is drawn and
    multiplied by u^(1/concentration).
    """
    options = {"dtype": concentration.dtype, "device": concentration.device}
    alpha = concentration.expand(shape)
    small = alpha < 1
    d = where(small, alpha + 1, alpha) - 1 / 3
    c = 1 / (9 * d).sqrt()
    z = randn((_CANDIDATES, *shape), **options)
    u = rand((_CANDIDATES, *shape), **options)
    cube = (1 + c * z) ** 3
    safe = where(cube > 0, cube, 1.0)
    accepted = (cube > 0) & ((1 - u).log() < z * z / 2 + d * (1 - safe + safe.log()))
    chosen = safe[_CANDIDATES - 1]
    for i in reversed(range(_CANDIDATES - 1)):
        chosen = where(accepted[i], safe[i], chosen)
    boost = where(small, (1 - rand(shape, **options)) ** (1 / alpha), 1.0)
    return (d * chosen * boost).clamp(min=finfo(concentration.dtype).tiny)


class Gamma(Distribution):
    """The gamma distribution of a concentration and a rate."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    concentration: Any
    rate: Any

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.concentration / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, with gradient."""
        shape = self._extended_shape(sample_shape)
        return standard_gamma(shape, self.concentration) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a, rate = self.concentration, self.rate
        return a.xlogy(rate) + (a - 1).xlogy(value) - rate * value - a.lgamma()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return front.igamma(*broadcast_all(self.concentration, self.rate * value))

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        a = self.concentration
        return a - self.rate.log() + a.lgamma() + (1.0 - a) * a.digamma()


class Chi2(Gamma):
    """The chi² distribution of `df` degrees of freedom."""

    arg_constraints = {**Gamma.arg_constraints, "df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = broadcast_all(df)
        super().__init__(0.5 * self.df, 0.5, validate_args)


class Dirichlet(Distribution):
    """The Dirichlet distribution of concentrations [..., n]."""

    arg_constraints = {
        "concentration": constraints.Constraint("positive", lambda x: (x > 0).all(-1), 1)
    }
    support = constraints.simplex
    has_rsample = True
    concentration: Any

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.ndim < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        shape = concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total * total * (total + 1))

    @property
    def mode(self) -> Tensor:
        """The mode; where all concentrations are below 1, the corner of the largest."""
        above = (self.concentration - 1).clamp(min=0.0)
        total = above.sum(-1, keepdim=True)
        known = above / total
        corner = one_hot(known.argmax(-1), known.shape[-1]).to(known.dtype)
        return where((self.concentration < 1).all(-1, keepdim=True), corner, known)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return gamma variables over their sum."""
        parts = standard_gamma(self._extended_shape(sample_shape), self.concentration)
        return parts / parts.sum(-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a = self.concentration
        return (a - 1).xlogy(value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        a = self.concentration
        total = a.sum(-1)
        return (
            a.lgamma().sum(-1)
            - total.lgamma()
            - (a.shape[-1] - total) * total.digamma()
            - ((a - 1) * a.digamma()).sum(-1)
        )


class Beta(Distribution):
    """The beta distribution: `concentration1` is α and `concentration0` is β."""

    arg_constraints = {
        "concentration1": constraints.positive, "concentration0": constraints.positive
    }  # fmt: skip
    support = constraints.unit_interval
    has_rsample = True
    concentration1: Any
    concentration0: Any

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def _dirichlet(self) -> Dirichlet:
        both = stack([self.concentration1, self.concentration0], -1)
        return Dirichlet(both, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1))

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self._dirichlet.mode[..., 0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the share of one gamma variable in two."""
        return self._dirichlet.rsample(sample_shape).select(-1, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        return self._dirichlet.log_prob(stack([value, 1.0 - value], -1))

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self._dirichlet.entropy()
