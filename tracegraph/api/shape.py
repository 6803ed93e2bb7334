"""Shapes and views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tracegraph.api.promotion import cast, result_type
from tracegraph.dims.shapes import alike, is_size
from tracegraph.dims.symint import as_index, as_size, fix, hint_of, larger, smaller
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import broadcast_shapes, wrap_dim

_RESHAPE, _PERMUTE, _EXPAND = OPS["reshape"], OPS["permute"], OPS["expand"]
_CAT, _SLICE = OPS["cat"], OPS["slice"]


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
        if hint_of(known) == 0 or size % known:
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


def requested(size: Sequence[Any]) -> tuple[int, ...]:
    """Return ints that were given as arguments or as one sequence."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    return tuple(map(as_size, size))


def reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the same elements under a shape known to fit; a view if possible."""
    return dispatch(_RESHAPE, (x,), {"shape": shape})


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """Return the same elements under another shape (one −1 is inferred); a view if possible."""
    wanted = requested(args if shape is None else (shape,))
    if -1 in wanted:
        wanted = infer_shape(input._data.size, wanted)
    return dispatch(_RESHAPE, (input,), {"shape": wanted})


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """Return dims in another order, as a view."""
    wanted = requested(args if dims is None else (dims,))
    ndim = len(input._data.shape)
    if len(wanted) != ndim:
        raise OpError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {ndim} is not "
            f"equal to len(dims) = {len(wanted)}"
        )
    return dispatch(_PERMUTE, (input,), {"dims": tuple(wrap_dim(d, ndim) for d in wanted)})


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Return a view with two dims swapped."""
    ndim = len(input._data.shape)
    a, b = wrap_dim(dim0, ndim), wrap_dim(dim1, ndim)
    order = list(range(ndim))
    if order:
        order[a], order[b] = order[b], order[a]
    return dispatch(_PERMUTE, (input,), {"dims": tuple(order)})


def t(input: Tensor) -> Tensor:
    """Return the transpose of a tensor of at most 2 dims."""
    ndim = len(input._data.shape)
    if ndim > 2:
        raise OpError(f"t() expects a tensor with <= 2 dimensions, but self is {ndim}D")
    return dispatch(_PERMUTE, (input,), {"dims": ((), (0,), (1, 0))[ndim]})


def expand(input: Tensor, *args: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """Return a view with dims of size 1 repeated; −1 keeps a size."""
    wanted = requested(args if size is None else (size,))
    have = input._data.shape
    extra = len(wanted) - len(have)
    if extra < 0:
        raise OpError(
            f"expand: the number of sizes provided ({len(wanted)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({len(have)})"
        )
    shape = wanted
    if -1 in wanted:
        shape = tuple(
            have[i - extra] if n == -1 and i >= extra else n for i, n in enumerate(wanted)
        )
    if alike(shape, have):
        return dispatch(_EXPAND, (input,), {"shape": shape})
    for i, n in enumerate(have, extra):
        if hint_of(n) not in (1, hint_of(shape[i])):
            raise OpError(
                f"The expanded size of the tensor ({shape[i]}) must match the existing size ({n}) "
                f"at non-singleton dimension {i}.  Target sizes: {list(wanted)}.  Tensor sizes: "
                f"{list(have)}"
            )
    return dispatch(_EXPAND, (input,), {"shape": shape})


def squeeze(input: Tensor, dim: Any = None, *args: int) -> Tensor:
    """Return a view without the dims of size 1 (all, or those named)."""
    have = input._data.shape
    if args:
        dim = (dim, *args)
    if dim is None:
        return reshaped(input, tuple(n for n in have if n != 1))
    named = dim if isinstance(dim, (tuple, list)) else (dim,)
    dims = [wrap_dim(d, len(have)) for d in named]
    return reshaped(input, tuple(n for i, n in enumerate(have) if i not in dims or n != 1))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Return a view with a dim of size 1 put in at `dim`."""
    have = input._data.shape
    place = wrap_dim(dim, len(have) + 1)
    return reshaped(input, (*have[:place], 1, *have[place:]))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return the dims start_dim..end_dim as one; the tensor itself if that is one dim."""
    have = input._data.shape
    start, end = wrap_dim(start_dim, len(have)), wrap_dim(end_dim, len(have))
    if start > end:
        raise OpError("flatten() has invalid args: start_dim cannot come after end_dim")
    if have and start == end:
        return input
    size = math.prod(have[start : end + 1])
    return reshaped(input, (*have[:start], size, *have[end + 1 :]))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return tensors joined along a dim; dtypes are promoted. Empty vectors are left out.

    Raises:
        ValueError: no tensors.
        OpError: sizes differ in another dim.
    """
    parts = list(tensors)
    if len({len(x._data.shape) for x in parts}) > 1:
        parts = [x for x in parts if x._data.shape != (0,)]
    if not parts:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    ndim = len(parts[0]._data.shape)
    if not ndim:
        raise OpError("zero-dimensional tensor (at position 0) cannot be concatenated")
    kind = parts[0]._data.dtype
    if kind is None or any(x._data.dtype is not kind for x in tensors):
        dtype = result_type(*tensors)
        parts = [cast(x, dtype) for x in parts]
    return dispatch(_CAT, parts, {"dim": wrap_dim(dim, ndim)})


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return tensors of one shape joined along a new dim."""
    if not len(tensors):
        raise OpError("stack expects a non-empty TensorList")
    shape = tensors[0]._data.shape
    for place, x in enumerate(tensors):
        if x._data.shape != shape:
            raise OpError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(x.shape)} at entry {place}"
            )
    place = wrap_dim(dim, len(shape) + 1)
    if place == len(shape):
        return cat([unsqueeze(x, place) for x in tensors], place)
    return reshaped(cat(tensors, place), (*shape[:place], len(tensors), *shape[place:]))


