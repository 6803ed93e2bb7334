"""Means over windows of the last dims: sums of a box, dim by dim, over the elements counted."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import case, define, in_float32, row_major
from tracegraph.ops.pooling import along, max_type, pooled_size
from tracegraph.ops.windows import tap_range
from tracegraph.tensor_type import Shape, TensorType


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
    return max_type(
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


def divisor_of(
    xp: Any, dtype: Any, sizes: Shape, count: Shape, *,
    window: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> Any:  # fmt: skip
    """Return what window sums are divided by: a number, or an array over the windows.

    It is `divisor`, or the elements counted, which is a product over dims.
    """
    if divisor is not None:
        return divisor
    total: Any = 1
    for i, items in enumerate(zip(sizes, count, window, stride, padding, strict=True)):
        part = _divisors(xp, *items, count_include_pad)
        if not isinstance(part, int):
            part = part.astype(dtype).reshape((-1,) + (1,) * (len(sizes) - 1 - i))
        total = total * part
    return total


def _sum_along(
    xp: Any, x: Any, axis: int, count: int, window: int, stride: int, padding: int
) -> Any:
    size = x.shape[axis]
    if count == 1 and padding == 0 and window <= size:
        return x[along(x.ndim, axis, slice(0, window))].sum(axis=axis, keepdims=True)
    if window == 1 and stride == 1:
        return x
    out = xp.zeros((*x.shape[:axis], count, *x.shape[axis + 1 :]), dtype=x.dtype)
    for tap in range(window):
        into, source = tap_range(size, count, stride, tap - padding)
        out[along(x.ndim, axis, into)] += x[along(x.ndim, axis, source)]
    return out


def _avg_pool(xp: Any, x: Any, **attrs: Any) -> Any:
    window, stride, padding = attrs["window"], attrs["stride"], attrs["padding"]
    lead, ceil = x.ndim - len(window), (attrs["ceil_mode"],) * len(window)
    sizes, ones = x.shape[lead:], (1,) * len(window)
    count = tuple(map(pooled_size, sizes, window, stride, padding, ones, ceil))
    for i, items in enumerate(zip(count, window, stride, padding, strict=True)):
        x = _sum_along(xp, x, lead + i, *items)
    return x / divisor_of(xp, x.dtype, sizes, count, **attrs)


def _spread_along(
    xp: Any, g: Any, axis: int, size: int, window: int, stride: int, padding: int
) -> Any:
    if window == 1 and stride == 1:
        return g
    out = xp.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), dtype=g.dtype)
    for tap in range(window):
        source, into = tap_range(size, g.shape[axis], stride, tap - padding)
        out[along(g.ndim, axis, into)] += g[along(g.ndim, axis, source)]
    return out


def _avg_grad(xp: Any, g: Any, *, size: Shape, **attrs: Any) -> Any:
    window, lead = attrs["window"], g.ndim - len(size)
    g = g / divisor_of(xp, g.dtype, size, g.shape[lead:], **attrs)
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
    "avg_pool(x) -> y", type=_avg_type, kernel=row_major(in_float32(_avg_pool)), vjp=(_avg_vjp,),
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
