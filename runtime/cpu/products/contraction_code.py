"""The LLVM IR of a contraction kernel; `contraction` tells what its arguments are.

A unit is a block of rows × a block of panels of one matrix. Its loops, from the outside in: blocks
of k; groups of panels; slivers of rows; panels; the tile. So a sliver of A stays in the first
cache, and a block of B in the second. Slivers are copied to the stack one by one (2 to 6 % of the
time); where B is not packed, all rows of the unit at once, and then its panels, group by group. A
row that is alone reads B where it is if that is in rows: one use does not pay for a copy. Of "dots"
nothing is copied.

Code is cut into functions that kernels share, so that LLVM sees each once (50 us a line): tiles,
copies, the nest of loops, the adding of sums. What a kernel has alone is the function that stores,
which its nest calls by a pointer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction import (
    STAGED_PANELS,
    STAGED_ROWS,
    Contraction,
    k_block,
    shared_slots,
    slots,
)
from tracegraph.runtime.cpu.products.contraction_copies import Copies
from tracegraph.runtime.cpu.products.contraction_epilogue import define_epilogue
from tracegraph.runtime.cpu.products.contraction_nest import WIDEST, Nest
from tracegraph.runtime.cpu.products.contraction_places import Grid, Line, Words
from tracegraph.runtime.cpu.products.contraction_results import Area, Form, add_area, store_area
from tracegraph.runtime.cpu.products.contraction_tiles import TOGETHER, dots_text, tile_text

_STORED: Final = (
    "ptr noalias %arguments", "i64 %matrix", "i64 %row", "i64 %height", "i64 %column",
    "ptr noalias %sums", "i1 %is_first",
)  # fmt: skip
_SHARED: Final = "linkonce_odr hidden"


def contraction_text(spec: Contraction, target: Target) -> str:
    """Return the module of a kernel.

    Raises:
        UnsupportedError: a step of the epilogue has no native form.
    """
    library = new_library(target)
    define_epilogue(library, spec.output, spec.dtype, spec.tile.width)
    nest = Nest.of(spec, target)
    store = f"store.{spec.name}"
    w = Writer()
    given = f"ptr %arguments, i64 %begin, i64 %end, ptr @{store}, ptr @{_adder(spec)}"
    w.do(f"call void @{nest.name}({given})")
    zeros = f"@zeros = private constant <{spec.tile.width} x {element_type(spec.dtype)}> "
    return "\n".join(
        (
            f"{zeros}zeroinitializer",
            library.text(),
            *_nest_texts(nest),
            _adding_text(spec, target),
            _storing_text(spec, target, store),
            function(spec.name, KERNEL_PARAMETERS, w, "nounwind"),
            METADATA,
        )
    )


# What is done with sums.


def _storing_text(spec: Contraction, target: Target, name: str) -> str:
    """Return the function that stores what the epilogue makes of the sums of a tile."""
    w = Writer()
    words = Words(w, slots(spec), spec.arrays)
    kinds = {x: element_type(stored_dtype(d)) for x, d in spec.arrays.items()}
    _over_masks(w, words, spec, target, kinds, store_area)
    return function(name, _STORED, w, "nounwind", "private")


def _adding_text(spec: Contraction, target: Target) -> str:
    """Return the function that adds the sums of a tile to those of earlier blocks of k."""
    w, kinds = Writer(), dict.fromkeys(("a", "partial"), element_type(spec.dtype))
    words = Words(w, shared_slots(spec.a, spec.b, spec.batch), ("partial",))
    _over_masks(w, words, spec, target, kinds, add_area)
    return function(_adder(spec), _STORED, w, "nounwind noinline", _SHARED)


def _adder(spec: Contraction) -> str:
    rows = "windows" if spec.a == "windows" else "rows"
    shape = f"{spec.dtype.code}x{spec.tile.width}x{spec.tile.vectors}"
    return f"add_{rows}_{_has_windows(spec)}_{spec.batch}_{shape}"


def _has_windows(spec: Contraction) -> int:
    return int("windows" in (spec.a, spec.b))


def _over_masks(
    w: Writer, words: Words, spec: Contraction, target: Target, kinds: dict[str, str],
    write: Callable[[Writer, Form, Area], None],
) -> None:  # fmt: skip
    """Write what is done with the area that the parameters of a function tell."""
    tile = spec.tile
    index: Word = "%matrix"
    pointers = {name: words[name] for name in kinds if name not in ("a", "b")}
    for d in reversed(range(spec.batch)):
        index, digit = w.divmod(index, words[f"extent{d}"])
        for name, pointer in pointers.items():
            far = w.mul(digit, words[f"{name}_batch{d}"])
            pointers[name] = w.at(pointer, far, kinds[name])
    rows = (Grid if spec.a == "windows" else Line)(w, words)
    form, first = Form(spec.output, tile.width, tile.vectors, kinds), rows.start("%row")

    def part(masks: list[str | None]) -> None:
        area = (pointers, rows, first, "%height", "%column", masks, "%sums", "%is_first")
        write(w, form, Area(*area))

    count, has_masks = w.sub(words["n"], "%column"), target.vector_bytes == 64
    w.in_lanes(count, tile.width, tile.vectors, has_masks, part)


# The nest of loops.


def _nest_texts(nest: Nest) -> list[str]:
    """Return the nest, and the functions that it calls."""
    loops = _Loops(nest)
    loops.write()
    parameters = (
        "ptr noalias %arguments", "i64 %begin", "i64 %end", "ptr %store", "ptr %add",
    )  # fmt: skip
    text = function(nest.name, parameters, loops.w, "nounwind noinline", _SHARED)
    if nest.b == "dots":
        return [dots_text(nest.dots), text]
    tiles = [tile_text(nest.tile_code(*shape)) for shape in nest.tile.shapes]
    tiles += map(tile_text, nest.spread)
    return [*tiles, *loops.copies.texts(), text]


class _Unit(NamedTuple):
    """What the loops inside of a block of k are about."""

    matrix: Word
    a: str
    b: str
    row: Word
    row_end: Word
    panel: Word
    panel_end: Word
    k: Word
    k_count: Word
    is_first: str
    is_last: str


class _Loops:
    """Writes the loops."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.tile, self.w = nest, nest.tile, Writer()
        self.kind = element_type(nest.dtype)
        block = k_block(nest.dtype)
        self.panel_size = block * nest.tile.columns
        self.words = Words(self.w, shared_slots(nest.a, nest.b, nest.batch), ("a", "b"))
        self.copies = Copies(
            self.w, nest.a, nest.b, self.kind, nest.tile, nest.a_strides, self.panel_size,
            nest.has_masks,
        )  # fmt: skip

    def write(self) -> None:
        """Write the whole body."""
        w, nest, tile = self.w, self.nest, self.tile
        a_row, a_step = nest.a_strides
        k = k_block(nest.dtype)
        rows = tile.heights[0] if nest.b == "panels" else STAGED_ROWS
        self.sums = self._memory(tile.heights[0] * tile.columns)
        if nest.b != "dots":
            self.rows = self._memory(max(a_row * rows, a_step * k) + tile.width)
        if nest.b not in ("panels", "dots"):
            self.staged = self._memory(STAGED_PANELS[nest.b] * self.panel_size + tile.width)
        chunk, units = self.words["chunk"], self.words["units"]
        w.loop(w.least(w.mul("%end", chunk), units), self._unit, start=w.mul("%begin", chunk))

    def _memory(self, elements: int) -> str:
        return self.w.let(f"alloca [{elements} x {self.kind}], align 64")

    def _at(self, pointer: str, *offsets: Word) -> str:
        """Return the place of an element of A or B."""
        for offset in offsets:
            pointer = self.w.at(pointer, offset, self.kind)
        return pointer

    def _unit(self, unit: str) -> None:
        w, words = self.w, self.words
        rest, panel_block = w.divmod(unit, words["panel_blocks"])
        matrix, row_block = w.divmod(rest, words["row_blocks"])
        a, b = self._matrix(matrix)
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
            span = (row, row_end, panel, panel_end, k, count)
            u = _Unit(matrix, a, b, *span, is_first, is_last)
            if self.nest.b == "panels":
                self._packed(u)
            elif self.nest.b == "dots":
                self._dots(u)
            else:
                self._staged(u)

        w.loop(words["k_blocks"], block)

    def _matrix(self, index: Word) -> tuple[str, str]:
        """Return the pointers to one matrix of the batch, of A and of B."""
        w, words = self.w, self.words
        found = {name: words[name] for name in ("a", "b")}
        for d in reversed(range(self.nest.batch)):
            index, digit = w.divmod(index, words[f"extent{d}"])
            for name, pointer in found.items():
                found[name] = self._at(pointer, w.mul(digit, words[f"{name}_batch{d}"]))
        return found["a"], found["b"]

    def _packed(self, u: _Unit) -> None:
        """Do a block of k with panels as they are in memory."""
        w, stride = self.w, self.words["b_stride"]
        b = self._at(u.b, w.mul(u.k, self.tile.columns))

        def copied(row: Word, height: Word) -> str:
            self._copy_rows(u, row, height)
            return self.rows

        self._slivers(u, b, (stride, 0), copied)

    def _dots(self, u: _Unit) -> None:
        """Do panels of columns, a few columns after the other, each for all rows."""
        w, words, code, columns = self.w, self.words, self.nest.dots, self.tile.columns
        height, last = w.sub(u.row_end, u.row), w.sub(words["n"], 1)

        def panel(number: str) -> None:
            first = w.mul(number, columns)

            def some(start: str) -> None:
                def row(i: str) -> None:
                    a = self._at(u.a, w.mul(w.add(u.row, i), words["a_stride"]))
                    sums = self._at(self.sums, w.add(w.mul(i, columns), start))
                    span = f"i64 {words['k']}, i64 {words['b_stride']}, i64 {w.add(first, start)}"
                    given = f"ptr {a}, ptr {u.b}, ptr {sums}, {span}, i64 {last}"
                    w.do(f"call void @{code.name}({given})")

                w.loop(height, row)

            w.loop(w.least(w.sub(words["n"], first), columns), some, step=code.columns)
            self._stored(u, (u.row, height), (number, 1), "%store")

        w.loop(u.panel_end, panel, start=u.panel)

    def _staged(self, u: _Unit) -> None:
        """Do a block of k with groups of panels that are copied to the stack."""
        w, count = self.w, STAGED_PANELS[self.nest.b]
        self._copy_rows(u, u.row, w.sub(u.row_end, u.row))

        def place(row: Word, _height: Word) -> str:
            return self._at(self.rows, w.mul(w.sub(row, u.row), self.nest.a_strides[0]))

        def group(first: str) -> None:
            end = w.least(w.add(first, count), u.panel_end)
            column = w.mul(first, self.tile.columns)
            column_end = w.least(self.words["n"], w.mul(end, self.tile.columns))
            columns = w.sub(column_end, column)
            stride = self.words["b_stride"]
            self.copies.panels(u.b, stride, (u.k, u.k_count, column, columns), self.staged)
            one = u._replace(panel=first, panel_end=end)
            self._slivers(one, self.staged, (self.panel_size, first), place)

        start = self._spread(u) if self.nest.spread else u.panel
        w.loop(u.panel_end, group, start=start, step=count)

    def _spread(self, u: _Unit) -> Word:
        """Do the whole panels of a row that is alone; return the first panel that is not done."""
        w, columns, stride = self.w, self.tile.columns, self.words["b_stride"]
        whole = w.least(w.div(self.words["n"], columns), u.panel_end)
        is_alone = w.compare("eq", w.sub(u.row_end, u.row), 1)
        end = w.choose(is_alone, whole, u.panel)
        b = self._at(u.b, w.mul(u.k, stride))
        target = w.let(f"select i1 {u.is_last}, ptr %store, ptr %add")

        def some(values: list[str]) -> list[Word]:
            (panel,) = values
            fits = w.compare("sle", w.add(panel, TOGETHER[1]), end)
            count = w.choose(fits, TOGETHER[1], 1)
            here = self._at(b, w.mul(panel, columns))

            def tile(number: int) -> None:
                (code,) = (x for x in self.nest.spread if x.panels == number)
                given = f"ptr {self.rows}, ptr {here}, ptr {self.sums}, i64 {u.k_count}"
                given += f", i64 {columns}" if number > 1 else ""
                w.do(f"call void @{code.name}({given}, i64 {stride})")

            w.switch(count, (1, TOGETHER[1]), tile)
            self._stored(u, (u.row, 1), (panel, count), target)
            return [w.add(panel, count)]

        (done,) = w.repeat([("i64", u.panel)], lambda v: w.compare("slt", v[0], end), some)
        return done

    def _copy_rows(self, u: _Unit, row: Word, count: Word) -> None:
        self.copies.rows(u.a, self.words["a_stride"], (row, count, u.k, u.k_count), self.rows)

    def _slivers(
        self, u: _Unit, b: str, panels: tuple[Word, Word], place: Callable[[Word, Word], str]
    ) -> None:
        """Do some panels, the tallest slivers first.

        `panels`: how far they are apart, and which one is at b; `place(row, height)` is that of
        the copied rows.
        """
        w = self.w
        target = w.let(f"select i1 {u.is_last}, ptr %store, ptr %add")

        def sliver(values: list[str]) -> list[Word]:
            (row,) = values
            left = w.sub(u.row_end, row)
            height: Word = 1
            for tall in reversed(self.tile.heights[:-1]):
                height = w.choose(w.compare("sge", left, tall), tall, height)
            a = place(row, height)
            together: Word = 1
            for low, count in TOGETHER.items():
                together = w.choose(w.compare("eq", height, low), count, together)

            def some(values: list[str]) -> list[Word]:
                (panel,) = values
                fits = w.compare("sle", w.add(panel, together), u.panel_end)
                count = w.choose(fits, together, 1)
                self._tiles(u, (row, height), (panel, count), (a, b), panels, target)
                return [w.add(panel, count)]

            start = [("i64", u.panel)]
            w.repeat(start, lambda values: w.compare("slt", values[0], u.panel_end), some)
            return [w.add(row, height)]

        w.repeat([("i64", u.row)], lambda v: w.compare("slt", v[0], u.row_end), sliver)

    def _tiles(
        self, u: _Unit, rows: tuple[Word, Word], columns: tuple[Word, Word],
        operands: tuple[str, str], panels: tuple[Word, Word], target: str,
    ) -> None:  # fmt: skip
        """Do the tiles of (row, height) and of (panel, count) at once, and what becomes of them."""
        w, (_, height), (panel, count), (a, b) = self.w, rows, columns, operands
        far, base = panels
        b = self._at(b, w.mul(w.sub(panel, base), far))
        cases = {tall * WIDEST + wide: (tall, wide) for tall, wide in self.tile.shapes}

        def tile(case: int) -> None:
            code = self.nest.tile_code(*cases[case])
            given = f"ptr {a}, ptr {b}, ptr {self.sums}, i64 {u.k_count}"
            given += f", i64 {far}" if code.panels > 1 else ""
            w.do(f"call void @{code.name}({given})")

        w.switch(w.add(w.mul(height, WIDEST), count), list(cases), tile)
        self._stored(u, rows, columns, target)

    def _stored(
        self, u: _Unit, rows: tuple[Word, Word], columns: tuple[Word, Word], target: str
    ) -> None:
        """Do what becomes of the sums of tiles."""
        w, (row, height), (panel, count) = self.w, rows, columns

        def stored(number: str) -> None:
            column = w.mul(w.add(panel, number), self.tile.columns)
            sums = self._at(self.sums, w.mul(number, w.mul(height, self.tile.columns)))
            given = (
                f"ptr %arguments, i64 {u.matrix}, i64 {row}, i64 {height}, i64 {column}, "
                f"ptr {sums}, i1 {u.is_first}"
            )
            w.do(f"call void {target}({given})")

        w.loop(count, stored)
