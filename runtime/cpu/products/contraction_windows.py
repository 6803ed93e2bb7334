"""Copies of parts of the windows over images, in the order that tiles read them in.

A part is copied piece by piece: a piece is some columns that are one run in memory, of all rows.
Rows follow each other in lines of places; those of a line for which a piece lies inside of the
image are found by arithmetic, and copied without a test. (A test for each run of each window took
20 ns, three times what the copy takes.)
"""

from __future__ import annotations

from typing import NamedTuple

from tracegraph.runtime.cpu.code.writer import Word, Writer
from tracegraph.runtime.cpu.products.contraction_places import Grid
from tracegraph.runtime.cpu.products.contraction_staging import Lanes


class Part(NamedTuple):
    """Rows and columns of a matrix of windows: where they begin, and how many there are."""

    row: Word
    rows: Word
    column: Word
    columns: Word


class Target(NamedTuple):
    """Where a part goes: row i to place[i · stride], its columns in panels that are `far` apart."""

    place: str
    stride: Word
    columns: int
    far: Word


def copy_windows(w: Writer, lanes: Lanes, grid: Grid, images: str, part: Part, to: Target) -> None:
    """Copy a part of the windows over images, with 0 for what lies outside."""
    _Windows(w, lanes, grid, images, part, to).copy()


class _Piece(NamedTuple):
    """Columns of a tap: the line, and the element of it, that the window at 0 reads from."""

    y: Word
    x: Word
    columns: Word
    to: str


class _Line(NamedTuple):
    """A line of places: its pixels, whether it lies inside, and where place 0 of it goes."""

    source: str
    is_inside: str
    to: str


