"""The code of a move (see `moving`): units, serial turns, rows or lanes of elements.

An index that is out of range is reported by the frame's error word; its elements are not moved.
"""

from __future__ import annotations

from typing import Final

from tracegraph.runtime.cpu.code.lane_access import ALL_LANES, gather, scatter, steps_of
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import Lanes, UnitCode
from tracegraph.runtime.cpu.code.values import Value, element_type
from tracegraph.runtime.cpu.code.writer import Word, element_bytes, vector_of
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.moves.moving import Move, slots
from tracegraph.runtime.cpu.nests.functions import combined
from tracegraph.runtime.cpu.nests.nest import Lane
from tracegraph.runtime.cpu.products.launches import Kernel

_INDEX_BYTES: Final = 8


def move_kernel(move: Move, target: Target) -> Kernel:
    """Return the kernel of a move."""
    return Kernel(name_of("move", move), _text, move, target)


def _text(move: Move, target: Target) -> str:
    code = _Code(move, target)
    return code.text(name_of("move", move), slots(move), move.arrays, code.unit)


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, move: Move, target: Target) -> None:
        self.move = move
        self.kind = element_type(stored_dtype(move.dtype))
        self.size = element_bytes(self.kind)
        is_fold = move.kind not in ("read", "write")
        widest = (move.dtype.compute if is_fold else move.dtype).itemsize
        widest = widest if move.is_by_row else max(widest, _INDEX_BYTES)
        super().__init__(target, target.vector_bytes // widest if move.lanes else 1)

    def unit(self, unit: str) -> None:
        """Write what is done for a unit: a block of lanes at a place of the free dims."""
        rest, block = self.w.divmod(unit, self.words["blocks"])
        starts = {name: self.words[name] for name in self.move.arrays}
        dims = [f"free{d}" for d in range(self.move.free)]
        for dim, place in zip(dims, self.places(rest, dims), strict=True):
            starts = self._moved(starts, dim, place)
        self._turns(starts, 0, *self.block(block))

    def _moved(self, places: dict[str, str], dim: str, place: Word) -> dict[str, str]:
        w = self.w
        return {
            name: w.at(start, w.mul(place, self.words[f"{name}_{dim}"]), self._kind(name))
            for name, start in places.items()
        }

    def _kind(self, name: str) -> str:
        return self.kind if name in ("near", "far") else "i64"

    def _turns(self, places: dict[str, str], d: int, begin: Word, end: Word) -> None:
        """Run through the serial dims in order."""
        if d < self.move.serial:

            def turn(place: str) -> None:
                self._turns(self._moved(places, f"serial{d}", place), d + 1, begin, end)

            self.w.loop(self.words[f"serial{d}"], turn)
        elif self.move.is_by_row:
            self._row(places, begin, end)
        else:
            self.over(begin, end, lambda lanes: self._elements(places, lanes))

    # Rows: all lanes have the same indices.

    def _row(self, places: dict[str, str], begin: Word, end: Word) -> None:
        w, words = self.w, self.words
        far, wrong = places["far"], "false"
        for i in range(len(self.move.indices)):
            index, size = w.load("i64", places[f"index{i}"], _INDEX_BYTES), words[f"size{i}"]
            if self.move.wraps:
                index = str(w.choose(w.compare("slt", index, 0), w.add(index, size), index))
            beyond = w.compare("uge", index, size)
            wrong = beyond if wrong == "false" else w.let(f"or i1 {wrong}, {beyond}")
            far = w.at(far, w.mul(index, words[f"step{i}"]), self.kind)

        def move() -> None:
            def vector(lanes: Lanes) -> None:
                if self.move.kind == "read":
                    value = self._loaded("far", far, lanes)
                    self._stored("near", places["near"], value, lanes)
                    return
                value = self._loaded("near", places["near"], lanes)
                if self.move.kind != "write":
                    value = self._folded(self._loaded("far", far, lanes), value)
                self._stored("far", far, value, lanes)

            self.over(begin, end, vector)

        w.either(wrong, self._report, move)

    def _loaded(self, name: str, start: str, lanes: Lanes) -> str:
        """Return elements of near or far, whose row begins at a place."""
        w, kind, width, lane = self.w, self.kind, self.width, self._lane(name)
        if lane == "one":
            one = w.load(kind, start, self.size)
            return one if width == 1 else w.splat(one, kind, width)
        if lane == "vector":
            return w.load_lanes(kind, width, w.at(start, lanes.start, kind), lanes.mask)
        stride = self.words[f"{name}_lane"]
        first = w.at(start, w.mul(lanes.start, stride), kind)
        return gather(w, kind, width, first, steps_of(w, width, stride), lanes.mask)

    def _stored(self, name: str, start: str, value: str, lanes: Lanes) -> None:
        w, kind, width = self.w, self.kind, self.width
        if width == 1:
            w.store(kind, value, start, self.size)
        elif self._lane(name) == "vector":
            w.store_lanes(kind, width, value, w.at(start, lanes.start, kind), lanes.mask)
        else:
            stride = self.words[f"{name}_lane"]
            first = w.at(start, w.mul(lanes.start, stride), kind)
            scatter(w, kind, width, value, first, steps_of(w, width, stride), lanes.mask)

    def _lane(self, name: str) -> Lane:
        return self.move.near if name == "near" else self.move.far

    # Lanes with indices of their own.

    def _elements(self, places: dict[str, str], lanes: Lanes) -> None:
        w, width, kind, move = self.w, self.width, self.kind, self.move
        vector = f"<{width} x i64>"
        stride = self.words["far_lane"]
        offsets = w.let(
            f"add {vector} {steps_of(w, width, stride)}, "
            f"{w.splat(str(w.mul(lanes.start, stride)), 'i64', width)}"
        )
        fits = lanes.mask or ALL_LANES
        for i, lane in enumerate(move.indices):
            index, inside = self._indices(places, i, lane, lanes)
            fits = w.let(f"and <{width} x i1> {fits}, {inside}")
            step = w.splat(self.words[f"step{i}"], "i64", width)
            offsets = w.let(f"add {vector} {offsets}, {w.let(f'mul {vector} {index}, {step}')}")
        self._report_lost(fits, lanes)
        far = places["far"]
        if move.kind == "read":
            value = gather(w, kind, width, far, offsets, fits)
            self._stored("near", places["near"], value, lanes)
            return
        value = self._loaded("near", places["near"], lanes)
        if move.kind != "write":
            value = self._folded(gather(w, kind, width, far, offsets, fits), value)
        scatter(w, kind, width, value, far, offsets, fits)

    def _indices(self, places: dict[str, str], i: int, lane: Lane, lanes: Lanes) -> tuple[str, str]:
        """Return a vector of indices, and the mask of those that are in range."""
        w, width, start = self.w, self.width, places[f"index{i}"]
        vector, size = f"<{width} x i64>", self.words[f"size{i}"]
        if lane == "one":
            index = w.splat(w.load("i64", start, _INDEX_BYTES), "i64", width)
        elif lane == "vector":
            index = w.load_lanes("i64", width, w.at(start, lanes.start, "i64"), lanes.mask)
        else:
            stride = self.words[f"index{i}_lane"]
            first = w.at(start, w.mul(lanes.start, stride), "i64")
            index = gather(w, "i64", width, first, steps_of(w, width, stride), lanes.mask)
        sizes = w.splat(size, "i64", width)
        if self.move.wraps:
            negative = w.let(f"icmp slt {vector} {index}, zeroinitializer")
            wrapped = w.let(f"add {vector} {index}, {sizes}")
            index = w.let(f"select <{width} x i1> {negative}, {vector} {wrapped}, {vector} {index}")
        return index, w.let(f"icmp ult {vector} {index}, {sizes}")

    def _report_lost(self, fits: str, lanes: Lanes) -> None:
        """Report if a lane that is there is not among those that fit."""
        w, width = self.w, self.width
        lost = w.let(f"xor <{width} x i1> {fits}, {lanes.mask or ALL_LANES}")
        name = f"@llvm.vector.reduce.or.v{width}i1"
        w.when(w.let(f"call i1 {name}(<{width} x i1> {lost})"), self._report)

    def _report(self) -> None:
        code = self.words["code"]
        self.w.let(f"atomicrmw umax ptr %frame, i64 {code} monotonic")

    # Folds.

    def _folded(self, before: str, value: str) -> str:
        """Return elements with others folded in, as they lie in memory."""
        dtype, vector = self.move.dtype, vector_of(self.kind, self.width)
        stored = stored_dtype(dtype)

        def body(m: Emitter, x: Value, y: Value) -> Value:
            both = (widened(m, x, dtype), widened(m, y, dtype))
            return narrowed(m, combined(m, self.move.kind, *both), dtype)

        self.library.define("folded", self.width, body, [stored, stored], cold=False)
        return self.w.let(f"call {vector} @folded({vector} {before}, {vector} {value})")
