"""Choosing and replacing elements by masks, with PyTorch's names."""

from __future__ import annotations

from typing import Any

from tracegraph.api.indexing import nonzero_rows, nonzero_tuple
from tracegraph.api.pointwise import where
from tracegraph.api.promotion import cast, counting, filled, single_dtype
from tracegraph.api.rearrangement import unravel_index
from tracegraph.api.selection import as_row, single_value
from tracegraph.api.shape import expand, reshape, slice_dim
from tracegraph.dims.shapes import is_zero
from tracegraph.dims.symint import larger, smaller
from tracegraph.dtypes import bool_, int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import DTypeError, OpError
from tracegraph.tensor_type import broadcast_shapes


def _mask(name: str, mask: Tensor) -> Tensor:
    if type_of(mask).dtype is not bool_:
        raise DTypeError(f"{name} only supports boolean masks, but got dtype {type_of(mask).dtype}")
    return mask


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Return the tensor with one number where the mask holds, in rows."""
    if isinstance(value, float) and not type_of(input).dtype.is_floating_point:
        raise OpError(f"value cannot be converted to type {type_of(input).dtype} without overflow")
    filler = single_value("masked_fill", input, value)
    return in_rows(front.where(_mask("masked_fill", mask), filler, input))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Return the elements where the mask holds, as a vector.

    A trace fixes the size: a replay where data gives another raises GuardError.
    """
    shape = broadcast_shapes([tuple(input.shape), tuple(mask.shape)])
    x, known = as_row(expand(input, shape)), as_row(expand(_mask("masked_select", mask), shape))
    return front.index(x, *nonzero_tuple(known), dims=tuple(range(x.ndim)))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Return the tensor with elements of `source`, in their order, where the mask holds.

    Raises:
        IndexError: `source` has fewer elements than the mask asks for.
    """
    single_dtype("masked_scatter", input, source)
    shape = broadcast_shapes([tuple(input.shape), tuple(mask.shape)])
    x, known = expand(input, shape), expand(_mask("masked_scatter", mask), shape)
    order = front.cumsum(cast(reshape(known, (-1,)), int64), dim=0)
    place = where(reshape(known, (-1,)), order - 1, 0)
    if is_zero(source._data.size):
        source = filled(input, (1,), 0)
    values = front.index(reshape(source, (-1,)), place, dims=(0,))
    return front.where(known, reshape(values, shape), x)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Return the indices of elements that are not 0: one row each, or one vector per dim."""
    if as_tuple:
        return nonzero_tuple(as_row(input))
    return nonzero_rows(input)


def argwhere(input: Tensor) -> Tensor:
    """Return the indices of elements that are not 0, one row each."""
    return nonzero(input)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """Return the indices of the first `size` elements that are not 0, one row each, then fill."""
    flags = reshape(cast(input, bool_), (-1,))
    total = flags._data.shape[0]
    order = front.sort(cast(flags, int64), dim=0, descending=True)[1]
    count = front.sum(cast(flags, int64), dim=(0,), keepdim=False)
    taken = slice_dim(order, 0, 0, smaller(size, total))
    if total.__class__ is not int or size > total:
        taken = front.pad(taken, pads=((0, larger(size - total, 0)),), value=0)
    if not input.ndim:
        return filled(taken, (size, 0), 0)
    places = unravel_index(taken, tuple(input.shape))
    rows = front.cat(*(reshape(p, (size, 1)) for p in places), dim=1)
    known = reshape(front.lt(counting(input, size), count), (size, 1))
    return where(known, rows, fill_value)
