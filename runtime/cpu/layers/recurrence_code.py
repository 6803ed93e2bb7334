"""The LLVM IR of a recurrence; `recurrence` tells what its arguments are.

The loops of a chunk, from the outside in: steps; groups of units, whose panels of B then stay in
the first cache; tiles of rows; the tile, whose sums go to the stack; rows and vectors of the cell.
"""

from __future__ import annotations

from typing import NamedTuple

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.layers.recurrence import Recurrence, slots


def recurrence_text(spec: Recurrence, target: Target) -> str:
    """Return the module of a kernel.

    Raises:
        UnsupportedError: the cell has no native form.
    """
    library = new_library(target)
    given = spec.gates + sum(x.gates for x in spec.operands)
    library.define("cell", spec.width, spec.cell.body, [spec.dtype] * given, cold=False)
    code = _Code(spec, Abilities.of(target).fma)
    tiles = [_tile_text(code, height) for height in range(1, spec.height + 1)]
    code.write()
    kernel = function(spec.name, KERNEL_PARAMETERS, code.w, "nounwind")
    return "\n".join((library.text(), *tiles, kernel, METADATA))


def _tile_text(code: _Code, height: int) -> str:
    """Return the function (a, stride of its rows, a panel of b, sums, k)."""
    w, spec, kind = Writer(), code.spec, code.kind
    width, size, count = spec.width, spec.dtype.itemsize, code.count
    rows = [w.at("%a", w.mul("%stride", row), kind) for row in range(height)]

    def step(values: list[str]) -> list[str]:
        k, *sums = values
        b = w.at("%b", w.mul(k, count * width), kind)
        loaded = [w.load(code.vector, w.at(b, v * width, kind), width * size) for v in range(count)]
        added = []
        for r, row in enumerate(rows):
            factors = w.splat(w.load(kind, w.at(row, k, kind), size), kind, width)
            for v, column in enumerate(loaded):
                total = sums[r * count + v]
                added.append(w.multiply_add(kind, width, code.has_fma, factors, column, total))
        return [str(w.add(k, 1)), *added]

    start = [("i64", "0")] + [(code.vector, "zeroinitializer")] * (height * count)
    _, *sums = w.repeat(start, lambda values: w.compare("slt", values[0], "%k"), step)
    for i, total in enumerate(sums):
        w.store(code.vector, total, w.at("%sums", i * width, kind), width * size)
    parameters = (
        "ptr noalias %a", "i64 %stride", "ptr noalias %b", "ptr noalias %sums", "i64 %k"
    )  # fmt: skip
    name, linkage = code.tile_name(height), "linkonce_odr hidden"
    return function(name, parameters, w, "nounwind noinline", linkage)


class _Walk(NamedTuple):
    """A stream at one step."""

    start: str
    row: Word


class _Tile(NamedTuple):
    """Rows and vectors at one step."""

    walks: dict[str, _Walk]
    row: Word
    height: Word
    vector: Word  # the first of its group


