"""Distributions of counts of successes: binomial, negative binomial, multinomial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.api.random import poisson, rand
from tracegraph.api.ranges import arange
from tracegraph.api.shape import expand
from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.bernoulli import Bernoulli
from tracegraph.distributions.categorical import Categorical
from tracegraph.distributions.distribution import Distribution, broadcast_all
from tracegraph.distributions.gamma import standard_gamma
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.functional import logsigmoid


class _Counts(Distribution):
    """What distributions with a number of trials and a probability share."""

    total_count: Any
    _trials: Bernoulli

    def __init__(
        self, total_count: Any, probs: Any, logits: Any, validate_args: bool | None
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        given, name = (logits, "logits") if probs is None else (probs, "probs")
        self.total_count, value = broadcast_all(total_count, given)
        self.total_count = self.total_count.to(value.dtype)
        self._trials = Bernoulli(**{name: value}, validate_args=False)
        vars(self)[name] = value
        super().__init__(value.shape, validate_args=validate_args)

    def __getattr__(self, name: str) -> Any:
        # The other form of the probability.
        if name in ("probs", "logits") and "_trials" in vars(self):
            return getattr(vars(self)["_trials"], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        name = "probs" if "probs" in vars(self) else "logits"
        parameters = {name: expand(vars(self)[name], batch_shape)}
        count = expand(self.total_count, batch_shape)
        return type(self)(count, **parameters, validate_args=False)


class Binomial(_Counts):
    """The number of successes in `total_count` trials."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval,
        "logits": constraints.real,
    }  # fmt: skip
    has_enumerate_support = True

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(total_count, probs, logits, validate_args)

    @property
    def support(self) -> Any:
        """0, ..., total_count."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient: the successes of all trials are counted."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            most = int(self.total_count.max()) if self.total_count.numel() else 0
            like = {"dtype": self.probs.dtype, "device": self.probs.device}
            hits = rand((*shape, most), **like) < self.probs.unsqueeze(-1)
            counted = arange(most, **like) < self.total_count.unsqueeze(-1)
            return (hits & counted).sum(-1).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        n, logits = self.total_count, self.logits
        ways = (n + 1).lgamma() - (value + 1).lgamma() - (n - value + 1).lgamma()
        return ways + value * logits + n * logsigmoid(-logits)

    def entropy(self) -> Tensor:
        """Return the entropy in nats.

        Raises:
            NotImplementedError: the numbers of trials differ.
        """
        logs = self.log_prob(self.enumerate_support(False))
        return -(logs.exp() * logs).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return 0, ..., total_count, along a new first dim."""
        most = int(self.total_count.max())
        if int(self.total_count.min()) != most:
            raise NotImplementedError(
                "Inhomogeneous total count not supported by `enumerate_support`."
            )
        return self._enumerated(arange(1 + most, dtype=self.probs.dtype), expand)


class NegativeBinomial(_Counts):
    """The number of successes before `total_count` failures."""

    arg_constraints = {
        "total_count": constraints.nonnegative, "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }  # fmt: skip
    support = constraints.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(total_count, probs, logits, validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient: Poisson counts of gamma rates."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            return poisson(standard_gamma(shape, self.total_count) * self.logits.exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        n = self.total_count
        chance = n * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        ways = (n + value).lgamma() - (1 + value).lgamma() - n.lgamma()
        return chance + where(n + value == 0, 0.0, ways)


class Multinomial(Distribution):
    """How often each of n outcomes occurs in `total_count` trials: counts [..., n]."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(
            self._categorical.batch_shape, self._categorical.probs.shape[-1:], validate_args
        )

    @property
    def support(self) -> Any:
        """Counts that sum to at most total_count."""
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Any:
        """The probabilities of the outcomes."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        """The variance of each count."""
        return self.total_count * self.probs * (1 - self.probs)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        wide = expand(self.logits, (*batch_shape, *self._event_shape))
        return Multinomial(self.total_count, logits=wide, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient: the outcomes of all trials are counted."""
        with no_grad():
            outcomes = self._categorical.sample((self.total_count, *sample_shape))
            places = outcomes.movedim(0, -1)
            zeros = self.probs.new_zeros(self._extended_shape(sample_shape))
            ones = self.probs.new_ones(()).expand(places.shape)
            return zeros.scatter_add(-1, places, ones)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability."""
        self._validate_sample(value)
        unseen = (value == 0) & (self.logits == float("-inf"))
        terms = where(unseen, 0.0, self.logits) * value
        ways = (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
        return ways + terms.sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        n = self.probs.new_tensor(float(self.total_count))
        trials = Binomial(self.total_count, probs=self.probs, validate_args=False)
        counts = trials.enumerate_support(False)[1:]
        weights = trials.log_prob(counts).exp()
        repeats = (weights * (counts + 1).lgamma()).sum((0, -1))
        return n * self._categorical.entropy() - (n + 1).lgamma() + repeats
