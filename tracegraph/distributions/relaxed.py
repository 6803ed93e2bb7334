"""Continuous stand-ins for choices, through which gradients flow.

Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.creation import tensor
from tracegraph.distributions import constraints
from tracegraph.distributions.bernoulli import Bernoulli, clamp_probs
from tracegraph.distributions.categorical import Categorical
from tracegraph.distributions.continuous import open_uniform
from tracegraph.distributions.distribution import Distribution
from tracegraph.distributions.elementwise_transforms import ExpTransform, SigmoidTransform
from tracegraph.distributions.transformed_distribution import TransformedDistribution
from tracegraph.eager.tensors import Tensor


class _OfChoice(Distribution):
    """What a choice of another distribution and a temperature give."""

    has_rsample = True
    temperature: Any
    _choice: Any

    def __init__(
        self, temperature: Any, choice: Distribution, event: Sequence[int],
        validate_args: bool | None,
    ) -> None:  # fmt: skip
        self.temperature, self._choice = temperature, choice
        super().__init__(choice.batch_shape, event, validate_args)

    @property
    def probs(self) -> Any:
        """Probabilities of the choice."""
        return self._choice.probs

    @property
    def logits(self) -> Any:
        """Their logits."""
        return self._choice.logits

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        new = type(self).__new__(type(self))
        _OfChoice.__init__(
            new, self.temperature, self._choice.expand(batch_shape), self._event_shape, False
        )
        return new


class LogitRelaxedBernoulli(_OfChoice):
    """The logits of `RelaxedBernoulli`."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(temperature, Bernoulli(probs, logits, validate_args), (), validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return logits with logistic noise, over the temperature."""
        u = open_uniform(self._extended_shape(sample_shape), self.probs)
        p = clamp_probs(self.probs)
        noise = u.log() - (-u).log1p()
        return (noise + p.log() - (-p).log1p()) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        apart = self.logits - value * self.temperature
        scale = self.temperature
        size = scale.log() if isinstance(scale, Tensor) else math.log(scale)
        return size + apart - 2 * apart.exp().log1p()


class RelaxedBernoulli(TransformedDistribution):
    """Numbers between 0 and 1 that come near them as the temperature falls."""

    arg_constraints = LogitRelaxedBernoulli.arg_constraints
    support = constraints.unit_interval
    base_dist: Any

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        base = LogitRelaxedBernoulli(temperature, probs, logits)
        super().__init__(base, SigmoidTransform(), validate_args)

    @property
    def temperature(self) -> Any:
        """The temperature."""
        return self.base_dist.temperature

    @property
    def probs(self) -> Any:
        """Probabilities of 1."""
        return self.base_dist.probs

    @property
    def logits(self) -> Any:
        """Their logits."""
        return self.base_dist.logits


class ExpRelaxedCategorical(_OfChoice):
    """The logarithms of `RelaxedOneHotCategorical`."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.real_vector

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        choice = Categorical(probs, logits, validate_args)
        given = logits if probs is None else probs
        super().__init__(temperature, choice, given.shape[-1:], validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the log softmax of logits with Gumbel noise, over the temperature."""
        u = open_uniform(self._extended_shape(sample_shape), self.logits)
        scores = (self.logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        n = self._event_shape[0]
        known = isinstance(self.temperature, Tensor)
        scale = self.temperature if known else tensor(float(self.temperature))
        size = math.lgamma(n) + (n - 1) * scale.log()
        score = self.logits - value * scale
        return (score - score.logsumexp(-1, keepdim=True)).sum(-1) + size


class RelaxedOneHotCategorical(TransformedDistribution):
    """Vectors that sum to 1, and come near one-hot ones as the temperature falls."""

    arg_constraints = ExpRelaxedCategorical.arg_constraints
    support = constraints.simplex
    base_dist: Any

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args)

    @property
    def temperature(self) -> Any:
        """The temperature."""
        return self.base_dist.temperature

    @property
    def probs(self) -> Any:
        """Probabilities of the outcomes."""
        return self.base_dist.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self.base_dist.logits
