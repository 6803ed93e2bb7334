"""What distributions of one's own are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.api.random import randn
from tracegraph.distributions.bernoulli import clamp_probs
from tracegraph.distributions.distribution import broadcast_all
from tracegraph.eager.tensors import Tensor

__all__ = [
    "broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits",
]  # fmt: skip


class lazy_property:  # noqa: N801
    """A method whose result is computed when it is first read, and kept as the attribute."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Return the probabilities: a sigmoid of each logit, or a softmax over the last dim."""
    found: Tensor = logits.sigmoid() if is_binary else logits.softmax(-1)
    return found


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Return the logits, which are finite: log p, less log(1 − p) for one probability."""
    inner = clamp_probs(probs)
    found: Tensor = inner.log() - (-inner).log1p() if is_binary else inner.log()
    return found


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    return randn(shape, dtype=dtype, device=device)


def _sum_rightmost(value: Tensor, dim: int) -> Tensor:
    """Return the sum over the last `dim` dims."""
    if dim == 0:
        return value
    found: Tensor = value.sum(tuple(range(-dim, 0)))
    return found
