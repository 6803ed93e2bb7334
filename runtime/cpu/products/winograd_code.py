"""The LLVM IR of convolutions by `winograd`, which tells what the words of the arguments are.

For a unit, all channels of its patches are transformed to the stack: [place, patch, channel]. Then
for each panel of output channels there is a matrix product for each place, its sums are kept on
the stack as well: [place, patch, column]. They are transformed back tile by tile, and stored line
of pixels by line as those of contractions are. Late weights are transformed to the stack, some
channels of a panel at a time, whose products are added to the sums; the cache is told to fetch the
next meanwhile.

Pixels outside of an image are read from zeros: each patch has a table of pointers to its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_epilogue import define_epilogue
from tracegraph.runtime.cpu.products.contraction_places import Grid, Words
from tracegraph.runtime.cpu.products.contraction_results import Area, Form, store_area
from tracegraph.runtime.cpu.products.contraction_tiles import LINE, tile_text
from tracegraph.runtime.cpu.products.winograd import SPARE, Winograd, nest_slots, winograd_slots
from tracegraph.runtime.cpu.products.winograd_nest import SHARED, Nest, back_text, patch_text
from tracegraph.runtime.cpu.products.winograd_weights import TAPS, transform_text

_STORED: Final = (
    "ptr noalias %arguments", "i64 %first", "i64 %count", "i64 %column", "ptr noalias %sums",
)  # fmt: skip


def winograd_text(spec: Winograd, target: Target) -> str:
    """Return the module of a kernel.

    Raises:
        UnsupportedError: a step of the epilogue has no native form.
    """
    library = new_library(target)
    define_epilogue(library, spec.output, spec.dtype, spec.tile.width)
    nest = Nest.of(spec, target)
    store = f"store.{spec.name}"
    w = Writer()
    w.do(f"call void @{nest.name}(ptr %arguments, i64 %begin, i64 %end, ptr @{store})")
    return "\n".join(
        (
            library.text(),
            *_nest_texts(nest, target),
            _storing_text(spec, nest, target, store),
            function(spec.name, KERNEL_PARAMETERS, w, "nounwind"),
            METADATA,
        )
    )


# The nest of loops, which kernels with other epilogues share.


def _nest_texts(nest: Nest, target: Target) -> list[str]:
    """Return the nest, and the functions that it and the storing function call."""
    loops = _Loops(nest)
    loops.write()
    parameters = ("ptr noalias %arguments", "i64 %begin", "i64 %end", "ptr %store")
    loops_text = function(nest.name, parameters, loops.w, "nounwind noinline", SHARED)
    tiles = [tile_text(nest.tile_code(height)) for height in nest.tile.heights]
    zeros = f"[{nest.patch_stride} x {nest.kind}] zeroinitializer"
    constant = f"@{nest.zeros} = {SHARED} constant {zeros}"
    late = [transform_text(nest.weights, target)] if nest.is_late else []
    return [constant, *tiles, *late, patch_text(nest), back_text(nest), loops_text]


class _Loops:
    """Writes the loops."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.tile, self.w = nest, nest.tile, Writer()
        self.words = Words(self.w, nest_slots(), ("a", "b"))
        self.grid = Grid(self.w, self.words)
        self.places = nest.edge * nest.edge

    def write(self) -> None:
        """Write the whole body."""
        w, nest = self.w, self.nest
        self.patches = self._memory(self.places * nest.rows * nest.patch_stride)
        self.sums = self._memory(self.places * nest.rows * self.tile.columns)
        self.table = w.let(f"alloca [{self.places} x ptr], align 64")
        if nest.is_late:
            self.weights = self._memory(self.places * nest.weight_stride)
        chunk, units = self.words["chunk"], self.words["units"]
        w.loop(w.least(w.mul("%end", chunk), units), self._unit, start=w.mul("%begin", chunk))

    def _memory(self, elements: int) -> str:
        return self.w.let(f"alloca [{elements} x {self.nest.kind}], align 64")

    def _unit(self, unit: str) -> None:
        w, words = self.w, self.words
        panel_block, row_block = w.divmod(unit, words["row_blocks"])
        rows = self.nest.rows - SPARE
        first = w.mul(row_block, rows)
        is_last = w.compare("eq", w.add(row_block, 1), words["row_blocks"])
        count = w.choose(is_last, w.sub(words["tiles"], first), rows)
        self._patches(first, count)
        panel = w.mul(panel_block, words["panel_block"])
        panel_end = w.least(w.add(panel, words["panel_block"]), words["panels"])

        def products(number: str) -> None:
            self._products(number, count)
            column = w.mul(number, self.tile.columns)
            given = f"i64 {first}, i64 {count}, i64 {column}, ptr {self.sums}"
            w.do(f"call void %store(ptr %arguments, {given})")

        w.loop(panel_end, products, start=panel)

    def _patches(self, first: Word, count: Word) -> None:
        """Transform the patches of the unit."""
        w, nest, words = self.w, self.nest, self.words

        def patch(values: list[str]) -> list[Word]:
            i, image, y, x = values
            self._table(image, y, x)
            to = w.at(self.patches, w.mul(i, nest.patch_stride), nest.kind)
            given = f"ptr {self.table}, ptr {to}, i64 {words['channels']}"
            w.do(f"call void @{nest.to}({given})")
            return [w.add(i, 1), *self.grid.following([image, y, x])]

        start: list[Word] = [0, *self.grid.start(first)]
        w.repeat(
            [("i64", word) for word in start],
            lambda values: w.compare("slt", values[0], count),
            patch,
        )

    def _table(self, image: Word, y: Word, x: Word) -> None:
        """Write down where the pixels of a patch are."""
        w, nest, words = self.w, self.nest, self.words
        base = w.at(words["a"], w.mul(image, words["image"]), nest.kind)

        def line(first: Word, start: str, stride: str, size: str) -> list[tuple[str, Word]]:
            begin = w.add(w.mul(first, nest.size), words[start])
            found = []
            for i in range(nest.edge):
                here = w.add(begin, i)  # unsigned: it may be negative
                found.append((w.compare("ult", here, words[size]), w.mul(here, words[stride])))
            return found

        columns = line(x, "x_start", "pixel", "width")
        for i, (has_line, far) in enumerate(line(y, "y_start", "line", "height")):
            row = w.at(base, far, nest.kind)
            for j, (has_pixel, further) in enumerate(columns):
                inside = w.let(f"and i1 {has_line}, {has_pixel}")
                place = w.at(row, further, nest.kind)
                chosen = w.let(f"select i1 {inside}, ptr {place}, ptr @{nest.zeros}")
                w.store("ptr", chosen, w.at(self.table, i * nest.edge + j, "ptr"), 8)

    def _products(self, panel: Word, count: Word) -> None:
        """Multiply the patches by one panel."""
        w, nest, words, columns = self.w, self.nest, self.words, self.tile.columns
        channels = words["channels"]
        number = w.mul(w.mul(panel, channels), nest.weights.numbers * columns)
        start = w.at(words["b"], number, nest.kind)
        if not nest.is_late:
            return self._places(start, w.mul(channels, columns), channels, count)

        def some(first: str) -> None:
            number = w.least(w.sub(channels, first), most)
            taps = w.at(start, w.mul(first, TAPS * columns), nest.kind)
            given = f"ptr {taps}, ptr {self.weights}, i64 {number}, i64 {nest.weight_stride}"
            w.do(f"call void @{nest.weights.transform}({given})")
            following = w.at(taps, most * TAPS * columns, nest.kind)
            self._places(self.weights, nest.weight_stride, number, count, first, following)

        most = nest.late_channels
        return w.loop(channels, some, step=most)

    def _places(
        self, weights: str, far: Word, channels: Word, count: Word, first: Word = 0,
        following: str = "",
    ) -> None:  # fmt: skip
        """Multiply the patches, for each place, by weights that are so `far` from each other.

        `first`: of the channels; with late weights, which `following` are like.
        """
        w, nest = self.w, self.nest

        def place(number: str) -> None:
            b = w.at(weights, w.mul(number, far), nest.kind)
            begin = w.mul(number, nest.rows)
            on = ""
            if nest.is_late:
                far_on = w.mul(number, LINE * nest.late_channels)
                on = f", i64 {first}, ptr {w.at(following, far_on, 'i8')}"

            def sliver(values: list[str]) -> list[Word]:
                (row,) = values
                left = w.sub(count, row)
                height: Word = 1
                for tall in reversed(self.tile.heights[:-1]):
                    height = w.choose(w.compare("sge", left, tall), tall, height)
                here = w.add(begin, row)
                patch = w.add(w.mul(here, nest.patch_stride), first)
                a = w.at(self.patches, patch, nest.kind)
                sums = w.at(self.sums, w.mul(here, self.tile.columns), nest.kind)
                given = f"ptr {a}, ptr {b}, ptr {sums}, i64 {channels}{on}"
                tile: Callable[[int], None] = lambda tall: w.do(  # noqa: E731
                    f"call void @{nest.tile_code(tall).name}({given})"
                )
                w.switch(height, self.tile.heights, tile)
                return [w.add(row, height)]

            w.repeat([("i64", 0)], lambda values: w.compare("slt", values[0], count), sliver)

        w.loop(self.places, place)


