"""Mixtures of distributions of one family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.autograd import no_grad
from tracegraph.distributions.categorical import Categorical
from tracegraph.distributions.distribution import Distribution
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.functional import log_softmax


class MixtureSameFamily(Distribution):
    """A mixture of the components along the last batch dim.

    Raises:
        ValueError: no Categorical, or batch shapes that do not fit.
    """

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(
                "The Mixture distribution needs to be an instance of "
                "torch.distributions.Categorical"
            )
        batch = component_distribution.batch_shape[:-1]
        for ours, theirs in zip(
            reversed(mixture_distribution.batch_shape), reversed(batch), strict=False
        ):
            if ours != 1 and theirs != 1 and ours != theirs:
                raise ValueError("batch shapes of mixture and component do not fit")
        count = mixture_distribution.logits.shape[-1]
        if component_distribution.batch_shape[-1] != count:
            raise ValueError(
                f"`mixture_distribution` has {count} components, `component_distribution` "
                f"{component_distribution.batch_shape[-1]}"
            )
        self._mixture, self._component = mixture_distribution, component_distribution
        super().__init__(batch, component_distribution.event_shape, validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """Which component."""
        return self._mixture

    @property
    def component_distribution(self) -> Any:
        """The components."""
        return self._component

    @property
    def support(self) -> Any:
        """The support of the components."""
        return self._component.support

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the mixture expanded to a batch shape."""
        count = self._component.batch_shape[-1]
        return MixtureSameFamily(
            self._mixture.expand(batch_shape), self._component.expand((*batch_shape, count)), False
        )

    def _beside(self, x: Any) -> Any:
        """Numbers per component, laid against values of events."""
        return x.reshape((*x.shape, *(1,) * len(self._event_shape)))

    def _over(self, x: Any) -> Any:
        """Values with a dim for the components."""
        return x.unsqueeze(-1 - len(self._event_shape))

    @property
    def _place(self) -> int:
        return -1 - len(self._event_shape)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (self._beside(self._mixture.probs) * self._component.mean).sum(self._place)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        share = self._beside(self._mixture.probs)
        within = (share * self._component.variance).sum(self._place)
        apart = self._component.mean - self._over(self.mean)
        return within + (share * apart * apart).sum(self._place)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        return (self._component.cdf(self._over(value)) * self._mixture.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        inner = self._component.log_prob(self._over(value))
        return (inner + log_softmax(self._mixture.logits, -1)).logsumexp(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient."""
        with no_grad():
            which = self._beside(self._mixture.sample(sample_shape).unsqueeze(-1))
            drawn = self._component.sample(sample_shape)
            event = tuple(self._event_shape)
            shape = (*drawn.shape[: drawn.ndim - 1 - len(event)], 1, *event)
            place = drawn.ndim + self._place
            return drawn.gather(place, which.expand(shape)).squeeze(place)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture},\n  {self._component})"
