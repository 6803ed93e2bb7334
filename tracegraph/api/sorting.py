"""Sorting and searching, with PyTorch's argument forms."""

from __future__ import annotations

from typing import Any

from tracegraph import return_types
from tracegraph.api.indexing import nonzero_rows
from tracegraph.api.pointwise import eq, isnan, where
from tracegraph.api.promotion import cast, counting, filled, result_type, scalar_tensor
from tracegraph.api.selection import narrow
from tracegraph.api.shape import cat, flatten, movedim, reshape, select, squeeze
from tracegraph.dims.symint import larger, smaller
from tracegraph.dtypes import bool_, int32, int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.tensor_type import wrap_dim


def _rows(x: Tensor) -> Tensor:
    return x if x.ndim else reshape(x, (1,))


def _sorted(x: Tensor, dim: int, descending: bool) -> Any:
    place = wrap_dim(dim, x.ndim)
    values, indices = front.sort(_rows(x), dim=place, descending=bool(descending))
    return (values, indices) if x.ndim else (reshape(values, ()), reshape(indices, ()))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Return (values, indices) in order along a dim; NaN is the largest. Always stable."""
    return return_types.sort(*_sorted(input, dim, descending))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return where the elements in order along a dim stand."""
    return _sorted(input, dim, descending)[1]


