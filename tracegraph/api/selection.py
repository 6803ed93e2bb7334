"""Choosing and placing elements by index tensors and masks, with PyTorch's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.api.indexing import (
    advanced_indices,
    check_index_dtype,
    slice_scatter_at,
)
from tracegraph.api.pointwise import maximum, where
from tracegraph.api.promotion import (
    cast,
    counting,
    filled,
    laid_as,
    scalar_tensor,
    scaled,
    single_dtype,
)
from tracegraph.api.shape import expand, reshape, slice_dim
from tracegraph.dims.shapes import alike, is_zero
from tracegraph.dims.symint import as_index
from tracegraph.dtypes import INT_KIND, bool_, int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import ROWS
from tracegraph.eager.tape import lasting
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.tensor_type import broadcast_shapes, wrap_dim


def as_row(x: Tensor) -> Tensor:
    """Return a 0-d tensor as a vector of one element."""
    return x if x._data.shape else reshape(x, (1,))


def _along(name: str, x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int, Tensor]:
    """Return tensor, dim and int64 index for a gather or scatter along a dim."""
    place = wrap_dim(dim, x.ndim)
    index = check_index_dtype(index)
    x, index = as_row(x), as_row(index)
    if x.ndim != index.ndim:
        if index._data.size:
            raise OpError(
                f"{name}(): Index tensor must have the same number of dimensions as self tensor"
            )
        index = reshape(index, (0,) * x.ndim)
    for d, (n, have) in enumerate(zip(index._data.shape, x._data.shape, strict=True)):
        if d != place and n > have:
            raise OpError(
                f"{name}(): Size does not match at dimension {d} expected index "
                f"{list(index.shape)} to be no larger than self {list(x.shape)} apart from "
                f"dimension {place}"
            )
    return x, place, index


# Along one dim.


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Return the elements along a dim that `index` names, one for each of its places.

    Raises:
        IndexError: an index is out of range.
    """
    x, place, at = _along("gather", input, dim, index)
    out = front.gather(x, at, dim=place)
    return out if alike(out._data.shape, index._data.shape) else reshape(out, index.shape)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Return the elements along a dim that `indices` name; the other dims broadcast."""
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    if input.ndim != indices.ndim:
        raise OpError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    place = wrap_dim(dim, input.ndim)
    at = check_index_dtype(indices)
    size = input.shape[place]
    at = where(at < 0, at + size, at)
    lead = broadcast_shapes([
        tuple(1 if i == place else n for i, n in enumerate(x.shape)) for x in (input, at)
    ])  # fmt: skip
    whole = tuple(input.shape[i] if i == place else n for i, n in enumerate(lead))
    wide = tuple(at.shape[i] if i == place else n for i, n in enumerate(lead))
    return gather(expand(input, whole), place, expand(at, wide))


def _source(x: Tensor, at: Tensor, src: Any) -> Tensor:
    """The part of `src` that `index` covers; a number is spread over it."""
    if not isinstance(src, Tensor):
        return filled(x, tuple(at.shape), src)
    single_dtype("scatter", x, src)
    src = as_row(src)
    if src.ndim != at.ndim:
        raise OpError("Index tensor must have the same number of dimensions as src tensor")
    for dim, (n, have) in enumerate(zip(at.shape, src.shape, strict=True)):
        if n > have:
            raise OpError(
                f"Expected index {list(at.shape)} to be no larger than src {list(src.shape)} in "
                f"dimension {dim}"
            )
        if n < have:
            src = slice_dim(src, dim, 0, n)
    return src


_FOLDS = {"add": "sum", "multiply": "prod"}


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
    reduce: str | None = None,
) -> Tensor:  # fmt: skip
    """Return the tensor with `src` (a tensor or a number) written at `index` along a dim.

    Raises:
        IndexError: an index is out of range.
        OpError: an unknown `reduce`.
    """
    src = value if src is None else src
    if reduce is not None:
        if reduce not in _FOLDS:
            raise OpError("reduce argument must be either add or multiply.")
        x, place, at = _along("scatter", input, dim, index)
        return scatter_reduce(x, place, at, _source(x, at, src), _FOLDS[reduce])
    x, place, at = _along("scatter", input, dim, index)
    if is_zero(at._data.size):
        return clone(input, ROWS)
    return reshape(front.scatter(x, at, _source(x, at, src), dim=place), input.shape)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Return the tensor with `src` added at `index` along a dim; repeats add up."""
    x, place, at = _along("scatter_add", input, dim, index)
    if is_zero(at._data.size):
        return clone(input, ROWS)
    return reshape(front.scatter_add(x, at, _source(x, at, src), dim=place), input.shape)


