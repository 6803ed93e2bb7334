"""The LLVM IR of a contraction kernel; `contraction` tells what its arguments are.

A unit is a block of rows × a block of panels of one matrix. Its loops, from the outside in: blocks
of k; groups of panels (those of B that are not packed are copied to the stack here); slivers of
rows (copied to the stack: 2 to 6 % of the time); panels; the tile. So a sliver of A stays in the
first cache, and a block of B in the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracegraph.runtime.cpu.contraction import STAGED_PANELS, Contraction, slots
from tracegraph.runtime.cpu.contraction_epilogue import define_epilogue
from tracegraph.runtime.cpu.contraction_places import Grid, Line
from tracegraph.runtime.cpu.contraction_results import Area, Form, store_area
from tracegraph.runtime.cpu.contraction_staging import (
    Block,
    Lanes,
    Part,
    copy_columns,
    copy_rows,
    copy_transposed,
    copy_windows,
)
from tracegraph.runtime.cpu.contraction_tiles import TileCode, tile_text
from tracegraph.runtime.cpu.llvm import Target
from tracegraph.runtime.cpu.scalar_language import new_library
from tracegraph.runtime.cpu.scalars import Abilities
from tracegraph.runtime.cpu.storage import stored_dtype
from tracegraph.runtime.cpu.values import element_type
from tracegraph.runtime.cpu.writer import METADATA, Word, Writer, function

_PARAMETERS = ("ptr noalias %arguments", "ptr %frame", "i64 %begin", "i64 %end")


def contraction_text(spec: Contraction, target: Target) -> str:
    """Return the module of a kernel.

    Raises:
        UnsupportedError: a step of the epilogue has no native form.
    """
    library = new_library(target)
    define_epilogue(library, spec.output, spec.dtype, spec.tile.width)
    kernel = _Kernel(spec, target)
    kernel.write()
    tiles = [tile_text(kernel.tile_code(height)) for height in spec.tile.heights]
    zeros = f"@zeros = private constant {kernel.vector} zeroinitializer"
    text = function(spec.name, _PARAMETERS, kernel.w, "nounwind")
    return "\n".join((zeros, library.text(), *tiles, text, METADATA))


class _Unit(NamedTuple):
    """What the loops inside of a block of k are about."""

    pointers: dict[str, str]  # of one matrix of the batch
    row: Word
    row_end: Word
    panel: Word
    panel_end: Word
    k: Word
    k_count: Word
    is_first: str
    is_last: str


class _Kernel:
    """Writes the loops."""

    def __init__(self, spec: Contraction, target: Target) -> None:
        self.spec, self.tile, self.w = spec, spec.tile, Writer()
        self.lanes = Lanes(element_type(spec.dtype), spec.tile.width)
        self.vector = f"<{spec.tile.width} x {self.lanes.kind}>"
        self.kinds = {x: element_type(stored_dtype(d)) for x, d in spec.arrays.items()}
        self.has_fma = Abilities.of(target).fma
        self.has_masks = target.vector_bytes == 64
        self.panel_size = spec.k_block * spec.tile.columns
        tall, width = spec.tile.heights[0], spec.tile.width
        # The strides of copied slivers, of a row and of a step of k. No power of two: see
        # `contraction_staging`.
        if spec.a == "columns":
            self.a_strides = (1, -(-tall // width) * width)
        else:
            self.a_strides = (spec.k_block + width, 1)

    def tile_code(self, height: int) -> TileCode:
        """Return what the code of a tile depends on."""
        shape = (height, self.tile.vectors, self.tile.width)
        return TileCode(*shape, self.spec.dtype, *self.a_strides, self.has_fma)

    def write(self) -> None:
        """Write the whole body."""
        w, spec, tile = self.w, self.spec, self.tile
        a_row, a_step = self.a_strides
        self.sliver = self._memory(max(a_row * tile.heights[0], a_step * spec.k_block))
        self.sums = self._memory(tile.heights[0] * tile.columns)
        if spec.b != "panels":
            self.staged = self._memory(STAGED_PANELS * self.panel_size + tile.width)
        self.words = {
            name: w.load("ptr" if name in self.kinds else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(slots(spec))
        }
        self.rows = (Grid if spec.a == "windows" else Line)(w, self.words)
        chunk, units = self.words["chunk"], self.words["units"]
        w.loop(w.least(w.mul("%end", chunk), units), self._unit, start=w.mul("%begin", chunk))

    def _memory(self, elements: int) -> str:
        return self.w.let(f"alloca [{elements} x {self.lanes.kind}], align 64")

    def _at(self, pointer: str, *offsets: Word) -> str:
        """Return the place of an element of A or B."""
        for offset in offsets:
            pointer = self.w.at(pointer, offset, self.lanes.kind)
        return pointer

    def _unit(self, unit: str) -> None:
        w, words = self.w, self.words
        rest, panel_block = w.divmod(unit, words["panel_blocks"])
        matrix, row_block = w.divmod(rest, words["row_blocks"])
        pointers = self._matrix(matrix)
        row = w.mul(row_block, words["row_block"])
        row_end = w.least(w.add(row, words["row_block"]), words["m"])
        panels = w.div(w.add(words["n"], self.tile.columns - 1), self.tile.columns)
        panel = w.mul(panel_block, words["panel_block"])
        panel_end = w.least(w.add(panel, words["panel_block"]), panels)

        def block(number: str) -> None:
            k = w.mul(number, words["k_block"])
            count = w.least(w.sub(words["k"], k), words["k_block"])
            is_first = w.compare("eq", number, 0)
            is_last = w.compare("eq", w.add(number, 1), words["k_blocks"])
            u = _Unit(pointers, row, row_end, panel, panel_end, k, count, is_first, is_last)
            if self.spec.b == "panels":
                self._packed(u)
            else:
                self._staged(u)

        w.loop(words["k_blocks"], block)

    def _matrix(self, index: Word) -> dict[str, str]:
        """Return the pointers to one matrix of the batch."""
        w, words = self.w, self.words
        found = {name: words[name] for name in self.kinds}
        for d in reversed(range(self.spec.batch)):
            index, digit = w.divmod(index, words[f"extent{d}"])
            for name, pointer in found.items():
                offset = w.mul(digit, words[f"{name}_batch{d}"])
                found[name] = w.at(pointer, offset, self.kinds[name])
        return found

    # B.

    def _packed(self, u: _Unit) -> None:
        """Do a block of k with panels as they are in memory."""
        w, stride = self.w, self.words["b_stride"]
        b = self._at(u.pointers["b"], w.mul(u.k, self.tile.columns))
        self._slivers(u, lambda panel: self._at(b, w.mul(panel, stride)))

    def _staged(self, u: _Unit) -> None:
        """Do a block of k with groups of panels that are copied to the stack."""
        w = self.w

        def group(first: str) -> None:
            end = w.least(w.add(first, STAGED_PANELS), u.panel_end)
            one = u._replace(panel=first, panel_end=end)
            self._stage_panels(one)

            def place(panel: str) -> str:
                return self._at(self.staged, w.mul(w.sub(panel, first), self.panel_size))

            self._slivers(one, place)

        w.loop(u.panel_end, group, start=u.panel, step=STAGED_PANELS)

    def _stage_panels(self, u: _Unit) -> None:
        w, tile, b = self.w, self.tile, u.pointers["b"]
        column = w.mul(u.panel, tile.columns)
        end = w.least(self.words["n"], w.mul(u.panel_end, tile.columns))
        count = w.sub(end, column)
        if self.spec.b == "windows":
            return self._stage_windows(u, column, end)
        stride = self.words["b_stride"]
        if self.spec.b == "columns":
            block = Block(self._at(b, w.mul(column, stride), u.k), stride, count, u.k_count)

            def place(vector: str) -> Word:
                panel, part = w.divmod(vector, tile.vectors)
                return w.add(w.mul(panel, self.panel_size), w.mul(part, tile.width))

            return copy_transposed(w, self.lanes, block, self.staged, tile.columns, place)
        block = Block(self._at(b, w.mul(u.k, stride), column), stride, u.k_count, count)
        places = [
            panel * self.panel_size + vector * tile.width
            for panel in range(STAGED_PANELS)
            for vector in range(tile.vectors)
        ]

        def copy(masks: list[str | None]) -> None:
            copy_columns(w, self.lanes, block, self.staged, tile.columns, places, masks)

        return self._in_lanes(count, len(places), copy)

    def _stage_windows(self, u: _Unit, column: Word, end: Word) -> None:
        w, tile = self.w, self.tile

        def panel(start: str) -> None:
            part = Part(u.k, u.k_count, start, w.least(w.sub(end, start), tile.columns))
            number = w.div(w.sub(start, column), tile.columns)
            to = self._at(self.staged, w.mul(number, self.panel_size))
            grid = Grid(w, self.words)
            copy_windows(w, self.lanes, grid, u.pointers["b"], part, to, tile.columns)

        w.loop(end, panel, start=column, step=tile.columns)

    def _in_lanes(
        self, count: Word, vectors: int, body: Callable[[list[str | None]], None]
    ) -> None:
        """Write code for some vectors of columns, of which `count` columns are there.

        Where masks are dear there is a way without them, for when all are there.
        """
        w, width = self.w, self.tile.width

        def partial() -> None:
            body(w.masks(count, width, vectors))

        if self.has_masks:
            return partial()
        is_whole = w.compare("sge", count, vectors * width)
        return w.either(is_whole, lambda: body([None] * vectors), partial)

    # A and C.

    def _slivers(self, u: _Unit, place: Callable[[str], str]) -> None:
        """Do some panels, the tallest slivers first; place(panel) is where its block is."""
        w = self.w

        def sliver(values: list[str]) -> list[Word]:
            (row,) = values
            left = w.sub(u.row_end, row)
            height: Word = 1
            for tall in reversed(self.tile.heights[:-1]):
                height = w.choose(w.compare("sge", left, tall), tall, height)
            self._stage_sliver(u, row, height)
            first = self.rows.start(row)

            def panel(number: str) -> None:
                b = place(number)
                w.switch(height, self.tile.heights, lambda tall: self._tile(u, tall, b))
                self._store(u, first, height, w.mul(number, self.tile.columns))

            w.loop(u.panel_end, panel, start=u.panel)
            return [w.add(row, height)]

        w.repeat([("i64", u.row)], lambda v: w.compare("slt", v[0], u.row_end), sliver)

    def _stage_sliver(self, u: _Unit, row: Word, height: Word) -> None:
        w, width, a = self.w, self.tile.width, u.pointers["a"]
        if self.spec.a == "windows":
            part = Part(row, height, u.k, u.k_count)
            grid = Grid(w, self.words)
            return copy_windows(w, self.lanes, grid, a, part, self.sliver, self.a_strides[0])
        stride = self.words["a_stride"]
        if self.spec.a == "rows":
            block = Block(self._at(a, w.mul(row, stride), u.k), stride, height, u.k_count)
            return copy_rows(w, self.lanes, block, self.sliver, self.a_strides[0])
        block = Block(self._at(a, w.mul(u.k, stride), row), stride, u.k_count, height)
        places = list(range(0, self.a_strides[1], width))
        masks = w.masks(height, width, len(places))
        return copy_columns(w, self.lanes, block, self.sliver, self.a_strides[1], places, masks)

    def _tile(self, u: _Unit, height: int, b: str) -> None:
        given = f"ptr {self.sliver}, ptr {b}, ptr {self.sums}, i64 {u.k_count}"
        self.w.do(f"call void @{self.tile_code(height).name}({given})")

    def _store(self, u: _Unit, first: list[Word], height: Word, column: Word) -> None:
        w = self.w

        def store(masks: list[str | None]) -> None:
            is_first, is_last = (u.is_first, u.is_last) if self.spec.may_block else (None, None)
            area = Area(u.pointers, self.rows, first, height, column, masks, self.sums, is_first)
            sums_to = "partial" if self.spec.partial else "result0"
            form = Form(self.spec.output, self.tile.width, self.tile.vectors, self.kinds, sums_to)
            store_area(w, form, area, is_last)

        self._in_lanes(w.sub(self.words["n"], column), self.tile.vectors, store)
