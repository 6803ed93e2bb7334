"""Sorting and searching. NaN counts as larger than every number; equal elements keep order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.dtypes import REALS, int64
from tracegraph.errors import DTypeError, GuardError, OpError
from tracegraph.ops.core import (
    COUNTED,
    LAID_ALIKE,
    NOT_DIFFERENTIABLE,
    REDUCTION,
    Spec,
    case,
    define,
    in_float32,
    laid_alike,
    row_major,
)
from tracegraph.ops.reduction import cut
from tracegraph.tensor_type import TensorType


def _sort_type(x: TensorType, *, dim: int, descending: bool) -> tuple[TensorType, TensorType]:
    x.check_dims(dim)
    if x.dtype not in REALS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x, x.with_dtype(int64)


def _sort(xp: Any, x: Any, *, dim: int, descending: bool) -> tuple[Any, Any]:
    if descending:
        back = xp.argsort(xp.flip(x, dim), axis=dim, kind="stable")
        places = xp.flip(x.shape[dim] - 1 - back, dim)
    else:
        places = xp.argsort(x, axis=dim, kind="stable")
    return xp.take_along_axis(x, places, axis=dim), places.astype(xp.int64)


def _placed_vjp(m: Any, g: Any, indices: Any, x_type: TensorType, dim: int) -> Any:
    """The gradient put back where the values came from."""
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return m.scatter(zeros, indices, g[0], dim=dim)


sort = define(
    "sort(x) -> values, indices", type=_sort_type, kernel=laid_alike(in_float32(_sort)),
    vjp=(_placed_vjp,),
    traits=(LAID_ALIKE,),
    sample=(case((3, 4), dim=1, descending=False), case((3, 4), dim=0, descending=True),
            case((0, 2), dim=0, descending=True)),
    doc="Elements in order along a dim, and where they came from; stable.",
)  # fmt: skip


def _topk_type(x: TensorType, *, k: int, dim: int, largest: bool) -> tuple[TensorType, TensorType]:
    if not 0 <= k <= x.shape[dim]:
        raise OpError(f"selected index k out of range: {k} of dim {dim} in {x}")
    shape = tuple(k if i == dim else n for i, n in enumerate(x.shape))
    return x.with_shape(shape), TensorType(int64, shape)


def _topk(m: Any, x: Any, *, k: int, dim: int, largest: bool) -> Any:
    values, indices = m.sort(x, dim=dim, descending=largest)
    return cut(m, values, dim, 0, k), cut(m, indices, dim, 0, k)


def _topk_kernel(xp: Any, x: Any, *, k: int, dim: int, largest: bool) -> Any:
    first = tuple(slice(k) if i == dim else slice(None) for i in range(x.ndim))
    return tuple(a[first] for a in _sort(xp, x, dim=dim, descending=largest))


topk = define(
    "topk(x) -> values, indices", type=_topk_type, decompose=_topk,
    kernel=row_major(in_float32(_topk_kernel)), vjp=(_placed_vjp,),
    sample=(case((3, 5), k=2, dim=1, largest=True), case((4, 2), k=3, dim=0, largest=False),
            case((3,), k=0, dim=0, largest=True)),
    doc="The k largest or smallest elements along a dim, in order, the first of equal ones first.",
)  # fmt: skip


def _median_type(x: TensorType, *, skip_nan: bool) -> TensorType:
    return x.with_shape(())


def _median_kernel(xp: Any, x: Any, *, skip_nan: bool) -> Any:
    flat = xp.sort(x.reshape(-1))
    if flat.size == 0:
        if x.dtype.kind != "f":
            raise OpError("median() operation does not have an identity for an empty integer")
        return xp.asarray(math.nan, dtype=x.dtype)
    if x.dtype.kind != "f":
        return flat[(flat.size - 1) // 2]
    known = flat.size - xp.isnan(flat).sum()
    middle = xp.maximum(known - 1, 0) // 2
    last = flat.size - 1
    return flat[middle if skip_nan else xp.where(known == flat.size, middle, last)]


def _median_vjp(m: Any, g: Any, x: Any, y: Any, x_type: TensorType) -> Any:
    """Shared evenly among the elements that equal the median, as PyTorch does."""
    same = m.logical_or(m.eq(x, y), m.logical_and(m.isnan(x), m.isnan(y)))
    hit = m.cast(same, dtype=x_type.dtype)
    return hit * (g / m.sum(hit, dim=tuple(range(x_type.ndim)), keepdim=False))


median = define(
    "median(x) -> y", type=_median_type, kernel=in_float32(_median_kernel), vjp=(_median_vjp,),
    traits=(REDUCTION,), sample=(case((3, 3), skip_nan=False), case((4,), skip_nan=True)),
    doc="The middle element of all, the lower of two; NaN if there is one and it is not skipped.",
)  # fmt: skip


def _searchsorted_type(edges: TensorType, x: TensorType, *, right: bool) -> TensorType:
    if edges.dtype is not x.dtype:
        raise DTypeError(f"searchsorted needs one dtype, got {edges.dtype} and {x.dtype}")
    if edges.ndim != 1 and edges.shape[:-1] != x.shape[:-1]:
        raise OpError(f"boundaries {edges} must be 1-D or have the leading dims of {x}")
    return x.with_dtype(int64)


def _searchsorted(xp: Any, edges: Any, x: Any, *, right: bool) -> Any:
    side = "right" if right else "left"
    if edges.ndim == 1:
        return xp.searchsorted(edges, x, side=side).astype(xp.int64).reshape(x.shape)
    count = math.prod(x.shape[:-1])
    rows, wanted = edges.reshape(count, edges.shape[-1]), x.reshape(count, x.shape[-1])
    found = [xp.searchsorted(r, w, side=side) for r, w in zip(rows, wanted, strict=True)]
    if not found:
        return xp.zeros(x.shape, dtype=xp.int64)
    return xp.stack(found).astype(xp.int64).reshape(x.shape)


searchsorted = define(
    "searchsorted(edges, x) -> y", type=_searchsorted_type, kernel=in_float32(_searchsorted),
    vjp=NOT_DIFFERENTIABLE,
    sample=(case(Spec((1,), 0, 1), (2, 3), right=False),
            case(Spec((2, 1), 0, 1), (2, 3), right=True)),
    doc="Where each element would be put in sorted edges: before equal ones, or behind (right).",
)  # fmt: skip


def _unique_type(x: TensorType, *, dim: int | None, count: int) -> tuple[TensorType, ...]:
    if count < 0:
        raise OpError("the shape of unique depends on data and has no static type")
    counts = TensorType(int64, (count,))
    if dim is None:
        return x.with_shape((count,)), TensorType(int64, x.shape), counts
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :])
    return x.with_shape(shape), TensorType(int64, (x.shape[dim],)), counts


def _unique(xp: Any, x: Any, *, dim: int | None, count: int) -> tuple[Any, Any, Any]:
    if xp.__name__ != "numpy" and dim is not None and x.ndim > 1:
        # CuPy compares slices one by one from Python: minutes where the host takes milliseconds.
        values, inverse, counts = _unique(np, x.get(), dim=dim, count=count)
        return xp.asarray(values), xp.asarray(inverse), xp.asarray(counts)
    options = {"return_inverse": True, "return_counts": True, "axis": dim}
    if dim is None or x.ndim == 1:
        options["equal_nan"] = False
    values, inverse, counts = xp.unique(x, **options)
    if count not in (-1, len(counts)):
        raise GuardError(
            f"there are {len(counts)} distinct elements, and the trace was made where there were "
            f"{count}: sizes that follow from data are fixed in a graph"
        )
    shape = x.shape if dim is None else (x.shape[dim],)
    return values, inverse.reshape(shape).astype(xp.int64), counts.astype(xp.int64)


unique = define(
    "unique(x) -> values, inverse, counts", type=_unique_type, kernel=in_float32(_unique),
    vjp=NOT_DIFFERENTIABLE, traits=(COUNTED,),
    sample=(case((2, 3), dim=None, count=6), case((4, 2), dim=0, count=4)),
    doc="Sorted distinct elements (or slices of a dim), where each went, how often each stands.",
)  # fmt: skip
