"""Recurrences as native kernels: at each step t, results = cell(state · B, operands).

    sums[row, gate, unit] = sum over k of state[row, k] · B[gate, k, unit]
    results[t, row, .., unit] = cell(sums[row, .., unit], operands[t or t - 1, row, .., unit])

The state is mostly a result of the step before. A `Recurrence` says what the code depends on. A
chunk has some rows and some units, of the steps from `begin` to `end`: all steps where it has all
units, so that what it needs of the step before is its own; else one, and the launches of the steps
follow each other. Each sum is over k in order, so results do not depend on how the work is cut.

Words of the argument block, strides in elements:

    begin, end                             steps
    rows, units, k, first_k                extents; k of step 0, which may have no state
    row_block, row_blocks, group_block     how the work is cut: groups are of `vectors` vectors
    panels                                 B packed: panels[group, k, gate, vectors · width]
    state, state_time, state_row           the state, after each step
    first, first_row                       the state before step 0, if `lag`
    <name>, <name>_time, <name>_row, <name>_gate      x<i> an operand, y<i> a result
    <name>_first, <name>_first_row         of an operand of the step before: that of step 0
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import CHUNK_NS
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.products.launches import Epilogue

# Accumulators of a tile, by the bytes of a register: 32 registers of 64 bytes, 16 of others.
_ACCUMULATORS: Final = {64: 26, 32: 11, 16: 11}
_WANTED_VECTORS: Final = 4
# About what things cost, see `contraction_cut`: multiplications a ns and lane, bytes of B a ns,
# a vector of a cell.
_LANE_RATE: Final = 3.0
_STREAM_RATE: Final = 60.0
_CELL_NS: Final = 25.0
# Steps that take less are not shared between threads: rows are, and they need not meet.
_STEP_NS: Final = 30_000
_LEAST_ROWS: Final = 4
_MOST_CHUNKS: Final = 16


class Stream(NamedTuple):
    """An operand or a result: one row of `gates` pieces of all units at each step.

    `earlier`: the cell reads what the step before has; `alternates`: only two steps are kept.
    """

    gates: int = 1
    earlier: bool = False
    alternates: bool = False


class Recurrence(NamedTuple):
    """What the code depends on: equal ones are compiled once.

    `vectors`: of each gate in a tile; `lag`: 1 where the state is of the step before; `cell`:
    gets the sums and the pieces of all operands, and gives the pieces of all results.
    """

    dtype: DType
    width: int
    gates: int
    vectors: int
    height: int
    lag: int
    alternates: bool
    operands: tuple[Stream, ...]
    results: tuple[Stream, ...]
    cell: Epilogue

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return name_of("recurrence", self)

    @property
    def streams(self) -> dict[str, Stream]:
        """Operands and results by the names of their pointers."""
        named = {f"x{i}": x for i, x in enumerate(self.operands)}
        return named | {f"y{i}": y for i, y in enumerate(self.results)}


def tile_of(target: Target, dtype: DType, gates: int, units: int) -> tuple[int, int, int]:
    """Return width, vectors of a gate and rows of the largest tile."""
    width = target.vector_bytes // dtype.itemsize
    vectors = max(1, min(_WANTED_VECTORS // gates, -(-units // width)))
    return width, vectors, max(1, _ACCUMULATORS[target.vector_bytes] // (gates * vectors))


@lru_cache(256)
def slots(spec: Recurrence) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = ["begin", "end", "rows", "units", "k", "first_k", "row_block", "row_blocks"]
    names += ["group_block", "panels", "state", "state_time", "state_row"]
    if spec.lag:
        names += ["first", "first_row"]
    for name, stream in spec.streams.items():
        names += [name, f"{name}_time", f"{name}_row", f"{name}_gate"]
        if stream.earlier:
            names += [f"{name}_first", f"{name}_first_row"]
    return tuple(names)


class Cut(NamedTuple):
    """Words, chunks of a launch, whether each step is a launch, and about what a step takes."""

    words: dict[str, int]
    chunks: int
    by_step: bool
    step_ns: float


def cut(spec: Recurrence, rows: int, units: int, k: int, by_step: bool) -> Cut:
    """Return how to cut a recurrence, by its sizes alone; `by_step`: each step is a launch."""
    vectors = -(-units // spec.width)
    groups = -(-vectors // spec.vectors)
    row_ns = spec.gates * k * max(1 / _LANE_RATE, spec.width * spec.dtype.itemsize / (
        _STREAM_RATE * min(rows, spec.height)))  # fmt: skip
    vector_ns = rows * (row_ns + _CELL_NS)
    step_ns = vectors * vector_ns
    by_step = by_step or step_ns > _STEP_NS
    row_blocks = max(1, min(rows // _LEAST_ROWS, _MOST_CHUNKS))
    group_block = groups
    if by_step:
        wanted = max(1, min(int(step_ns / CHUNK_NS), 4 * _MOST_CHUNKS))
        group_block = max(1, groups // wanted)
        row_blocks = max(1, min(row_blocks, wanted * group_block // groups))
    row_block = -(-rows // row_blocks)
    row_blocks = -(-rows // row_block)
    words = {"rows": rows, "units": units, "k": k, "row_block": row_block,
             "row_blocks": row_blocks, "group_block": group_block}  # fmt: skip
    return Cut(words, row_blocks * -(-groups // group_block), by_step, step_ns)
