"""Shapes and views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.promotion import cast, result_type
from tracegraph.dispatch import front
from tracegraph.errors import OpError
from tracegraph.tensors import Tensor, type_of
from tracegraph.tensor_type import wrap_dim


def infer_shape(size: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return `shape` with one −1 replaced so that it has `size` elements.

    Raises:
        OpError: two −1, or no whole number fits.
    """
    known = math.prod(n for n in shape if n != -1)
    holes = [i for i, n in enumerate(shape) if n == -1]
    if len(holes) > 1:
        raise OpError("only one dimension can be inferred")
    if holes:
        if known == 0 or size % known:
            if known == 0 and size == 0:
                raise OpError(
                    f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                    "unspecified dimension size -1 can be any value and is ambiguous"
                )
            raise OpError(f"shape '{list(shape)}' is invalid for input of size {size}")
        return tuple(size // known if n == -1 else n for n in shape)
    if known != size:
        raise OpError(f"shape '{list(shape)}' is invalid for input of size {size}")
    return tuple(shape)


def _requested(size: Sequence[Any]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    return tuple(int(n) for n in size)


def reshape(input: Tensor, *shape: Any) -> Tensor:  # noqa: A002
    """Return the same elements under another shape (one −1 is inferred); a view if possible."""
    known = type_of(input)
    out: Tensor = front.reshape(input, shape=infer_shape(known.size, _requested(shape)))
    return out


def permute(input: Tensor, *dims: Any) -> Tensor:  # noqa: A002
    """Return dims in another order, as a view."""
    wanted = _requested(dims)
    if len(wanted) != input.ndim:
        raise OpError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {input.ndim} is not "
            f"equal to len(dims) = {len(wanted)}"
        )
    out: Tensor = front.permute(input, dims=tuple(wrap_dim(d, input.ndim) for d in wanted))
    return out


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:  # noqa: A002
    """Return a view with two dims swapped."""
    order = list(range(input.ndim))
    if not order:
        return reshape(input, ())
    a, b = wrap_dim(dim0, input.ndim), wrap_dim(dim1, input.ndim)
    order[a], order[b] = order[b], order[a]
    return permute(input, tuple(order))


def t(input: Tensor) -> Tensor:  # noqa: A002
    """Return the transpose of a tensor of at most 2 dims."""
    if input.ndim > 2:
        raise OpError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, 1) if input.ndim == 2 else reshape(input, input.shape)


def expand(input: Tensor, *sizes: Any) -> Tensor:  # noqa: A002
    """Return a view with dims of size 1 repeated; −1 keeps a size."""
    wanted = _requested(sizes)
    have = input.shape
    extra = len(wanted) - len(have)
    if extra < 0:
        raise OpError(
            f"expand: the number of sizes provided ({len(wanted)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({len(have)})"
        )
    shape = tuple(have[i - extra] if n == -1 and i >= extra else n for i, n in enumerate(wanted))
    for i, n in enumerate(have):
        if n not in (1, shape[i + extra]):
            raise OpError(
                f"The expanded size of the tensor ({shape[i + extra]}) must match the existing "
                f"size ({n}) at non-singleton dimension {i + extra}.  Target sizes: "
                f"{list(wanted)}.  Tensor sizes: {list(have)}"
            )
    out: Tensor = front.expand(input, shape=shape)
    return out


def squeeze(input: Tensor, dim: Any = None) -> Tensor:  # noqa: A002
    """Return a view without the dims of size 1 (all, or those named)."""
    ndim = input.ndim
    if dim is None:
        dims = set(range(ndim))
    else:
        dims = {wrap_dim(d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
    shape = tuple(n for i, n in enumerate(input.shape) if n != 1 or i not in dims)
    return reshape(input, shape)


def unsqueeze(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """Return a view with a dim of size 1 put in at `dim`."""
    place = wrap_dim(dim, input.ndim + 1)
    return reshape(input, (*input.shape[:place], 1, *input.shape[place:]))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:  # noqa: A002
    """Return the dims start_dim..end_dim as one."""
    if input.ndim == 0:
        return reshape(input, (1,))
    start, end = wrap_dim(start_dim, input.ndim), wrap_dim(end_dim, input.ndim)
    if start > end:
        raise OpError("flatten() has invalid args: start_dim cannot come after end_dim")
    size = math.prod(input.shape[start : end + 1])
    return reshape(input, (*input.shape[:start], size, *input.shape[end + 1 :]))


def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """Return tensors joined along a dim; dtypes are promoted.

    Raises:
        OpError: no tensors, or sizes differ in another dim.
    """
    parts = [x for x in tensors if not (x.ndim == 1 and x.shape[0] == 0)] or list(tensors[:1])
    if not parts:
        raise OpError("expected a non-empty list of Tensors")
    dtype = result_type(*tensors)
    place = wrap_dim(dim, parts[0].ndim)
    joined: Tensor = front.cat(*(cast(x, dtype) for x in parts), dim=place)
    return joined


def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """Return tensors of one shape joined along a new dim."""
    if not len(tensors):
        raise OpError("stack expects a non-empty TensorList")
    for x in tensors:
        if x.shape != tensors[0].shape:
            raise OpError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].shape)} at "
                f"entry 0 and {list(x.shape)} at another entry"
            )
    return cat([unsqueeze(x, dim) for x in tensors], wrap_dim(dim, tensors[0].ndim + 1))


def slice_dim(input: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Tensor:  # noqa: A002
    """Return the view input[..., start:stop:step, ...] on one dim (bounds already checked)."""
    index = tuple(
        (start, stop, step) if i == dim else (0, n, 1) for i, n in enumerate(input._data.shape)
    )
    out: Tensor = front.slice(input, index=index)
    return out


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of consecutive pieces along a dim, of one size or of the sizes listed."""
    place = wrap_dim(dim, tensor.ndim)
    total = tensor.shape[place]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        count = max(1, -(-total // size)) if size else 1
        sizes = [min(size, total - i * size) for i in range(count)]
    else:
        sizes = [int(n) for n in split_size_or_sections]
        if sum(sizes) != total:
            raise OpError(
                f"split_with_sizes expects split_sizes to sum exactly to {total} (input tensor's "
                f"size at dimension {place}), but got split_sizes={sizes}"
            )
    pieces, start = [], 0
    for n in sizes:
        pieces.append(slice_dim(tensor, place, start, start + n))
        start += n
    return tuple(pieces)




def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """Return at most `chunks` pieces of equal size along a dim (the last may be smaller)."""
    total = input.shape[wrap_dim(dim, input.ndim)]
    return split(input, max(1, -(-total // chunks)), dim)