def msort(input: Tensor) -> Tensor:
    """Return the values in order along the first dim."""
    return _sorted(input, 0, False)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Return (values, indices) of the k largest (or smallest) elements along a dim, in order.

    Raises:
        OpError: the dim has fewer than k elements.
    """
    place = wrap_dim(dim, input.ndim)
    x = _rows(input)
    if not 0 <= k <= x.shape[place]:
        raise OpError("selected index k out of range")
    values, indices = front.topk(x, k=int(k), dim=place, largest=bool(largest))
    if not input.ndim and k:
        values, indices = reshape(values, ()), reshape(indices, ())
    return return_types.topk(values, indices)


def _place_in_order(
    x: Tensor, dim: int, keepdim: bool, place: Any, order: Any = None
) -> tuple[Tensor, Tensor]:
    """Return value and index of the element at a place (a number or a tensor) of the order."""
    rows = _rows(x)
    values, indices = order or front.sort(rows, dim=dim, descending=False)
    if isinstance(place, Tensor):
        value, index = (front.gather(t, place, dim=dim) for t in (values, indices))
    else:
        value, index = (front.copy(narrow(t, dim, place, 1)) for t in (values, indices))
    if not keepdim or not x.ndim:
        value, index = squeeze(value, dim), squeeze(index, dim)
    return value, index


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """Return (value, index) of the k-th smallest element along a dim.

    Raises:
        OpError: the dim has fewer than k elements.
    """
    place = wrap_dim(dim, input.ndim)
    if not 1 <= k <= (input.shape[place] if input.ndim else 1):
        raise OpError("kthvalue(): selected number k out of range for dimension " + str(dim))
    return return_types.kthvalue(*_place_in_order(input, place, keepdim, k - 1))


def _check_median(name: str, x: Tensor, dim: int) -> None:
    if x.ndim and x.shape[dim] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the middle element, the lower of two; along a dim (value, index). NaN wins."""
    if dim is None:
        return front.median(input, skip_nan=False)
    place = wrap_dim(dim, input.ndim)
    _check_median("median", input, place)
    x = _rows(input)
    size = x.shape[place]
    middle = (size - 1) // 2
    if not type_of(x).dtype.is_floating_point:
        return return_types.median(*_place_in_order(input, place, keepdim, middle))
    known = size - front.sum(cast(isnan(x), int64), dim=(place,), keepdim=True)
    at = where(eq(known, size), middle, known)
    return return_types.median(*_place_in_order(input, place, keepdim, at))


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the middle one of the elements that are not NaN; along a dim (value, index)."""
    if dim is None:
        return front.median(input, skip_nan=True)
    place = wrap_dim(dim, input.ndim)
    _check_median("nanmedian", input, place)
    x = _rows(input)
    known = x.shape[place] - front.sum(cast(isnan(x), int64), dim=(place,), keepdim=True)
    at = where(known > 0, (known - 1) // 2, 0)
    return return_types.nanmedian(*_place_in_order(input, place, keepdim, at))


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """Return (value, index) of the most frequent element along a dim, the smallest of several."""
    place = wrap_dim(dim, input.ndim)
    _check_median("mode", input, place)
    x = _rows(input)
    order = front.sort(x, dim=place, descending=False)
    size = x.shape[place]
    steps = reshape(counting(x, size), tuple(-1 if i == place else 1 for i in range(x.ndim)))
    if size > 1:
        values = order[0]
        later, before = narrow(values, place, 1, size - 1), narrow(values, place, 0, size - 1)
        starts = where(front.ne(later, before), narrow(steps, place, 1, size - 1), 0)
        first = filled(x, tuple(1 if i == place else n for i, n in enumerate(x.shape)), 0, int64)
        starts = front.cummax(front.cat(first, starts, dim=place), dim=place)[0]
        run = steps - starts
    else:
        run = filled(x, tuple(x.shape), 0, int64)
    best = front.argmax(run, dim=place, keepdim=True)
    return return_types.mode(*_place_in_order(input, place, keepdim, best, order))


# Searching.


def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return where each element would be put in a sorted sequence (one, or one per row)."""
    if side is not None and side not in ("left", "right"):
        raise OpError(f"side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise OpError("side and right can't be set to opposites, got side of left and right True")
    edges = sorted_sequence
    x = input if isinstance(input, Tensor) else scalar_tensor(input, result_type(edges, input))
    dtype = result_type(edges, x)
    edges, x = cast(edges, dtype), cast(x, dtype)
    if sorter is not None:
        edges = front.gather(edges, cast(sorter, int64), dim=edges.ndim - 1)
    if edges.ndim > 1 and edges.shape[:-1] != x.shape[:-1]:
        raise OpError(
            "boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but got {list(edges.shape)} and "
            f"{list(x.shape)}"
        )
    found = front.searchsorted(edges, x, right=bool(right or side == "right"))
    return cast(found, int32) if out_int32 else found


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """Return the bucket between sorted boundaries that each element falls in."""
    if boundaries.ndim != 1:
        raise OpError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element is one of the test elements."""
    first, second = (
        x if isinstance(x, Tensor) else scalar_tensor(x, result_type(x))
        for x in (elements, test_elements)
    )
    dtype = result_type(first, second)
    column = reshape(cast(first, dtype), (*first.shape, 1))
    same = eq(column, reshape(cast(second, dtype), (-1,)))
    found = front.any(same, dim=(first.ndim,), keepdim=False)
    return ~found if invert else found


# Distinct elements: the sizes of the results are data.


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False,
    return_counts: bool = False, dim: int | None = None,
) -> Any:  # fmt: skip
    """Return the distinct elements in order (or slices of a dim), where each went, and counts."""
    place = None if dim is None else wrap_dim(dim, input.ndim)
    values, inverse, counts = front.unique(input, dim=place, count=-1)
    return _chosen(values, inverse, counts, return_inverse, return_counts)


def _chosen(values: Any, inverse: Any, counts: Any, with_inverse: bool, with_counts: bool) -> Any:
    results = (values, *([inverse] * with_inverse), *([counts] * with_counts))
    return results if len(results) > 1 else values


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """Return the elements (or slices of a dim) that differ from the one before, and so on."""
    place = 0 if dim is None else wrap_dim(dim, input.ndim)
    x = reshape(input, (-1,)) if dim is None else input
    size = x.shape[place]
    flat = flatten(movedim(x, place, 0), 1) if x.ndim > 1 else reshape(x, (-1, 1))
    one, pairs = smaller(size, 1), larger(size - 1, 0)
    differs = front.ne(narrow(flat, 0, one, pairs), narrow(flat, 0, 0, pairs))
    first = filled(x, (one,), True, bool_)
    starts = cat([first, front.any(differs, dim=(1,), keepdim=False)], 0)
    where_new = select(nonzero_rows(starts), 1, 0)
    values = front.index(x, where_new, dims=(place,))
    inverse = front.cumsum(cast(starts, int64), dim=0) - 1
    ends = cat([narrow(where_new, 0, one, larger(where_new.shape[0] - 1, 0)),
                filled(x, (one,), size, int64)], 0)  # fmt: skip
    shape = input.shape if dim is None else (size,)
    return _chosen(values, reshape(inverse, shape), ends - where_new, return_inverse, return_counts)
