"""Borders, windows, and channels traded for space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.rearrangement import constant_pad_nd
from tracegraph.api.shape import cat, slice_dim
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import clone, in_rows
from tracegraph.eager.storage import ROWS
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.functional.support import count, per_dim


def _reflected(x: Tensor, dim: int, before: int, after: int) -> list[Tensor]:
    size = x.shape[dim]
    if before >= size or after >= size:
        raise OpError(
            f"Padding size should be less than the corresponding input dimension, but got: padding "
            f"({before}, {after}) at dimension {dim} of input {list(x.shape)}"
        )
    first = front.flip(slice_dim(x, dim, 1, before + 1), dims=(dim,))
    last = front.flip(slice_dim(x, dim, size - 1 - after, size - 1), dims=(dim,))
    return [first, x, last]


def _replicated(x: Tensor, dim: int, before: int, after: int) -> list[Tensor]:
    size = x.shape[dim]
    shape = list(x.shape)
    pieces = []
    for place, width in ((0, before), (size - 1, after)):
        shape[dim] = width
        pieces.append(slice_dim(x, dim, place, place + 1).expand(shape))
    return [pieces[0], x, pieces[1]]


def _wrapped(x: Tensor, dim: int, before: int, after: int) -> list[Tensor]:
    size = x.shape[dim]
    if before > size or after > size:
        raise OpError("Padding value causes wrapping around more than once.")
    return [slice_dim(x, dim, size - before, size), x, slice_dim(x, dim, 0, after)]


_BORDERS = {"reflect": _reflected, "replicate": _replicated, "circular": _wrapped}


def _bordered(x: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    """Add a border along one dim and cut what negative pads cut: first in a circle, else last."""
    cut = [("cut", max(-before, 0), max(-after, 0))]
    grow = [(mode, max(before, 0), max(after, 0))]
    for step, front_width, back_width in cut + grow if mode == "circular" else grow + cut:
        if front_width == back_width == 0:
            continue
        if step != "cut":
            x = cat(_BORDERS[mode](x, dim, front_width, back_width), dim)
            continue
        stop = x.shape[dim] - back_width
        if stop < front_width:
            raise OpError(
                f"The input size {x.shape[dim]}, plus negative padding {-front_width} and "
                f"{-back_width}, resulted in a negative output size"
            )
        x = slice_dim(x, dim, front_width, stop)
    return x


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Return the input with a border: `pad` is (before, after) of the last dim, then the next.

    Negative numbers cut. `mode` is "constant" (with `value`), "reflect" (without the edge),
    "replicate" or "circular".

    Raises:
        OpError: an odd number of pads, too many, or a border that the input is too small for.
        NotImplementedError: no such mode.
    """
    if mode == "constant":
        return constant_pad_nd(input, pad, 0 if value is None else value)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise OpError(f"Padding length must be even and at most {2 * input.ndim}, got {len(pad)}")
    if mode not in _BORDERS:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value not in (None, 0):
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    x, last = input, input.ndim - 1
    for i in reversed(range(len(pad) // 2)):
        x = _bordered(x, last - i, int(pad[2 * i]), int(pad[2 * i + 1]), mode)
    return in_rows(x) if max(map(int, pad), default=0) > 0 else clone(x, ROWS)


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Return windows of input[batch?, channel, h, w] as columns [batch?, channel·kh·kw, count].

    Raises:
        OpError: sizes do not fit.
    """
    if input.ndim not in (3, 4):
        raise OpError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(input.shape)}"
        )
    names = ("kernel_size", "stride", "padding", "dilation")
    window, steps, pads, spread = (
        per_dim(v, 2, name)
        for v, name in zip((kernel_size, stride, padding, dilation), names, strict=True)
    )
    y = front.unfold_windows(input, window=window, stride=steps, padding=pads, dilation=spread)
    rows = input.shape[-3] * count(window)
    return y.reshape(*input.shape[:-3], rows, count(y.shape[-2:]))


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Tensor:  # fmt: skip
    """Return columns [batch?, channel·kh·kw, count] added up as windows of [batch?, channel, h, w].

    Raises:
        OpError: sizes do not fit.
    """
    if input.ndim not in (2, 3):
        raise OpError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and "
            f"non-zero dimensions for input, but got: {list(input.shape)}"
        )
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    size, window, steps, pads, spread = (
        per_dim(v, 2, name)
        for v, name in zip(
            (output_size, kernel_size, stride, padding, dilation), names, strict=True
        )
    )
    grid = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, window, steps, pads, spread, strict=True)
    )
    rows, columns = input.shape[-2:]
    if rows % count(window) or columns != count(grid):
        raise OpError(
            f"Given output_size={size}, kernel_size={window}, dilation={spread}, padding={pads}, "
            f"stride={steps}, expected size of input's dimension 2 to match the calculated number "
            f"of sliding blocks {grid[0]} * {grid[1]} = {count(grid)}, but got input.size(2)="
            f"{columns}."
        )
    lead = (*input.shape[:-2], rows // count(window))
    windows = input.reshape(*lead, *window, *grid)
    return front.fold_windows(
        windows, size=size, window=window, stride=steps, padding=pads, dilation=spread
    )


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Return [..., c·r², h, w] as [..., c, h·r, w·r]. Shi et al. 2016, arXiv:1609.05158.

    Raises:
        OpError: the channels cannot be divided by r².
    """
    if input.ndim < 3:
        raise OpError(
            "pixel_shuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.ndim} dimension(s)"
        )
    r = upscale_factor
    *lead, channels, height, width = input.shape
    if r < 1 or channels % (r * r):
        raise OpError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}"
        )
    if r == 1:
        return clone(input, ROWS)
    n = len(lead)
    y = input.reshape(*lead, channels // (r * r), r, r, height, width)
    y = y.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return y.reshape(*lead, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Return [..., c, h·r, w·r] as [..., c·r², h, w], the inverse of pixel_shuffle.

    Raises:
        OpError: height or width cannot be divided by r.
    """
    if input.ndim < 3:
        raise OpError(
            "pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.ndim} dimension(s)"
        )
    r = downscale_factor
    *lead, channels, height, width = input.shape
    if r < 1 or height % r or width % r:
        raise OpError(
            f"pixel_unshuffle expects height and width to be divisible by downscale_factor, but "
            f"input.size(-2)={height} and input.size(-1)={width} are not divisible by {r}"
        )
    if r == 1:
        return clone(input, ROWS)
    n = len(lead)
    y = input.reshape(*lead, channels, height // r, r, width // r, r)
    y = y.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return y.reshape(*lead, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Return [batch, g·c, ...] with channel order c-major instead of g-major. arXiv:1707.01083.

    Raises:
        OpError: the channels cannot be divided into groups.
    """
    if input.ndim < 3:
        raise OpError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes "
            f"{list(input.shape)}"
        )
    batch, channels, *space = input.shape
    if groups < 1 or channels % groups:
        raise OpError(
            "Number of channels must be divisible by groups. Got "
            f"{channels} channels and {groups} groups."
        )
    y = input.reshape(batch, groups, channels // groups, *space)
    return y.transpose(1, 2).reshape(input.shape)


native_channel_shuffle = channel_shuffle
