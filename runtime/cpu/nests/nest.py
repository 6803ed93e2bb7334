"""Loop nests: elementwise ops and reductions over one space of indices, as data.

A *space* is a shape, some dims of which are *folded* (summed, ...), while the others are *kept*.
Its values are a straight-line program. A value is *full* if it has an element for each place in
the space, a *row* if it has one for each place of the kept dims. Dims that all arrays walk alike
become one dim; one dim is the *lane* dim, whose elements are computed side by side in vectors:

    lanes "folded"   softmax of rows, sum of all: vectors lie along a row, and are folded at its end
    lanes "kept"     elementwise, sums of columns: each lane has a row of its own

A `Nest` says what code depends on; extents and strides are words of the argument block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.tensor_type import Shape

LOAD: Final = "load"
NUMBER: Final = "number"
FOLDS: Final = ("sum", "prod", "amax", "amin", "any", "all")
# Rows whose costly values are kept on the stack between passes are at most so long.
_SAVED_BYTES: Final = 1 << 16
_BLOCK_LANES: Final = 2048
_SHORT_LANES: Final = 8
# About what a vector costs, in ns: an operation, a function that is no instruction, 64 bytes.
_PLAIN_NS: Final = 0.4
_COSTLY_NS: Final = 5.0
_LINE_NS: Final = 2.0
_ROW_NS: Final = 20.0
_LINES: Final[dict[str, int]] = {"one": 0, "vector": 1, "reversed": 1, "strided": 4}

Lane = Literal["one", "vector", "reversed", "strided"]


class Step(NamedTuple):
    """One value: `load` of an operand, `number`, a fold, or an elementwise row of the op table.

    `inputs` are numbers of values; of a load, the number of the operand.
    """

    op: str
    inputs: tuple[int, ...]
    dtype: DType
    attrs: tuple[tuple[str, Any], ...] = ()


class Array(NamedTuple):
    """An operand, or a result that holds `value`: how it is walked."""

    dtype: DType
    lane: Lane
    is_row: bool
    value: int = -1


class Nest(NamedTuple):
    """What the code of a nest depends on: equal ones are compiled once.

    `kept` and `folded` count the loops around the lanes.
    """

    lanes: Literal["kept", "folded"]
    steps: tuple[Step, ...]
    operands: tuple[Array, ...]
    results: tuple[Array, ...]
    kept: int
    folded: int
    saves: bool

    @property
    def arrays(self) -> dict[str, Array]:
        """Operands and results by the names of their pointers."""
        named = {f"x{i}": a for i, a in enumerate(self.operands)}
        return named | {f"y{i}": a for i, a in enumerate(self.results)}

    @property
    def has_folds(self) -> bool:
        """Whether anything is folded."""
        return any(step.op in FOLDS for step in self.steps)


class Walk(NamedTuple):
    """How an array of some dtype lies under the dims of a space; a stride of 0 repeats it."""

    dtype: DType
    strides: tuple[int, ...]


class Cut(NamedTuple):
    """A nest with the words of its argument block (but for pointers), its chunks and its cost."""

    nest: Nest
    words: dict[str, int]
    chunks: int
    cost_ns: int


def slots(nest: Nest) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = [*nest.arrays, "lanes", "block", "blocks", "units", "chunk"]
    names += [f"kept{d}" for d in range(nest.kept)] + [f"folded{d}" for d in range(nest.folded)]
    for name, array in nest.arrays.items():
        names += [f"{name}_kept{d}" for d in range(nest.kept)]
        if not array.is_row:
            names += [f"{name}_folded{d}" for d in range(nest.folded)]
        if array.lane == "strided":
            names.append(f"{name}_lane")
    return tuple(names)


class Dim(NamedTuple):
    """A dim of a space, and how each array walks along it."""

    extent: int
    strides: tuple[int, ...]  # of each array
    is_folded: bool


def make_nest(
    shape: Shape, folded: Sequence[int], steps: Sequence[Step], operands: Sequence[Walk],
    results: Sequence[tuple[int, Walk]], costly: frozenset[int], vector_bytes: int,
) -> Cut:  # fmt: skip
    """Return the nest over a space without empty dims.

    `results` are numbers of values and where they go; `costly` are values that no single
    instruction gives.
    """
    walks = [*operands, *(walk for _, walk in results)]
    dims = [
        Dim(n, tuple(w.strides[d] for w in walks), d in folded)
        for d, n in enumerate(shape)
        if n != 1
    ]
    first = len(operands)
    kept = merged(ordered([d for d in dims if not d.is_folded], first))
    over = merged(ordered([d for d in dims if d.is_folded], 0))
    lanes = _lanes(kept, over, first)
    if not over:
        kept = _long_lanes_last(kept)
    along = (kept if lanes == "kept" else over) or [Dim(1, (0,) * len(walks), False)]
    lane, outer = along[-1], along[:-1]
    kept, over = (outer, over) if lanes == "kept" else (kept, outer)
    is_row = [all(d.strides[i] == 0 for d in (*over, *([lane] if lanes == "folded" else [])))
              for i in range(len(walks))]  # fmt: skip
    numbers = [-1] * first + [number for number, _ in results]
    has_folds = any(s.op in FOLDS for s in steps)
    arrays = [
        Array(w.dtype, lane_of(lane.strides[i]), is_row[i] and has_folds, numbers[i])
        for i, w in enumerate(walks)
    ]
    saves = lanes == "folded" and not over and bool(costly)
    saves = saves and lane.extent * 8 * min(len(costly), 2) <= _SAVED_BYTES
    nest = Nest(
        lanes, tuple(steps), tuple(arrays[:first]), tuple(arrays[first:]), len(kept), len(over),
        saves,
    )  # fmt: skip
    return _cut(nest, lane, kept, over, len(costly), vector_bytes)


def ordered(dims: list[Dim], leading: int) -> list[Dim]:
    """Return dims from the outermost to the innermost, by the strides of the arrays from `leading`.

    Arrays that do not move along a dim say nothing.
    """

    def key(dim: Dim) -> int:
        strides = [s for s in (*dim.strides[leading:], *dim.strides[:leading]) if s]
        return -strides[0] if strides else 0

    return sorted(dims, key=key)


def merged(dims: list[Dim]) -> list[Dim]:
    """Return dims with those put together that all arrays walk as one."""
    made: list[Dim] = []
    for dim in dims:
        if made and all(
            s == t * dim.extent for s, t in zip(made[-1].strides, dim.strides, strict=True)
        ):
            made[-1] = Dim(made[-1].extent * dim.extent, dim.strides, dim.is_folded)
        else:
            made.append(dim)
    return made


def _lanes(kept: list[Dim], over: list[Dim], first: int) -> Literal["kept", "folded"]:
    if not over or not kept:
        return "folded" if over else "kept"
    inner, outer = over[-1].strides, kept[-1].strides
    along_row = sum(s == 1 for s, t in zip(inner, outer, strict=True) if t)
    along_kept = sum(s == 1 for s, t in zip(outer[:first], inner[:first], strict=False) if t)
    return "folded" if along_row >= max(along_kept, 1) else "kept"


def _long_lanes_last(dims: list[Dim]) -> list[Dim]:
    """Return dims with a longer one last where the last is too short for vectors.

    As the three channels of an image: what is written apart costs less than lanes left empty.
    """
    if not dims or dims[-1].extent >= _SHORT_LANES:
        return dims
    longer = [d for d in dims if d.extent >= 2 * _SHORT_LANES and 1 in d.strides]
    if not longer:
        return dims
    best = max(longer, key=lambda d: d.extent)
    return [*(d for d in dims if d is not best), best]


def lane_of(stride: int) -> Lane:
    """Return how an array of some stride is walked along the lanes."""
    named: dict[int, Lane] = {0: "one", 1: "vector", -1: "reversed"}
    return named.get(stride, "strided")


def _cut(
    nest: Nest, lane: Dim, kept: list[Dim], over: list[Dim], costly: int, vector_bytes: int
) -> Cut:
    """Return the nest cut into units and chunks: by extents alone, so that results are too."""
    outer = math.prod(d.extent for d in kept)
    by_block = nest.lanes == "kept"
    rows = math.prod(d.extent for d in over)
    block = max(1, min(lane.extent, _block(nest, rows)))
    blocks = -(-lane.extent // block) if by_block else 1
    units = outer * blocks
    across = max(1, vector_bytes // max(a.dtype.compute.itemsize for a in nest.arrays.values()))
    vectors = -(-(block if by_block else lane.extent) // across) * rows
    plain = len(nest.steps) - costly
    lines = sum(_LINES[a.lane] for a in nest.arrays.values())
    unit_ns = _ROW_NS + vectors * (plain * _PLAIN_NS + costly * _COSTLY_NS + lines * _LINE_NS)
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "lanes": lane.extent, "block": block, "blocks": blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    words |= {f"kept{i}": d.extent for i, d in enumerate(kept)}
    words |= {f"folded{i}": d.extent for i, d in enumerate(over)}
    for number, (name, array) in enumerate(nest.arrays.items()):
        words |= {f"{name}_kept{i}": d.strides[number] for i, d in enumerate(kept)}
        if not array.is_row:
            words |= {f"{name}_folded{i}": d.strides[number] for i, d in enumerate(over)}
        if array.lane == "strided":
            words[f"{name}_lane"] = lane.strides[number]
    return Cut(nest, words, -(-units // chunk), int(units * unit_ns))


def _block(nest: Nest, rows: int) -> int:
    """Return the lanes of a unit: few if each has a long row to fold."""
    return _BLOCK_LANES if not nest.has_folds else max(64, _BLOCK_LANES // max(1, rows // 64))
