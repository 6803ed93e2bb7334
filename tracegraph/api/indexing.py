"""`x[...]` and `x[...] = v`.

Ints, slices, None and Ellipsis give views; integer and bool tensors (or lists and NumPy arrays)
gather and scatter.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tracegraph.api.promotion import beside, cast, filled, scalar_tensor
from tracegraph.devices import device_of
from tracegraph.dims.shapes import is_one, same
from tracegraph.dims.symint import SymInt, as_index, larger, smaller
from tracegraph.dtypes import FLOAT_KIND, bool_, dtype_of, int64, uint8
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign, check_writable, front, passed_on, put
from tracegraph.eager.tensors import Tensor, count_write, dtype_of_data, shell, type_of, wrap
from tracegraph.errors import DTypeError


def _is_advanced(item: Any) -> bool:
    return isinstance(item, (Tensor, list, tuple, np.ndarray, bool, np.bool_, range))


def _stands_alone(item: Any) -> bool:
    """Whether an item of a list is an index of its own, so that the list stands for a tuple."""
    return (
        item is None
        or item is ...
        or isinstance(item, (slice, Tensor, list, tuple, np.ndarray, range))
    )


def _as_mask(item: Any) -> Any:
    """Return bytes as bools: PyTorch takes uint8 for a mask."""
    if isinstance(item, Tensor) and dtype_of_data(item._data) is uint8:
        return cast(item, bool_)
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return item.astype(np.bool_)
    return item


def _normalise(x: Tensor, key: Any) -> list[Any]:
    """Return one item per index position, Ellipsis filled in, sequences as tensors."""
    if isinstance(key, list) and len(key) < 32 and any(map(_stands_alone, key)):
        key = tuple(key)
    items = list(map(_as_mask, key if isinstance(key, tuple) else (key,)))
    used = 0
    for item in items:
        if item is None or item is ... or isinstance(item, (bool, np.bool_)):
            continue
        used += _width(item)
    ndim = len(x._data.shape)
    if used > ndim:
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    holes = sum(item is ... for item in items)
    if holes > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    fill = [slice(None)] * (ndim - used)
    if holes:
        place = next(i for i, item in enumerate(items) if item is ...)
        return [*items[:place], *fill, *items[place + 1 :]]
    return [*items, *fill]


def _width(item: Any) -> int:
    if isinstance(item, Tensor) and dtype_of_data(item._data) is bool_:
        return len(item._data.shape)
    if isinstance(item, np.ndarray) and item.dtype == np.bool_:
        return int(item.ndim)
    return 1


def _position(item: Any, size: int, dim: int) -> int:
    place: int = as_index(item)
    if not -size <= place < size:
        raise IndexError(f"index {place} is out of bounds for dimension {dim} with size {size}")
    return place + size if place < 0 else place


def _range(item: slice, size: int) -> tuple[int, int, int]:
    step = 1 if item.step is None else operator.index(item.step)
    if step <= 0:
        raise ValueError("step must be greater than zero")
    if SymInt in (size.__class__, item.start.__class__, item.stop.__class__):
        first, last = _bound(item.start, 0, size), _bound(item.stop, size, size)
        return first, larger(first, last), step
    start, stop, _ = slice(item.start, item.stop, step).indices(size)
    return start, max(start, stop), step


def _bound(place: Any, default: Any, size: Any) -> Any:
    """An end of a slice, of a size that may be symbolic: counted from the front, within it."""
    if place is None:
        return default
    at = as_index(place)
    return larger(at + size, 0) if at < 0 else smaller(at, size)


def _basic(x: Tensor, items: list[Any]) -> tuple[Tensor, list[Any]]:
    """Apply ints, slices and None; returns the view and what stands at each of its dims."""
    index: list[Any] = []
    shape: list[int] = []
    left: list[Any] = []
    dim = 0
    sizes = x._data.shape
    for item in items:
        if item is None or isinstance(item, (bool, np.bool_)):
            shape.append(1)
            left.append(None if item is None else item)
            continue
        if isinstance(item, slice):
            span = _range(item, sizes[dim])
            index.append(span)
            shape.append(-(-(span[1] - span[0]) // span[2]))
            left.append(None)
        elif _is_advanced(item):
            if not _width(item):  # a 0-d mask selects from a new dim of size 1
                shape.append(1)
                left.append(item.reshape(1))
                continue
            for _ in range(_width(item)):
                index.append((0, sizes[dim], 1))
                shape.append(sizes[dim])
                left.append(None)
                dim += 1
            left[len(left) - _width(item)] = item
            continue
        else:
            try:
                index.append(_position(item, sizes[dim], dim))
            except TypeError:
                kind = TypeError if isinstance(item, str) else IndexError
                raise kind(
                    "only integers, slices (`:`), ellipsis (`...`), None and long or byte tensors "
                    f"are valid indices (got {type(item).__name__})"
                ) from None
        dim += 1
    if not all(map(_is_whole, index, sizes)):
        x = front.slice(x, index=tuple(index))
    if len(shape) != len(x._data.shape):
        x = front.reshape(x, shape=tuple(shape))
    return x, left


def _is_whole(item: Any, size: Any) -> bool:
    """Whether an item of a slice takes all of a dim, as far as that is known."""
    if item.__class__ is not tuple:
        return False
    if SymInt in (size.__class__, item[0].__class__, item[1].__class__):
        return same(item, (0, size, 1))
    return bool(item == (0, size, 1))


def _on_device_of(like: Tensor, t: Tensor) -> Tensor:
    """An index or a value on the device of what it is used with; both may come from the CPU."""
    if t._data.__class__ is like._data.__class__:
        return t
    return t.to(device_of(like._data))


def _as_index(item: Any, like: Tensor) -> Tensor:
    if isinstance(item, (bool, np.bool_)):
        return filled(like, (), bool(item), bool_)
    if isinstance(item, Tensor):
        t = _on_device_of(like, item)
    else:
        array = np.asarray(item)
        if array.size == 0:
            array = array.astype(np.int64)
        t = wrap(beside(like).asarray(array))
        if modes.recording and modes.RECORDER.get() is not None:
            modes.RECORDER.get().constant(t)
    dtype = dtype_of_data(t._data)
    if dtype is bool_:
        return t
    if dtype.kind >= FLOAT_KIND:
        raise IndexError(
            "tensors used as indices must be long, int, byte or bool tensors, not " + str(dtype)
        )
    return cast(t, int64)


def nonzero_rows(mask: Tensor) -> Tensor:
    """Return the indices of nonzero elements, one row each; a trace knows no number of them."""
    rows: Tensor = front.nonzero(mask, count=-1)
    return rows


def nonzero_tuple(mask: Tensor) -> tuple[Tensor, ...]:
    """Return one int64[count] tensor of indices per dim of a mask (data-dependent size)."""
    rows = nonzero_rows(mask)
    return tuple(front.slice(rows, index=((0, rows._data.shape[0], 1), i))
                 for i in range(max(1, len(mask._data.shape))))  # fmt: skip


def _advanced(x: Tensor, left: list[Any]) -> tuple[list[Tensor], list[int]]:
    """Return index tensors and the dims they stand at."""
    indices: list[Tensor] = []
    dims: list[int] = []
    for dim, item in enumerate(left):
        if item is None:
            continue
        t = _as_index(item, x)
        if dtype_of_data(t._data) is bool_:
            if isinstance(item, (bool, np.bool_)):
                t = wrap(np.zeros(1 if item else 0, dtype=np.int64))
                indices.append(t)
                dims.append(dim)
                continue
            sizes = x._data.shape[dim : dim + len(t._data.shape)]
            if t._data.shape != sizes:
                raise IndexError(
                    f"The shape of the mask {list(t._data.shape)} at index 0 does not match the "
                    f"shape of the indexed tensor {list(x._data.shape)} at index {dim}"
                )
            for offset, found in enumerate(nonzero_tuple(t)):
                indices.append(found)
                dims.append(dim + offset)
        else:
            indices.append(t)
            dims.append(dim)
    return indices, dims


def getitem(x: Tensor, key: Any) -> Tensor:
    """Return `x[key]` with PyTorch's indexing: a view for basic keys, a copy for tensors.

    Raises:
        IndexError: out of bounds, too many indices, or a float tensor as index.
    """
    if key.__class__ is int:
        size = x._data.shape[0] if x._data.shape else 0
        if not x._data.shape:
            raise IndexError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim "
                "tensor to a Python number"
            )
        rest = tuple((0, n, 1) for n in x._data.shape[1:])
        out: Tensor = front.slice(x, index=(_position(key, size, 0), *rest))
        return out
    view, left = _basic(x, _normalise(x, key))
    if all(item is None for item in left):
        if view is x:
            view = front.reshape(x, shape=x._data.shape)
        return view
    indices, dims = _advanced(view, left)
    result: Tensor = front.index(view, *indices, dims=tuple(dims))
    return result


def advanced_indices(x: Tensor, indices: Any) -> tuple[list[Tensor], list[int]]:
    """Return int64 index tensors and their dims for a sequence of indices, masks and None."""
    items = [slice(None) if i is None else i for i in indices]
    view, left = _basic(x, _normalise(x, tuple(items)))
    return _advanced(view, left)


def slice_scatter_at(x: Tensor, src: Tensor, dim: int, item: Any) -> Tensor:
    """Return x with `src` written at an index or (start, stop, step) of one dim."""
    if type_of(src).dtype is not type_of(x).dtype:
        src = cast(src, type_of(x).dtype)
    index = tuple(item if i == dim else (0, n, 1) for i, n in enumerate(x._data.shape))
    out: Tensor = front.slice_scatter(x, src, index=index)
    return out


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Write `x[key] = value` in place, broadcasting and casting `value` to the dtype of `x`.

    Raises:
        IndexError: as `getitem`.
        AutogradError: `x` is a leaf that requires a gradient (outside `no_grad`).
    """
    check_writable(x)
    if isinstance(value, (np.ndarray, np.generic, list)):
        value = _as_value(value, x)
    elif isinstance(value, Tensor):
        value = _on_device_of(x, value)
    view, left = _basic(x, _normalise(x, key))
    if all(item is None for item in left):
        _fill(view, value)
        return
    masks = [item for item in left if item is not None]
    if len(masks) == 1 and not isinstance(masks[0], (bool, np.bool_)):
        mask = _as_index(masks[0], x)
        if dtype_of_data(mask._data) is bool_ and _is_single(value):
            _masked_fill(view, mask, value, left)
            return
    indices, dims = _advanced(view, left)
    source = value if isinstance(value, Tensor) else scalar_tensor(value, type_of(x).dtype)
    source = cast(source, type_of(x).dtype)
    new = front.index_put(shell(view), source, *indices, dims=tuple(dims),
                          accumulate=False)  # fmt: skip
    assign(view, new)


