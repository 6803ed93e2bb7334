"""Elements in other places: flips, rolls, repeats, stacks and grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.api.complex_numbers import imag, real
from tracegraph.api.creation import note_constant
from tracegraph.api.promotion import beside, cast, counting, filled, result_type
from tracegraph.api.shape import (
    cat,
    expand,
    permute,
    requested,
    reshape,
    select,
    slice_dim,
    stack,
    transpose,
    unsqueeze,
)
from tracegraph.dims.shapes import alike, is_one, is_size, is_zero, mentions
from tracegraph.dims.symint import larger
from tracegraph.dtypes import FLOAT_KIND, int64
from tracegraph.eager.dispatch import front, lock
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import ROWS
from tracegraph.eager.tensors import Size, Tensor, type_of, wrap
from tracegraph.errors import OpError
from tracegraph.tensor_type import broadcast_shapes as _broadcast
from tracegraph.tensor_type import wrap_dim, wrap_dims


def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """Return the elements in reverse order along dims."""
    wanted = requested(args if dims is None else (dims,))
    if not len(wanted) or not input.ndim:
        return input.clone()
    return front.flip(input, dims=wrap_dims(tuple(wanted), input.ndim))


def fliplr(input: Tensor) -> Tensor:
    """Return the columns in reverse order."""
    if input.ndim < 2:
        raise OpError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Return the rows in reverse order."""
    if input.ndim < 1:
        raise OpError("Input must be >= 1-d.")
    return flip(input, 0)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Return elements moved along dims, round the end; without dims, in row-major order."""
    steps = (shifts,) if is_size(shifts) else tuple(shifts)
    if dims is None or (not isinstance(dims, int) and not len(dims)):
        if len(steps) != 1:
            raise OpError("roll: shifts and dimensions must align")
        return reshape(roll(reshape(input, (-1,)), steps, 0), input.shape)
    places = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(places) != len(steps):
        raise OpError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(places)}")
    out = input
    for step, dim in zip(steps, places, strict=True):
        place = wrap_dim(dim, input.ndim)
        size = input.shape[place]
        cut = -step % size if size else 0
        if not is_zero(cut):
            parts = slice_dim(out, place, cut, size), slice_dim(out, place, 0, cut)
            out = front.cat(*parts, dim=place)
    return clone(input, ROWS) if out is input else out


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Return a plane turned by k·90 degrees, from the first of two dims towards the second."""
    if len(dims) != 2:
        raise OpError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise OpError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    first, second = (wrap_dim(d, input.ndim) for d in dims)
    if first == second:
        raise OpError(f"expected rotation dims to be different, but got {dims}")
    turns = k % 4
    if turns == 0:
        return clone(input, ROWS)
    if turns == 2:
        return flip(input, first, second)
    return transpose(flip(input, second if turns == 1 else first), first, second)


def repeat(input: Tensor, *args: Any, repeats: Any = None) -> Tensor:
    """Return the tensor copied so often along each dim; further repeats add dims in front."""
    counts = requested(args if repeats is None else (repeats,))
    if len(counts) < input.ndim:
        raise OpError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    have = (1,) * (len(counts) - input.ndim) + tuple(input.shape)
    apart = reshape(input, tuple(n for size in have for n in (1, size)))
    wide = expand(apart, tuple(n for pair in zip(counts, have, strict=True) for n in pair))
    return _apart(reshape(wide, tuple(a * b for a, b in zip(counts, have, strict=True))))


