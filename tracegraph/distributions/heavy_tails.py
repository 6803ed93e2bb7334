"""Distributions of positive numbers and of errors with heavy tails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.api.random import randn
from tracegraph.distributions import constraints
from tracegraph.distributions.continuous import EULER, Inverted
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.distributions.gamma import Chi2, standard_gamma
from tracegraph.dtypes import finfo
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor


class StudentT(Distribution):
    """Student's t of `df` degrees of freedom, moved and stretched."""

    arg_constraints = {
        "df": constraints.positive, "loc": constraints.real, "scale": constraints.positive
    }  # fmt: skip
    support = constraints.real
    has_rsample = True
    df: Any
    loc: Any
    scale: Any

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, NaN for df ≤ 1."""
        return where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, infinite for df ≤ 2, NaN for df ≤ 1."""
        known = self.scale * self.scale * self.df / (self.df - 2)
        return where(self.df > 2, known, where(self.df > 1, math.inf, self.df * math.nan))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return loc + scale·z / sqrt(c / df) with z normal and c of chi²."""
        shape = self._extended_shape(sample_shape)
        z = randn(shape, dtype=self.df.dtype, device=self.df.device)
        chi = Chi2(self.df, validate_args=False).rsample(sample_shape)
        return self.loc + self.scale * z * (chi / self.df).rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        y, df = (value - self.loc) / self.scale, self.df
        size = self.scale.log() + 0.5 * (df.log() + math.log(math.pi))
        size = size + (0.5 * df).lgamma() - (0.5 * (df + 1.0)).lgamma()
        return -0.5 * (df + 1.0) * (y * y / df).log1p() - size

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        beta = half.lgamma() + math.lgamma(0.5) - more.lgamma()
        slope = more * (more.digamma() - half.digamma())
        return self.scale.log() + slope + 0.5 * self.df.log() + beta


class FisherSnedecor(Distribution):
    """The F distribution: the ratio of two chi² over their degrees of freedom."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True
    df1: Any
    df2: Any

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, NaN for df2 ≤ 2."""
        return where(self.df2 > 2, self.df2 / (self.df2 - 2), math.nan)

    @property
    def mode(self) -> Tensor:
        """The mode, NaN for df1 ≤ 2."""
        known = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 > 2, known, math.nan)

    @property
    def variance(self) -> Tensor:
        """The variance, NaN for df2 ≤ 4."""
        a, b = self.df1, self.df2
        known = 2 * b * b * (a + b - 2) / (a * (b - 2) ** 2 * (b - 4))
        return where(b > 4, known, math.nan)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return ratios of gamma variables."""
        shape = self._extended_shape(sample_shape)
        above = standard_gamma(shape, 0.5 * self.df1) / self.df1
        below = standard_gamma(shape, 0.5 * self.df2) / self.df2
        tiny = finfo(self.df1.dtype).tiny
        return (above / below.clamp(min=tiny)).clamp(min=tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a, b, ratio = 0.5 * self.df1, 0.5 * self.df2, self.df1 / self.df2
        size = (a + b).lgamma() - a.lgamma() - b.lgamma()
        shape = a * ratio.log() + (a - 1) * value.log()
        return size + shape - (a + b) * (ratio * value).log1p()


class InverseGamma(Distribution):
    """The distribution of 1/x for x of a gamma distribution."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True
    concentration: Any
    rate: Any

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, infinite for a concentration ≤ 1."""
        a = self.concentration
        return where(a > 1, self.rate / (a - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """The variance, infinite for a concentration ≤ 2."""
        a = self.concentration
        return where(a > 2, self.rate**2 / ((a - 1) ** 2 * (a - 2)), math.inf)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the reciprocals of gamma variables."""
        shape = self._extended_shape(sample_shape)
        return self.rate / standard_gamma(shape, self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a = self.concentration
        known = a * self.rate.log() - a.lgamma() - (a + 1) * value.log() - self.rate / value
        return known

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return front.igammac(*broadcast_all(self.concentration, self.rate / value))

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        a = self.concentration
        return a + self.rate.log() + a.lgamma() - (1 + a) * a.digamma()


class Pareto(Inverted):
    """The Pareto distribution of numbers ≥ `scale`, whose tail falls as x^−alpha."""

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}
    scale: Any
    alpha: Any

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Numbers ≥ scale."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """The mean, infinite for alpha ≤ 1."""
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance, infinite for alpha ≤ 2."""
        a = self.alpha.clamp(min=2)
        return self.scale**2 * a / ((a - 1) ** 2 * (a - 2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a = self.alpha
        return a.log() + a * self.scale.log() - (a + 1) * value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return 1 - (self.scale / value) ** self.alpha

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self.scale * (1 - value) ** (-1 / self.alpha)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return (self.scale / self.alpha).log() + 1 + 1 / self.alpha


class GeneralizedPareto(Inverted):
    """Exceedances over `loc`: the tail is heavier the larger the concentration is."""

    arg_constraints = {
        "loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real
    }  # fmt: skip
    loc: Any
    scale: Any
    concentration: Any

    def __init__(
        self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Numbers ≥ loc, up to an end where the concentration is negative."""
        c = self.concentration
        end = where(c < 0, self.loc - self.scale / c, math.inf)
        return constraints.interval(self.loc, end)

    def _parts(self) -> tuple[Any, Any]:
        """The concentration, and where it counts as 0 (1 then takes its place)."""
        flat = self.concentration.abs() < 1e-15
        return where(flat, 1.0, self.concentration), flat

    @property
    def mean(self) -> Tensor:
        """The mean, infinite for a concentration ≥ 1."""
        c = self.concentration
        return where(c < 1, self.loc + self.scale / (1 - c), math.inf)

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, infinite for a concentration ≥ 1/2."""
        c = self.concentration
        known = self.scale**2 / ((1 - c) ** 2 * (1 - 2 * c))
        return where(c < 0.5, known, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        y = (value - self.loc) / self.scale
        c, flat = self._parts()
        return -self.scale.log() - where(flat, y, (1 + 1 / c) * (c * y).log1p())

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        y = (value - self.loc) / self.scale
        c, flat = self._parts()
        return 1 - where(flat, (-y).exp(), (1 + c * y) ** (-1 / c))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        c, flat = self._parts()
        y = where(flat, -(-value).log1p(), ((1 - value) ** -c - 1) / c)
        return self.loc + self.scale * y

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self.scale.log() + self.concentration + 1


class Weibull(Inverted):
    """The Weibull distribution: its `concentration` is the power of the hazard, plus 1."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    scale: Any
    concentration: Any

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.scale * (1 + 1 / self.concentration).lgamma().exp()

    @property
    def mode(self) -> Tensor:
        """The mode."""
        k = self.concentration
        return self.scale * ((k - 1) / k) ** (1 / k)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        k = self.concentration
        known = (1 + 2 / k).lgamma().exp() - (2 * (1 + 1 / k).lgamma()).exp()
        return self.scale**2 * known

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        k, ratio = self.concentration, value / self.scale
        return (k / self.scale).log() + (k - 1) * ratio.log() - ratio**k

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return -(-((value / self.scale) ** self.concentration)).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self.scale * (-(-value).log1p()) ** (1 / self.concentration)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        k = self.concentration
        return EULER * (1 - 1 / k) + (self.scale / k).log() + 1
