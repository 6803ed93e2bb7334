"""The code of weighted sums along a dim (see `resampling`).

Lanes are either elements of another dim, which have the same taps, or the results along the dim,
whose elements are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.lane_access import ALL_LANES, gather, scatter, steps_of
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import Lanes, UnitCode
from tracegraph.runtime.cpu.code.values import Value, element_type
from tracegraph.runtime.cpu.code.writer import Word, element_bytes
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.nests.nest import Lane
from tracegraph.runtime.cpu.products.launches import Kernel

_POINTERS: Final = ("x", "y", "source", "weight", "count")


class Taps(NamedTuple):
    """What the code depends on.

    `across`: whether the lanes are another dim; `result`: how it is walked along them.
    """

    dtype: DType
    result_dtype: DType
    across: bool
    result: Lane
    outer: int


def slots(taps: Taps) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = [*_POINTERS, "lanes", "block", "blocks", "units", "chunk"]
    names += ["outputs", "taps", "x_stride", "y_stride"]
    return (
        *names, *(f"{word}{d}" for d in range(taps.outer) for word in (
            "outer", "x_outer", "y_outer")),
    )  # fmt: skip


def taps_kernel(taps: Taps, target: Target) -> Kernel:
    """Return the kernel of weighted sums."""
    return Kernel(name_of("taps", taps), _text, taps, target)


def _text(taps: Taps, target: Target) -> str:
    code = _Code(taps, target)
    return code.text(name_of("taps", taps), slots(taps), _POINTERS, code.unit)


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, taps: Taps, target: Target) -> None:
        computed = taps.result_dtype.compute
        super().__init__(target, target.vector_bytes // computed.itemsize)
        self.taps, self.computed = taps, element_type(computed)
        self.kind = element_type(stored_dtype(taps.dtype))
        self.result = element_type(stored_dtype(taps.result_dtype))

        def tap(m: Emitter, total: Value, bits: Value, weight: Value) -> Value:
            return total + widened(m, bits, taps.dtype) * weight

        def end(m: Emitter, total: Value) -> Value:
            return narrowed(m, total, taps.result_dtype)

        given = [computed, stored_dtype(taps.dtype), computed]
        self.library.define("tap", self.width, tap, given, cold=False)
        self.library.define("end", self.width, end, [computed], cold=False)

    def unit(self, unit: str) -> None:
        """Write a unit: a block of lanes of a row of results, or of all rows that lie so."""
        w, words, across = self.w, self.words, self.taps.across
        rest, block = w.divmod(unit, words["blocks"])
        dims = [f"outer{d}" for d in range(self.taps.outer)]
        places = self.places(rest, [*dims, "outputs"] if across else dims)
        x, y = words["x"], words["y"]
        for d, place in enumerate(places[: self.taps.outer]):
            x = w.at(x, w.mul(place, words[f"x_outer{d}"]), self.kind)
            y = w.at(y, w.mul(place, words[f"y_outer{d}"]), self.result)
        begin, end = self.block(block)
        if not across:
            self.over(begin, end, lambda lanes: self._gathered(x, y, lanes))
            return
        output = places[-1]
        to = w.at(y, w.mul(output, words["y_stride"]), self.result)
        count = self._count(output)
        self.over(begin, end, lambda lanes: self._row(x, to, output, count, lanes))

    def _count(self, output: Word) -> str:
        w = self.w
        return w.let(
            f"sext i32 {w.load('i32', w.at(self.words['count'], output, 'i32'), 4)} to i64"
        )

    def _sum(self, stop: Word, tap: Callable[[Word], tuple[str, str]]) -> str:
        """Return the sum of taps below a number; `tap(k)` gives elements and weights."""
        w, vector = self.w, self.vector(self.computed)

        def turn(values: list[str]) -> list[Word]:
            element, weight = tap(values[0])
            given = [f"{vector} {values[1]}", f"{self.vector(self.kind)} {element}"]
            return [
                w.add(values[0], 1), *self.called("tap", [vector], [*given, f"{vector} {weight}"])
            ]  # fmt: skip

        start: list[tuple[str, Word]] = [("i64", 0), (vector, "zeroinitializer")]
        return w.repeat(start, lambda v: w.compare("slt", v[0], stop), turn)[1]

    def _ended(self, total: str) -> str:
        vector = self.vector(self.computed)
        (value,) = self.called("end", [self.vector(self.result)], [f"{vector} {total}"])
        return value

    def _row(self, x: str, y: str, output: Word, count: str, lanes: Lanes) -> None:
        """Compute a vector of results that have the same taps."""
        w, words, size = self.w, self.words, element_bytes(self.computed)

        def tap(k: Word) -> tuple[str, str]:
            place = w.add(w.mul(k, words["outputs"]), output)
            source = w.load("i32", w.at(words["source"], place, "i32"), 4)
            offset = w.mul(w.let(f"sext i32 {source} to i64"), words["x_stride"])
            start = w.at(x, w.add(offset, lanes.start), self.kind)
            weight = w.load(self.computed, w.at(words["weight"], place, self.computed), size)
            return (
                w.load_lanes(self.kind, self.width, start, lanes.mask),
                w.splat(weight, self.computed, self.width),
            )

        total = self._ended(self._sum(count, tap))
        place = w.at(y, lanes.start, self.result)
        w.store_lanes(self.result, self.width, total, place, lanes.mask)

    def _gathered(self, x: str, y: str, lanes: Lanes) -> None:
        """Compute a vector of results along the dim."""
        w, words, width = self.w, self.words, self.width
        place = w.at(words["count"], lanes.start, "i32")
        counts, mask = w.load_lanes("i32", width, place, lanes.mask), lanes.mask or ALL_LANES
        wide, strides = f"<{width} x i64>", w.splat(words["x_stride"], "i64", width)

        def tap(k: Word) -> tuple[str, str]:
            first = w.add(w.mul(k, words["outputs"]), lanes.start)
            at = w.at(words["source"], first, "i32")
            source = w.load_lanes("i32", width, at, lanes.mask)
            longer = w.let(f"sext <{width} x i32> {source} to {wide}")
            offsets = w.let(f"mul {wide} {longer}, {strides}")
            number = w.splat(w.let(f"trunc i64 {k} to i32"), "i32", width)
            there = w.let(f"icmp slt <{width} x i32> {number}, {counts}")
            there = w.let(f"and <{width} x i1> {there}, {mask}")
            weight = w.load_lanes(
                self.computed, width, w.at(words["weight"], first, self.computed), lanes.mask
            )
            return gather(w, self.kind, width, x, offsets, there), weight

        total = self._ended(self._sum(words["taps"], tap))
        if self.taps.result == "vector":
            to = w.at(y, lanes.start, self.result)
            w.store_lanes(self.result, width, total, to, lanes.mask)
            return
        stride = words["y_stride"]
        start = w.at(y, w.mul(lanes.start, stride), self.result)
        scatter(w, self.result, width, total, start, steps_of(w, width, stride), lanes.mask)
