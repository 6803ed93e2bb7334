"""The code of places of extremes (see `extremes`): one pass, values with the places they are at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType, int32, int64
from tracegraph.runtime.cpu.code.lane_access import gather, steps_of
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import UnitCode
from tracegraph.runtime.cpu.code.values import Value, constant_text, element_type
from tracegraph.runtime.cpu.code.writer import Carried, Word, vector_of
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.nests.functions import neutral
from tracegraph.runtime.cpu.products.launches import Kernel

# Vectors that are computed side by side, so that a comparison need not wait for the last one.
_VECTORS: Final = {"along": 4, "across": 8, "strided": 1}
_FEW_REGISTERS: Final = 4


class Extreme(NamedTuple):
    """What the code depends on; `lanes`: how elements lie along the lanes.

    "along": the dim that is searched, "across": another one, "strided": as that, steps apart.
    """

    is_most: bool
    dtype: DType
    lanes: Literal["along", "across", "strided"]
    outer: int
    has_values: bool


def slots(spec: Extreme) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = ["x", "place", *(["value"] if spec.has_values else [])]
    names += ["size", "stride", "lanes", "lane", "block", "blocks", "units", "chunk"]
    return (*names, *(f"{word}{d}" for d in range(spec.outer) for word in ("outer", "to", "from")))


def width_of(dtype: DType, target: Target) -> int:
    """Return how many elements are compared side by side: as many as places of 32 bits, or less."""
    return max(1, target.vector_bytes // max(4, dtype.compute.itemsize))


def extreme_kernel(spec: Extreme, target: Target) -> Kernel:
    """Return the kernel that finds the first places of extremes, or of what is not a number."""
    return Kernel(name_of("extreme", spec), _text, spec, target)


def _text(spec: Extreme, target: Target) -> str:
    code = _Code(spec, target)
    return code.text(name_of("extreme", spec), slots(spec), ("x", "place", "value"), code.unit)


class _Code(UnitCode):
    """Writes one kernel. What is known of a vector is a pair: values, and their places."""

    def __init__(self, spec: Extreme, target: Target) -> None:
        super().__init__(target, width_of(spec.dtype, target))
        self.has_masks = target.vector_bytes == 64
        self.spec, self.vectors = spec, _VECTORS[spec.lanes]
        if not self.has_masks:
            self.vectors = min(self.vectors, _FEW_REGISTERS)
        self.loaded = element_type(stored_dtype(spec.dtype))
        self.kinds = [self.vector(element_type(d)) for d in (spec.dtype.compute, int32)]
        self._define()

    def _define(self) -> None:
        """Define `before` (bits to a value), `later` and `either` of two pairs, `after`."""
        spec, own = self.spec, [self.spec.dtype.compute, int32]

        def before(m: Emitter, bits: Value) -> Value:
            return widened(m, bits, spec.dtype)

        def beyond(x: Value, y: Value) -> Value:
            return y > x if spec.is_most else y < x

        def later(
            m: Emitter, x: Value, x_place: Value, y: Value, y_place: Value
        ) -> tuple[Value, ...]:
            wins = beyond(x, y)
            if spec.dtype.is_floating_point:
                wins = ~(y <= x if spec.is_most else y >= x) & (x == x)
            return m.where(wins, y, x), m.where(wins, y_place, x_place)

        def either(m: Emitter, *given: Value) -> tuple[Value, ...]:
            x, x_place, y, y_place = given
            wins, equal = beyond(x, y), x == y
            if spec.dtype.is_floating_point:
                x_lost, y_lost = x != x, y != y
                wins, equal = wins | (y_lost & ~x_lost), equal | (x_lost & y_lost)
            wins = wins | (equal & (y_place < x_place))
            return m.where(wins, y, x), m.where(wins, y_place, x_place)

        def after(m: Emitter, x: Value, place: Value) -> tuple[Value, ...]:
            wide = m.convert("sext", place, int64)
            return (wide, narrowed(m, x, spec.dtype)) if spec.has_values else (wide,)

        define, width = self.library.define, self.width
        define("before", width, before, [stored_dtype(spec.dtype)], cold=False)
        define("later", width, later, [*own, *own], cold=False)
        define("either", width, either, [*own, *own], cold=False)
        define("after", width, after, own, cold=False)

    def unit(self, unit: str) -> None:
        """Write a unit: the search along a dim, or of a block of lanes."""
        w, words = self.w, self.words
        rest, block = w.divmod(unit, words["blocks"])
        source: Word = 0
        to: Word = 0
        dims = range(self.spec.outer)
        for d, place in zip(dims, self.places(rest, [f"outer{d}" for d in dims]), strict=True):
            source = w.add(source, w.mul(place, words[f"from{d}"]))
            to = w.add(to, w.mul(place, words[f"to{d}"]))
        start = w.at(words["x"], source, self.loaded)
        if self.spec.lanes == "along":
            self._write(self._along(start), to, None, is_one=True)
            return
        begin, end = self.block(block)
        step = self.vectors * self.width

        def lanes(first: str) -> None:
            row = w.at(start, w.mul(first, words["lane"]), self.loaded)

            def search(masks: list[str | None]) -> None:
                for u, (pair, mask) in enumerate(zip(self._across(row, masks), masks, strict=True)):
                    self._write(pair, w.add(w.add(to, first), u * self.width), mask)

            w.in_lanes(w.sub(end, first), self.width, self.vectors, self.has_masks, search)

        w.loop(end, lanes, start=begin, step=step)

    # Pairs.

    def _pair(self, symbol: str, x: Sequence[str], y: Sequence[str]) -> list[str]:
        given = [f"{kind} {v}" for kind, v in zip(2 * self.kinds, (*x, *y), strict=True)]
        return self.called(symbol, self.kinds, given)

    def _start(self) -> list[str]:
        """Return the least extreme value at the first places: it is there, or others are found."""
        dtype = self.spec.dtype.compute
        value = constant_text(neutral("amax" if self.spec.is_most else "amin", dtype), dtype)
        number = value if self.width == 1 else f"splat ({element_type(dtype)} {value})"
        return [number, self._numbers(0) if self.spec.lanes == "along" else "zeroinitializer"]

    def _numbers(self, start: int) -> str:
        numbers = ", ".join(f"i32 {start + i}" for i in range(self.width))
        return str(start) if self.width == 1 else f"<{numbers}>"

    def _number(self, place: Word) -> str:
        short = self.w.let(f"trunc i64 {place} to i32")
        return short if self.width == 1 else self.w.splat(short, "i32", self.width)

    def _loaded(self, bits: str) -> str:
        given = f"{vector_of(self.loaded, self.width)} {bits}"
        return self.called("before", self.kinds[:1], [given])[0]

    def _vector(self, place: str, mask: str | None) -> str:
        if self.width == 1:
            return self._loaded(self.w.load(self.loaded, place, self.spec.dtype.itemsize))
        return self._loaded(self.w.load_lanes(self.loaded, self.width, place, mask))

    # Searches.

    def _across(self, row: str, masks: Sequence[str | None]) -> list[list[str]]:
        """Search a dim for vectors of lanes."""
        w, width, words, lane = self.w, self.width, self.words, self.words["lane"]
        is_strided = self.spec.lanes == "strided" and width > 1
        steps = steps_of(w, width, lane) if is_strided else ""

        def turn(values: list[str]) -> list[Word]:
            place = w.at(row, w.mul(values[0], words["stride"]), self.loaded)
            number, found = self._number(values[0]), []
            for u, mask in enumerate(masks):
                if is_strided:
                    x = self._loaded(gather(w, self.loaded, width, place, steps, mask))
                else:
                    x = self._vector(w.at(place, u * width, self.loaded), mask)
                found += self._pair("later", values[1 + 2 * u : 3 + 2 * u], (x, number))
            return [w.add(values[0], 1), *found]

        kinds = self.kinds * len(masks)
        start: list[Carried] = [("i64", 0), *zip(kinds, self._start() * len(masks), strict=True)]
        _, *known = self._repeat(start, words["size"], turn)
        return [known[i : i + 2] for i in range(0, len(known), 2)]

    def _repeat(
        self, start: list[Carried], stop: Word, turn: Callable[[list[str]], list[Word]]
    ) -> list[str]:
        return self.w.repeat(start, lambda values: self.w.compare("slt", values[0], stop), turn)

    def _along(self, start: str) -> list[str]:
        """Search a row; the pair that is found is in the first lane."""
        w, width, size = self.w, self.width, self.words["size"]
        known = self._start() * self.vectors

        def taken(
            known: Sequence[str], place: Word, count: int, mask: str | None = None
        ) -> list[str]:
            number, found = self._number(place), []
            for u in range(count):
                x = self._vector(
                    w.at(w.at(start, place, self.loaded), u * width, self.loaded), mask
                )
                numbers = w.let(f"add {self.kinds[1]} {number}, {self._numbers(u * width)}")
                found += self._pair("later", known[2 * u : 2 * u + 2], (x, numbers))
            return found

        begin: Word = 0
        for count in (self.vectors, 1):
            step = count * width
            stop = w.add(begin, w.sub(w.sub(size, begin), w.rem(w.sub(size, begin), step)))

            def turn(values: list[str], count: int = count, step: int = step) -> list[Word]:
                return [w.add(values[0], step), *taken(values[1:], values[0], count)]

            kinds = self.kinds * count
            first: list[Carried] = [("i64", begin), *zip(kinds, known[: 2 * count], strict=True)]
            _, *made = self._repeat(first, stop, turn)
            known = [*made, *known[2 * count :]]
            begin = stop
        if width > 1:
            (mask,) = w.masks(w.sub(size, begin), width, 1)
            rest = taken(known[:2], begin, 1, mask)
            known[:2] = [
                w.let(f"select <{width} x i1> {mask}, {kind} {x}, {kind} {y}")
                for kind, x, y in zip(self.kinds, rest, known, strict=False)
            ]
        return self._reduced([known[i : i + 2] for i in range(0, len(known), 2)])

    def _reduced(self, pairs: list[list[str]]) -> list[str]:
        while len(pairs) > 1:
            half = len(pairs) // 2
            pairs = [
                self._pair("either", x, y) for x, y in zip(pairs[:half], pairs[half:], strict=True)
            ]
        (found,), step = pairs, self.width // 2
        while step:
            lanes = ", ".join(f"i32 {(i + step) % self.width}" for i in range(self.width))
            moved = [
                self.w.let(
                    f"shufflevector {kind} {v}, {kind} poison, <{self.width} x i32> <{lanes}>"
                )
                for kind, v in zip(self.kinds, found, strict=True)
            ]
            found, step = self._pair("either", found, moved), step // 2
        return found

    def _write(self, pair: Sequence[str], to: Word, mask: str | None, is_one: bool = False) -> None:
        w, width = self.w, self.width
        stored = {"place": "i64", **({"value": self.loaded} if self.spec.has_values else {})}
        given = [f"{kind} {v}" for kind, v in zip(self.kinds, pair, strict=True)]
        made = self.called("after", [self.vector(kind) for kind in stored.values()], given)
        for (name, kind), value in zip(stored.items(), made, strict=True):
            place = w.at(self.words[name], to, kind)
            if is_one and width > 1:
                value = w.let(f"extractelement {self.vector(kind)} {value}, i64 0")
            if is_one or width == 1:
                w.store(kind, value, place, 8 if kind == "i64" else self.spec.dtype.itemsize)
            else:
                w.store_lanes(kind, width, value, place, mask)
