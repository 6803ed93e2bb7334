"""What moves, chooses and joins the places of sparse tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.promotion import counting
from tracegraph.api.rearrangement import repeat_interleave
from tracegraph.api.shape import cat as join
from tracegraph.api.shape import requested
from tracegraph.api.sorting import searchsorted, sort
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.sparse.tensor import (
    OPERATIONS,
    SEVERAL,
    SparseTensor,
    empty_of,
    make,
    refused,
    to_dense,
)
from tracegraph.tensor_type import wrap_dim


def pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return places i, j of all pairs with left[i] == right[j], by i and then by j."""
    ordered, order = sort(right, stable=True)
    first = searchsorted(ordered, left)
    counts = searchsorted(ordered, left, right=True) - first
    i = repeat_interleave(counting(left, left.shape[0]), counts)
    begin = counts.cumsum(0) - counts  # of the pairs of each place
    return i, order[first[i] + counting(i, i.shape[0]) - begin[i]]


def permute(input: SparseTensor, *args: Any, dims: Any = None) -> SparseTensor:
    """Return dims in another order, sparse ones among themselves and dense ones."""
    count, ndim = input.places.shape[0], len(input.extent)
    wanted = [wrap_dim(d, ndim) for d in requested(args if dims is None else (dims,))]
    if sorted(wanted) != list(range(ndim)):
        raise OpError(f"permute(): {wanted} is no order of {ndim} dims")
    if wanted == list(range(ndim)):
        return input
    if any(d >= count for d in wanted[:count]):
        raise refused("permute() of sparse dims with dense ones")
    entries = input.entries.permute(0, *(d - count + 1 for d in wanted[count:]))
    moved = wanted[:count] != list(range(count))
    places = input.places[wanted[:count]] if moved else input.places
    extent = [input.extent[d] for d in wanted]
    return make(places, entries, extent, input.coalesced and not moved)


def transpose(input: SparseTensor, dim0: int, dim1: int) -> SparseTensor:
    """Return the tensor with two dims swapped."""
    ndim = len(input.extent)
    order = list(range(ndim))
    a, b = wrap_dim(dim0, ndim), wrap_dim(dim1, ndim)
    order[a], order[b] = b, a
    return permute(input, order)


def t(input: SparseTensor) -> SparseTensor:
    """Return the transpose of a tensor of at most 2 dims."""
    if len(input.extent) > 2:
        raise OpError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return permute(input, *reversed(range(len(input.extent))))


def unsqueeze(input: SparseTensor, dim: int) -> SparseTensor:
    """Return the tensor with a dim of size 1 more."""
    count, ndim = input.places.shape[0], len(input.extent)
    place = wrap_dim(dim, ndim + 1)
    extent = (*input.extent[:place], 1, *input.extent[place:])
    if place > count:
        entries = input.entries.unsqueeze(place - count + 1)
        return make(input.places, entries, extent, input.coalesced)
    row = input.places.new_zeros((1, input.places.shape[1]))
    places = join([input.places[:place], row, input.places[place:]])
    return make(places, input.entries, extent, input.coalesced)


def _chosen(x: SparseTensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Return places and entries of some of the entries."""
    return x.places[:, at], x.entries[at]


def select(input: SparseTensor, dim: int, index: int) -> Tensor:
    """Return what has one index in a dim: dense where no sparse dim is left."""
    place, count = wrap_dim(dim, len(input.extent)), input.places.shape[0]
    size = input.extent[place]
    if not -size <= index < size:
        raise IndexError(f"select(): index {index} out of range for dim {dim} of size {size}")
    index = index + size if index < 0 else index
    extent = (*input.extent[:place], *input.extent[place + 1 :])
    if place >= count:
        entries = input.entries.select(place - count + 1, index)
        return make(input.places, entries, extent, input.coalesced)
    places, entries = _chosen(input, (input.places[place] == index).nonzero()[:, 0])
    if count == 1:
        return to_dense(make(places[:0], entries, extent, False))
    rest = [d for d in range(count) if d != place]
    return make(places[rest], entries, extent, input.coalesced)


def getitem(self: SparseTensor, key: Any) -> Tensor:
    """Return what has the given ints as its first indices; whole dims (`:`) stay.

    Raises:
        SparseError: other keys.
    """
    out: Tensor = self
    dim = 0
    for item in key if isinstance(key, tuple) else (key,):
        if item is None or isinstance(item, (bool, Tensor)) or not hasattr(item, "__index__"):
            if item != slice(None):
                raise refused("indexing by anything but ints and whole dims")
            dim += 1
        elif isinstance(out, SparseTensor):
            out = select(out, dim, int(item))
        else:
            out = out.select(dim, int(item))
    return out


def index_select(input: SparseTensor, dim: int, index: Tensor) -> SparseTensor:
    """Return the slices of a dim that a vector of indices names."""
    place, count = wrap_dim(dim, len(input.extent)), input.places.shape[0]
    extent = [*input.extent]
    extent[place] = index.shape[0]
    if place >= count:
        entries = input.entries.index_select(place - count + 1, index)
        return make(input.places, entries, extent, input.coalesced)
    at = counting(input.places, input.extent[place])[index]  # checked, from 0 on
    i, j = pairs(at, input.places[place])
    places, entries = _chosen(input, j)
    rows = [places[:place], i.unsqueeze(0), places[place + 1 :]]
    return make(join(rows), entries, extent, False)


def cat(tensors: Sequence[SparseTensor], dim: int = 0) -> SparseTensor:
    """Return sparse tensors joined along a dim."""
    if not all(isinstance(x, SparseTensor) for x in tensors):
        raise refused("cat() with dense tensors")
    first = tensors[0]
    place, count = wrap_dim(dim, len(first.extent)), first.places.shape[0]
    for x in tensors:
        same = [n for d, n in enumerate(x.extent) if d != place]
        if x.places.shape[0] != count or same != [
            n for d, n in enumerate(first.extent) if d != place
        ]:
            raise OpError("cat(): sparse tensors must agree in all sizes but that of the dim")
    if place >= count:
        raise refused("cat() along a dense dim")
    offset: Any = 0
    joined = []
    for x in tensors:
        row = x.places[place : place + 1] + offset
        joined.append(join([x.places[:place], row, x.places[place + 1 :]]))
        offset = offset + x.extent[place]
    extent = [*first.extent]
    extent[place] = offset
    return make(join(joined, 1), join([x.entries for x in tensors]), extent, False)


def stack(tensors: Sequence[SparseTensor], dim: int = 0) -> SparseTensor:
    """Return sparse tensors of one size joined along a new dim."""
    if not all(isinstance(x, SparseTensor) for x in tensors):
        raise refused("stack() with dense tensors")
    return cat([unsqueeze(x, wrap_dim(dim, x.ndim + 1)) for x in tensors], dim)


def zeros_like(input: SparseTensor, **options: Any) -> SparseTensor:
    """Return a sparse tensor of zeros of the same size."""
    options = {"dtype": input.dtype, "device": input.device, **options}
    return empty_of(input.extent, input.places.shape[0], **options)


OPERATIONS.update({
    f.__name__: f for f in (
        permute, transpose, t, unsqueeze, select, index_select, cat, stack, zeros_like
    )
})  # fmt: skip
OPERATIONS.update({
    "swapaxes": transpose, "swapdims": transpose, "concat": cat, "concatenate": cat,
    "empty_like": zeros_like,
})  # fmt: skip
SEVERAL.update(("cat", "concat", "concatenate", "stack"))
