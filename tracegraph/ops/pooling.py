"""Pooling over the last dims.

`window`, `stride`, `padding` and `dilation` have one item per pooled dim; all dims before are
batch. Maxima and sums of a box are taken dim by dim, with one shifted pass per tap.
"""

from __future__ import annotations

import itertools
from typing import Any

from tracegraph.dtypes import FLOATS, NUMBERS, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import NOT_DIFFERENTIABLE, case, define, in_float32
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


def _max_type(
    x: TensorType, *,
    window: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
) -> TensorType:  # fmt: skip
    _check(x, window)
    ceil = (ceil_mode,) * len(window)
    sizes = x.shape[-len(window) :]
    count = map(pooled_size, sizes, window, stride, padding, dilation, ceil)
    return x.with_shape((*x.shape[: -len(window)], *count))


def _at(ndim: int, axis: int, item: slice) -> tuple[slice, ...]:
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
        part = x[_at(x.ndim, axis, source)]
        if out is None and part.shape[axis] == count:
            out = part if window == 1 else part.copy()
            continue
        if out is None:
            shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
            out = xp.full(shape, _lowest(xp, x.dtype), dtype=x.dtype)
        target = out[_at(x.ndim, axis, into)]
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
    return _max_type(x, **attrs).with_dtype(int64)


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
    n = len(x.shape) - len(window)
    rows = _product(x.shape[:n])
    zeros = m.full(shape=(rows, _product(x.shape[n:])), value=0, dtype=x.dtype)
    flat = (rows, _product(places.shape[n:]))
    places, g = m.reshape(places, shape=flat), m.reshape(g, shape=flat)
    return m.reshape(m.scatter_add(zeros, places, g, dim=1), shape=tuple(x.shape))


_LINE = {"window": (2,), "stride": (2,), "padding": (0,), "dilation": (1,), "ceil_mode": False}
_PLANE = {
    "window": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "ceil_mode": True,
}  # fmt: skip