# What is done with sums.


class _Run(Grid):
    """Pixels of a line, one after another."""

    def following(self, place: Sequence[str]) -> list[Word]:
        """Return the pixel after this one."""
        image, y, x = place
        return [image, y, self.w.add(x, 1)]


def _storing_text(spec: Winograd, nest: Nest, target: Target, name: str) -> str:
    """Return the function that stores what the epilogue makes of the results of some tiles."""
    w, tile = Writer(), spec.tile
    words = Words(w, winograd_slots(spec), spec.arrays)
    kinds = {x: element_type(stored_dtype(d)) for x, d in spec.arrays.items()}
    pointers = {x: words[x] for x in kinds if x not in ("a", "b")}
    form = Form(spec.output, tile.width, tile.vectors, kinds)
    made = w.let(f"alloca [{spec.size**2 * tile.columns} x {nest.kind}], align 64")

    def tiles(masks: list[str | None]) -> None:
        def one(values: list[str]) -> list[Word]:
            i, image, y, x = values
            sums = w.at("%sums", w.mul(i, tile.columns), nest.kind)
            for v in range(0, tile.columns, tile.width):
                given = f"ptr {w.at(sums, v, nest.kind)}, ptr {w.at(made, v, nest.kind)}"
                w.do(f"call void @{nest.back}({given})")
            first_y, first_x = w.mul(y, spec.size), w.mul(x, spec.size)
            pixels = w.least(w.sub(words["x_size"], first_x), spec.size)

            def line(number: str) -> None:
                totals = w.at(made, w.mul(number, spec.size * tile.columns), nest.kind)
                place: list[Word] = [image, w.add(first_y, number), first_x]
                area = (pointers, _Run(w, words), place, pixels, "%column", masks, totals)
                store_area(w, form, Area(*area))

            w.loop(w.least(w.sub(words["y_size"], first_y), spec.size), line)
            return [w.add(i, 1), *Grid(w, words).following([image, y, x])]

        start: list[Word] = [0, *Grid(w, words).start("%first")]
        w.repeat(
            [("i64", word) for word in start],
            lambda values: w.compare("slt", values[0], "%count"),
            one,
        )

    has_masks = target.vector_bytes == 64
    w.in_lanes(w.sub(words["n"], "%column"), tile.width, tile.vectors, has_masks, tiles)
    return function(name, _STORED, w, "nounwind", "private")
