"""Sliding windows: sizes and views of arrays, which convolution and pooling share, and unfold/fold.

`unfold_windows` is an array as all of its windows, `fold_windows` its adjoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tracegraph.errors import OpError
from tracegraph.ops.core import COMPLEX, case, define, in_float32
from tracegraph.tensor_type import Shape, TensorType

Pads = tuple[tuple[int, int], ...]


def window_count(size: int, window: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Return how many whole windows fit in a padded dim (0 or less: none)."""
    return (size + sum(pads) - dilation * (window - 1) - 1) // stride + 1


def counts(sizes: Shape, window: Shape, stride: Shape, pads: Pads, dilation: Shape) -> Shape:
    """Return the windows per dim.

    Raises:
        OpError: a window is larger than the padded dim.
    """
    if any(n < 1 for n in (*window, *stride, *dilation)):
        raise OpError(f"window {window}, stride {stride} and dilation {dilation} must be positive")
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


def _pads(padding: Shape) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) for p in padding)


def _unfold_type(
    x: TensorType, *, window: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> TensorType:
    if x.ndim < len(window):
        raise OpError(f"cannot unfold {len(window)} dims of {x}")
    lead = x.ndim - len(window)
    count = counts(x.shape[lead:], window, stride, _pads(padding), dilation)
    return x.with_shape((*x.shape[:lead], *window, *count))


def _unfold(
    xp: Any, x: Any, *, window: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> Any:
    count = counts(x.shape[x.ndim - len(window) :], window, stride, _pads(padding), dilation)
    wide = padded(xp, x, _pads(padding))
    return window_view(xp, wide, window, stride, dilation, count).copy()


def _fold_type(
    y: TensorType, *, size: Shape, window: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> TensorType:
    x = y.with_shape((*y.shape[: y.ndim - 2 * len(size)], *size))
    unfolded = _unfold_type(x, window=window, stride=stride, padding=padding, dilation=dilation)
    if unfolded != y:
        raise OpError(f"the windows of {x} are {unfolded}, not {y}")
    return x


def _fold(
    xp: Any, y: Any, *, size: Shape, window: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> Any:
    lead, count = y.shape[: y.ndim - 2 * len(size)], y.shape[y.ndim - len(size) :]
    wide = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    out = xp.zeros((*lead, *wide), dtype=y.dtype)
    every = (slice(None),) * len(lead)
    for tap, places in tap_slices(window, stride, dilation, count, (0,) * len(size)):
        out[(*every, *places)] += y[(*every, *tap)]
    inside = tuple(slice(p, p + n) for n, p in zip(size, padding, strict=True))
    return xp.ascontiguousarray(out[(*every, *inside)])


_UNFOLD = {"window": (2, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (1, 2)}

unfold = define(
    "unfold_windows(x) -> y", type=_unfold_type, kernel=_unfold,
    vjp=(lambda m, g, x_type, window, stride, padding, dilation: m.fold_windows(
        g, size=x_type.shape[x_type.ndim - len(window) :], window=window, stride=stride,
        padding=padding, dilation=dilation),),
    traits=(COMPLEX,), sample=(case((2, 3, 5), **_UNFOLD), case((4, 6), **_UNFOLD)),
    doc="All windows over the last dims: [*lead, *window, *count]. Padding is zero.",
)  # fmt: skip

fold = define(
    "fold_windows(y) -> x", type=_fold_type, kernel=in_float32(_fold),
    vjp=(lambda m, g, window, stride, padding, dilation: m.unfold_windows(
        g, window=window, stride=stride, padding=padding, dilation=dilation),),
    traits=(COMPLEX,), sample=(case((2, 2, 2, 4, 2), size=(3, 5), **_UNFOLD),
            case((2, 2, 5, 2), size=(4, 6), **_UNFOLD)),
    doc="The adjoint of unfold_windows: overlapping windows are added.",
)  # fmt: skip
