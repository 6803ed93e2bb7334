"""Normalisation over the batch, the last dims, groups of channels, or neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence

from tracegraph.autograd import no_grad
from tracegraph.dims.symint import larger
from tracegraph.dtypes import finfo
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.support import beside_channels, count


def _given(*parameters: Tensor | None) -> tuple[Tensor, ...]:
    """The parameters that there are; a shift without a scale is added by the caller."""
    given: list[Tensor] = []
    for p in parameters:
        if p is None:
            break
        given.append(p)
    return tuple(given)


def normalized_dims(input: Tensor, normalized_shape: Sequence[int] | int) -> int:
    """Return how many last dims are normalised.

    Raises:
        OpError: `normalized_shape` is not the end of the input's shape.
    """
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not wanted:
        raise OpError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least "
            f"one element, but got normalized_shape = {list(wanted)}"
        )
    if tuple(input.shape[-len(wanted) :]) != wanted:
        raise OpError(
            f"Given normalized_shape={list(wanted)}, expected input with shape [*, "
            f"{str(list(wanted))[1:-1]}], but got input of size{list(input.shape)}"
        )
    return len(wanted)


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int] | int, weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return the input normalised over its last dims, scaled and shifted. arXiv:1607.06450.

    Raises:
        OpError: `normalized_shape` is not the end of the input's shape.
    """
    ndim = normalized_dims(input, normalized_shape)
    y: Tensor = front.layer_norm(input, *_given(weight, bias), ndim=ndim, eps=float(eps))[0]
    return y + bias if weight is None and bias is not None else y


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int] | int, weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    """Return the input over its root mean square over the last dims. arXiv:1910.07467.

    `eps` defaults to the machine epsilon of the dtype.

    Raises:
        OpError: `normalized_shape` is not the end of the input's shape.
    """
    ndim = normalized_dims(input, normalized_shape)
    if eps is None:
        eps = finfo(type_of(input).dtype.compute).eps
    return front.rms_norm(input, *_given(weight), ndim=ndim, eps=float(eps))


def _follow(running: Tensor | None, value: Tensor, momentum: float) -> None:
    """Move a running average toward a value, in place."""
    if running is not None:
        running.mul_(1 - momentum).add_(value.detach() * momentum)


def _batch_statistics(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor,
    var: Tensor, momentum: float,
) -> None:  # fmt: skip
    """Update running statistics; the running variance is of the unbiased estimate."""
    size = count(input.shape) // larger(input.shape[1], 1)
    with no_grad():
        _follow(running_mean, mean, momentum)
        _follow(running_var, var.detach() * (size / larger(size - 1, 1)), momentum)


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return input[batch, channel, ...] normalised per channel. arXiv:1502.03167.

    In training with the statistics of the batch, which the running ones follow; else with those.

    Raises:
        ValueError: one value per channel, or no positive eps, in training.
        OpError: running statistics are missing in evaluation.
    """
    if input.ndim < 2 and input._data.size == 0:
        return input.clone()
    shift = bias if weight is None else None
    given = _given(weight, bias)
    y: Tensor
    if training:
        if eps <= 0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
        if input.shape[0] * count(input.shape[2:]) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size "
                f"{input.shape}"
            )
        if 0 in input._data.shape:  # nothing to learn from: the statistics stay
            return _affine(input.clone(), weight, bias)
        y, mean, var = front.batch_norm(input, *given, eps=float(eps))
        _batch_statistics(input, running_mean, running_var, mean, var, momentum)
    else:
        if running_mean is None or running_var is None:
            raise OpError("Expected running_mean and running_var to be defined in evaluation mode")
        y = front.batch_norm_inference(input, running_mean, running_var, *given, eps=float(eps))
    return y if shift is None else y + beside_channels(shift, input.ndim)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        y = y * beside_channels(weight, y.ndim)
    if bias is not None:
        y = y + beside_channels(bias, y.ndim)
    return y


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return input[batch, channel, ...] normalised per group of channels. arXiv:1803.08494.

    Raises:
        OpError: the channels cannot be divided evenly.
    """
    if input.ndim < 2:
        raise OpError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    batch, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise OpError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(input.shape)} and num_groups={num_groups}"
        )
    rows = input.reshape(batch, num_groups, count(input.shape[1:]) // num_groups)
    y = front.layer_norm(rows, ndim=1, eps=float(eps))[0]
    return _affine(y.reshape(input.shape), weight, bias)


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return input[batch, channel, ...] normalised per sample and channel. arXiv:1607.08022.

    Raises:
        ValueError: one spatial element, with statistics of the input.
        OpError: running statistics are missing where they are to be used.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    batch, channels = input.shape[:2]
    size = count(input.shape[2:])
    if size == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {input.shape}"
        )
    rows = input.reshape(batch, channels, size)
    y, mean, var = front.layer_norm(rows, ndim=1, eps=float(eps))
    with no_grad():
        _follow(running_mean, mean.reshape(batch, channels).mean(0), momentum)
        unbiased = var.reshape(batch, channels).mean(0) * (size / larger(size - 1, 1))
        _follow(running_var, unbiased, momentum)
    return _affine(y.reshape(input.shape), weight, bias)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Return input over (k + alpha · mean of squares of `size` neighbour channels)^beta.

    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks".

    Raises:
        ValueError: fewer than 3 dims.
    """
    if input.ndim < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)"
        )
    squares = (input * input).movedim(1, -1)
    pads = (*((0, 0),) * (input.ndim - 1), (size // 2, (size - 1) // 2))
    mean = front.avg_pool(
        front.pad(squares, pads=pads, value=0), window=(size,), stride=(1,), padding=(0,),
        ceil_mode=False, count_include_pad=True, divisor=None,
    ).movedim(-1, 1)  # fmt: skip
    return input / (mean * alpha + k) ** beta
