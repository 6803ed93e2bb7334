"""The LLVM IR of attention; `attention` tells what its arguments are.

The loops of a unit, from the outside in: blocks of keys, which are copied to the stack with their
part of v; slivers of rows; panels of keys and of columns of v, each a tile of a product.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.scalars import Abilities, Library
from tracegraph.runtime.cpu.code.writer import (
    KERNEL_PARAMETERS,
    METADATA,
    Word,
    element_bytes,
    function,
)
from tracegraph.runtime.cpu.layers.attention import Attention
from tracegraph.runtime.cpu.layers.attention_parts import Parts
from tracegraph.runtime.cpu.products.contraction_epilogue import define_epilogue
from tracegraph.runtime.cpu.products.contraction_staging import copy_run
from tracegraph.runtime.cpu.products.contraction_tiles import TileCode, tile_text


def attention_text(spec: Attention, target: Target) -> str:
    """Return the module of a kernel.

    Raises:
        UnsupportedError: a step of the score has no native form.
    """
    library = new_library(target)
    define_epilogue(library, spec.score, spec.dtype, spec.tile.width)
    _define_steps(library, spec)
    code = _Code(spec, Abilities.of(target).fma)
    code.write()
    tiles = [tile_text(code.tile_code(height)) for height in spec.tile.heights]
    kernel = function(spec.name, KERNEL_PARAMETERS, code.w, "nounwind")
    return "\n".join((library.text(), *tiles, kernel, METADATA))


def _define_steps(library: Library, spec: Attention) -> None:
    """Define what the kernel calls: maxima of halves of vectors, and exp(x - y)."""
    width, pair = spec.tile.width, [spec.dtype] * 2
    library.define("weight", width, lambda m, x, y: m.exp(x - y), pair, cold=False)
    while width:
        library.define(f"greater{width}", width, lambda m, x, y: m.maximum(x, y), pair, cold=False)
        library.define(f"sum{width}", width, lambda m, x, y: x + y, pair, cold=False)
        width //= 2


class _Part(NamedTuple):
    """A sliver of rows and a block of keys of one unit."""

    pointers: dict[str, str]
    start: Word  # of the unit
    row: Word
    height: Word
    key: Word
    keys: Word
    is_plain: str  # whether 0 times v is 0


class _Code(Parts):
    """Writes the loops."""

    def tile_code(self, height: int) -> TileCode:
        """Return what the code of a tile depends on."""
        shape = (height, self.tile.vectors, self.width)
        return TileCode(*shape, self.spec.dtype, self.spec.row_stride, 1, self.has_fma)

    def write(self) -> None:
        """Write the whole body."""
        w, spec, tall = self.w, self.spec, self.tile.heights[0]
        words = self.words
        self.rows = self.memory(tall * spec.row_stride + self.width)
        self.scores = self.memory(tall * spec.row_stride + self.width)
        self.sums = self.memory(tall * self.columns)
        self.greatest = self.memory(tall * self.width)
        self.factors = self.memory(tall)
        rows = words["row_block"]
        size = w.mul(rows, self.out_panels * self.columns)
        self.totals = w.let(f"alloca {self.kind}, i64 {size}, align 64")
        self.maxima = w.let(f"alloca {self.kind}, i64 {rows}, align 64")
        self.weights = w.let(f"alloca {self.kind}, i64 {rows}, align 64")
        first = w.mul("%begin", words["chunk"])
        last = w.least(w.mul("%end", words["chunk"]), words["units"])
        w.loop(last, self._unit, start=first)

    def _unit(self, unit: str) -> None:
        w, words = self.w, self.words
        matrix, row_block = w.divmod(unit, words["row_blocks"])
        pointers = {name: words[name] for name in self.spec.pointers}
        for d in reversed(range(self.spec.batch)):
            matrix, digit = w.divmod(matrix, words[f"extent{d}"])
            for name, pointer in pointers.items():
                offset = w.mul(digit, words[f"{name}_batch{d}"])
                pointers[name] = w.at(pointer, offset, self.kinds[name])
        start = w.mul(row_block, words["row_block"])
        end = w.least(w.add(start, words["row_block"]), words["rows"])

        def clear(row: str) -> None:
            w.store(self.kind, self.least, self.at(self.maxima, row), self.size)
            w.store(self.kind, self.number(0), self.at(self.weights, row), self.size)

        w.loop(w.sub(end, start), clear)
        zero = w.mul(w.sub(end, start), self.out_panels * self.columns)
        w.loop(
            zero,
            lambda i: self.store("zeroinitializer", self.at(self.totals, i)),
            step=self.width,
        )

        def block(key: str) -> None:
            count = w.least(w.sub(words["keys"], key), self.spec.block)
            self.copy_keys(pointers["k"], key, count)
            self.copy_values(pointers["v"], key, count)
            is_plain = self.is_finite(count) if self.spec.hides else ""

            def sliver(values: list[str]) -> list[Word]:
                (row,) = values
                left = w.sub(end, row)
                height: Word = 1
                for tall in reversed(self.tile.heights[:-1]):
                    height = w.choose(w.compare("sge", left, tall), tall, height)
                self._sliver(_Part(pointers, start, row, height, key, count, is_plain))
                return [w.add(row, height)]

            w.repeat([("i64", start)], lambda v: w.compare("slt", v[0], end), sliver)

        w.loop(words["keys"], block, step=self.spec.block)
        w.loop(end, lambda row: self._finish(pointers, start, row), start=start)

    # A sliver of rows, a block of keys.

    def _sliver(self, part: _Part) -> None:
        w, spec = self.w, self.spec

        def prepare(i: str) -> None:
            row = w.mul(w.add(part.row, i), self.words["q_row"])
            to = self.at(self.rows, w.mul(i, spec.row_stride))
            copy_run(w, self.lanes, self.at(part.pointers["q"], row), to, spec.depth)
            self.store(self.splat(self.least), self.at(self.greatest, w.mul(i, self.width)))

        w.loop(part.height, prepare)

        def keys(values: list[str]) -> list[Word]:
            first, end = values
            following = w.add(first, self.columns)
            if spec.hides is None:
                self._scores(part, first)
                return [following, part.keys]
            is_hidden = self._is_hidden(part, first)
            w.either(
                is_hidden, lambda: w.loop(part.height, lambda i: self._hide(first, i)),
                lambda: self._scores(part, first),
            )  # fmt: skip
            return [following, w.choose(is_hidden, end, w.least(following, part.keys))]

        start: list[tuple[str, Word]] = [("i64", 0), ("i64", 0)]
        _, seen = w.repeat(start, lambda v: w.compare("slt", v[0], part.keys), keys)
        if spec.hides is None:
            return self._values(part)
        end = w.choose(part.is_plain, seen, part.keys)
        return w.when(w.compare("sgt", end, 0), lambda: self._values(part._replace(keys=end)))

    def _scores(self, part: _Part, first: str) -> None:
        """Do a panel of keys."""
        panel = self.w.mul(self.w.div(first, self.columns), self.depth * self.columns)
        self._product(part.height, self.rows, self.at(self.keys, panel), self.spec.depth)
        self.w.loop(part.height, lambda i: self._row_of_scores(part, first, i))

    def _values(self, part: _Part) -> None:
        """Do the product with v."""
        w = self.w
        w.loop(part.height, lambda i: self._weigh(part, i))
        for number in range(self.out_panels):
            panel = self.at(self.values, number * self.spec.block * self.columns)
            self._product(part.height, self.scores, panel, part.keys)
            w.loop(part.height, partial(self._add, part, number))

    def _is_hidden(self, part: _Part, first: str) -> str:
        """Return whether all rows of a sliver are told not to see a panel."""
        w, (number, value) = self.w, self.spec.hides or (0, False)
        width = self.width
        masks = w.masks(w.sub(part.keys, first), width, self.tile.vectors)
        vector, test = f"<{width} x i1>", "eq" if value else "ne"

        def row(turn: list[str]) -> list[Word]:
            i, seen = turn
            start = self._operand(part, number, first, i)
            for v, mask in enumerate(masks):
                found = w.load_lanes("i8", width, w.at(start, v * width, "i8"), mask)
                shown = w.let(f"icmp {test} <{width} x i8> {found}, zeroinitializer")
                seen = w.let(f"or {vector} {seen}, {w.let(f'and {vector} {shown}, {mask}')}")
            return [w.add(i, 1), seen]

        of_rows = self.spec.score.operands[number].extent == "place"
        start: list[tuple[str, Word]] = [("i64", 0), (vector, "zeroinitializer")]
        stop = part.height if of_rows else 1
        _, seen = w.repeat(start, lambda v: w.compare("slt", v[0], stop), row)
        any_seen = w.let(f"call i1 @llvm.vector.reduce.or.v{width}i1({vector} {seen})")
        return w.let(f"xor i1 {any_seen}, true")

    def _hide(self, first: str, i: str) -> None:
        row = self.at(self.scores, self.w.mul(i, self.spec.row_stride), first)
        for v in range(self.tile.vectors):
            self.store(self.splat(self.least), self.at(row, v * self.width))

    def _product(self, height: Word, a: str, b: str, count: Word) -> None:
        given = f"ptr {a}, ptr {b}, ptr {self.sums}, i64 {count}"
        self.w.switch(
            height, self.tile.heights,
            lambda tall: self.w.do(f"call void @{self.tile_code(tall).name}({given})"),
        )  # fmt: skip

    def _row_of_scores(self, part: _Part, first: str, i: str) -> None:
        """Keep the scores of a row and a panel, and the greatest of each lane."""
        w = self.w
        operands = range(len(self.spec.score.operands))
        starts = {f"operand{x}": self._operand(part, x, first, i) for x in operands}
        at = self.at(self.greatest, w.mul(i, self.width))
        greatest = self.load(at)
        masks = w.masks(w.sub(part.keys, first), self.width, self.tile.vectors)
        for v, mask in enumerate(masks):
            sums = self.at(self.sums, w.mul(i, self.columns), v * self.width)
            score = self._score(self.load(sums), starts, v, mask)
            picked = f"<{self.width} x i1> {mask}, {self.vector} {score}, {self.vector}"
            score = w.let(f"select {picked} {self.splat(self.least)}")
            to = self.at(self.scores, w.mul(i, self.spec.row_stride), first, v * self.width)
            self.store(score, to)
            greatest = self.call(f"greater{self.width}", self.vector, greatest, score)
        self.store(greatest, at)

    def _operand(self, part: _Part, number: int, first: str, i: str) -> str:
        """Return where an operand of the score is, for a row and the first key of a panel."""
        w, name = self.w, f"operand{number}"
        extent = self.spec.score.operands[number].extent
        place: Word = 0
        if extent in ("row", "place"):
            place = w.mul(w.add(part.row, i), self.words[f"{name}_row"])
        if extent in ("column", "place"):
            place = w.add(w.add(place, part.key), first)
        return w.at(part.pointers[name], place, self.kinds[name])

    def _score(self, total: str, starts: dict[str, str], v: int, mask: str | None) -> str:
        """Return a vector of scores for a vector of sums."""
        w, given = self.w, [f"{self.vector} {total}"]
        for (name, start), operand in zip(starts.items(), self.spec.score.operands, strict=True):
            kind = self.kinds[name]
            if operand.extent in ("column", "place"):
                value = w.load_lanes(kind, self.width, w.at(start, v * self.width, kind), mask)
            else:
                one = w.load(kind, start, element_bytes(kind))
                value = w.splat(one, kind, self.width)
            given.append(f"<{self.width} x {kind}> {value}")
        return w.let(f"call {self.vector} @epilogue({', '.join(given)})")

    def _weigh(self, part: _Part, i: str) -> None:
        """Make weights of the scores of a row, and say by what earlier sums are multiplied."""
        w, kind = self.w, self.kind
        number = w.sub(w.add(part.row, i), part.start)
        maximum, weights = self.at(self.maxima, number), self.at(self.weights, number)
        before = w.load(kind, maximum, self.size)
        found = self.folded("greater", self.load(self.at(self.greatest, w.mul(i, self.width))))
        greatest = self.call("greater1", kind, before, found)
        # No key so far: any number does, since exp(-inf - it) is 0.
        is_none = w.let(f"fcmp oeq {kind} {greatest}, {self.least}")
        base = w.let(f"select i1 {is_none}, {kind} {self.number(0)}, {kind} {greatest}")
        bases = w.splat(base, kind, self.width)
        scores = self.at(self.scores, w.mul(i, self.spec.row_stride))

        def weigh(values: list[str]) -> list[Word]:
            place, total = values
            at = self.at(scores, place)
            weight = self.call("weight", self.vector, self.load(at), bases)
            self.store(weight, at)
            added = w.let(f"fadd {self.vector} {total}, {weight}")
            return [w.add(place, self.width), added]

        start: list[tuple[str, Word]] = [("i64", 0), (self.vector, "zeroinitializer")]
        _, total = w.repeat(start, lambda v: w.compare("slt", v[0], part.keys), weigh)
        at = self.at(self.factors, i)
        w.store(kind, self.number(1), at, self.size)
        is_new = w.let(f"fcmp une {kind} {before}, {greatest}")

        def rescale() -> None:
            factor = self.call("weight", self.vector, w.splat(before, kind, self.width), bases)
            one = w.let(f"extractelement {self.vector} {factor}, i64 0")
            w.store(kind, one, at, self.size)

        w.when(is_new, rescale)
        known = w.load(kind, weights, self.size)
        scaled = w.let(f"fmul {kind} {known}, {w.load(kind, at, self.size)}")
        w.store(
            kind, w.let(f"fadd {kind} {scaled}, {self.folded('sum', total)}"), weights, self.size
        )
        w.store(kind, greatest, maximum, self.size)

    def _add(self, part: _Part, panel: int, i: str) -> None:
        """Add the sums of a row and a panel to the earlier ones."""
        w = self.w
        number = w.sub(w.add(part.row, i), part.start)
        one = w.load(self.kind, self.at(self.factors, i), self.size)
        factor = w.splat(one, self.kind, self.width)
        totals = self._total(number, panel)
        sums = self.at(self.sums, w.mul(i, self.columns))
        for v in range(self.tile.vectors):
            at = self.at(totals, v * self.width)
            before = w.let(f"fmul {self.vector} {self.load(at)}, {factor}")
            found = self.load(self.at(sums, v * self.width))
            self.store(w.let(f"fadd {self.vector} {before}, {found}"), at)

    def _total(self, number: Word, panel: int) -> str:
        return self.at(
            self.totals, self.w.mul(number, self.out_panels * self.columns), panel * self.columns
        )

    def _finish(self, pointers: dict[str, str], start: Word, row: str) -> None:
        """Store a row of the result."""
        w, spec = self.w, self.spec
        number = w.sub(row, start)
        weight = w.load(self.kind, self.at(self.weights, number), self.size)
        weights = w.splat(weight, self.kind, self.width)
        is_dead = None
        if spec.dead is not None:
            place = w.at(pointers["dead"], w.mul(row, self.words["dead_row"]), "i8")
            test = "ne" if spec.dead else "eq"
            is_dead = w.let(f"icmp {test} i8 {w.load('i8', place, 1)}, 0")
        to = self.at(pointers["y"], w.mul(row, self.words["y_row"]))
        for column in range(0, spec.width, self.width):
            found = self.load(self.at(self._total(number, 0), column))
            value = w.let(f"fdiv {self.vector} {found}, {weights}")
            if is_dead is not None:
                zero = f"{self.vector} zeroinitializer"
                value = w.let(f"select i1 {is_dead}, {zero}, {self.vector} {value}")
            left, mask = spec.width - column, None
            if left < self.width:
                (mask,) = w.masks(left, self.width, 1)
            w.store_lanes(self.kind, self.width, value, self.at(to, column), mask)