def _scatter_mean(x: Tensor, place: int, at: Tensor, src: Tensor, include_self: bool) -> Tensor:
    ones = filled(x, tuple(at.shape), 1)
    base = x
    counts = filled(x, tuple(x.shape), int(include_self))
    if not include_self:
        base = front.scatter(x, at, filled(x, tuple(at.shape), 0), dim=place)
    counts = front.scatter_add(counts, at, ones, dim=place)
    counts = maximum(counts, filled(x, (), 1))
    total = front.scatter_add(base, at, src, dim=place)
    if type_of(x).dtype.is_floating_point:
        return total / counts
    return total.div(counts, rounding_mode="floor")


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Return the tensor with `src` folded in at `index` along a dim.

    `reduce` is sum, prod, mean, amax or amin; without `include_self` what was there is left out.

    Raises:
        OpError: an unknown `reduce`.
    """
    x, place, at = _along("scatter_reduce", input, dim, index)
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise OpError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if is_zero(at._data.size):
        return clone(input, ROWS)
    values = _source(x, at, src)
    if reduce == "mean":
        out = _scatter_mean(x, place, at, values, include_self)
    elif reduce == "sum":
        base = x
        if not include_self:
            base = front.scatter(x, at, filled(x, tuple(at.shape), 0), dim=place)
        out = front.scatter_add(base, at, values, dim=place)
    else:
        out = front.scatter_reduce(
            x, at, values, dim=place, reduce=reduce, include_self=bool(include_self)
        )
    return reshape(out, input.shape)


# Slices of a dim named by a start or by a vector of indices.


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """Return the view of `length` elements from `start` along a dim.

    In a trace a tensor as `start` stays one: the result is then a read-only copy, not a view.

    Raises:
        IndexError, OpError: the part does not fit.
    """
    if not input.ndim:
        raise OpError("narrow() cannot be applied to a 0-dim tensor.")
    place = wrap_dim(dim, input.ndim)
    size = input.shape[place]
    if isinstance(start, Tensor):
        if start.ndim or type_of(start).dtype.kind != INT_KIND:
            raise OpError("start must be an 0-dim integral Tensor.")
        if modes.recording and modes.RECORDER.get() is not None:
            return _narrow_at(input, place, cast(start, int64), length)
    first = as_index(start)
    if not -size <= first <= size:
        raise IndexError(f"start out of range (expected within [-{size}, {size}], but got {first})")
    first = first + size if first < 0 else first
    if length < 0 or first + length > size:
        raise OpError(f"start ({first}) + length ({length}) exceeds dimension size ({size}).")
    return slice_dim(input, place, first, first + length)


def _narrow_at(input: Tensor, place: int, start: Tensor, length: int) -> Tensor:
    """`narrow` whose start may differ from replay to replay, in memory that refuses writes."""
    size = input.shape[place]
    first = where(start < 0, start + size, start)
    first = where(first < 0, size, first)  # before the beginning: out of range, not from the end
    out: Tensor = front.index(input, first + counting(input, length), dims=(place,))
    if out._data.__class__ is np.ndarray:
        out._data.flags.writeable = False
    return out


def _vector(name: str, index: Tensor) -> Tensor:
    if index.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, but got {index.ndim} dims")
    return reshape(check_index_dtype(index), (-1,))


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return the slices of a dim that a vector of indices names, as a copy."""
    place = wrap_dim(dim, input.ndim)
    out = front.index(as_row(input), _vector("index_select", index), dims=(place,))
    return out if input.ndim else reshape(out, ())


