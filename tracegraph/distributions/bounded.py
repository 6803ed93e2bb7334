"""Distributions on an interval or a circle, and of vectors that sum to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.api.random import rand
from tracegraph.api.special import i0e, i1e
from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.bernoulli import Bernoulli, clamp_probs, cross_entropy
from tracegraph.distributions.continuous import EULER, Inverted
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.distributions.matrix_transforms import StickBreakingTransform
from tracegraph.distributions.normal import Normal
from tracegraph.distributions.transformed_distribution import TransformedDistribution
from tracegraph.eager.tensors import Tensor

# Each candidate of `VonMises` is accepted with probability above 0.65.
_CANDIDATES = 24


class Kumaraswamy(Inverted):
    """The distribution on (0, 1) with 1 − F(x) = (1 − x^a)^b, a = concentration1."""

    arg_constraints = {
        "concentration1": constraints.positive, "concentration0": constraints.positive
    }  # fmt: skip
    support = constraints.unit_interval
    concentration1: Any
    concentration0: Any

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def _moment(self, n: int) -> Any:
        a, b = 1 + n / self.concentration1, self.concentration0
        return b * (a.lgamma() + b.lgamma() - (a + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """The mode, NaN where the density has none."""
        a, b = self.concentration1, self.concentration0
        known = ((a - 1) / (a * b - 1)) ** (1 / a)
        return where((a < 1) | (b < 1) | (a * b == 1), math.nan, known)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self._moment(2) - self.mean * self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        return (a * b).log() + (a - 1) * value.log() + (b - 1) * (-(value**a)).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        return 1 - (1 - value**self.concentration1) ** self.concentration0

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        inner = 1 - (1 - value) ** (1 / self.concentration0)
        return inner ** (1 / self.concentration1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + EULER
        return (1 - 1 / b) + (1 - 1 / a) * harmonic - a.log() - b.log()


class ContinuousBernoulli(Inverted):
    """Density proportional to λ^x·(1 − λ)^(1−x) on [0, 1].

    Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845. Near λ = 1/2 its constants come from their
    Taylor series.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    _trials: Bernoulli

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._trials = Bernoulli(probs, logits, validate_args)
        self._lims = lims
        shape = self._trials.batch_shape
        super().__init__(shape, validate_args=validate_args)

    @property
    def probs(self) -> Any:
        """λ."""
        return clamp_probs(self._trials.probs)

    @property
    def logits(self) -> Any:
        """log(λ / (1 − λ))."""
        return self._trials.logits

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        return ContinuousBernoulli(self._trials.probs.expand(batch_shape), lims=self._lims)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the quantiles of uniform numbers."""
        p = self.probs
        return self.icdf(rand(self._extended_shape(sample_shape), dtype=p.dtype, device=p.device))

    def _parts(self) -> tuple[Any, Any, Any]:
        """Where λ is not near 1/2, λ with a number far from it elsewhere, and (λ − 1/2)²."""
        p = self.probs
        far = (p <= self._lims[0]) | (p > self._lims[1])
        return far, where(far, p, self._lims[0]), (p - 0.5) ** 2

    def _log_constant(self) -> Any:
        far, p, square = self._parts()
        known = ((-p).log1p() - p.log()).abs().log() - (1 - 2 * p).abs().log()
        return where(far, known, math.log(2) + (4 / 3 + 104 / 45 * square) * square)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        far, p, square = self._parts()
        known = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        x = self.probs - 0.5
        return where(far, known, 0.5 + (1 / 3 + 16 / 45 * square) * x)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        far, p, square = self._parts()
        known = p * (p - 1) / (1 - 2 * p) ** 2 + 1 / ((-p).log1p() - p.log()) ** 2
        return where(far, known, 1 / 12 - (1 / 15 - 128 / 945 * square) * square)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        return self._log_constant() - cross_entropy(self.logits, value)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        self._validate_sample(value)
        far, p, _ = self._parts()
        known = (p**value * (1 - p) ** (1 - value) + p - 1) / (2 * p - 1)
        share = where(far, known, value)
        return where(value <= 0, 0.0, where(value >= 1, 1.0, share))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        far, p, _ = self._parts()
        known = ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return where(far, known, value)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        low, high = (-self.probs).log1p(), self.probs.log()
        return self.mean * (low - high) - self._log_constant() - low


class VonMises(Distribution):
    """Angles around `loc`, the nearer the larger the concentration."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    loc: Any
    concentration: Any

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean direction."""
        return self.loc

    mode = mean

    @property
    def variance(self) -> Tensor:
        """1 less the mean of the cosine of the angle to `loc`."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        k = self.concentration
        size = math.log(2 * math.pi) + i0e(k).log() + k
        return k * (value - self.loc).cos() - size

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return angles in [−π, π), without gradient, by a fixed number of tries.

        Best & Fisher 1979: from a wrapped Cauchy distribution, with rejection.
        """
        with no_grad():
            shape = self._extended_shape(sample_shape)
            k = self.concentration.double()
            tau = 1 + (1 + 4 * k * k).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            r = where(k < 1e-5, 1 / k + k, (1 + rho * rho) / (2 * rho))
            u = rand((3, _CANDIDATES, *shape), dtype=k.dtype, device=k.device)
            z = (math.pi * u[0]).cos()
            f = (1 + r * z) / (r + z)
            c = k * (r - f)
            accepted = (c * (2 - c) - u[1] > 0) | ((c / u[1]).log() + 1 - c >= 0)
            angles = (u[2] - 0.5).sign() * f.clamp(-1, 1).acos()
            first = accepted.to(k.dtype).argmax(0, keepdim=True)
            angle = angles.gather(0, first).squeeze(0) + self.loc
            turned = (angle + math.pi) % (2 * math.pi) - math.pi
            return turned.to(self.loc.dtype)


class LogisticNormal(TransformedDistribution):
    """Vectors that sum to 1 with one element more than the normal vectors they are made of."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        if not base.batch_shape:
            base = base.expand([1])
        super().__init__(base, StickBreakingTransform(), validate_args)

    @property
    def loc(self) -> Any:
        """The mean of the normal vectors."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined]

    @property
    def scale(self) -> Any:
        """Their standard deviation."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined]