def _apart(x: Tensor) -> Tensor:
    """Return a result in memory of its own: a view (of expanded memory even) is copied."""
    return front.copy(x) if x._chain else x


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """Return the tensor copied so often along its last dims."""
    counts = requested(args if dims is None else (dims,))
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Return each element (or slice of a dim) repeated in place, so often or as a tensor says."""
    if repeats is None:
        return repeat_interleave(counting(input, input.shape[0]), input, output_size=output_size)
    x = reshape(input, (-1,)) if dim is None or not input.ndim else input
    place = 0 if dim is None else wrap_dim(dim, x.ndim)
    if isinstance(repeats, (tuple, list)):
        repeats = note_constant(wrap(beside(x).asarray(repeats, dtype=np.int64)))
    single = isinstance(repeats, Tensor) and is_one(repeats._data.size)
    if single and not is_one(x.shape[place]):
        repeats = expand(reshape(repeats, (1,)), (x.shape[place],))
    if not isinstance(repeats, Tensor):
        shape = list(x.shape)
        shape[place] *= repeats
        wide = [*x.shape[: place + 1], repeats, *x.shape[place + 1 :]]
        return _apart(reshape(expand(unsqueeze(x, place + 1), tuple(wide)), tuple(shape)))
    times = cast(reshape(repeats, (-1,)), int64)
    if times.shape[0] != x.shape[place]:
        raise OpError("repeats must have the same size as input along dim")
    count = -1 if output_size is None else output_size
    return front.index(x, front.repeat_places(times, count=count), dims=(place,))


def _flat(tensors: Any) -> list[Tensor]:
    one = len(tensors) == 1 and isinstance(tensors[0], (tuple, list))
    return list(tensors[0] if one else tensors)


def _atleast(x: Tensor, ndim: int) -> Tensor:
    shape = tuple(x.shape)
    if ndim == 3 and len(shape) in (1, 2):
        return reshape(x, (1, *shape, 1) if len(shape) == 1 else (*shape, 1))
    return reshape(x, (1,) * (ndim - len(shape)) + shape) if len(shape) < ndim else x


def _atleast_function(ndim: int) -> Any:
    def function(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return _atleast(tensors[0], ndim)
        return tuple(_atleast(x, ndim) for x in _flat(tensors))

    function.__name__ = f"atleast_{ndim}d"
    function.__doc__ = f"Return views with at least {ndim} dims."
    return function


atleast_1d = _atleast_function(1)
atleast_2d = _atleast_function(2)
atleast_3d = _atleast_function(3)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the columns (1-D ones along their only dim)."""
    parts = [_atleast(x, 1) for x in tensors]
    return cat(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the rows (1-D ones are rows)."""
    return cat([_atleast(x, 2) for x in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the third dim."""
    return cat([_atleast(x, 3) for x in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the columns (1-D ones are columns)."""
    return hstack([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in tensors])


def block_diag(*tensors: Any) -> Tensor:
    """Return a matrix with the given ones (vectors are rows) along its diagonal, 0 elsewhere."""
    blocks = [_atleast(x, 2) for x in _flat(tensors)]
    if any(x.ndim > 2 for x in blocks):
        raise OpError("torch.block_diag: Input tensors must have 2 or fewer dimensions.")
    dtype = result_type(*blocks)
    columns = sum(x.shape[1] for x in blocks)
    rows, before = [], 0
    for x in blocks:
        after = columns - before - x.shape[1]
        rows.append(front.pad(cast(x, dtype), pads=((0, 0), (before, after)), value=0))
        before += x.shape[1]
    return cat(rows, 0)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Return the coordinates of a grid: views of vectors expanded to all their sizes.

    Raises:
        OpError: `indexing` is neither "ij" nor "xy".
    """
    vectors = [reshape(x, (-1,)) for x in _flat(tensors)]
    if indexing not in ("ij", "xy"):
        raise OpError(
            'torch.meshgrid: indexing must be one of "xy" or "ij", but received: ' + indexing
        )
    shape = tuple(x.shape[0] for x in vectors)
    grids = []
    for i, x in enumerate(vectors):
        column = reshape(x, (-1, *(1,) * (len(vectors) - i - 1)))
        grids.append(expand(column, shape))
    if indexing == "xy" and len(vectors) > 1:
        grids = [transpose(x, 0, 1) for x in grids[1::-1] + grids[2:]]
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Any) -> Tensor:
    """Return all tuples of elements of vectors, one row each."""
    vectors = _flat(tensors)
    if len(vectors) == 1:
        return vectors[0]
    return stack([reshape(x, (-1,)) for x in meshgrid(*vectors)], 1)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Return the coordinates of flat indices in a shape: one tensor per dim."""
    sizes = (shape,) if is_size(shape) else tuple(shape)
    found, rest = [], cast(indices, int64)
    for size in reversed(sizes):
        found.append(front.remainder(rest, filled(rest, (), size)))
        rest = front.floor_divide(rest, filled(rest, (), size))
    return tuple(reversed(found))


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Return all choices of r elements of a vector in order, one row each."""
    if input.ndim != 1:
        raise OpError("Expect a 1D vector")
    if r < 0:
        raise OpError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return filled(input, (0,), 0)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.shape[0]), r)), dtype=np.int64).reshape(-1, r)
    return front.index(input, note_constant(wrap(beside(input).asarray(rows))), dims=(0,))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Return windows of `size` elements every `step` along a dim, as a new last dim.

    They are a view of what is contiguous, and of other memory a copy that cannot be written.
    """
    if not input.ndim:
        return select(unfold(reshape(input, (1,)), dimension, size, step), 0, 0)
    place = wrap_dim(dimension, input.ndim)
    total = input.shape[place]
    if size > total or size < 0 or step < 1:
        raise OpError(
            f"maximum size for tensor at dimension {dimension} is {total} but size is {size}"
        )
    count = (total - size) // step + 1
    if total.__class__ is int and size <= step and count * step <= total:
        whole = slice_dim(input, place, 0, count * step)
        shape = (*input.shape[:place], count, step, *input.shape[place + 1 :])
        windows = slice_dim(reshape(whole, shape), place + 1, 0, size)
    elif not mentions(input.shape) and input.is_contiguous():
        steps = input.stride()
        shape = (*input.shape[:place], count, size, *input.shape[place + 1 :])
        strides = (*steps[:place], steps[place] * step, *steps[place:])
        windows = front.strided(input, shape=shape, strides=strides, offset=0)
    else:
        starts = reshape(counting(input, count) * step, (count, 1))
        windows = front.index(input, starts + counting(input, size), dims=(place,))
        lock(windows._data)
    order = [*range(place + 1), *range(place + 2, input.ndim + 1), place + 1]
    return permute(windows, tuple(order))


def strided_places(
    x: Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> Tensor:
    """Return the flat places of elements that lie `stride` apart per dim, from `offset` on.

    Raises:
        OpError: a place lies outside of the tensor.
    """
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= x._data.size:
        raise OpError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} are "
            f"out of bounds for storage of {x._data.size} elements"
        )
    places = filled(x, (), offset, int64)
    for i, (n, step) in enumerate(zip(size, stride, strict=True)):
        shape = tuple(n if k == i else 1 for k in range(len(size)))
        places = places + reshape(counting(x, n) * step, shape)
    return places


def as_strided(
    input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """Return a view of memory by steps per dim.

    Raises:
        OpError: the tensor is not contiguous, or the view reaches beyond it.
    """
    if not input.is_contiguous():
        raise OpError(
            "as_strided of a tensor that is not contiguous would show how its memory is laid out, "
            "which no graph knows; use contiguous() first"
        )
    offset = 0
    if storage_offset is not None:
        offset = storage_offset - input.storage_offset()
    shape, strides = tuple(size), tuple(stride)
    if offset < 0:
        raise OpError(f"storage offset {storage_offset} lies before the memory of this view")
    return front.strided(input, shape=shape, strides=strides, offset=offset)


def broadcast_shapes(*shapes: Any) -> Size:
    """Return the shape that all shapes broadcast to."""
    return Size(_broadcast([(s,) if is_size(s) else tuple(s) for s in shapes] or [()]))


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """Add a border of one value: (before, after) pairs from the last dim on; negative ones crop."""
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise OpError(f"Length of pad must be even and at most 2 * {input.ndim}, got {len(pad)}")
    if isinstance(value, complex):  # attributes of ops hold real numbers
        return front.complex(
            constant_pad_nd(real(input), pad, value.real),
            constant_pad_nd(imag(input), pad, value.imag),
        )
    pairs = [(0, 0)] * (input.ndim - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    spans = []
    for size, (before, after) in zip(input.shape, pairs, strict=True):
        if size + before + after < 0:
            raise OpError(f"the padding {list(pad)} is larger than the size {size} that it crops")
        first = larger(0, -before)
        spans.append((first, larger(first, size - larger(0, -after)), 1))
    out = input
    if not all(alike(span, (0, n, 1)) for span, n in zip(spans, input.shape, strict=True)):
        out = front.slice(out, index=tuple(spans))
    pads = tuple((larger(a, 0), larger(b, 0)) for a, b in pairs)
    if type_of(input).dtype.kind < FLOAT_KIND:
        value = int(value)
    return front.pad(out, pads=pads, value=value)