def _index_write(
    name: str, x: Tensor, dim: int, index: Tensor, source: Tensor, accumulate: bool
) -> Tensor:
    place = wrap_dim(dim, x.ndim)
    single_dtype(name, x, source)
    wide, values, at = as_row(x), as_row(source), _vector(name, index)
    wanted = list(wide.shape)
    wanted[place] = at.shape[0]
    if list(values.shape) != wanted:
        raise OpError(
            f"{name}(): source of shape {list(source.shape)} does not fit {at.shape[0]} slices of "
            f"dim {place} of {list(x.shape)}"
        )
    out = front.index_put(wide, values, at, dims=(place,), accumulate=accumulate)
    if accumulate and source._node is None:
        lasting(out)  # its indices are for the gradient of the source alone
    return reshape(out, x.shape)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Return the tensor with slices of alpha·source added at indices of a dim; repeats add up."""
    return _index_write("index_add", input, dim, index, scaled(source, alpha), True)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Return the tensor with slices of `source` written at indices of a dim."""
    return _index_write("index_copy", input, dim, index, source, False)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """Return the tensor with one number written in the slices of a dim that are named."""
    place = wrap_dim(dim, input.ndim)
    filler = single_value("index_fill", input, value)
    x, at = as_row(input), _vector("index_fill", index)
    none, true = filled(x, (x.shape[place],), False, bool_), scalar_tensor(True, bool_)
    hit = front.index_put(none, true, at, dims=(0,), accumulate=False)
    hit = reshape(hit, tuple(-1 if i == place else 1 for i in range(x.ndim)))
    return reshape(front.where(hit, filler, x), input.shape)


def single_value(name: str, x: Tensor, value: Any) -> Tensor:
    """Return a number or 0-d tensor in the dtype of `x`."""
    if not isinstance(value, Tensor):
        return scalar_tensor(value, type_of(x).dtype)
    if value.ndim:
        raise OpError(
            f"{name} only supports a 0-dimensional value tensor, but got tensor with {value.ndim} "
            "dimension(s)."
        )
    return cast(value, type_of(x).dtype)


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
    include_self: bool = True,
) -> Tensor:  # fmt: skip
    """Return the tensor with slices of `source` folded in at indices of a dim.

    `reduce` is prod, mean, amax or amin.
    """
    place = wrap_dim(dim, input.ndim)
    at = _vector("index_reduce", index)
    column = reshape(at, tuple(-1 if i == place else 1 for i in range(max(source.ndim, 1))))
    wide = expand(column, tuple(as_row(source).shape))
    return scatter_reduce(input, place, wide, source, reduce, include_self=include_self)


# By index tensors for several dims.


def index_put(
    input: Tensor, indices: Sequence[Any], values: Any, accumulate: bool = False
) -> Tensor:
    """Return the tensor with values written (or added) at `input[indices]`."""
    at, dims = advanced_indices(input, indices)
    source = values if isinstance(values, Tensor) else scalar_tensor(values, type_of(input).dtype)
    single_dtype("index_put", input, source)
    out = front.index_put(input, source, *at, dims=tuple(dims), accumulate=bool(accumulate))
    return laid_as(out, input)


def take(input: Tensor, index: Tensor) -> Tensor:
    """Return the elements that flat indices name.

    Raises:
        IndexError: an index is out of range.
    """
    return front.index(reshape(input, (-1,)), check_index_dtype(index), dims=(0,))


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Return the tensor with elements of `source` written (or added) at flat indices."""
    single_dtype("put", input, source)
    flat = reshape(input, (-1,))
    at, values = reshape(check_index_dtype(index), (-1,)), reshape(source, (-1,))
    out = front.index_put(flat, values, at, dims=(0,), accumulate=bool(accumulate))
    return laid_as(reshape(out, input.shape), input)


# Slices, functional.


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """Return the tensor with `src` written at one index of a dim."""
    place = wrap_dim(dim, input.ndim)
    size = input.shape[place]
    if not -size <= index < size:
        raise IndexError(f"select_scatter(): index {index} out of range for size {size}")
    return slice_scatter_at(input, src, place, index % size)


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Tensor:  # fmt: skip
    """Return the tensor with `src` written at start:end:step of a dim."""
    place = wrap_dim(dim, input.ndim)
    first, last, _ = slice(start, end, step).indices(input.shape[place])
    return slice_scatter_at(input, src, place, (first, max(first, last), step))


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """Return the tensor with `src` written on a diagonal of two dims."""
    dims = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    return front.diagonal_scatter(input, src, offset=offset, dim1=dims[0], dim2=dims[1])
