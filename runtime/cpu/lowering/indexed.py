"""Indexing by arrays, gather and scatter as moves (see `moving`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from tracegraph.dtypes import DType, uint8, uint16, uint32, uint64
from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Place
from tracegraph.runtime.cpu.lowering.steps import Launch, pointer
from tracegraph.runtime.cpu.moves.moving import Index, Kind, make_move, slots
from tracegraph.runtime.cpu.moves.moving_code import move_kernel
from tracegraph.runtime.cpu.nests.functions import neutral
from tracegraph.tensor_type import Shape, broadcast_shapes

# Elements that are only moved are bits of some size.
_BITS: Final[dict[int, DType]] = {1: uint8, 2: uint16, 4: uint32, 8: uint64}


class Space(NamedTuple):
    """A space, the dims where places may meet, and the index arrays under it.

    `rest`: for each dim of the space, the dim of the indexed array that runs along it, or None.
    """

    shape: Shape
    serial: tuple[int, ...]
    rest: tuple[int | None, ...]
    indices: list[tuple[Place, int]]  # with the dim that it names places in
    wraps: bool


def _indexed_space(x: Place, indices: Sequence[Place], dims: Shape) -> Space:
    """Return the space of `x[...]` with index arrays at some dims."""
    lead = broadcast_shapes([i.shape for i in indices])
    others: list[int | None] = [d for d in range(len(x.shape)) if d not in dims]
    first = dims[0] if all(b - a == 1 for a, b in pairwise(dims)) else 0
    rest = (*others[:first], *(None for _ in lead), *others[first:])
    sizes = iter(lead)
    shape = tuple(next(sizes) if d is None else x.shape[d] for d in rest)
    before, behind = (0,) * first, (0,) * (len(others) - first)
    laid = [
        i._replace(shape=shape, strides=(*before, *places.expand(i, lead).strides, *behind))
        for i in indices
    ]
    serial = tuple(range(first, first + len(lead)))
    return Space(shape, serial, rest, list(zip(laid, dims, strict=True)), wraps=True)


def _along(index: Place, dim: int) -> Space:
    """Return the space of an index array that names places along a dim."""
    if not index.shape:
        raise UnsupportedError("an index without dims")
    rest = tuple(None if d == dim else d for d in range(len(index.shape)))
    return Space(index.shape, (dim,), rest, [(index, dim)], wraps=False)


def add_move(low: Lowering, node: Node, kind: Kind, space: Space, near: Place, far: Place) -> None:
    """Add a move; `near` lies under the space, `far` is the indexed array."""
    if 0 in space.shape:
        if space.wraps and all(space.shape[d] for d in space.serial):
            raise UnsupportedError("indices of elements without a size")
        return
    indices = [
        Index(i.strides, far.shape[dim], far.strides[dim] if far.shape[dim] > 1 else 0)
        for i, dim in space.indices
    ]
    if any(index.size == 0 for index in indices):
        raise UnsupportedError("indices into an empty dim")
    is_fold = kind not in ("read", "write")
    cut = make_move(
        kind, near.dtype if is_fold else _BITS[near.dtype.itemsize], space.shape,
        () if kind == "read" else space.serial, near.strides,
        [0 if d is None else far.strides[d] for d in space.rest], indices, space.wraps,
    )  # fmt: skip
    kernel, arrays = move_kernel(cut.move, low.target), [far, near, *(i for i, _ in space.indices)]
    known = cut.words | {"code": _code(low, node, space, far)}
    words = [pointer(p) for p in arrays] + [known[name] for name in slots(cut.move)[len(arrays) :]]
    written = near if kind == "read" else far
    use = Use([p.buffer for p in arrays], [written.buffer])
    what = node.op if kind == "read" else f"{node.op} ({kind})"
    low.steps.append(Launch(kernel, tuple(words), cut.chunks, cut.cost_ns, use, node, what))
    _note_in_range(low, space, far)


def _code(low: Lowering, node: Node, space: Space, far: Place) -> int:
    """Return the code to report a fault by; 0 where earlier steps have seen all indices."""
    for place, dim in space.indices:
        size = far.shape[dim]
        if not any((place.buffer, size, wraps) in low.in_range for wraps in {False, space.wraps}):
            return low.check(node)
    return 0


def _note_in_range(low: Lowering, space: Space, far: Place) -> None:
    """Note the index arrays of which all elements have been seen."""
    for place, dim in space.indices:
        dims = [(n, s) for n, s in zip(place.shape, place.strides, strict=True) if s]
        own = place._replace(shape=tuple(n for n, _ in dims), strides=tuple(s for _, s in dims))
        if places.is_dense(own) and math.prod(own.shape) * own.dtype.itemsize == own.buffer.bytes:
            low.in_range[place.buffer, far.shape[dim], space.wraps] = None


def lower_index(low: Lowering, node: Node) -> None:
    """Lower `x[...]` with index arrays."""
    x, *indices = (low.place(v) for v in node.inputs)
    made = low.new(node.out)
    add_move(low, node, "read", _indexed_space(x, indices, node.attrs["dims"]), made, x)


def lower_gather(low: Lowering, node: Node) -> None:
    """Lower y[i][j] = x[index[i][j]][j]."""
    x, index = (low.place(v) for v in node.inputs)
    add_move(low, node, "read", _along(index, node.attrs["dim"]), low.new(node.out), x)


def lower_index_put(low: Lowering, node: Node) -> None:
    """Lower x[...] = y or x[...] += y with index arrays."""
    x, y, *indices = (low.place(v) for v in node.inputs)
    made = _copied(low, node, x)
    space = _indexed_space(made, indices, node.attrs["dims"])
    kind: Kind = "sum" if node.attrs["accumulate"] else "write"
    add_move(low, node, kind, space, places.expand(y, space.shape), made)


def lower_scatter(low: Lowering, node: Node) -> None:
    """Lower scatter, scatter_add and scatter_reduce."""
    x, index, y = (low.place(v) for v in node.inputs)
    made, space = _copied(low, node, x), _along(index, node.attrs["dim"])
    kind: Kind = node.attrs.get("reduce", "write" if node.op == "scatter" else "sum")
    if not node.attrs.get("include_self", True):
        start = low.number(neutral(kind, x.dtype), x.dtype)
        add_move(low, node, "write", space, places.expand(start, space.shape), made)
    add_move(low, node, kind, space, y, made)


def _copied(low: Lowering, node: Node, x: Place) -> Place:
    made = low.new(node.out, [x])
    low.copy(x, made, node)
    return made