class _Code:
    """Writes the loops."""

    def __init__(self, spec: Recurrence, has_fma: bool) -> None:
        self.spec, self.w, self.kind, self.has_fma = (
            spec,
            Writer(),
            element_type(spec.dtype),
            has_fma,
        )
        self.vector = f"<{spec.width} x {self.kind}>"
        self.count = spec.gates * spec.vectors

    def tile_name(self, height: int) -> str:
        """Return the name of a tile, the same in all kernels that have it."""
        lanes = f"{self.spec.dtype.code}x{self.spec.width}"
        fused = "" if self.has_fma else "_unfused"
        return f"recurrence_tile_{height}x{self.count}_{lanes}{fused}"

    def write(self) -> None:
        """Write the whole body."""
        w, spec = self.w, self.spec
        size = spec.height * self.count * spec.width
        self.sums = w.let(f"alloca [{size} x {self.kind}], align 64")
        pointers = {"panels", "state", "first", *spec.streams}
        pointers |= {f"{name}_first" for name in spec.streams}
        self.words = words = {
            name: w.load("ptr" if name in pointers else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(slots(spec))
        }
        vectors = w.div(w.add(words["units"], spec.width - 1), spec.width)
        self.groups = w.div(w.add(vectors, spec.vectors - 1), spec.vectors)
        w.loop("%end", self._chunk, start="%begin")

    def _chunk(self, number: str) -> None:
        w, words = self.w, self.words
        group_block, row_block = w.divmod(number, words["row_blocks"])
        row = w.mul(row_block, words["row_block"])
        row_end = w.least(w.add(row, words["row_block"]), words["rows"])
        group = w.mul(group_block, words["group_block"])
        group_end = w.least(w.add(group, words["group_block"]), self.groups)

        def step(t: str) -> None:
            state, k = self._state(t)
            walks = {name: self._walk(name, t) for name in self.spec.streams}

            def units(g: str) -> None:
                vector = w.mul(g, self.spec.vectors)
                panel = w.mul(g, w.mul(words["k"], self.count * self.spec.width))
                b = w.at(words["panels"], panel, self.kind)

                def rows(values: list[str]) -> list[Word]:
                    (first,) = values
                    height = self._height(w.sub(row_end, first))
                    a = w.at(state.start, w.mul(first, state.row), self.kind)
                    given = f"ptr {a}, i64 {state.row}, ptr {b}, ptr {self.sums}, i64 {k}"
                    w.switch(
                        height, range(1, self.spec.height + 1),
                        lambda tall: w.do(f"call void @{self.tile_name(tall)}({given})"),
                    )  # fmt: skip
                    self._cell(_Tile(walks, first, height, vector))
                    return [w.add(first, height)]

                w.repeat([("i64", row)], lambda v: w.compare("slt", v[0], row_end), rows)

            w.loop(group_end, units, start=group)

        w.loop(words["end"], step, start=words["begin"])

    def _height(self, left: Word) -> Word:
        """Return the rows of a tile: as many as in the others, nearly."""
        w, most = self.w, self.spec.height
        tiles = w.div(w.add(left, most - 1), most)
        return w.div(w.add(left, w.sub(tiles, 1)), tiles)

    # Where things are at a step.

    def _state(self, t: str) -> tuple[_Walk, Word]:
        """Return the state that a step multiplies, and how long its rows are."""
        w, words, spec = self.w, self.words, self.spec
        usual = self._at_step("state", w.sub(t, spec.lag), spec.alternates)
        if not spec.lag:
            return usual, words["k"]
        is_first = w.compare("eq", t, 0)
        k = w.choose(is_first, words["first_k"], words["k"])
        return self._or_first(is_first, "first", usual), k

    def _walk(self, name: str, t: str) -> _Walk:
        w, stream = self.w, self.spec.streams[name]
        if not stream.earlier:
            return self._at_step(name, t, stream.alternates)
        usual = self._at_step(name, w.sub(t, 1), stream.alternates)
        return self._or_first(w.compare("eq", t, 0), f"{name}_first", usual)

    def _at_step(self, name: str, t: Word, alternates: bool) -> _Walk:
        w, words = self.w, self.words
        number = w.let(f"and i64 {t}, 1") if alternates else t
        start = w.at(words[name], w.mul(number, words[f"{name}_time"]), self.kind)
        return _Walk(start, words[f"{name}_row"])

    def _or_first(self, is_first: str, name: str, usual: _Walk) -> _Walk:
        w, words = self.w, self.words
        start = w.let(f"select i1 {is_first}, ptr {words[name]}, ptr {usual.start}")
        return _Walk(start, w.choose(is_first, words[f"{name}_row"], usual.row))

    # The cell.

    def _cell(self, tile: _Tile) -> None:
        """Apply the cell to the sums of a tile."""
        w, spec = self.w, self.spec

        def row(i: str) -> None:
            sums = w.at(self.sums, w.mul(i, self.count * spec.width), self.kind)
            number = w.add(tile.row, i)
            starts = {
                name: w.at(walk.start, w.mul(number, walk.row), self.kind)
                for name, walk in tile.walks.items()
            }

            def vector(v: str) -> None:
                column = w.mul(w.add(tile.vector, v), spec.width)
                left = w.sub(self.words["units"], column)
                at = w.at(sums, w.mul(v, spec.width), self.kind)

                def part() -> None:
                    (mask,) = w.masks(w.most(left, 0), spec.width, 1)
                    self._vector(at, column, mask, starts)

                is_whole = w.compare("sge", left, spec.width)
                w.either(is_whole, lambda: self._vector(at, column, None, starts), part)

            w.loop(spec.vectors, vector)

        w.loop(tile.height, row)

    def _vector(self, sums: str, column: Word, mask: str | None, starts: dict[str, str]) -> None:
        """Apply the cell to a vector of units."""
        w, spec, kind = self.w, self.spec, self.kind

        def place(name: str, gate: int) -> str:
            far = w.add(w.mul(gate, self.words[f"{name}_gate"]), column)
            return w.at(starts[name], far, kind)

        given = []
        for gate in range(spec.gates):
            at = w.at(sums, gate * spec.vectors * spec.width, kind)
            given.append(w.load(self.vector, at, spec.width * spec.dtype.itemsize))
        for i, stream in enumerate(spec.operands):
            for gate in range(stream.gates):
                given.append(w.load_lanes(kind, spec.width, place(f"x{i}", gate), mask))
        count = sum(y.gates for y in spec.results)
        returned = self.vector if count == 1 else f"{{ {', '.join([self.vector] * count)} }}"
        made = w.let(f"call {returned} @cell({', '.join(f'{self.vector} {x}' for x in given)})")
        targets = [place(f"y{i}", g) for i, y in enumerate(spec.results) for g in range(y.gates)]
        for number, to in enumerate(targets):
            one = made if count == 1 else w.let(f"extractvalue {returned} {made}, {number}")
            w.store_lanes(kind, spec.width, one, to, mask)
