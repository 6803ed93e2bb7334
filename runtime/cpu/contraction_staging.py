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
    """Copy elements; up to a vector of zeros follows them.

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

    w.loop(whole, lambda j: piece(j, None), step=width)
    piece(whole, w.below(w.sub(count, whole), width))


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
            mask = w.below(w.sub(block.columns, j), width)
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


def copy_windows(
    w: Writer, lanes: Lanes, grid: Grid, image: str, part: Part, to: str, to_stride: int
) -> None:
    """Copy a part of the windows over images, row i to to[i · to_stride]."""
    words = grid.words
    run, column = w.divmod(part.column, words["run"])
    tap_y, tap_x = w.divmod(run, words["runs"])

    def row(values: list[str]) -> list[Word]:
        i, *place = values
        source = w.at(image, w.mul(place[0], words["image"]), lanes.kind)
        y = w.add(w.mul(place[1], words["y_step"]), words["y_start"])
        x = w.add(w.mul(place[2], words["x_step"]), words["x_start"])
        target = w.at(to, w.mul(i, to_stride), lanes.kind)
        start: list[Word] = [0, tap_y, tap_x, column]

        def piece(turn: list[str]) -> list[Word]:
            return _copy_piece(w, lanes, words, _Piece(source, y, x, target, part.columns), turn)

        w.repeat(
            [("i64", word) for word in start],
            lambda turn: w.compare("slt", turn[0], part.columns),
            piece,
        )
        return [w.add(i, 1), *grid.following(place)]

    first: list[Word] = [0, *grid.start(part.row)]
    w.repeat([("i64", word) for word in first], lambda v: w.compare("slt", v[0], part.rows), row)


class _Piece(NamedTuple):
    """The window that a piece is of: its image and first pixel; where it goes; its columns."""

    image: str
    y: Word
    x: Word
    to: str
    columns: Word


def _copy_piece(
    w: Writer, lanes: Lanes, words: Mapping[str, str], window: _Piece, turn: list[str]
) -> list[Word]:
    """Copy what is left of a run, zeros for what lies outside; return where the next one begins."""
    done, tap_y, tap_x, column = turn
    y = w.add(window.y, w.mul(tap_y, words["y_spread"]))
    x = w.add(window.x, w.mul(tap_x, words["x_spread"]))
    begin = w.add(w.mul(x, words["pixel"]), column)
    count = w.least(w.sub(words["run"], column), w.sub(window.columns, done))
    to = w.at(window.to, done, lanes.kind)
    # An unsigned comparison: a negative y is not below the height.
    is_line = w.compare("ult", y, words["height"])
    low = w.least(w.most(w.sub(0, begin), 0), count)
    high = w.choose(is_line, w.most(w.least(w.sub(words["width"], begin), count), low), low)
    inside = w.sub(high, low)

    def clear_vector(j: str) -> None:
        w.store_lanes(lanes.kind, lanes.width, "zeroinitializer", w.at(to, j, lanes.kind), None)

    def clear() -> None:
        w.loop(count, clear_vector, step=lanes.width)

    w.when(w.compare("slt", inside, count), clear)

    def copy() -> None:
        offset = w.add(w.add(w.mul(y, words["line"]), begin), low)
        source = w.at(window.image, offset, lanes.kind)
        copy_run(w, lanes, source, w.at(to, low, lanes.kind), inside)

    w.when(w.compare("sgt", inside, 0), copy)
    next_x = w.add(tap_x, 1)
    wraps = w.compare("eq", next_x, words["runs"])
    return [
        w.add(done, count),
        w.choose(wraps, w.add(tap_y, 1), tap_y),
        w.choose(wraps, 0, next_x),
        0,
    ]