class _Windows:
    """Writes the loops: pieces, lines of places, places."""

    def __init__(
        self, w: Writer, lanes: Lanes, grid: Grid, images: str, part: Part, to: Target
    ) -> None:
        self.w, self.lanes, self.grid, self.words = w, lanes, grid, grid.words
        self.images, self.part, self.to = images, part, to
        self.step = w.mul(self.words["x_step"], self.words["pixel"])

    def copy(self) -> None:
        """Write the loop over pieces."""
        w, words, part = self.w, self.words, self.part
        run, column = w.divmod(part.column, words["run"])
        tap_y, tap_x = w.divmod(run, words["runs"])
        start: list[Word] = [0, tap_y, tap_x, column]
        w.repeat(
            [("i64", word) for word in start],
            lambda turn: w.compare("slt", turn[0], part.columns),
            self._piece,
        )

    def _piece(self, turn: list[str]) -> list[Word]:
        """Copy what is left of a run, or fits into a panel; return where the next one begins."""
        w, words, (done, tap_y, tap_x, column) = self.w, self.words, turn
        panel, here = w.divmod(done, self.to.columns)
        count = w.least(w.sub(words["run"], column), w.sub(self.part.columns, done))
        count = w.least(count, w.sub(self.to.columns, here))
        y = w.add(w.mul(tap_y, words["y_spread"]), words["y_start"])
        x = w.add(w.mul(tap_x, words["x_spread"]), words["x_start"])
        x = w.add(w.mul(x, words["pixel"]), column)
        far = w.add(w.mul(panel, self.to.far), here)
        self._lines(_Piece(y, x, count, w.at(self.to.place, far, self.lanes.kind)))
        end = w.add(column, count)
        ends, next_x = w.compare("eq", end, words["run"]), w.add(tap_x, 1)
        wraps = w.let(f"and i1 {ends}, {w.compare('eq', next_x, words['runs'])}")
        return [
            w.add(done, count),
            w.choose(wraps, w.add(tap_y, 1), tap_y),
            w.choose(wraps, 0, w.choose(ends, next_x, tap_x)),
            w.choose(ends, 0, end),
        ]

    def _lines(self, piece: _Piece) -> None:
        """Copy a piece of all rows, line of places by line."""
        w, words, part = self.w, self.words, self.part
        # Places x with x · step + piece.x >= 0, and with x · step + piece.x + count <= width.
        rounding = w.sub(self.step, 1)
        first = w.div(w.add(w.most(w.sub(0, piece.x), 0), rounding), self.step)
        room = w.sub(w.sub(words["width"], piece.columns), piece.x)
        end = w.div(w.most(w.add(room, self.step), 0), self.step)

        def line(values: list[str]) -> list[Word]:
            done, image, y, x = values
            stop = w.least(words["out_width"], w.add(x, w.sub(part.rows, done)))
            y_here = w.add(w.mul(y, words["y_step"]), piece.y)
            is_inside = w.compare("ult", y_here, words["height"])  # unsigned: y may be negative
            far = w.add(w.mul(image, words["image"]), w.mul(y_here, words["line"]))
            source = w.at(self.images, w.add(far, piece.x), self.lanes.kind)
            to = w.at(piece.to, w.mul(w.sub(done, x), self.to.stride), self.lanes.kind)
            here = _Line(source, is_inside, to)
            low = w.least(w.most(w.choose(is_inside, first, stop), x), stop)
            high = w.most(w.least(end, stop), low)
            self._inside(piece, here, low, high)
            self._edges(piece, here, (x, low, high, stop))
            next_y = w.add(y, 1)
            ends_image = w.compare("eq", next_y, words["out_height"])
            return [
                w.add(done, w.sub(stop, x)),
                w.choose(ends_image, w.add(image, 1), image),
                w.choose(ends_image, 0, next_y),
                0,
            ]

        start: list[Word] = [0, *self.grid.start(part.row)]
        w.repeat(
            [("i64", word) for word in start],
            lambda values: w.compare("slt", values[0], part.rows),
            line,
        )

    def _inside(self, piece: _Piece, line: _Line, first: Word, end: Word) -> None:
        """Copy a piece for places for which all of it is inside."""
        w, (kind, width) = self.w, self.lanes
        vectors = self.to.columns // width

        def copy(masks: list[str | None]) -> None:
            def place(x: str) -> None:
                source = w.at(line.source, w.mul(x, self.step), kind)
                to = w.at(line.to, w.mul(x, self.to.stride), kind)
                for v, mask in enumerate(masks):
                    value = w.load_lanes(kind, width, w.at(source, v * width, kind), mask)
                    w.store_lanes(kind, width, value, w.at(to, v * width, kind), mask)

            w.loop(end, place, start=first)

        w.either(
            w.compare("eq", piece.columns, self.to.columns),
            lambda: copy([None] * vectors),
            lambda: copy(w.masks(piece.columns, width, vectors)),
        )

    def _edges(self, piece: _Piece, line: _Line, places: tuple[Word, Word, Word, Word]) -> None:
        """Copy a piece for the places of which some of it, or all, is outside: but low to high."""
        w, (kind, width), words = self.w, self.lanes, self.words
        vectors, (first, low_end, high_start, end) = self.to.columns // width, places

        def following(x: Word) -> Word:
            return w.choose(w.compare("eq", x, low_end), high_start, x)

        def place(values: list[str]) -> list[Word]:
            (x,) = values
            here = w.mul(x, self.step)
            begin = w.add(here, piece.x)
            low = w.least(w.most(w.sub(0, begin), 0), piece.columns)
            high = w.most(w.least(w.sub(words["width"], begin), piece.columns), low)
            high = w.choose(line.is_inside, high, low)
            source = w.at(line.source, here, kind)
            to = w.at(line.to, w.mul(x, self.to.stride), kind)
            wanted = w.masks(piece.columns, width, vectors)

            def store(values: list[str]) -> None:
                for v, (value, mask) in enumerate(zip(values, wanted, strict=True)):
                    w.store_lanes(kind, width, value, w.at(to, v * width, kind), mask)

            def some() -> None:
                before, until = w.masks(low, width, vectors), w.masks(high, width, vectors)
                masks = [
                    w.let(f"xor <{width} x i1> {x}, {y}")
                    for x, y in zip(before, until, strict=True)
                ]
                store(
                    [
                        w.load_lanes(kind, width, w.at(source, v * width, kind), mask)
                        for v, mask in enumerate(masks)
                    ]
                )

            # A masked load of nothing from a page that is not there takes 100 ns.
            is_some = w.compare("slt", low, high)
            w.either(is_some, some, lambda: store(["zeroinitializer"] * vectors))
            return [following(w.add(x, 1))]

        start = following(first)
        w.repeat([("i64", start)], lambda values: w.compare("slt", values[0], end), place)
