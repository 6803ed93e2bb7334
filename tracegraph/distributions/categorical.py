"""Distributions over n categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.creation import eye
from tracegraph.api.random import multinomial
from tracegraph.api.ranges import arange
from tracegraph.api.shape import broadcast_tensors
from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.bernoulli import clamp_probs
from tracegraph.distributions.distribution import Distribution
from tracegraph.dtypes import finfo, int64
from tracegraph.eager.tensors import Tensor


class Categorical(Distribution):
    """Index of one of n categories with probabilities `probs` (or `logits`), [..., n].

    Raises:
        ValueError: both or none of `probs` and `logits`.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        given: Any = logits if probs is None else probs
        if given.ndim < 1:
            raise ValueError("`probs` and `logits` must be at least one-dimensional.")
        if probs is None:
            self.logits = given - given.logsumexp(-1, keepdim=True)
        else:
            self.probs = given / given.sum(-1, keepdim=True)
        super().__init__(given.shape[:-1], (), validate_args)

    def __getattr__(self, name: str) -> Any:
        # The other form of the parameter, computed and kept when it is first asked for.
        given = vars(self)
        if name == "logits" and "probs" in given:
            given[name] = clamp_probs(given["probs"]).log()
        elif name == "probs" and "logits" in given:
            given[name] = given["logits"].softmax(-1)
        else:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return given[name]

    @property
    def _param(self) -> Tensor:
        known = vars(self)
        return known["probs"] if "probs" in known else known["logits"]

    @property
    def _num_events(self) -> int:
        return int(self._param.shape[-1])

    @property
    def support(self) -> Any:
        """0, ..., n − 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        """NaN: categories have no mean."""
        return self.probs.sum(-1) * math.nan

    variance = mean

    @property
    def mode(self) -> Tensor:
        """The most probable category."""
        return self.probs.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return categories, int64 of shape sample_shape + batch_shape."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            rows = self.probs.reshape(-1, self._num_events)
            count = math.prod(sample_shape)
            if count == 0:
                return rows.new_zeros(shape, dtype=int64)
            drawn = multinomial(rows, count, replacement=True)
            return drawn.T.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability of categories."""
        self._validate_sample(value)
        index, table = broadcast_tensors(value.to(int64).unsqueeze(-1), self.logits)
        return table.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        logits = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all categories, along a new first dim."""
        return self._enumerated(arange(self._num_events), expand)


class OneHotCategorical(Distribution):
    """One of n categories as a vector with a single 1."""

    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._categorical = Categorical(probs, logits, validate_args)
        count = self._categorical._num_events
        super().__init__(self._categorical.batch_shape, (count,), validate_args)

    @property
    def probs(self) -> Any:
        """The probabilities, [..., n]."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """The log probabilities, [..., n]."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The most probable category."""
        return self._vectors(self._categorical.mode)

    @property
    def variance(self) -> Tensor:
        """The variance of each element."""
        return self.probs * (1 - self.probs)

    def _vectors(self, index: Tensor) -> Tensor:
        places = arange(self._categorical._num_events, device=index.device)
        return (index.unsqueeze(-1) == places).to(self.probs.dtype)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        new = type(self).__new__(type(self))
        new._categorical = self._categorical.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        return new

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return vectors with a single 1, without gradient."""
        return self._vectors(self._categorical.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability of vectors."""
        self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all vectors, along a new first dim."""
        n = self._categorical._num_events
        values = eye(n, dtype=self.probs.dtype).reshape(n, *(1,) * len(self._batch_shape), n)
        return values.expand((n, *self._batch_shape, n)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """One-hot samples whose gradient is that of the probabilities. Bengio et al. 2013."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with the gradient of the probabilities."""
        return self.sample(sample_shape) + (self.probs - self.probs.detach())
