"""Convolution and transposed convolution over 1, 2 and 3 spatial dims."""

from __future__ import annotations

from typing import Any

from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.functional.support import (
    beside_channels,
    need_dims,
    need_one_dtype,
    per_dim,
)

_Size = int | tuple[int, ...] | list[int]


def _pads(
    padding: Any, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return (before, after) per dim for numbers, "valid" or "same".

    Raises:
        OpError: another word; or "same" with a stride.
    """
    if not isinstance(padding, str):
        return tuple((p, p) for p in per_dim(padding, len(window), "padding"))
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding != "same":
        raise OpError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise OpError("padding='same' is not supported for strided convolutions")
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    return tuple((r // 2, r - r // 2) for r in reach)


def _check(dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    need_one_dtype("convolution", input, weight, bias)
    if groups < 1:
        raise OpError("non-positive groups is not supported")
    if weight.ndim != dims + 2:
        raise OpError(
            f"Expected {weight.ndim}-dimensional input for {weight.ndim}-dimensional weight "
            f"{list(weight.shape)}, but got {input.ndim}-dimensional input of size "
            f"{list(input.shape)} instead"
        )


def _check_steps(
    stride: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    if min(stride) < 1:
        raise OpError("non-positive stride is not supported")
    if min(dilation) < 1:
        raise OpError("dilation should be greater than zero")
    if min(padding) < 0:
        raise OpError("negative padding is not supported")


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    return y + beside_channels(bias, y.ndim)


def _convolve(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: _Size, padding: Any,
    dilation: _Size, groups: int,
) -> Tensor:  # fmt: skip
    need_dims(input, dims, f"conv{dims}d")
    _check(dims, input, weight, bias, groups)
    steps, spread = per_dim(stride, dims, "stride"), per_dim(dilation, dims, "dilation")
    pads = _pads(padding, tuple(weight.shape[2:]), steps, spread)
    _check_steps(steps, spread, tuple(p for pair in pads for p in pair))
    batched = input.ndim == dims + 2
    x = input if batched else input.unsqueeze(0)
    y = front.convolution(
        x, weight, stride=steps, padding=pads, dilation=spread, groups=int(groups)
    )
    y = _with_bias(y, bias)
    return y if batched else y.squeeze(0)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: Any = 0, dilation: _Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the cross-correlation of input[batch?, in, length] with weight[out, in/groups, k].

    Raises:
        OpError: shapes or options do not fit.
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: Any = 0, dilation: _Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the cross-correlation of input[batch?, in, h, w] with weight[out, in/groups, kh, kw].

    `padding` is a number, one per dim, "same" or "valid".

    Raises:
        OpError: shapes or options do not fit.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: Any = 0, dilation: _Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the cross-correlation of input[batch?, in, d, h, w] with weight over 3 dims.

    Raises:
        OpError: shapes or options do not fit.
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Return the 1-d convolution of input[length, batch, in] with weight[k, in, out]."""
    y = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return in_rows(y.permute(2, 0, 1))


def _transpose(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: _Size, padding: _Size,
    output_padding: _Size, groups: int, dilation: _Size,
) -> Tensor:  # fmt: skip
    need_dims(input, dims, f"conv_transpose{dims}d")
    _check(dims, input, weight, bias, groups)
    steps, spread = per_dim(stride, dims, "stride"), per_dim(dilation, dims, "dilation")
    pads = per_dim(padding, dims, "padding")
    _check_steps(steps, spread, pads)
    extra = per_dim(output_padding, dims, "output_padding")
    for more, step, far in zip(extra, steps, spread, strict=True):
        if more >= max(step, far):
            raise OpError(
                "output padding must be smaller than either stride or dilation, but got "
                f"output_padding: {more}, stride: {step}, dilation: {far}"
            )
    batched = input.ndim == dims + 2
    x = input if batched else input.unsqueeze(0)
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, s, p, d, k, more in zip(
            x.shape[2:], steps, pads, spread, weight.shape[2:], extra, strict=True
        )
    )
    if any(n < 1 for n in size):
        raise OpError(
            f"Given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {list(size)}. Output size is too small"
        )
    # Output padding is less padding after: the convolution of such an output gives the input back.
    around = tuple((p, p - more) for p, more in zip(pads, extra, strict=True))
    y = front.convolution_input_grad(
        x, weight, size=size, stride=steps, padding=around, dilation=spread, groups=int(groups)
    )
    y = _with_bias(y, bias)
    return y if batched else y.squeeze(0)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: _Size = 0, output_padding: _Size = 0, groups: int = 1, dilation: _Size = 1,
) -> Tensor:  # fmt: skip
    """Return the adjoint of conv1d: weight[in, out/groups, k].

    Raises:
        OpError: shapes or options do not fit.
    """
    return _transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: _Size = 0, output_padding: _Size = 0, groups: int = 1, dilation: _Size = 1,
) -> Tensor:  # fmt: skip
    """Return the adjoint of conv2d: weight[in, out/groups, kh, kw].

    Raises:
        OpError: shapes or options do not fit.
    """
    return _transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: _Size = 1,
    padding: _Size = 0, output_padding: _Size = 0, groups: int = 1, dilation: _Size = 1,
) -> Tensor:  # fmt: skip
    """Return the adjoint of conv3d: weight[in, out/groups, kd, kh, kw].

    Raises:
        OpError: shapes or options do not fit.
    """
    return _transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
