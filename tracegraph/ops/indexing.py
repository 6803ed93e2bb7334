"""Indexing by integer arrays in NumPy's general form.

Indices are int64; negative ones count from the end; out of range raises IndexError.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from tracegraph.dtypes import int64
from tracegraph.errors import DTypeError, GuardError, OpError
from tracegraph.ops.core import (
    COMPLEX,
    COUNTED,
    LAID_ALIKE,
    NOT_DIFFERENTIABLE,
    Joint,
    Spec,
    case,
    define,
    row_major,
)
from tracegraph.tensor_type import Shape, TensorType, broadcast_shapes

_I = "i"


def index_shape(x: Shape, indices: tuple[TensorType, ...], dims: Shape) -> Shape:
    """Return the shape of `x[...]` with index arrays at `dims` (NumPy's advanced indexing)."""
    lead = broadcast_shapes([t.shape for t in indices])
    rest = [n for i, n in enumerate(x) if i not in dims]
    adjacent = all(b - a == 1 for a, b in pairwise(dims))
    place = dims[0] if adjacent else 0
    return (*rest[:place], *lead, *rest[place:])


def _check_indices(x: TensorType, indices: tuple[TensorType, ...], dims: Shape) -> None:
    if len(indices) != len(dims) or not dims or list(dims) != sorted(set(dims)):
        raise OpError(f"index needs one index array for each of the dims {dims}")
    if dims[-1] >= x.ndim:
        raise OpError(f"too many indices for tensor of dimension {x.ndim}")
    for t in indices:
        if t.dtype is not int64:
            raise DTypeError(f"index arrays are int64, not {t.dtype}")


def _index_type(x: TensorType, *indices: TensorType, dims: Shape) -> TensorType:
    _check_indices(x, indices, dims)
    return x.with_shape(index_shape(x.shape, indices, dims))


def _at(ndim: int, indices: tuple[Any, ...], dims: Shape) -> tuple[Any, ...]:
    places: list[Any] = [slice(None)] * ndim
    for dim, index in zip(dims, indices, strict=True):
        places[dim] = index
    return tuple(places)


def _check_bounds(xp: Any, shape: Shape, indices: tuple[Any, ...], dims: Shape) -> None:
    """CuPy wraps what is out of range; NumPy raises by itself."""
    if xp.__name__ == "cupy":
        _refuse_outside(shape, indices, dims)


def _refuse_outside(shape: Shape, indices: tuple[Any, ...], dims: Shape) -> None:
    for dim, index in zip(dims, indices, strict=True):
        if index.size and bool(((index < -shape[dim]) | (index >= shape[dim])).any()):
            raise IndexError(f"index out of range for dim {dim} of size {shape[dim]}")


def _index(xp: Any, x: Any, *indices: Any, dims: Shape) -> Any:
    _check_bounds(xp, x.shape, indices, dims)
    return x[_at(x.ndim, indices, dims)]


def _index_vjp(m: Any, g: Any, x_type: TensorType, indices: Any, dims: Shape) -> Any:
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return (m.index_put(zeros, g, *indices, dims=dims, accumulate=True),) + (None,) * len(indices)


index = define(
    "index(x, *indices) -> y", type=_index_type, kernel=row_major(_index), vjp=Joint(
        lambda m, g, x_type, indices, dims: _index_vjp(m, g, x_type, indices, dims)),
    traits=(COMPLEX,), sample=(case((4, 3), Spec((5,), 0, 4, _I), dims=(0,)),
            case((4, 3, 2), Spec((2, 1), 0, 4, _I), Spec((2,), 0, 2, _I), dims=(0, 2)),
            case((4, 3), Spec((5,), 0, 3, _I), dims=(1,))),
    doc="x with int64 index arrays at some dims (NumPy's advanced indexing).",
)  # fmt: skip


def _index_put_type(
    x: TensorType, y: TensorType, *indices: TensorType, dims: Shape, accumulate: bool
) -> TensorType:
    target = _index_type(x, *indices, dims=dims)
    if broadcast_shapes([target.shape, y.shape]) != target.shape:
        raise OpError(
            f"shape mismatch: value tensor of shape {list(y.shape)} cannot be broadcast to "
            f"indexing result of shape {list(target.shape)}"
        )
    if y.dtype is not x.dtype:
        raise DTypeError(
            f"Index put requires the source and destination dtypes match, got "
            f"{x.dtype} for the destination and {y.dtype} for the source."
        )
    return x


def fold_at(xp: Any, name: str, out: Any, indices: tuple[Any, ...], dims: Shape, y: Any) -> None:
    """out[...] = function(out[...], y) at index arrays, repeats counted; `out` is contiguous.

    NumPy has `function.at`, which on flat memory is 5 to 10 times faster than on rows, and 3 times
    faster than sorting. CuPy has it for few functions and dtypes, in an order that changes from
    run to run; there values are sorted by place and folded in doubling steps (Hillis & Steele
    1986).
    """
    function = getattr(xp, name)
    if not dims:
        out[...] = function(out, y)
        return
    if xp.__name__ == "numpy":
        _refuse_outside(out.shape, indices, dims)
    places = flat_places(xp, out.shape, indices, dims)
    parts = xp.broadcast_to(y, places.shape).reshape(-1)
    places = places.reshape(-1)
    if xp.__name__ == "numpy":
        function.at(out.reshape(-1), places, parts)
    elif places.size:
        _fold_sorted(xp, function, out.reshape(-1), places, parts)


def flat_places(xp: Any, shape: Shape, indices: tuple[Any, ...], dims: Shape) -> Any:
    """Return row-major positions of the elements that index arrays take, as the result lies."""
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    total: Any = 0
    for dim, index in zip(dims, indices, strict=True):
        # Not `%`: the division takes 5 ns per element.
        total = total + xp.where(index < 0, index + shape[dim], index) * steps[dim]
    adjacent = all(b - a == 1 for a, b in pairwise(dims))
    place = dims[0] if adjacent else 0
    rest = [i for i in range(len(shape)) if i not in dims]
    lead, total = total.ndim, total.reshape((*total.shape, *(1,) * (len(rest) - place)))
    for j, dim in enumerate(rest):
        behind = len(rest) - 1 - j + (lead if j < place else 0)
        total = total + xp.arange(shape[dim]).reshape(-1, *(1,) * behind) * steps[dim]
    return total


def _fold_sorted(xp: Any, function: Any, out: Any, places: Any, values: Any) -> None:
    """out[places] = function(out[places], values) for flat arrays, in an order that is fixed."""
    order = xp.argsort(places, kind="stable")
    ranked, parts = places[order], values[order]
    step = 1
    while step < len(ranked):
        same = ranked[step:] == ranked[:-step]
        if not bool(same.any()):
            break
        parts[step:] = xp.where(same, function(parts[:-step], parts[step:]), parts[step:])
        step *= 2
    last = xp.concatenate((ranked[1:] != ranked[:-1], xp.ones(1, dtype=bool)))
    ends = ranked[last]
    out[ends] = function(out[ends], parts[last])


def _index_put(xp: Any, x: Any, y: Any, *indices: Any, dims: Shape, accumulate: bool) -> Any:
    _check_bounds(xp, x.shape, indices, dims)
    out = x.copy()
    if accumulate:
        fold_at(xp, "add", out, indices, dims, y)
    else:
        out[_at(x.ndim, indices, dims)] = y
    return out


def _index_put_vjp(
    m: Any, g: Any, y_type: TensorType, indices: Any, dims: Shape, accumulate: bool, needs: Any
) -> Any:
    base = g
    if needs[0] and not accumulate:
        zeros = m.full(shape=y_type.shape, value=0, dtype=g.dtype)
        base = m.index_put(g, zeros, *indices, dims=dims, accumulate=False)
    values = m.index(g, *indices, dims=dims) if needs[1] else None
    return (base, values) + (None,) * len(indices)


index_put = define(
    "index_put(x, y, *indices) -> z", type=_index_put_type, kernel=_index_put, vjp=Joint(
        lambda m, g, y_type, indices, dims, accumulate, needs: _index_put_vjp(
            m, g, y_type, indices, dims, accumulate, needs)),
    traits=(COMPLEX,),
    sample=(case((4, 3), (2, 3), Spec((2,), 0, 4, _I), dims=(0,), accumulate=True),
            case((4, 3), (1,), Spec((2,), 0, 2, _I), Spec((2,), 1, 2, _I), dims=(0, 1),
                 accumulate=True),
            case((2, 3), (2, 1), Spec((1,), 0, 3, _I), dims=(1,), accumulate=False)),
    doc="x with y written (or added, repeats counted) at index arrays.",
)  # fmt: skip


def _nonzero_type(x: TensorType, *, count: int) -> TensorType:
    if count < 0:
        raise OpError("the shape of nonzero depends on data and has no static type")
    return TensorType(int64, (count, x.ndim))


def _nonzero(xp: Any, x: Any, *, count: int) -> Any:
    places = xp.stack(xp.nonzero(xp.atleast_1d(x))).T  # dim by dim, as PyTorch's lie
    if count not in (-1, len(places)):
        raise GuardError(
            f"{len(places)} elements are not zero, and the trace was made where {count} were: "
            "sizes that follow from data are fixed in a graph"
        )
    return places[:, : x.ndim].astype(xp.int64)


nonzero = define(
    "nonzero(x) -> y", type=_nonzero_type, kernel=_nonzero, vjp=NOT_DIFFERENTIABLE,
    traits=(COUNTED, COMPLEX, LAID_ALIKE),
    sample=(case((2, 3), count=6), case((0, 2), count=0)),
    doc="Indices of nonzero elements, one row each; another `count` than that is an error.",
)  # fmt: skip


def _repeat_type(repeats: TensorType, *, count: int) -> TensorType:
    if repeats.dtype is not int64 or repeats.ndim != 1:
        raise OpError(f"repeats are i64[size], not {repeats}")
    if count < 0:
        raise OpError("the shape of repeat_places depends on data and has no static type")
    return TensorType(int64, (count,))


def _repeat_places(xp: Any, repeats: Any, *, count: int) -> Any:
    if bool((repeats < 0).any()):
        raise OpError("repeats can not be negative")
    # CuPy repeats by one number or a list only; searching the running sums does the same.
    total = int(repeats.sum())
    if count not in (-1, total):
        raise GuardError(
            f"the repeats add up to {total}, and the trace was made where they did to {count}: "
            "sizes that follow from data are fixed in a graph"
        )
    places = xp.arange(total, dtype=xp.int64)
    return xp.searchsorted(xp.cumsum(repeats), places, side="right").astype(xp.int64)


repeat_places = define(
    "repeat_places(repeats) -> places", type=_repeat_type, kernel=_repeat_places,
    vjp=NOT_DIFFERENTIABLE, traits=(COUNTED,),
    sample=(case(Spec((3,), 2, 3, _I), count=6), case(Spec((2,), 0, 1, _I), count=0)),
    doc="Each place as often as it says, in order; another `count` than that is an error.",
)  # fmt: skip
