"""Dropout: elements or whole channels are set to zero at random, the rest scaled up.

The mask keeps what a uniform number u >= p draws, so that p may be a tensor when it is traced as
a hyper-parameter. Hinton et al. 2012, arXiv:1207.0580.
"""

from __future__ import annotations

from typing import Any

from tracegraph.api import random
from tracegraph.api.promotion import cast
from tracegraph.devices import device_of
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.eager.writing import in_place
from tracegraph.errors import OpError
from tracegraph.nn.functional.activations import SELU_ALPHA, SELU_SCALE


def _check(p: Any) -> None:
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _is(p: Any, value: int) -> bool:
    """Whether p is this number, and not a traced hyper-parameter."""
    return isinstance(p, (int, float)) and p == value


def _kept(input: Tensor, p: Any, shape: tuple[int, ...]) -> Tensor:
    """1 where kept and 0 where dropped, in a shape that broadcasts against the input."""
    dtype = type_of(input).dtype
    uniform = random.rand(shape, dtype=dtype.compute, device=device_of(input._data))
    return cast(uniform >= p, dtype)


def _drop(input: Tensor, p: Any, shape: tuple[int, ...]) -> Tensor:
    if _is(p, 1):
        return input * 0
    return input * (_kept(input, p, shape) * (1 / (1 - p)))


def _drop_alpha(input: Tensor, p: Any, shape: tuple[int, ...]) -> Tensor:
    """Dropped values become −scale·alpha of SELU; mean and variance stay. arXiv:1706.02515."""
    if _is(p, 1):
        return input * 0
    low = -SELU_SCALE * SELU_ALPHA
    scale = ((1 - p) * (1 + p * low * low)) ** -0.5
    kept = _kept(input, p, shape)
    return input * (kept * scale) + ((1 - kept) * (low * scale) - scale * p * low)


def _apply(drop: Any, input: Tensor, p: Any, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    return (in_place(drop) if inplace else drop)(input, p, shape)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return the input with elements dropped with probability p, the rest over 1 − p.

    Raises:
        ValueError: p is no probability.
    """
    _check(p)
    if not training or _is(p, 0):
        return input
    return _apply(_drop, input, p, inplace, tuple(input.shape))


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return dropout that keeps mean and variance, for use with SELU.

    Raises:
        ValueError: p is no probability.
    """
    _check(p)
    if not training or _is(p, 0):
        return input
    return _apply(_drop_alpha, input, p, inplace, tuple(input.shape))


def _channels(input: Tensor, batched: int) -> tuple[int, ...]:
    """The shape of one mask element per channel, for a batch or for one sample."""
    lead = 2 if input.ndim >= batched else 1
    return (*input.shape[:lead], *(1,) * (input.ndim - lead))


def _drop_channels(
    input: Tensor, p: Any, training: bool, inplace: bool, batched: int, drop: Any = _drop
) -> Tensor:
    _check(p)
    if not training or _is(p, 0):
        return input
    if input.ndim < 2:
        raise OpError("Feature dropout requires at least 2 dimensions in the input")
    return _apply(drop, input, p, inplace, _channels(input, batched))


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return [batch, channel, length] or [channel, length] with whole channels dropped."""
    if input.ndim not in (2, 3):
        raise OpError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that "
            "dropout1d exists to provide channel-wise dropout on inputs with 1 spatial dimension, "
            "a channel dimension, and an optional batch dimension (i.e. 2D or 3D inputs)."
        )
    return _drop_channels(input, p, training, inplace, 3)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return [batch, channel, height, width] with whole channels dropped.

    As in PyTorch, the first two dims are taken for batch and channel also in a 3-d input.
    """
    return _drop_channels(input, p, training, inplace, 2)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return [batch, channel, *space] or [channel, *space] of 3 spatial dims, channels dropped."""
    return _drop_channels(input, p, training, inplace, 5)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return alpha_dropout of whole channels."""
    return _drop_channels(input, p, training, inplace, 2, _drop_alpha)
