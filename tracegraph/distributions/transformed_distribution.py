"""The distribution of f(x) for a random x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.autograd import no_grad
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution
from tracegraph.distributions.independent import Independent, sum_last
from tracegraph.distributions.transform import ComposeTransform, Transform
from tracegraph.eager.tensors import Tensor


class TransformedDistribution(Distribution):
    """A base distribution with maps applied, the first of the list first.

    Raises:
        ValueError: no map, or the base has too few dims for them.
    """

    def __init__(
        self, base_distribution: Distribution, transforms: Any, validate_args: bool | None = None
    ) -> None:
        several = [transforms] if isinstance(transforms, Transform) else transforms
        if not isinstance(several, (list, tuple)) or any(
            not isinstance(t, Transform) for t in several
        ):
            raise ValueError(f"transforms must be a Transform or a list, but was {transforms}")
        self.transforms = list(several)
        whole = ComposeTransform(self.transforms)
        shape = (*base_distribution.batch_shape, *base_distribution.event_shape)
        if len(shape) < whole.domain.event_dim:
            raise ValueError(
                f"base_distribution needs to have shape with size at least "
                f"{whole.domain.event_dim}, but got {shape}."
            )
        result = whole.forward_shape(shape)
        needed = whole.inverse_shape(result)
        base, inner = base_distribution, len(base_distribution.event_shape)
        if tuple(needed) != shape:
            base = base.expand(needed[: len(needed) - inner])
        if whole.domain.event_dim > inner:
            base = Independent(base, whole.domain.event_dim - inner)
        self.base_dist = base
        change = whole.codomain.event_dim - whole.domain.event_dim
        dims = max(whole.codomain.event_dim, len(base.event_shape) + change)
        cut = len(result) - dims
        super().__init__(result[:cut], result[cut:], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base has it."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        """The codomain of the last map, for whole events."""
        last = self.transforms[-1].codomain if self.transforms else self.base_dist.support
        extra = len(self._event_shape) - last.event_dim
        return constraints.independent(last, extra) if extra > 0 else last

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution expanded to a batch shape."""
        new = type(self).__new__(type(self))
        new.transforms = self.transforms
        shape = (*batch_shape, *self._event_shape)
        for t in reversed(self.transforms):
            shape = t.inverse_shape(shape)
        inner = len(self.base_dist.event_shape)
        new.base_dist = self.base_dist.expand(shape[: len(shape) - inner])
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _moved(self, x: Tensor) -> Tensor:
        for t in self.transforms:
            x = t(x)
        return x

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, without gradient."""
        with no_grad():
            return self._moved(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples through which gradients reach the parameters."""
        return self._moved(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density: that of x, less the log determinants on the way."""
        self._validate_sample(value)
        dims = len(self._event_shape)
        total: Any = 0.0
        y = value
        for t in reversed(self.transforms):
            x = t.inv(y)
            dims += t.domain.event_dim - t.codomain.event_dim
            total = total - sum_last(t.log_abs_det_jacobian(x, y), dims - t.domain.event_dim)
            y = x
        inner = self.base_dist.log_prob(y)
        return total + sum_last(inner, dims - len(self.base_dist.event_shape))

    def _turned(self, share: Any) -> Tensor:
        """Turn a probability round where the maps fall."""
        sign: Any = 1
        for t in self.transforms:
            sign = sign * t.sign
        if isinstance(sign, (int, float)) and sign == 1:
            return share
        return sign * (share - 0.5) + 0.5

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function."""
        for t in reversed(self.transforms):
            value = t.inv(value)
        return self._turned(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        return self._moved(self.base_dist.icdf(self._turned(value)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
