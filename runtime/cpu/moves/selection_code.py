"""The code of selections (see `selection`): the first of a row in an order, by insertion.

Elements are compared by integer keys, of which the largest comes first. Those that are selected so
far lie on the stack in order, with their places. Vectors of the row are compared with the last of
them; what comes before it is inserted. Equal elements keep their order.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tracegraph.dtypes import DType, float32, float64, int32, int64, uint64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import cast, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import UnitCode
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value, element_type
from tracegraph.runtime.cpu.code.writer import Carried, Word, element_bytes
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.products.launches import Kernel

MOST_SELECTED: Final = 256


class Selection(NamedTuple):
    """What the code depends on; `largest`: the order is a descending one. NaN is the largest.

    `is_many`: so many are selected that they are moved in vectors.
    """

    dtype: DType
    largest: bool
    is_many: bool = False
    outer: int = 0

    @property
    def key(self) -> DType:
        """The dtype of keys."""
        compute = self.dtype.compute
        return int32 if compute in (float32, int32) or compute.itemsize < 4 else int64


def slots(spec: Selection) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = ("x", "values", "indices", "size", "count", "step", "units", "chunk")
    return (*names, *(f"{word}{d}" for d in range(spec.outer) for word in ("outer", "to", "from")))


def selection_kernel(spec: Selection, target: Target) -> Kernel:
    """Return the kernel of a selection."""
    if spec.dtype is uint64:
        raise UnsupportedError("an order of uint64")
    return Kernel(name_of("selection", spec), _text, spec, target)


def _text(spec: Selection, target: Target) -> str:
    code = _Code(spec, target)
    pointers = ("x", "values", "indices")
    return code.text(name_of("selection", spec), slots(spec), pointers, code.unit)


def key_of(m: Emitter, spec: Selection, bits: Value) -> Value:
    """Return the key of elements as they lie in memory."""
    x, dtype = widened(m, bits, spec.dtype), spec.key
    if x.dtype in (float32, float64):
        whole: Any = m.view(x + 0.0, dtype)  # zeros are equal
        most = (1 << 8 * dtype.itemsize - 1) - 1
        key = whole ^ ((whole >> 8 * dtype.itemsize - 1) & most)
        key = m.where(x != x, m.constant(most, dtype), key)
    else:
        key = cast(m, x, dtype)
    return key if spec.largest else ~key


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, spec: Selection, target: Target) -> None:
        super().__init__(target, target.vector_bytes // spec.key.itemsize)
        self.spec, self.kind = spec, element_type(stored_dtype(spec.dtype))
        self.key, self.key_bytes = element_type(spec.key), spec.key.itemsize
        for symbol, width in (("key", 1), ("keys", self.width)):
            self.library.define(
                symbol, width, lambda m, bits: key_of(m, spec, bits), [stored_dtype(spec.dtype)],
                cold=False,
            )  # fmt: skip
        w, most = self.w, (1 << 8 * self.key_bytes - 1) - 1
        # In front of the first key are as many as a vector has that no other comes before.
        room = MOST_SELECTED + 2 * self.width
        guard = w.let(f"alloca {self.key}, i64 {room}, align 64")
        places = w.let(f"alloca i64, i64 {room}, align 64")
        self.keys = w.at(guard, self.width, self.key)
        self.places_of = w.at(places, self.width, "i64")
        for i in range(self.width):
            w.store(self.key, str(most), w.at(guard, i, self.key), self.key_bytes)

    def unit(self, unit: str) -> None:
        """Write a unit: the selection from a row."""
        w, words, dims = self.w, self.words, range(self.spec.outer)
        source: Word = 0
        to: Word = 0
        for d, place in zip(dims, self.places(unit, [f"outer{d}" for d in dims]), strict=True):
            source = w.add(source, w.mul(place, words[f"from{d}"]))
            to = w.add(to, w.mul(place, words[f"to{d}"]))
        row, count = w.at(words["x"], source, self.kind), words["count"]
        w.loop(count, lambda place: self._insert(place, self._key_at(row, place), place))
        last = w.at(self.keys, w.sub(count, 1), self.key)
        self._others(row, last)

        def write(i: str) -> None:
            place = w.load("i64", w.at(self.places_of, i, "i64"), 8)
            target = w.add(to, w.mul(i, words["step"]))
            w.store("i64", place, w.at(words["indices"], target, "i64"), 8)
            size = element_bytes(self.kind)
            value = w.load(self.kind, w.at(row, place, self.kind), size)
            w.store(self.kind, value, w.at(words["values"], target, self.kind), size)

        w.loop(count, write)

    def _key_at(self, row: str, place: Word) -> str:
        x = self.w.load(self.kind, self.w.at(row, place, self.kind), element_bytes(self.kind))
        return self.called("key", [self.key], [f"{self.kind} {x}"])[0]

    def _insert(self, end: Word, key: str, place: Word) -> None:
        """Insert an element behind those of the first `end` that come before it; others move up."""
        w = self.w
        found = (self._parts_moved if self.spec.is_many else self._each_moved)(end, key)
        w.store(self.key, key, w.at(self.keys, found, self.key), self.key_bytes)
        w.store("i64", str(place), w.at(self.places_of, found, "i64"), 8)

    def _each_moved(self, end: Word, key: str) -> str:
        """Move what comes behind a key, one at a time; return where that makes room."""
        w, size = self.w, self.key_bytes

        def moves(values: list[str]) -> str:
            before = w.load(self.key, w.at(self.keys, w.sub(values[0], 1), self.key), size)
            return w.let(f"icmp slt {self.key} {before}, {key}")

        def move(values: list[str]) -> list[Word]:
            before = w.sub(values[0], 1)
            for kind, start, align in ((self.key, self.keys, size), ("i64", self.places_of, 8)):
                moved = w.load(kind, w.at(start, before, kind), align)
                w.store(kind, moved, w.at(start, values[0], kind), align)
            return [before]

        return w.repeat([("i64", end)], moves, move)[0]

    def _parts_moved(self, end: Word, key: str) -> str:
        """Move what comes behind a key, a vector at a time."""
        w, width = self.w, self.width
        wanted = w.splat(key, self.key, width)

        def move(values: list[str]) -> list[Word]:
            first = w.sub(values[0], width)
            keys = w.load_lanes(self.key, width, w.at(self.keys, first, self.key), None)
            moves = w.let(f"icmp slt {self.vector(self.key)} {keys}, {wanted}")
            places = w.load_lanes("i64", width, w.at(self.places_of, first, "i64"), None)
            self._move_up(self.key, keys, w.at(self.keys, w.add(first, 1), self.key), moves)
            self._move_up("i64", places, w.at(self.places_of, w.add(first, 1), "i64"), moves)
            moved = w.let(f"call i64 @llvm.ctpop.i64(i64 {self._bits(moves)})")
            return [w.sub(values[0], moved), w.compare("eq", moved, width)]

        start: list[Carried] = [("i64", end), ("i1", "true")]
        return w.repeat(start, lambda values: values[1], move)[0]

    def _move_up(self, kind: str, values: str, place: str, moves: str) -> None:
        """Write those of a vector that move."""
        w, vector = self.w, self.vector(kind)
        known = w.load_lanes(kind, self.width, place, None)
        made = w.let(f"select <{self.width} x i1> {moves}, {vector} {values}, {vector} {known}")
        w.store_lanes(kind, self.width, made, place, None)

    def _bits(self, mask: str) -> str:
        bits = self.w.let(f"bitcast <{self.width} x i1> {mask} to i{self.width}")
        return self.w.let(f"zext i{self.width} {bits} to i64")

    def _others(self, row: str, last: str) -> None:
        """Insert what comes before the last one that is selected, from the rest of the row."""
        w, words, width = self.w, self.words, self.width
        vector = self.vector(self.kind)

        def one(start: Word, mask: str | None) -> None:
            x = w.load_lanes(self.kind, width, w.at(row, start, self.kind), mask)
            (keys,) = self.called("keys", [self.vector(self.key)], [f"{vector} {x}"])
            least = w.splat(w.load(self.key, last, self.key_bytes), self.key, width)
            first = w.let(f"icmp sgt {self.vector(self.key)} {keys}, {least}")
            if mask is not None:
                first = w.let(f"and <{width} x i1> {first}, {mask}")
            bits = self._bits(first)
            w.repeat([("i64", bits)], lambda v: w.compare("ne", v[0], 0), lambda v: take(start, v))

        def take(start: Word, values: list[str]) -> list[Word]:
            (bits,) = values
            lane = w.let(f"call i64 @llvm.cttz.i64(i64 {bits}, i1 true)")
            place = w.add(start, lane)
            key = self._key_at(row, place)
            least = w.load(self.key, last, self.key_bytes)
            end = w.sub(words["count"], 1)
            comes_first = w.let(f"icmp sgt {self.key} {key}, {least}")
            w.when(comes_first, lambda: self._insert(end, key, place))
            return [w.let(f"and i64 {bits}, {w.sub(bits, 1)}")]

        size, begin = words["size"], words["count"]
        stop = w.add(begin, w.sub(w.sub(size, begin), w.rem(w.sub(size, begin), width)))
        w.loop(stop, lambda start: one(start, None), start=begin, step=width)

        def rest() -> None:
            (mask,) = w.masks(w.sub(size, stop), width, 1)
            one(stop, mask)

        w.when(w.compare("slt", stop, size), rest)