def _is_single(value: Any) -> bool:
    return not isinstance(value, Tensor) or is_one(value._data.size)


def _as_value(value: Any, x: Tensor) -> Tensor:
    array = np.asarray(value)
    t = wrap(beside(x).asarray(array.astype(dtype_of(type_of(x).dtype).np)))
    if modes.recording and modes.RECORDER.get() is not None:
        modes.RECORDER.get().constant(t)
    return t


def _plain(view: Tensor) -> bool:
    """Whether a write to this memory changes no gradient history."""
    return view._node is None and (view._lineage is None or view._lineage.node is None)


def _fill(view: Tensor, value: Any) -> None:
    """Overwrite a whole view with a scalar or a broadcast tensor."""
    dtype = type_of(view).dtype
    if not isinstance(value, Tensor):
        if isinstance(value, (int, float, bool)) and not modes.recording and _plain(view):
            put(view._data, np.asarray(value).astype(dtype.np))
            count_write(view)
            return
        value = scalar_tensor(value, dtype)
    value = cast(value, dtype)
    shape = view._data.shape
    if not same(value._data.shape, shape):
        have = value._data.shape
        while len(have) > len(shape) and have[0] == 1:
            have = have[1:]
        if len(have) != len(value._data.shape):
            value = front.reshape(value, shape=have)
        value = front.expand(value, shape=shape)
    assign(view, passed_on(value, view))


def _masked_fill(view: Tensor, mask: Tensor, value: Any, left: list[Any]) -> None:
    shape = view._data.shape
    place = next(i for i, item in enumerate(left) if item is not None)
    sizes = shape[place : place + len(mask._data.shape)]
    if mask._data.shape != sizes:
        raise IndexError(
            f"The shape of the mask {list(mask._data.shape)} at index 0 does not match the shape "
            f"of the indexed tensor {list(shape)} at index {place}"
        )
    dtype = type_of(view).dtype
    wide = (1,) * place + mask._data.shape + (1,) * (len(shape) - place - len(sizes))
    source = value if isinstance(value, Tensor) else scalar_tensor(value, dtype)
    if source._data.shape:
        source = front.reshape(source, shape=())
    new = front.where(front.reshape(mask, shape=wide), cast(source, dtype), shell(view))
    assign(view, new)


def check_index_dtype(index: Tensor) -> Tensor:
    """Return an index as int64.

    Raises:
        DTypeError: the index is not of an integer dtype.
    """
    dtype = dtype_of_data(index._data)
    if dtype is bool_ or dtype.kind >= FLOAT_KIND:
        raise DTypeError(f"expected an int64 index, got {dtype}")
    return cast(index, int64)
