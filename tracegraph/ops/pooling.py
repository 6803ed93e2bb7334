"""Pooling over the last dims: sizes, and maxima.

`window`, `stride`, `padding` and `dilation` have one item per pooled dim; all dims before are
batch. Maxima of a box are taken dim by dim, with one shifted pass per tap.
"""

from __future__ import annotations

import itertools
from typing import Any

from tracegraph.dtypes import NUMBERS, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import NOT_DIFFERENTIABLE, Spec, case, define, in_float32
from tracegraph.ops.gathering import added_along
from tracegraph.ops.windows import tap_range
from tracegraph.tensor_type import Shape, TensorType


def pooled_size(
    size: int, window: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the windows in a dim; with `ceil_mode` also a last one that starts inside.

    Raises:
        OpError: there would be none, or the padding exceeds half of the window.
    """
    reach = dilation * (window - 1) + 1
    if window < 1 or stride < 1 or dilation < 1:
        raise OpError("kernel size, stride and dilation should be greater than zero")
    if not 0 <= padding <= reach // 2:
        raise OpError(
            "pad should be at most half of effective kernel size, but got "
            f"pad={padding}, kernel_size={window} and dilation={dilation}"
        )
    room = size + 2 * padding - reach
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise OpError(f"Output size is too small: a dim of size {size} has {count} windows")
    return count


def _check(x: TensorType, window: Shape) -> None:
    if x.dtype not in NUMBERS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < len(window):
        raise OpError(f"cannot pool {len(window)} dims of {x}")


def max_type(
    x: TensorType, *,
    window: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
) -> TensorType:  # fmt: skip
    """Return what pooling x gives."""
    _check(x, window)
    ceil = (ceil_mode,) * len(window)
    sizes = x.shape[-len(window) :]
    count = map(pooled_size, sizes, window, stride, padding, dilation, ceil)
    return x.with_shape((*x.shape[: -len(window)], *count))


def along(ndim: int, axis: int, item: slice) -> tuple[slice, ...]:
    """Return what cuts a slice out of one dim."""
    return tuple(item if i == axis else slice(None) for i in range(ndim))


def _lowest(xp: Any, dtype: Any) -> Any:
    return xp.iinfo(dtype).min if dtype.kind in "iu" else -xp.inf


def _max_along(
    xp: Any, x: Any, axis: int, window: int, stride: int, padding: int, dilation: int, count: int
) -> Any:
    """Maxima of windows along one dim; a tap meets a range of windows, the rest is padding."""
    size = x.shape[axis]
    if window == 1 and stride == 1 and padding == 0:
        return x
    out = None
    for tap in range(window):
        into, source = tap_range(size, count, stride, tap * dilation - padding)
        part = x[along(x.ndim, axis, source)]
        if out is None and part.shape[axis] == count:
            out = part if window == 1 else part.copy()
            continue
        if out is None:
            shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
            out = xp.full(shape, _lowest(xp, x.dtype), dtype=x.dtype)
        target = out[along(x.ndim, axis, into)]
        xp.maximum(target, part, out=target)
    return out


def _max_pool(
    xp: Any, x: Any, *,
    window: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
) -> Any:  # fmt: skip
    lead = x.ndim - len(window)
    for i, items in enumerate(zip(window, stride, padding, dilation, strict=True)):
        count = pooled_size(x.shape[lead + i], *items, ceil_mode)
        x = _max_along(xp, x, lead + i, *items, count)
    return x.copy() if set(window) == {1} else xp.ascontiguousarray(x)


def _indices_type(x: TensorType, **attrs: Any) -> TensorType:
    return max_type(x, **attrs).with_dtype(int64)


def _max_indices(
    xp: Any, x: Any, *,
    window: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
) -> Any:  # fmt: skip
    """The first tap, in row-major order, that equals the maximum; NaN counts as the largest."""
    best = _max_pool(
        xp, x, window=window, stride=stride, padding=padding, dilation=dilation,
        ceil_mode=ceil_mode,
    )  # fmt: skip
    lead, nan = x.ndim - len(window), xp.isnan(best).any() if x.dtype.kind == "f" else False
    sizes, count = x.shape[lead:], best.shape[lead:]
    # The number of a tap, where it hits, is put in by arithmetic: a choice costs a branch each.
    kind = xp.int8 if _product(window) < 128 else xp.int32
    found = xp.zeros(best.shape, dtype=kind)
    for number, tap in reversed(list(enumerate(itertools.product(*map(range, window))))):
        offsets = [t * d - p for t, d, p in zip(tap, dilation, padding, strict=True)]
        ranges = list(map(tap_range, sizes, count, stride, offsets))
        into = (..., *(r[0] for r in ranges))
        part = x[(..., *(r[1] for r in ranges))]
        hit = part == best[into]
        if nan:
            hit |= part != part
        known = found[into]
        known += (kind(number) - known) * hit.astype(kind)
    return _flat_positions(xp, found, sizes, window, stride, padding, dilation)


def _flat_positions(
    xp: Any, taps: Any, sizes: Shape, window: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> Any:
    """Turn tap numbers into row-major positions in the unpadded dims."""
    offsets, origin, step = xp.zeros(1, dtype=xp.int64), xp.zeros((), dtype=xp.int64), 1
    n = len(sizes)
    for i in reversed(range(n)):
        reach = xp.arange(window[i]) * (dilation[i] * step)
        offsets = (reach[:, None] + offsets).reshape(-1)
        first = (xp.arange(taps.shape[taps.ndim - n + i]) * stride[i] - padding[i]) * step
        origin = origin + first.reshape((-1,) + (1,) * (n - 1 - i))
        step *= sizes[i]
    return offsets[taps] + origin


def _product(shape: Shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _max_vjp(
    m: Any, g: Any, x: Any,
    window: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
) -> Any:  # fmt: skip
    places = m.max_pool_indices(
        x, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    return m.max_pool_grad(g, places, size=tuple(x.shape[len(x.shape) - len(window) :]))


def _rows(x: Any, size: Shape) -> Shape:
    """The shape of x with its last dims as one, and those before as one."""
    n = len(x.shape) - len(size)
    return (_product(x.shape[:n]), _product(x.shape[n:]))


def _max_grad_type(g: TensorType, places: TensorType, *, size: Shape) -> TensorType:
    if places.dtype is not int64 or places.shape != g.shape or g.ndim < len(size):
        raise OpError(f"{places} are not the places of {g} in the last dims, of sizes {size}")
    return g.with_shape((*g.shape[: g.ndim - len(size)], *size))


def _max_grad(xp: Any, g: Any, places: Any, *, size: Shape) -> Any:
    rows, parts = _rows(g, size)
    zeros = xp.zeros((rows, _product(size)), dtype=g.dtype)
    places, g_rows = places.reshape(rows, parts), g.reshape(rows, parts)
    added = added_along(xp, zeros, places, g_rows, dim=1)
    return added.reshape((*g.shape[: g.ndim - len(size)], *size))


def _max_grad_vjp(m: Any, g: Any, places: Any, size: Shape) -> Any:
    found = m.gather(
        m.reshape(g, shape=_rows(g, size)), m.reshape(places, shape=_rows(places, size)), dim=1
    )
    return m.reshape(found, shape=tuple(places.shape))


_LINE = {"window": (2,), "stride": (2,), "padding": (0,), "dilation": (1,), "ceil_mode": False}
_PLANE = {
    "window": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "ceil_mode": True,
}  # fmt: skip

max_pool = define(
    "max_pool(x) -> y", type=max_type, kernel=in_float32(_max_pool), vjp=(_max_vjp,),
    sample=(case((2, 3, 6), **_LINE), case((2, 5, 6), **_PLANE), case((0, 4), **_LINE)),
    doc="The largest element of each window; NaN wins, padding never does.",
)  # fmt: skip

max_pool_indices = define(
    "max_pool_indices(x) -> places",
    type=lambda x, *, window, stride, padding, dilation, ceil_mode: _indices_type(
        x, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode),
    kernel=in_float32(_max_indices), vjp=NOT_DIFFERENTIABLE,
    sample=(case((2, 3, 6), **_LINE), case((2, 5, 6), **_PLANE)),
    doc="Row-major position, in the pooled dims, of the first largest element of each window.",
)  # fmt: skip

max_pool_grad = define(
    "max_pool_grad(g, places) -> x", type=_max_grad_type, kernel=_max_grad,
    vjp=(_max_grad_vjp, None),
    sample=(case((2, 3), Spec((2, 3), 0, 6, "i"), size=(6,)),
            case((2, 2, 3), Spec((2, 2, 3), 0, 20, "i"), size=(4, 5))),
    doc="Zeros with g added at row-major positions in the last dims: the adjoint of max_pool.",
)  # fmt: skip


def _span(index: int, size: int, count: int) -> tuple[int, int]:
    """First and past-the-last element of one of `count` even windows over a dim."""
    return index * size // count, -(-(index + 1) * size // count)


def _adaptive_type(x: TensorType, *, size: Shape) -> TensorType:
    _check(x, size)
    if any(n < 1 for n in x.shape[-len(size) :]):
        raise OpError(
            f"Expected input to have non-zero size for non-batch dimensions, but input has sizes "
            f"{list(x.shape)}"
        )
    return x.with_shape((*x.shape[: -len(size)], *size))


def _adaptive_max_indices(xp: Any, x: Any, *, size: Shape) -> Any:
    lead = x.shape[: -len(size)]
    sizes = x.shape[-len(size) :]
    out = xp.empty((*lead, *size), dtype=xp.int64)
    for cell in itertools.product(*map(range, size)):
        spans = list(map(_span, cell, sizes, size))
        box = x[(..., *(slice(a, b) for a, b in spans))]
        place = box.reshape(*lead, -1).argmax(axis=-1)
        flat, step = xp.zeros_like(place), 1
        for (first, last), n in zip(reversed(spans), reversed(sizes), strict=True):
            place, at = xp.divmod(place, last - first)
            flat += (at + first) * step
            step *= n
        out[(..., *cell)] = flat
    return out


adaptive_max_indices = define(
    "adaptive_max_indices(x) -> places",
    type=lambda x, *, size: _adaptive_type(x, size=size).with_dtype(int64),
    kernel=in_float32(_adaptive_max_indices), vjp=NOT_DIFFERENTIABLE,
    sample=(case((2, 5, 7), size=(3, 2)), case((2, 4), size=(3,))),
    doc="Row-major position of the largest element of each of `size` even, overlapping windows.",
)  # fmt: skip