def slice_dim(input: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Tensor:
    """Return the view input[..., start:stop:step, ...] on one dim (bounds already checked)."""
    index: list[Any] = [(0, n, 1) for n in input._data.shape]
    index[dim] = (start, stop, step)
    return dispatch(_SLICE, (input,), {"index": tuple(index)})


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of consecutive pieces along a dim, of one size or of the sizes listed."""
    place = wrap_dim(dim, tensor.ndim)
    total = tensor.shape[place]
    if is_size(split_size_or_sections):
        size = split_size_or_sections
        count = max(1, fix(-(-total // size))) if size else 1
        sizes = [size] * (count - 1) + [total - (count - 1) * size]
    else:
        sizes = [as_size(n) for n in split_size_or_sections]
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


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Return at most `chunks` pieces of equal size along a dim (the last may be smaller)."""
    if chunks < 1:
        raise OpError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    total = input.shape[wrap_dim(dim, input.ndim)]
    size = -(-total // chunks)
    return split(input, size, dim) if size else split(input, [0] * chunks, dim)


unsafe_chunk, unsafe_split = chunk, split


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """Return views of consecutive pieces of the listed sizes along a dim."""
    return split(input, list(split_sizes), dim)


unsafe_split_with_sizes = split_with_sizes


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of pieces along a dim: so many (as equal as can be), or cut at the indices."""
    place = wrap_dim(dim, input.ndim)
    total = input.shape[place]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if is_size(indices_or_sections):
        sections = fix(indices_or_sections)
        if sections < 1:
            raise OpError(f"number of sections must be larger than 0, got {sections}")
        base, more = divmod(total, sections)
        cuts = [i * base + smaller(i, more) for i in range(1, sections)]
    else:
        cuts = [i + total if i < 0 else i for i in map(as_size, indices_or_sections)]
    places = [0, *(smaller(larger(i, 0), total) for i in cuts), total]
    return tuple(slice_dim(input, place, a, larger(a, b)) for a, b in pairwise(places))


def _split_along(name: str, least: int, dim: int) -> Callable[..., tuple[Tensor, ...]]:
    def function(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        if input.ndim < least:
            raise OpError(
                f"torch.{name} requires a tensor with at least {least} dimension, but got a "
                f"tensor with {input.ndim} dimensions!"
            )
        place = 0 if input.ndim == 1 else dim
        size = input.shape[place]
        parts = indices_or_sections
        if is_size(parts) and (not parts or size % parts):
            raise OpError(
                f"torch.{name} attempted to split along dimension {place}, but the size of the "
                f"dimension {size} is not divisible by the split_size {parts}!"
            )
        return tensor_split(input, parts, place)

    function.__name__ = name
    function.__doc__ = f"Return pieces as `tensor_split` does, along dim {dim}."
    return function


hsplit = _split_along("hsplit", 1, 1)
vsplit = _split_along("vsplit", 2, 0)
dsplit = _split_along("dsplit", 3, 2)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Return the view input[..., index, ...] on one dim.

    Raises:
        IndexError: the index is out of range, or the tensor has no dims.
    """
    if not input.ndim:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    place, at = wrap_dim(dim, input.ndim), as_index(index)
    size = input._data.shape[place]
    if not -size <= at < size:
        raise IndexError(f"select(): index {at} out of range for tensor of size {size} at {place}")
    at = at + size if at < 0 else at
    whole = tuple(at if i == place else (0, n, 1) for i, n in enumerate(input._data.shape))
    return front.slice(input, index=whole)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Return views of all slices along a dim."""
    place = wrap_dim(dim, input.ndim)
    if not input.ndim:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return tuple(select(input, place, i) for i in range(fix(input.shape[place])))


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Return a view with dims moved to other places; the others keep their order."""
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        raise OpError("movedim: Invalid source or destination dims: they differ in number")
    away = [wrap_dim(d, input.ndim) for d in sources]
    places = [wrap_dim(d, input.ndim) for d in targets]
    if len(set(away)) != len(away) or len(set(places)) != len(places):
        raise OpError(f"movedim: repeated dim in `source` ({away}) or `destination` ({places})")
    rest = iter(i for i in range(input.ndim) if i not in away)
    order = [away[places.index(i)] if i in places else next(rest) for i in range(input.ndim)]
    return permute(input, tuple(order))


moveaxis = movedim
swapaxes = swapdims = transpose


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Return the view of a diagonal of two dims, as the last dim."""
    first, second = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    if first == second:
        raise OpError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return front.diagonal(input, offset=offset, dim1=first, dim2=second)


def broadcast_to(input: Tensor, *args: Any, size: Any = None) -> Tensor:
    """Return a view expanded to a shape."""
    return expand(input, *args, size=size)


def broadcast_tensors(*tensors: Any) -> list[Tensor]:
    """Return views of all tensors expanded to one shape."""
    group = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    shape = broadcast_shapes([tuple(x.shape) for x in group])
    return [expand(x, shape) for x in group]


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Return a view with one dim split into several; one size may be −1."""
    place = wrap_dim(dim, input.ndim)
    if not len(sizes):
        raise OpError("unflatten: sizes must be non-empty")
    inner = infer_shape(input.shape[place], tuple(sizes))
    return reshape(input, (*input.shape[:place], *inner, *input.shape[place + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """Return all elements as one dim, a view of what lies in rows."""
    rows = in_rows(input)
    out = reshape(rows, (-1,))
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None and rows is input:
            recorder.layouts.reshaped(input, out, needs_rows=True)
        elif recorder is not None:
            recorder.layouts.copied(input, rows, True)
    return out
