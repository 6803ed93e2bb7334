"""Sliding windows: sizes, and views of arrays, that convolution, pooling and unfold share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tracegraph.errors import OpError
from tracegraph.tensor_type import Shape

Pads = tuple[tuple[int, int], ...]


def window_count(size: int, window: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Return how many whole windows fit in a padded dim (0 or less: none)."""
    return (size + sum(pads) - dilation * (window - 1) - 1) // stride + 1


def counts(sizes: Shape, window: Shape, stride: Shape, pads: Pads, dilation: Shape) -> Shape:
    """Return the windows per dim.

    Raises:
        OpError: a window is larger than the padded dim.
    """
    found = tuple(map(window_count, sizes, window, stride, pads, dilation))
    if any(n < 1 for n in found):
        padded = " x ".join(str(n + sum(p)) for n, p in zip(sizes, pads, strict=True))
        spans = " x ".join(str(d * (k - 1) + 1) for k, d in zip(window, dilation, strict=True))
        raise OpError(
            f"Calculated padded input size per channel: ({padded}). Kernel size: ({spans}). "
            "Kernel size can't be greater than actual input size"
        )
    return found


def padded(xp: Any, x: Any, pads: Pads) -> Any:
    """Return `x` with zeros around its last dims (cut where a pad is negative)."""
    if not any(map(any, pads)):
        return x
    lead = x.ndim - len(pads)
    shape = x.shape[:lead] + tuple(
        n + a + b for n, (a, b) in zip(x.shape[lead:], pads, strict=True)
    )
    out = xp.zeros(shape, dtype=x.dtype)
    into, source = [slice(None)] * lead, [slice(None)] * lead
    for n, (a, b) in zip(x.shape[lead:], pads, strict=True):
        into.append(slice(max(a, 0), max(a, 0) + n + min(a, 0) + min(b, 0)))
        source.append(slice(max(-a, 0), n + min(b, 0)))
    out[tuple(into)] = x[tuple(source)]
    return out


def window_view(
    xp: Any, x: Any, window: Shape, stride: Shape, dilation: Shape, count: Shape
) -> Any:
    """Return the view [*lead, *window, *count] of all windows over the last dims of `x`."""
    lead = x.ndim - len(window)
    steps = x.strides[lead:]
    taps = tuple(s * d for s, d in zip(steps, dilation, strict=True))
    moves = tuple(s * m for s, m in zip(steps, stride, strict=True))
    return xp.lib.stride_tricks.as_strided(
        x, (*x.shape[:lead], *window, *count), (*x.strides[:lead], *taps, *moves)
    )


def tap_slices(
    window: Shape, stride: Shape, dilation: Shape, count: Shape, start: Shape
) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
    """Yield each tap with the slices of a padded array that it meets in `count` windows.

    Windows are counted from `start`.
    """
    for tap in itertools.product(*map(range, window)):
        first = [t * d + s * a for t, d, s, a in zip(tap, dilation, stride, start, strict=True)]
        yield (
            tap,
            tuple(
                slice(f, f + (n - 1) * s + 1, s)
                for f, n, s in zip(first, count, stride, strict=True)
            ),
        )


def tap_range(size: int, count: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Return (windows, elements) that a tap at `offset` meets inside an unpadded dim of `size`."""
    low = max(0, -(offset // stride))
    high = max(low, min(count, (size - 1 - offset) // stride + 1))
    first = offset + low * stride
    last = first + (high - low - 1) * stride + 1
    return slice(low, high), slice(first, max(last, first), stride)