max_pool = define(
    "max_pool(x) -> y", type=_max_type, kernel=in_float32(_max_pool), vjp=(_max_vjp,),
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


def _adaptive_avg_type(x: TensorType, *, size: Shape) -> TensorType:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return _adaptive_type(x, size=size)


def _last(kind: TensorType, items: Shape) -> Shape:
    return kind.shape[kind.ndim - len(items) :]


def _avg_type(
    x: TensorType, *,
    window: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> TensorType:  # fmt: skip
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if divisor == 0:
        raise OpError("divisor must be not zero")
    return _max_type(
        x, window=window, stride=stride, padding=padding, dilation=(1,) * len(window),
        ceil_mode=ceil_mode,
    )  # fmt: skip


def _divisors(
    xp: Any, size: int, count: int, window: int, stride: int, padding: int, include_pad: bool
) -> Any:
    """How many elements each window along a dim counts, or one int if all are alike."""
    first = xp.arange(count) * stride - padding
    last = xp.minimum(first + window, size + padding)
    if not include_pad:
        first, last = xp.maximum(first, 0), xp.minimum(last, size)
    whole = padding == 0 or include_pad
    if whole and (count - 1) * stride + window <= size + 2 * padding:
        return window
    return last - first


def _divide(
    xp: Any, x: Any, sizes: Shape, count: Shape, *,
    window: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> Any:  # fmt: skip
    """Divide window sums by the elements counted, which is a product over dims."""
    if divisor is not None:
        return x / divisor
    total: Any = 1
    for i, items in enumerate(zip(sizes, count, window, stride, padding, strict=True)):
        part = _divisors(xp, *items, count_include_pad)
        if not isinstance(part, int):
            part = part.astype(x.dtype).reshape((-1,) + (1,) * (len(sizes) - 1 - i))
        total = total * part
    return x / total


def _sum_along(
    xp: Any, x: Any, axis: int, count: int, window: int, stride: int, padding: int
) -> Any:
    size = x.shape[axis]
    if count == 1 and padding == 0 and window <= size:
        return x[_at(x.ndim, axis, slice(0, window))].sum(axis=axis, keepdims=True)
    if window == 1 and stride == 1:
        return x
    out = xp.zeros((*x.shape[:axis], count, *x.shape[axis + 1 :]), dtype=x.dtype)
    for tap in range(window):
        into, source = tap_range(size, count, stride, tap - padding)
        out[_at(x.ndim, axis, into)] += x[_at(x.ndim, axis, source)]
    return out


def _avg_pool(xp: Any, x: Any, **attrs: Any) -> Any:
    window, stride, padding = attrs["window"], attrs["stride"], attrs["padding"]
    lead, ceil = x.ndim - len(window), (attrs["ceil_mode"],) * len(window)
    sizes, ones = x.shape[lead:], (1,) * len(window)
    count = tuple(map(pooled_size, sizes, window, stride, padding, ones, ceil))
    for i, items in enumerate(zip(count, window, stride, padding, strict=True)):
        x = _sum_along(xp, x, lead + i, *items)
    return _divide(xp, x, sizes, count, **attrs)


def _spread_along(
    xp: Any, g: Any, axis: int, size: int, window: int, stride: int, padding: int
) -> Any:
    if window == 1 and stride == 1:
        return g
    out = xp.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), dtype=g.dtype)
    for tap in range(window):
        source, into = tap_range(size, g.shape[axis], stride, tap - padding)
        out[_at(g.ndim, axis, into)] += g[_at(g.ndim, axis, source)]
    return out


def _avg_grad(xp: Any, g: Any, *, size: Shape, **attrs: Any) -> Any:
    window, lead = attrs["window"], g.ndim - len(size)
    g = _divide(xp, g, size, g.shape[lead:], **attrs)
    items = zip(size, window, attrs["stride"], attrs["padding"], strict=True)
    for i, (n, *rest) in enumerate(items):
        g = _spread_along(xp, g, lead + i, n, *rest)
    return g


def _avg_grad_type(
    g: TensorType, *,
    size: Shape, window: Shape, stride: Shape, padding: Shape, ceil_mode: bool,
    count_include_pad: bool, divisor: int | None,
) -> TensorType:  # fmt: skip
    x = g.with_shape((*g.shape[: -len(size)], *size))
    pooled = _avg_type(
        x, window=window, stride=stride, padding=padding, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, divisor=divisor,
    )  # fmt: skip
    if pooled != g:
        raise OpError(f"pooling {x} gives {pooled}, not {g}")
    return x


_AVG = {
    "window": (3, 2), "stride": (2, 1), "padding": (1, 0), "ceil_mode": True,
    "count_include_pad": False, "divisor": None,
}  # fmt: skip
_AVG_PADDED = {**_AVG, "ceil_mode": False, "count_include_pad": True}


def _avg_vjp(
    m: Any, g: Any, x_type: TensorType,
    window: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> Any:  # fmt: skip
    return m.avg_pool_grad(
        g, size=_last(x_type, window), window=window, stride=stride, padding=padding,
        ceil_mode=ceil_mode, count_include_pad=count_include_pad, divisor=divisor,
    )  # fmt: skip


def _avg_grad_vjp(
    m: Any, g: Any,
    window: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> Any:  # fmt: skip
    return m.avg_pool(
        g, window=window, stride=stride, padding=padding, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, divisor=divisor,
    )  # fmt: skip


avg_pool = define(
    "avg_pool(x) -> y", type=_avg_type, kernel=in_float32(_avg_pool), vjp=(_avg_vjp,),
    sample=(case((2, 5, 6), **_AVG), case((5, 6), **_AVG_PADDED),
            case((5, 6), **{**_AVG, "divisor": 3}), case((0, 5, 6), **_AVG)),
    doc="Sum of each window over how many elements it counts, or over `divisor`.",
)  # fmt: skip

avg_pool_grad = define(
    "avg_pool_grad(g) -> x", type=_avg_grad_type, kernel=in_float32(_avg_grad),
    vjp=(_avg_grad_vjp,),
    sample=(case((2, 3, 5), size=(5, 6), **_AVG), case((3, 5), size=(5, 6), **_AVG_PADDED)),
    doc="The adjoint of avg_pool.",
)  # fmt: skip
