"""Copies of blocks of the operands to the stack, in the order that tiles read them in.

A copied block lies in as few cache lines as it needs, at strides that are constants of the code:
rows of A whose stride is a power of two would otherwise evict each other from the cache, and each
shape would want code of its own. What is copied may be rounded up to whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tracegraph.runtime.cpu.contraction_places import Grid
from tracegraph.runtime.cpu.writer import Word, Writer


class Lanes(NamedTuple):
    """Vectors of `width` elements of an LLVM type."""

    kind: str
    width: int


class Block(NamedTuple):
    """What is copied: element (i, j) is place[i · stride + j]."""

    place: str
    stride: Word
    rows: Word
    columns: Word


def copy_run(w: Writer, lanes: Lanes, source: str, to: str, count: Word, ahead: Word = 0) -> None:
    """Copy elements; zeros follow them up to a whole vector.

    What is `ahead` of the source is fetched to the second cache.
    """
    kind, width = lanes
    whole = w.mul(w.div(count, width), width)

    def piece(j: Word, mask: str | None) -> None:
        if ahead != 0:
            place = w.at(source, w.add(j, ahead), kind)
            w.do(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 2, i32 1)")
        value = w.load_lanes(kind, width, w.at(source, j, kind), mask)
        w.store_lanes(kind, width, value, w.at(to, j, kind), None)

    def rest() -> None:
        (mask,) = w.masks(w.sub(count, whole), width, 1)
        piece(whole, mask)

    w.loop(whole, lambda j: piece(j, None), step=width)
    # A masked load of nothing from a page that is not there takes 100 ns.
    w.when(w.compare("slt", whole, count), rest)


def copy_rows(w: Writer, lanes: Lanes, block: Block, to: str, to_stride: int) -> None:
    """Copy long rows, row i to to[i · to_stride]; what is fetched ahead is the next block below."""
    ahead = w.mul(block.rows, block.stride)

    def row(i: str) -> None:
        source = w.at(block.place, w.mul(i, block.stride), lanes.kind)
        target = w.at(to, w.mul(i, to_stride), lanes.kind)
        copy_run(w, lanes, source, target, block.columns, ahead)

    w.loop(block.rows, row)


def copy_columns(
    w: Writer, lanes: Lanes, block: Block, to: str, to_stride: int, places: list[int],
    masks: list[str | None],
) -> None:  # fmt: skip
    """Copy rows of a few vectors, vector v of row i to to[i · to_stride + places[v]]."""
    kind, width = lanes

    def row(i: str) -> None:
        source = w.at(block.place, w.mul(i, block.stride), kind)
        target = w.at(to, w.mul(i, to_stride), kind)
        for v, (place, mask) in enumerate(zip(places, masks, strict=True)):
            value = w.load_lanes(kind, width, w.at(source, v * width, kind), mask)
            w.store_lanes(kind, width, value, w.at(target, place, kind), None)

    w.loop(block.rows, row)


def copy_transposed(
    w: Writer, lanes: Lanes, block: Block, to: str, to_stride: int, place: Callable[[str], Word]
) -> None:
    """Copy column j of rows v · width … as a vector to to[j · to_stride + place(v)], for each v.

    Rows that are not there repeat the last one.
    """
    kind, width = lanes
    last = w.sub(block.rows, 1)

    def group(v: str) -> None:
        target = w.at(to, place(v), kind)
        first = w.mul(v, width)
        rows = [w.least(w.add(first, i), last) for i in range(width)]
        sources = [w.at(block.place, w.mul(row, block.stride), kind) for row in rows]

        def square(j: str) -> None:
            (mask,) = w.masks(w.sub(block.columns, j), width, 1)
            loaded = [w.load_lanes(kind, width, w.at(x, j, kind), mask) for x in sources]
            for i, column in enumerate(transposed(w, lanes, loaded)):
                found = w.at(target, w.mul(w.add(j, i), to_stride), kind)
                w.store_lanes(kind, width, column, found, None)

        w.loop(block.columns, square, step=width)

    w.loop(w.div(w.add(block.rows, width - 1), width), group)


def transposed(w: Writer, lanes: Lanes, rows: list[str]) -> list[str]:
    """Return the columns of a square of registers, in log2(width) rounds of interleaving."""
    width, half = lanes.width, lanes.width // 2
    vector = f"<{width} x {lanes.kind}>"
    masks = []
    for first in (0, half):
        picked = (f"i32 {first + i // 2 + width * (i % 2)}" for i in range(width))
        masks.append(f"<{width} x i32> <{', '.join(picked)}>")
    for _ in range(width.bit_length() - 1):
        rows = [
            w.let(f"shufflevector {vector} {rows[i]}, {vector} {rows[i + half]}, {mask}")
            for i in range(half)
            for mask in masks
        ]
    return rows


class Part(NamedTuple):
    """Rows and columns of a matrix of windows: where they begin, and how many there are."""

    row: Word
    rows: Word
    column: Word
    columns: Word


class Panels(NamedTuple):
    """A row that is cut into pieces of some columns, `size` elements apart."""

    columns: int
    size: int


def copy_windows(
    w: Writer, lanes: Lanes, grid: Grid, images: str, part: Part, to: str, to_stride: int,
    panels: Panels | None = None,
) -> None:  # fmt: skip
    """Copy a part of the windows over images, row i to to[i · to_stride]."""
    windows = _Windows(w, lanes, grid.words, images, part, panels)

    def row(values: list[str]) -> list[Word]:
        i, *place = values
        windows.copy_row(place, w.at(to, w.mul(i, to_stride), lanes.kind))
        return [w.add(i, 1), *grid.following(place)]

    first: list[Word] = [0, *grid.start(part.row)]
    w.repeat([("i64", word) for word in first], lambda v: w.compare("slt", v[0], part.rows), row)


class _Window(NamedTuple):
    """One window: its image; the line, and the element of it, of its first pixel; where it goes."""

    image: str
    y: Word
    x: Word
    is_inside: str
    to: str


class _Windows:
    """Writes the copying of windows: of one run after the other."""

    def __init__(
        self, w: Writer, lanes: Lanes, words: Mapping[str, str], images: str, part: Part,
        panels: Panels | None,
    ) -> None:  # fmt: skip
        self.panels = panels
        self.w, self.lanes, self.words, self.images = w, lanes, words, images
        self.columns = part.columns
        run, self.column = w.divmod(part.column, words["run"])
        self.tap_y, self.tap_x = w.divmod(run, words["runs"])
        last = w.div(w.sub(w.add(part.column, w.most(part.columns, 1)), 1), words["run"])
        self.last_y = w.mul(w.div(last, words["runs"]), words["y_spread"])
        self.x_far = w.mul(words["x_spread"], words["pixel"])
        self.reach = w.add(w.mul(w.sub(words["runs"], 1), self.x_far), words["run"])

    def copy_row(self, place: list[str], to: str) -> None:
        """Copy the columns of the window at a place."""
        w, words = self.w, self.words
        image = w.at(self.images, w.mul(place[0], words["image"]), self.lanes.kind)
        y = w.add(w.mul(place[1], words["y_step"]), words["y_start"])
        x = w.add(w.mul(place[2], words["x_step"]), words["x_start"])
        x = w.mul(x, words["pixel"])
        tests = (
            w.compare("sge", y, 0),
            w.compare("slt", w.add(y, self.last_y), words["height"]),
            w.compare("sge", x, 0),
            w.compare("sle", w.add(x, self.reach), words["width"]),
        )
        is_inside = tests[0]
        for test in tests[1:]:
            is_inside = w.let(f"and i1 {is_inside}, {test}")
        window = _Window(image, y, x, is_inside, to)
        start: list[Word] = [0, self.tap_y, self.tap_x, self.column]
        w.repeat(
            [("i64", word) for word in start],
            lambda turn: w.compare("slt", turn[0], self.columns),
            lambda turn: self._copy_run(window, turn),
        )

    def _copy_run(self, window: _Window, turn: list[str]) -> list[Word]:
        """Copy what is left of a run, or fits into a panel; return where the next one begins."""
        w, words, (done, tap_y, tap_x, column) = self.w, self.words, turn
        y = w.add(window.y, w.mul(tap_y, words["y_spread"]))
        x = w.add(w.add(window.x, w.mul(tap_x, self.x_far)), column)
        count = w.least(w.sub(words["run"], column), w.sub(self.columns, done))
        far: Word = done
        if self.panels is not None:
            number, here = w.divmod(done, self.panels.columns)
            count = w.least(count, w.sub(self.panels.columns, here))
            far = w.add(w.mul(number, self.panels.size), here)
        source = w.at(window.image, w.add(w.mul(y, words["line"]), x), self.lanes.kind)
        to = w.at(window.to, far, self.lanes.kind)
        w.either(
            window.is_inside,
            lambda: self._copy_inside(source, to, count),
            lambda: self._copy_clipped(source, y, x, to, count),
        )
        end = w.add(column, count)
        ends, next_x = w.compare("eq", end, words["run"]), w.add(tap_x, 1)
        wraps = w.let(f"and i1 {ends}, {w.compare('eq', next_x, words['runs'])}")
        return [
            w.add(done, count),
            w.choose(wraps, w.add(tap_y, 1), tap_y),
            w.choose(wraps, 0, w.choose(ends, next_x, tap_x)),
            w.choose(ends, 0, end),
        ]

    def _copy_inside(self, source: str, to: str, count: Word) -> None:
        """Copy a run; the whole row of a panel at once."""
        w, (kind, width) = self.w, self.lanes
        if self.panels is None:
            return copy_run(w, self.lanes, source, to, count)

        def whole() -> None:
            for place in range(0, columns, width):
                value = w.load_lanes(kind, width, w.at(source, place, kind), None)
                w.store_lanes(kind, width, value, w.at(to, place, kind), None)

        columns = self.panels.columns
        is_whole = w.compare("eq", count, columns)
        return w.either(is_whole, whole, lambda: copy_run(w, self.lanes, source, to, count))

    def _copy_clipped(self, source: str, y: Word, x: Word, to: str, count: Word) -> None:
        """Copy a run of which a part may lie outside of the image, for which there are zeros."""
        w, (kind, width) = self.w, self.lanes
        is_line = w.compare("ult", y, self.words["height"])  # unsigned: y may be negative
        low = w.least(w.most(w.sub(0, x), 0), count)
        high = w.most(w.least(w.sub(self.words["width"], x), count), low)
        high = w.choose(is_line, high, low)

        present = w.sub(high, low)

        def clear(j: str) -> None:
            w.store_lanes(kind, width, "zeroinitializer", w.at(to, j, kind), None)

        def partial() -> None:
            w.loop(count, clear, step=width)
            copy_run(w, self.lanes, w.at(source, low, kind), w.at(to, low, kind), present)

        is_whole = w.compare("eq", present, count)
        w.either(is_whole, lambda: self._copy_inside(source, to, count), partial)
