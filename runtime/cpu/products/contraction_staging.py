"""Copies of blocks of the operands to the stack, in the order that tiles read them in.

A copied block lies in as few cache lines as it needs, at strides that are constants of the code:
rows of A whose stride is a power of two would otherwise evict each other from the cache, and each
shape would want code of its own. What is copied may be rounded up to whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracegraph.runtime.cpu.code.writer import Word, Writer


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
