"""The code of a loop nest (see `nests`): units, passes over rows, vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracegraph.runtime.cpu.code.lane_access import gather, reversed_lanes, scatter, steps_of
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.unit_code import Lanes, UnitCode
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import (
    Word,
    vector_of,
)
from tracegraph.runtime.cpu.nests.functions import Function, Functions
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, Array, Nest, slots
from tracegraph.runtime.cpu.nests.stages import folds_of

# Vectors that are computed side by side where something is folded.
_UNROLLED: Final = 4


def nest_width(nest: Nest, target: Target) -> int:
    """Return how many elements are computed side by side: as the widest dtype allows."""
    sizes = [a.dtype.compute.itemsize for a in nest.arrays.values()]
    sizes += [s.dtype.compute.itemsize for s in nest.steps]
    return max(1, target.vector_bytes // max(sizes))


def nest_text(nest: Nest, name: str, target: Target) -> str:
    """Return the kernel.

    Raises:
        UnsupportedError: a value has no native form.
    """
    code = _Code(nest, UnitCode(target, nest_width(nest, target)))
    return code.units.text(name, slots(nest), nest.arrays, code.unit, code.memory)


class _Code:
    """Writes one kernel."""

    def __init__(self, nest: Nest, units: UnitCode) -> None:
        self.nest, self.units, self.width = nest, units, units.width
        self.w, self.words = units.w, units.words
        self.made = Functions(nest, units.library, units.width)
        self.scratch: dict[int, str] = {}
        self.sums: dict[tuple[int, int], str] = {}  # (fold, which of the unrolled) -> its memory

    # Loops.

    def memory(self) -> None:
        """Make room on the stack for sums and saved values."""
        w, unrolled = self.w, self._unrolled()
        for v, step in enumerate(self.nest.steps):
            if step.op in FOLDS:
                kind = vector_of(element_type(self.made.compute(v)), self.width)
                for u in range(unrolled):
                    self.sums[v, u] = w.let(f"alloca {kind}, align 64")
        for v in self.made.stages.saved:
            kind = element_type(self.made.compute(v))
            room = w.add(self.words["lanes"], self.width)
            self.scratch[v] = w.let(f"alloca {kind}, i64 {room}, align 64")

    def _unrolled(self) -> int:
        return _UNROLLED if self.nest.has_folds else 1

    def unit(self, number: str) -> None:
        """Write what is done for a unit: a row, or a block of rows in lanes."""
        w, nest, words = self.w, self.nest, self.words
        by_block = nest.lanes == "kept"
        rest, block = w.divmod(number, words["blocks"]) if by_block else (number, 0)
        places = self.units.places(rest, [f"kept{d}" for d in range(nest.kept)])
        starts = {}
        for name, array in nest.arrays.items():
            offset: Word = 0
            for d, place in enumerate(places):
                offset = w.add(offset, w.mul(place, words[f"{name}_kept{d}"]))
            starts[name] = w.at(words[name], offset, _kind(array))
        if not by_block:
            self._row_of_vectors(starts)
            return
        begin, end = self.units.block(block)
        self.units.over_groups(
            begin, end, self._unrolled(), lambda lanes: self._rows_in_lanes(starts, lanes)
        )

    # A row in each lane.

    def _rows_in_lanes(self, starts: dict[str, str], lanes: list[Lanes]) -> None:
        """Compute vectors of rows: all of their passes."""
        known: list[dict[int, str]] = [{} for _ in lanes]
        for p in range(self.made.stages.passes + 1):
            for u, lane in enumerate(lanes):
                self._do_rows(p, starts, lane, known[u])
            if p == self.made.stages.passes:
                break
            self._clear(p, len(lanes))

            def inner(places: dict[str, str], p: int = p) -> None:
                for u, lane in enumerate(lanes):
                    self._do_pass(p, places, lane, known[u], u)

            self._over_folded(starts, 0, inner)
            for v in self._folds(p):
                kind = vector_of(element_type(self.made.compute(v)), self.width)
                for u in range(len(lanes)):
                    known[u][v] = self.w.load(kind, self.sums[v, u], 64)

    def _over_folded(
        self, starts: dict[str, str], d: int, body: Callable[[dict[str, str]], None]
    ) -> None:
        """Run the body at each place of the folded dims."""
        w, nest = self.w, self.nest
        if d == nest.folded:
            body(starts)
            return

        def turn(place: str) -> None:
            moved = dict(starts)
            for name, array in nest.arrays.items():
                if not array.is_row:
                    offset = w.mul(place, self.words[f"{name}_folded{d}"])
                    moved[name] = w.at(starts[name], offset, _kind(array))
            self._over_folded(moved, d + 1, body)

        w.loop(self.words[f"folded{d}"], turn)

    # A row along the lanes.

    def _row_of_vectors(self, starts: dict[str, str]) -> None:
        known: dict[int, str] = {}
        whole = Lanes(0, None)
        for p in range(self.made.stages.passes + 1):
            self._do_rows(p, starts, whole, known)
            if p == self.made.stages.passes:
                break
            folds = self._folds(p)
            unrolled = self._unrolled() if folds else 1
            self._clear(p, unrolled)

            def inner(places: dict[str, str], p: int = p, unrolled: int = unrolled) -> None:
                def vectors(lanes: list[Lanes]) -> None:
                    for u, lane in enumerate(lanes):
                        self._do_pass(p, places, lane, known, u)

                self.units.over_groups(0, self.words["lanes"], unrolled, vectors)

            self._over_folded(starts, 0, inner)
            for v in folds:
                known[v] = self._gathered(v, unrolled)

    def _gathered(self, v: int, unrolled: int) -> str:
        """Return the fold of all lanes of all sums: halves onto halves."""
        w, dtype = self.w, self.made.compute(v)
        kind = element_type(dtype)
        width = self.width
        parts = [w.load(vector_of(kind, width), self.sums[v, u], 64) for u in range(unrolled)]
        while len(parts) > 1:
            parts = [
                self._combined(v, x, y, width) for x, y in zip(parts[::2], parts[1::2], strict=True)
            ]
        (total,) = parts
        while width > 1:
            vector, half = vector_of(kind, width), width // 2
            low, high = (
                ", ".join(f"i32 {i}" for i in range(first, first + half)) for first in (0, half)
            )
            halves = [
                w.let(f"shufflevector {vector} {total}, {vector} poison, <{half} x i32> <{x}>")
                for x in (low, high)
            ]
            if half == 1:
                halves = [w.let(f"extractelement {vector} {total}, i64 {i}") for i in (0, 1)]
            total = self._combined(v, halves[0], halves[1], half)
            width = half
        return total

    def _combined(self, v: int, x: str, y: str, width: int) -> str:
        """Return two vectors of a fold's operands folded."""
        kind = vector_of(element_type(self.made.compute(v)), width)
        return self.w.let(f"call {kind} @{self.made.fold(v, width)}({kind} {x}, {kind} {y})")

    # Vectors.

    def _folds(self, p: int) -> list[int]:
        return folds_of(self.nest, self.made.stages, p)

    def _clear(self, p: int, unrolled: int) -> None:
        for v in self._folds(p):
            kind = vector_of(element_type(self.made.compute(v)), self.width)
            for u in range(unrolled):
                self.w.store(kind, self.made.identity(v), self.sums[v, u], 64)

    def _do_pass(
        self, p: int, places: dict[str, str], lane: Lanes, known: dict[int, str], u: int
    ) -> None:
        """Run pass p on a vector."""
        w, made = self.w, self.made.passes[p]
        given = [self._given(v, places, lane, known) for v in made.inputs]
        outputs = self._called(made, given, self.width)
        folds = self._folds(p)
        for v, value in zip(folds, outputs, strict=False):
            kind = vector_of(element_type(self.made.compute(v)), self.width)
            if lane.mask is not None and self.nest.lanes == "folded":
                picked = f"<{self.width} x i1> {lane.mask}, {kind} {value}, {kind}"
                value = w.let(f"select {picked} {self.made.identity(v)}")
            before = w.load(kind, self.sums[v, u], 64)
            w.store(kind, self._combined(v, before, value, self.width), self.sums[v, u], 64)
        for number, value in zip(made.outputs[len(folds) :], outputs[len(folds) :], strict=True):
            if number < 0:
                self._store(-1 - number, value, places, lane, self.width)
            else:
                kind = element_type(self.made.compute(number))
                place = w.at(self.scratch[number], lane.start, kind)
                w.store(vector_of(kind, self.width), value, place, _size(kind))

    def _do_rows(self, p: int, places: dict[str, str], lane: Lanes, known: dict[int, str]) -> None:
        """Compute what is known of a row before pass p, and load what the pass needs of it."""
        made, following = self.made.rows[p], self.made.passes[p : p + 1]
        wanted = [v for f in (made, *following) if f is not None for v in f.inputs]
        for v in wanted:
            step = self.nest.steps[v]
            if step.op == LOAD and not self.made.stages.is_full[v] and v not in known:
                known[v] = self._load(step.inputs[0], places, lane, self.made.row_width)
        if made is None:
            return
        kinds = (element_type(self.made.passed(v)) for v in made.inputs)
        given = [
            f"{vector_of(kind, self.made.row_width)} {known[v]}"
            for kind, v in zip(kinds, made.inputs, strict=True)
        ]
        for number, value in zip(
            made.outputs, self._called(made, given, self.made.row_width), strict=True
        ):
            if number < 0:
                self._store(-1 - number, value, places, lane, self.made.row_width)
            else:
                known[number] = value

    def _called(self, made: Function, given: list[str], width: int) -> list[str]:
        w, returned = self.w, made.returned(width)
        if not made.kinds:
            return []
        result = w.let(f"call {returned} @{made.symbol}({', '.join(given)})")
        if len(made.kinds) == 1:
            return [result]
        return [w.let(f"extractvalue {returned} {result}, {i}") for i in range(len(made.kinds))]

    def _given(self, v: int, places: dict[str, str], lane: Lanes, known: dict[int, str]) -> str:
        """Return the argument of a pass for a value, with its type."""
        w, step = self.w, self.nest.steps[v]
        kind = element_type(self.made.passed(v))
        vector = vector_of(kind, self.width)
        if v in self.scratch:
            place = w.at(self.scratch[v], lane.start, kind)
            return f"{vector} {w.load(vector, place, _size(kind))}"
        if step.op == LOAD and self.made.stages.is_full[v]:
            return f"{vector} {self._load(step.inputs[0], places, lane, self.width)}"
        value = known[v]
        if self.made.row_width != self.width:
            value = w.splat(value, kind, self.width)
        return f"{vector} {value}"

    def _load(self, operand: int, places: dict[str, str], lane: Lanes, width: int) -> str:
        """Return a vector of an operand as it lies in memory, or its one element for a row."""
        w, array = self.w, self.nest.operands[operand]
        kind, name = _kind(array), f"x{operand}"
        size = _size(kind)
        if width == 1 and (self.made.row_width != self.width or array.lane == "one"):
            return w.load(kind, places[name], size)
        if array.lane == "one":
            one = w.load(kind, places[name], size)
            return one if width == 1 else w.splat(one, kind, width)
        if array.lane == "vector":
            place = w.at(places[name], lane.start, kind)
            return w.load(kind, place, size) if width == 1 else w.load_lanes(
                kind, width, place, lane.mask)  # fmt: skip
        if array.lane == "reversed" and width > 1:
            return reversed_lanes(w, kind, width, places[name], lane.start, lane.mask)
        return self._strided(name, places, lane, kind, width, None)

    def _store(
        self, result: int, value: str, places: dict[str, str], lane: Lanes, width: int
    ) -> None:
        w, array = self.w, self.nest.results[result]
        kind, name = _kind(array), f"y{result}"
        if width == 1 and (self.made.row_width != self.width or array.lane == "one"):
            w.store(kind, value, places[name], _size(kind))
        elif array.lane == "vector":
            place = w.at(places[name], lane.start, kind)
            if width == 1:
                w.store(kind, value, place, _size(kind))
            else:
                w.store_lanes(kind, width, value, place, lane.mask)
        elif array.lane == "one":  # one lane, which is there
            one = (
                value if width == 1 else w.let(f"extractelement <{width} x {kind}> {value}, i64 0")
            )
            w.store(kind, one, places[name], _size(kind))
        else:
            self._strided(name, places, lane, kind, width, value)

    def _strided(
        self, name: str, places: dict[str, str], lane: Lanes, kind: str, width: int,
        value: str | None,
    ) -> str:  # fmt: skip
        """Load or store elements that do not follow each other."""
        w = self.w
        stride = self.words.get(f"{name}_lane", -1)
        start = w.at(places[name], w.mul(lane.start, stride), kind)
        if width == 1:
            if value is None:
                return w.load(kind, start, _size(kind))
            w.store(kind, value, start, _size(kind))
            return ""
        offsets = steps_of(w, width, stride)
        if value is None:
            return gather(w, kind, width, start, offsets, lane.mask)
        scatter(w, kind, width, value, start, offsets, lane.mask)
        return ""


def _kind(array: Array) -> str:
    return element_type(stored_dtype(array.dtype))


def _size(kind: str) -> int:
    return {"float": 4, "double": 8}.get(kind) or max(1, int(kind[1:]) // 8)
