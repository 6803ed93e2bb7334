"""Transposition of matrices in memory, square by square in registers: NCHW to NHWC and back.

For an image, NCHW is a matrix of channels × pixels, NHWC one of pixels × channels. Any copy is one
where the dim along which elements follow each other in the source is another one than in the
target. The words of the argument block, in order, strides in elements:

    source, target
    rows, columns                          of the source
    source_row, target_column              strides; those of source columns and target rows are 1
    row_blocks, block, blocks, units, chunk                from `schedule_transposition`
    outer<d>, source<d>, target<d>         extents and strides of the dims of matrices
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_staging import Lanes, transposed
from tracegraph.runtime.cpu.products.launches import Buffer, Kernel, Launch

# Columns of a unit: so many lines of the target are written, vector after vector.
_BLOCK: Final = 128
_NS: Final = 0.1


class Matrices(NamedTuple):
    """Matrices and their strides; `outer` has the extent and strides of each dim of matrices."""

    rows: int
    columns: int
    source_row: int
    target_column: int
    outer: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def dense(cls, matrices: int, rows: int, columns: int) -> Matrices:
        """Return matrices that follow each other in memory, as their rows do."""
        return cls(rows, columns, columns, rows, ((matrices, rows * columns, rows * columns),))


class Transposition(NamedTuple):
    """What the code depends on; `width`: elements of a vector, `outer`: dims of matrices."""

    dtype: DType
    width: int
    outer: int

    @classmethod
    def of(cls, dtype: DType, outer: int, target: Target) -> Transposition:
        """Return that for a target."""
        return cls(dtype, target.vector_bytes // max(dtype.itemsize, 4), outer)

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"transposition_{self.dtype.code}x{self.width}_{self.outer}"

    def kernel(self, target: Target) -> Kernel:
        """Return what is to be compiled."""
        return Kernel(self.name, transposition_text, self, target)

    def launch(self, matrices: Matrices, source: Buffer, target: Buffer) -> Launch:
        """Return the launch that copies."""
        words, chunks, cost_ns = schedule_transposition(self, matrices)
        filled: dict[str, int | Buffer] = {"source": source, "target": target, **words}
        arguments = {name: filled[name] for name in transposition_slots(self)}
        return Launch(self.name, arguments, chunks, cost_ns)


def transposition_slots(spec: Transposition) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    outer = (f"{name}{d}" for d in range(spec.outer) for name in ("outer", "source", "target"))
    return (
        "source", "target", "rows", "columns", "source_row", "target_column", "row_blocks", "block",
        "blocks", "units", "chunk", *outer,
    )  # fmt: skip


def schedule_transposition(
    spec: Transposition, matrices: Matrices
) -> tuple[dict[str, int], int, int]:
    """Return the words of the argument block but for pointers, chunks, and about what it takes."""
    rows, columns, source_row, target_column, outer = matrices
    row_blocks, blocks = -(-rows // spec.width), -(-columns // _BLOCK)
    units = math.prod(n for n, _, _ in outer) * row_blocks * blocks
    chunk = units_in_chunk(units, min(columns, _BLOCK) * spec.width * _NS)
    words = {
        "rows": rows, "columns": columns, "source_row": source_row, "target_column": target_column,
        "row_blocks": row_blocks, "block": _BLOCK, "blocks": blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    for d, (extent, source, target) in enumerate(outer):
        words |= {f"outer{d}": extent, f"source{d}": source, f"target{d}": target}
    return words, -(-units // chunk), int(units * min(columns, _BLOCK) * spec.width * _NS)


def transposition_text(spec: Transposition, _target: Target) -> str:
    """Return the kernel, the same for all targets.

    target[.., column, row] = source[.., row, column].
    """
    code = _Transposition(spec)
    code.write()
    return "\n".join((function(spec.name, KERNEL_PARAMETERS, code.w, "nounwind"), METADATA))


class _Transposition:
    """Writes the loops: units, which are rows of a vector × a block of columns; squares."""

    def __init__(self, spec: Transposition) -> None:
        self.spec, self.w = spec, Writer()
        self.lanes = Lanes(element_type(stored_dtype(spec.dtype)), spec.width)

    def write(self) -> None:
        """Write the whole body."""
        w = self.w
        self.words = words = {
            name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(transposition_slots(self.spec))
        }
        end = w.least(w.mul("%end", words["chunk"]), words["units"])
        least = w.least(words["rows"], words["columns"])
        w.either(
            w.compare("sge", least, self.lanes.width),
            lambda: w.loop(end, self._whole, start=w.mul("%begin", words["chunk"])),
            lambda: w.loop(end, self._narrow, start=w.mul("%begin", words["chunk"])),
        )

    def _unit(
        self, number: str, row_of: Callable[[Word], Word]
    ) -> tuple[list[str], str, Word, Word]:
        """Return the rows of a unit in the source, where they go, and its columns."""
        w, words, (kind, width) = self.w, self.words, self.lanes
        rest, block = w.divmod(number, words["row_blocks"])
        index, part = w.divmod(rest, words["blocks"])
        places = {name: words[name] for name in ("source", "target")}
        for d in reversed(range(self.spec.outer)):
            index, digit = w.divmod(index, words[f"outer{d}"])
            for name, place in places.items():
                places[name] = w.at(place, w.mul(digit, words[f"{name}{d}"]), kind)
        row, last = row_of(w.mul(block, width)), w.sub(words["rows"], 1)
        found = [w.least(w.add(row, i), last) for i in range(width)]
        sources = [w.at(places["source"], w.mul(r, words["source_row"]), kind) for r in found]
        start = w.mul(part, words["block"])
        end = w.least(w.add(start, words["block"]), words["columns"])
        return sources, w.at(places["target"], row, kind), start, end

    def _whole(self, number: str) -> None:
        """Do a unit of matrices that are no narrower than a vector.

        The last vector of rows, and the last square, go back so far that they are whole.
        """
        w, words, (kind, width) = self.w, self.words, self.lanes
        last_row = w.sub(words["rows"], width)
        sources, target, start, end = self._unit(number, lambda row: w.least(row, last_row))
        last = w.sub(words["columns"], width)

        def square(column: str) -> None:
            place = w.least(column, last)
            loaded = [w.load_lanes(kind, width, w.at(x, place, kind), None) for x in sources]
            for i, value in enumerate(transposed(w, self.lanes, loaded)):
                to = w.at(target, w.mul(w.add(place, i), words["target_column"]), kind)
                w.store_lanes(kind, width, value, to, None)

        w.loop(end, square, start=start, step=width)

    def _narrow(self, number: str) -> None:
        """Do a unit of narrow matrices: what is not there is masked."""
        w, words, (kind, width) = self.w, self.words, self.lanes
        sources, target, start, end = self._unit(number, lambda row: row)
        row = w.mul(w.rem(number, words["row_blocks"]), width)
        (there,) = w.masks(w.sub(words["rows"], row), width, 1)

        def square(column: str) -> None:
            left = w.sub(words["columns"], column)
            (mask,) = w.masks(left, width, 1)
            loaded = [w.load_lanes(kind, width, w.at(x, column, kind), mask) for x in sources]
            for i, value in enumerate(transposed(w, self.lanes, loaded)):
                to = w.at(target, w.mul(w.add(column, i), words["target_column"]), kind)
                is_there = w.compare("sgt", left, i)
                empty = f"<{width} x i1> zeroinitializer"
                where = w.let(f"select i1 {is_there}, <{width} x i1> {there}, {empty}")
                w.store_lanes(kind, width, value, to, where)

        w.loop(end, square, start=start, step=width)
