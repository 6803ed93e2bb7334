"""Moves: elements to or from places that index arrays name, as data.

A move runs over a space of places. The *near* array lies under all of its dims; the *far* one too,
but for an offset that indices add: far[place + sum of index[place] * step]. A move of kind "read"
takes from far to near, "write" from near to far; a fold ("sum", "amax", ...) folds near into far.

Dims are free, if no two places along them meet in far, or *serial*. Units of work are cut from free
dims alone, and each runs through the serial ones in row-major order: so the last of several writes
wins, sums are rounded in one order, and threads do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.nests.nest import Dim, Lane, lane_of, merged, ordered

Kind = Literal["read", "write", "sum", "prod", "amax", "amin"]

_LANES: Final = 2048
_SERIAL_LANES: Final = 1 << 16
_LEAST_LANES: Final = 64
# About what an element costs, in ns: along a row, on its own; and a row.
_ROW_ELEMENT_NS: Final = 0.15
_ELEMENT_NS: Final = 1.5
_ROW_NS: Final = 6.0


class Index(NamedTuple):
    """An index array: how it lies, how large the dim is that it names a place in, its stride."""

    strides: tuple[int, ...]
    size: int
    step: int


class Move(NamedTuple):
    """What the code of a move depends on.

    `indices`: how each is walked along the lanes; `wraps`: whether negative ones count from the
    end. `dtype` is that of elements; `lanes` is false where places are taken one at a time.
    """

    kind: Kind
    dtype: DType
    near: Lane
    far: Lane
    indices: tuple[Lane, ...]
    wraps: bool
    lanes: bool
    free: int
    serial: int

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the pointers."""
        return ("far", "near", *(f"index{i}" for i in range(len(self.indices))))

    @property
    def is_by_row(self) -> bool:
        """Whether all lanes have the same indices."""
        return all(lane == "one" for lane in self.indices)


class Cut(NamedTuple):
    """A move with the words of its argument block (but for pointers and the code of its fault)."""

    move: Move
    words: dict[str, int]
    chunks: int
    cost_ns: int


def slots(move: Move) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = [*move.arrays, "code", "lanes", "block", "blocks", "units", "chunk"]
    for group, count in (("free", move.free), ("serial", move.serial)):
        names += [f"{group}{d}" for d in range(count)]
        names += [f"{name}_{group}{d}" for name in move.arrays for d in range(count)]
    names += [f"{name}_lane" for name in move.arrays]
    for i in range(len(move.indices)):
        names += [f"size{i}", f"step{i}"]
    return tuple(names)


def make_move(
    kind: Kind, dtype: DType, shape: Sequence[int], serial: Sequence[int],
    near: Sequence[int], far: Sequence[int], indices: Sequence[Index], wraps: bool,
) -> Cut:  # fmt: skip
    """Return the move over a space without empty dims; `near` and `far` are strides."""
    written, other = (near, far) if kind == "read" else (far, near)
    walks = [written, other, *(i.strides for i in indices)]
    dims = [Dim(n, tuple(w[d] for w in walks), d in serial) for d, n in enumerate(shape) if n != 1]
    free = merged(ordered([d for d in dims if not d.is_folded], 0))
    through = merged([d for d in dims if d.is_folded])
    has_lanes = bool(free) and 1 in free[-1].strides
    lane = free.pop() if has_lanes else Dim(1, (0,) * len(walks), False)
    swapped = (0, 1) if kind != "read" else (1, 0)
    order = (*swapped, *range(2, len(walks)))
    lanes = [lane_of(lane.strides[i]) for i in order]
    move = Move(
        kind, dtype, lanes[1], lanes[0], tuple(lanes[2:]), wraps, has_lanes, len(free), len(through)
    )
    return _cut(move, lane, free, through, order, indices)


def _cut(
    move: Move, lane: Dim, free: list[Dim], through: list[Dim], order: Sequence[int],
    indices: Sequence[Index],
) -> Cut:  # fmt: skip
    turns = math.prod(d.extent for d in through)
    block = _LANES if not through else max(_LEAST_LANES, min(_LANES, _SERIAL_LANES // turns))
    block = min(block, lane.extent)
    blocks = -(-lane.extent // block)
    units = blocks * math.prod(d.extent for d in free)
    each = _ROW_ELEMENT_NS if move.is_by_row and move.lanes else _ELEMENT_NS
    unit_ns = turns * (_ROW_NS * move.is_by_row * move.lanes + block * each) + 1
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "lanes": lane.extent, "block": block, "blocks": blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    for group, dims in (("free", free), ("serial", through)):
        for d, dim in enumerate(dims):
            words[f"{group}{d}"] = dim.extent
            for name, i in zip(move.arrays, order, strict=True):
                words[f"{name}_{group}{d}"] = dim.strides[i]
    for name, i in zip(move.arrays, order, strict=True):
        words[f"{name}_lane"] = lane.strides[i]
    for i, index in enumerate(indices):
        words |= {f"size{i}": index.size, f"step{i}": index.step}
    return Cut(move, words, -(-units // chunk), int(units * unit_ns))
