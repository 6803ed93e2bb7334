"""The LLVM IR of attention; `attention` tells what its arguments are.

The loops of a unit, from the outside in: blocks of keys, which are copied to the stack with their
part of v; slivers of rows; panels of keys and of columns of v, each a tile of a product.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.runtime.cpu.attention import KEY_VECTORS, Attention, slots
from tracegraph.runtime.cpu.contraction_epilogue import define_epilogue
from tracegraph.runtime.cpu.contraction_staging import (
    Block,
    Lanes,
    copy_columns,
    copy_run,
    copy_transposed,
)
from tracegraph.runtime.cpu.contraction_tiles import TileCode, tile_text
from tracegraph.runtime.cpu.llvm import Target
from tracegraph.runtime.cpu.scalar_language import new_library
from tracegraph.runtime.cpu.scalars import Abilities, Library
from tracegraph.runtime.cpu.storage import stored_dtype
from tracegraph.runtime.cpu.values import constant_text, element_type
from tracegraph.runtime.cpu.writer import METADATA, Word, Writer, element_bytes, function

_PARAMETERS: Final = ("ptr noalias %arguments", "ptr %frame", "i64 %begin", "i64 %end")


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
    kernel = function(spec.name, _PARAMETERS, code.w, "nounwind")
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


class _Code:
    """Writes the loops."""

    def __init__(self, spec: Attention, has_fma: bool) -> None:
        self.spec, self.tile, self.w, self.has_fma = spec, spec.tile, Writer(), has_fma
        self.kind, self.width = element_type(spec.dtype), spec.tile.width
        self.lanes = Lanes(self.kind, self.width)
        self.vector, self.size = f"<{self.width} x {self.kind}>", spec.dtype.itemsize
        self.columns = spec.tile.columns
        self.kinds = dict.fromkeys(("q", "k", "v", "y"), self.kind) | {"dead": "i8"}
        for i, x in enumerate(spec.score.operands):
            self.kinds[f"operand{i}"] = element_type(stored_dtype(x.dtype))
        self.depth = -(-spec.depth // self.width) * self.width
        self.out_panels = -(-spec.width // self.columns)
        self.least = constant_text(float("-inf"), spec.dtype)

    def tile_code(self, height: int) -> TileCode:
        """Return what the code of a tile depends on."""
        shape = (height, self.tile.vectors, self.width)
        return TileCode(*shape, self.spec.dtype, self.spec.row_stride, 1, self.has_fma)

    def write(self) -> None:
        """Write the whole body."""
        w, spec, tall = self.w, self.spec, self.tile.heights[0]
        words = {
            name: w.load("ptr" if name in spec.pointers else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(slots(spec))
        }
        self.words = words
        self.rows = self._memory(tall * spec.row_stride + self.width)
        self.scores = self._memory(tall * spec.row_stride + self.width)
        self.sums = self._memory(tall * self.columns)
        self.greatest = self._memory(tall * self.width)
        self.factors = self._memory(tall)
        self.keys = self._memory(KEY_VECTORS * self.width * self.depth + self.columns * self.width)
        self.values = self._memory(self.out_panels * spec.block * self.columns)
        rows = words["row_block"]
        size = w.mul(rows, self.out_panels * self.columns)
        self.totals = w.let(f"alloca {self.kind}, i64 {size}, align 64")
        self.maxima = w.let(f"alloca {self.kind}, i64 {rows}, align 64")
        self.weights = w.let(f"alloca {self.kind}, i64 {rows}, align 64")
        first = w.mul("%begin", words["chunk"])
        last = w.least(w.mul("%end", words["chunk"]), words["units"])
        w.loop(last, self._unit, start=first)

    def _memory(self, elements: int) -> str:
        return self.w.let(f"alloca [{elements} x {self.kind}], align 64")

    def _at(self, pointer: str, *offsets: Word) -> str:
        for offset in offsets:
            pointer = self.w.at(pointer, offset, self.kind)
        return pointer

    def _load(self, pointer: str) -> str:
        return self.w.load(self.vector, pointer, self.size)

    def _store(self, value: str, pointer: str) -> None:
        self.w.store(self.vector, value, pointer, self.size)

    def _call(self, name: str, kind: str, x: str, y: str) -> str:
        return self.w.let(f"call {kind} @{name}({kind} {x}, {kind} {y})")

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
            w.store(self.kind, self.least, self._at(self.maxima, row), self.size)
            w.store(self.kind, self._number(0), self._at(self.weights, row), self.size)

        w.loop(w.sub(end, start), clear)

        def block(key: str) -> None:
            count = w.least(w.sub(words["keys"], key), self.spec.block)
            self._copy_keys(pointers["k"], key, count)
            self._copy_values(pointers["v"], key, count)

            def sliver(values: list[str]) -> list[Word]:
                (row,) = values
                left = w.sub(end, row)
                height: Word = 1
                for tall in reversed(self.tile.heights[:-1]):
                    height = w.choose(w.compare("sge", left, tall), tall, height)
                self._sliver(_Part(pointers, start, row, height, key, count))
                return [w.add(row, height)]

            w.repeat([("i64", start)], lambda v: w.compare("slt", v[0], end), sliver)

        w.loop(words["keys"], block, step=self.spec.block)
        w.loop(end, lambda row: self._finish(pointers, start, row), start=start)

    def _number(self, number: float) -> str:
        return constant_text(number, self.spec.dtype)

    # Copies.

    def _copy_keys(self, k: str, key: Word, count: Word) -> None:
        """Copy a block of keys as panels[panel, element, key]."""
        w, far, panel_size = self.w, self.words["k_far"], self.depth * self.columns
        if self.spec.keys == "rows":
            block = Block(self._at(k, w.mul(key, far)), far, count, self.spec.depth)

            def place(vector: str) -> Word:
                panel, part = w.divmod(vector, self.tile.vectors)
                return w.add(w.mul(panel, panel_size), w.mul(part, self.width))

            return copy_transposed(w, self.lanes, block, self.keys, self.columns, place)

        def panel(first: str) -> None:
            source = self._at(k, key, first)
            to = self._at(self.keys, w.mul(w.div(first, self.columns), panel_size))
            block = Block(source, far, self.spec.depth, self.columns)
            self._copy_panel(block, to, w.sub(count, first))

        return w.loop(count, panel, step=self.columns)

    def _copy_panel(self, block: Block, to: str, count: Word) -> None:
        places = list(range(0, self.columns, self.width))
        masks = self.w.masks(count, self.width, len(places))
        copy_columns(self.w, self.lanes, block, to, self.columns, places, masks)

    def _copy_values(self, v: str, key: Word, count: Word) -> None:
        """Copy a block of v as panels[panel, key, column]."""
        w, stride = self.w, self.words["v_row"]
        start = self._at(v, w.mul(key, stride))
        for panel in range(self.out_panels):
            column = panel * self.columns
            block = Block(self._at(start, column), stride, count, self.columns)
            to = self._at(self.values, panel * self.spec.block * self.columns)
            self._copy_panel(block, to, self.spec.width - column)

    # A sliver of rows, a block of keys.

    def _sliver(self, part: _Part) -> None:
        w, spec = self.w, self.spec

        def prepare(i: str) -> None:
            row = w.mul(w.add(part.row, i), self.words["q_row"])
            to = self._at(self.rows, w.mul(i, spec.row_stride))
            copy_run(w, self.lanes, self._at(part.pointers["q"], row), to, spec.depth)
            self._store(self._splat(self.least), self._at(self.greatest, w.mul(i, self.width)))

        w.loop(part.height, prepare)

        def keys(first: str) -> None:
            panel = w.mul(w.div(first, self.columns), self.depth * self.columns)
            self._product(part.height, self.rows, self._at(self.keys, panel), spec.depth)
            w.loop(part.height, lambda i: self._row_of_scores(part, first, i))

        w.loop(part.keys, keys, step=self.columns)
        w.loop(part.height, lambda i: self._weigh(part, i))
        for number in range(self.out_panels):
            panel = self._at(self.values, number * spec.block * self.columns)
            self._product(part.height, self.scores, panel, part.keys)
            w.loop(part.height, lambda i, number=number: self._add(part, number, i))  # type: ignore[misc]

    def _product(self, height: Word, a: str, b: str, count: Word) -> None:
        given = f"ptr {a}, ptr {b}, ptr {self.sums}, i64 {count}"
        self.w.switch(
            height, self.tile.heights,
            lambda tall: self.w.do(f"call void @{self.tile_code(tall).name}({given})"),
        )  # fmt: skip

    def _splat(self, text: str) -> str:
        return f"splat ({self.kind} {text})"

    def _row_of_scores(self, part: _Part, first: str, i: str) -> None:
        """Keep the scores of a row and a panel, and the greatest of each lane."""
        w = self.w
        row = w.add(part.row, i)
        starts = {}
        for number, operand in enumerate(self.spec.score.operands):
            name = f"operand{number}"
            far: Word = 0
            if operand.extent in ("row", "place"):
                far = w.mul(row, self.words[f"{name}_row"])
            if operand.extent in ("column", "place"):
                far = w.add(w.add(far, part.key), first)
            starts[name] = w.at(part.pointers[name], far, self.kinds[name])
        at = self._at(self.greatest, w.mul(i, self.width))
        greatest = self._load(at)
        masks = w.masks(w.sub(part.keys, first), self.width, self.tile.vectors)
        for v, mask in enumerate(masks):
            sums = self._at(self.sums, w.mul(i, self.columns), v * self.width)
            score = self._score(self._load(sums), starts, v, mask)
            picked = f"<{self.width} x i1> {mask}, {self.vector} {score}, {self.vector}"
            score = w.let(f"select {picked} {self._splat(self.least)}")
            to = self._at(self.scores, w.mul(i, self.spec.row_stride), first, v * self.width)
            self._store(score, to)
            greatest = self._call(f"greater{self.width}", self.vector, greatest, score)
        self._store(greatest, at)

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
        maximum, weights = self._at(self.maxima, number), self._at(self.weights, number)
        before = w.load(kind, maximum, self.size)
        found = self._folded("greater", self._load(self._at(self.greatest, w.mul(i, self.width))))
        greatest = self._call("greater1", kind, before, found)
        # No key so far: any number does, since exp(-inf - it) is 0.
        is_none = w.let(f"fcmp oeq {kind} {greatest}, {self.least}")
        base = w.let(f"select i1 {is_none}, {kind} {self._number(0)}, {kind} {greatest}")
        bases = w.splat(base, kind, self.width)
        scores = self._at(self.scores, w.mul(i, self.spec.row_stride))

        def weigh(values: list[str]) -> list[Word]:
            place, total = values
            at = self._at(scores, place)
            weight = self._call("weight", self.vector, self._load(at), bases)
            self._store(weight, at)
            added = w.let(f"fadd {self.vector} {total}, {weight}")
            return [w.add(place, self.width), added]

        start: list[tuple[str, Word]] = [("i64", 0), (self.vector, "zeroinitializer")]
        _, total = w.repeat(start, lambda v: w.compare("slt", v[0], part.keys), weigh)
        at = self._at(self.factors, i)
        w.store(kind, self._number(1), at, self.size)
        is_new = w.let(f"fcmp une {kind} {before}, {greatest}")

        def rescale() -> None:
            factor = self._call("weight", self.vector, w.splat(before, kind, self.width), bases)
            one = w.let(f"extractelement {self.vector} {factor}, i64 0")
            w.store(kind, one, at, self.size)

        w.when(is_new, rescale)
        known = w.load(kind, weights, self.size)
        scaled = w.let(f"fmul {kind} {known}, {w.load(kind, at, self.size)}")
        w.store(
            kind, w.let(f"fadd {kind} {scaled}, {self._folded('sum', total)}"), weights, self.size
        )
        w.store(kind, greatest, maximum, self.size)

    def _folded(self, name: str, value: str) -> str:
        """Return the fold of the lanes of a vector: halves onto halves."""
        w, width = self.w, self.width
        while width > 1:
            vector, half = f"<{width} x {self.kind}>", width // 2
            parts = []
            for first in (0, half):
                if half == 1:
                    parts.append(w.let(f"extractelement {vector} {value}, i64 {first}"))
                    continue
                picked = ", ".join(f"i32 {i}" for i in range(first, first + half))
                mask = f"<{half} x i32> <{picked}>"
                parts.append(w.let(f"shufflevector {vector} {value}, {vector} poison, {mask}"))
            kind = self.kind if half == 1 else f"<{half} x {self.kind}>"
            value = self._call(f"{name}{half}", kind, *parts)
            width = half
        return value

    def _add(self, part: _Part, panel: int, i: str) -> None:
        """Add the sums of a row and a panel to the earlier ones, of which there may be none."""
        w = self.w
        number = w.sub(w.add(part.row, i), part.start)
        factor = w.splat(
            w.load(self.kind, self._at(self.factors, i), self.size), self.kind, self.width
        )
        totals = self._total(number, panel)
        sums = self._at(self.sums, w.mul(i, self.columns))

        def first() -> None:
            for v in range(self.tile.vectors):
                found = self._load(self._at(sums, v * self.width))
                self._store(found, self._at(totals, v * self.width))

        def later() -> None:
            for v in range(self.tile.vectors):
                at = self._at(totals, v * self.width)
                before = w.let(f"fmul {self.vector} {self._load(at)}, {factor}")
                found = self._load(self._at(sums, v * self.width))
                self._store(w.let(f"fadd {self.vector} {before}, {found}"), at)

        w.either(w.compare("eq", part.key, 0), first, later)

    def _total(self, number: Word, panel: int) -> str:
        return self._at(
            self.totals, self.w.mul(number, self.out_panels * self.columns), panel * self.columns
        )

    def _finish(self, pointers: dict[str, str], start: Word, row: str) -> None:
        """Store a row of the result."""
        w, spec = self.w, self.spec
        number = w.sub(row, start)
        weight = w.load(self.kind, self._at(self.weights, number), self.size)
        weights = w.splat(weight, self.kind, self.width)
        is_dead = None
        if spec.dead is not None:
            place = w.at(pointers["dead"], w.mul(row, self.words["dead_row"]), "i8")
            test = "ne" if spec.dead else "eq"
            is_dead = w.let(f"icmp {test} i8 {w.load('i8', place, 1)}, 0")
        to = self._at(pointers["y"], w.mul(row, self.words["y_row"]))
        for column in range(0, spec.width, self.width):
            found = self._load(self._at(self._total(number, 0), column))
            value = w.let(f"fdiv {self.vector} {found}, {weights}")
            if is_dead is not None:
                zero = f"{self.vector} zeroinitializer"
                value = w.let(f"select i1 {is_dead}, {zero}, {self.vector} {value}")
            left, mask = spec.width - column, None
            if left < self.width:
                (mask,) = w.masks(left, self.width, 1)
            w.store_lanes(self.kind, self.width, value, self._at(to, column), mask)
