"""The code of a scan (see `scans`): a fold of values, or of values with their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tracegraph.dtypes import DType, float64, int32, int64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import cast, narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import UnitCode
from tracegraph.runtime.cpu.code.values import Value, constant_text, element_type
from tracegraph.runtime.cpu.code.writer import Word, vector_of
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.nests.functions import combined, neutral
from tracegraph.runtime.cpu.products.launches import Kernel

_FOLDS: Final = {"cumsum": "sum", "cumprod": "prod", "cummax": "amax", "cummin": "amin"}


class Scan(NamedTuple):
    """What the code depends on; `across`: whether lanes are another dim than the scanned one."""

    op: str
    dtype: DType
    across: bool
    outer: int

    @property
    def has_places(self) -> bool:
        """Whether places of extremes are a second result."""
        return self.op in ("cummax", "cummin")

    @property
    def carried(self) -> list[DType]:
        """The dtypes of what is folded."""
        value = float64 if self.op == "logcumsumexp" else self.dtype.compute
        return [value, int32] if self.has_places else [value]

    @property
    def widest(self) -> int:
        """Bytes of the widest of them."""
        return max(d.itemsize for d in self.carried)


def slots(scan: Scan) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = ["x", "y0", *(["y1"] if scan.has_places else [])]
    names += ["size", "stride", "lanes", "block", "blocks", "units", "chunk"]
    return (*names, *(f"{word}{d}" for d in range(scan.outer) for word in ("outer", "stride")))


def scan_kernel(scan: Scan, target: Target) -> Kernel:
    """Return the kernel of a scan."""
    return Kernel(name_of("scan", scan), _text, scan, target)


def _text(scan: Scan, target: Target) -> str:
    code = _Code(scan, target)
    return code.text(name_of("scan", scan), slots(scan), ("x", "y0", "y1"), code.unit)


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, scan: Scan, target: Target) -> None:
        super().__init__(target, target.vector_bytes // scan.widest)
        self.scan = scan
        self.kinds = [vector_of(element_type(d), self.width) for d in scan.carried]
        self.loaded = element_type(stored_dtype(scan.dtype))
        self.stored = [self.loaded, *(["i64"] if scan.has_places else [])]
        value = neutral(_FOLDS.get(scan.op, "amax"), scan.carried[0])
        starts = [(value, scan.carried[0]), (0, int32)]
        self.neutral = [
            f"splat ({element_type(d)} {constant_text(number, d)})"
            for number, d in starts[: len(self.kinds)]
        ]
        self._define()

    def _define(self) -> None:
        """Define `before` (bits to a value), `fold` of two values, `after` (a value to bits)."""
        scan, dtypes = self.scan, self.scan.carried

        def before(m: Emitter, bits: Value) -> Value:
            x = widened(m, bits, scan.dtype)
            return cast(m, x, float64) if scan.op == "logcumsumexp" else x

        def fold(m: Emitter, *given: Value) -> Value | tuple[Value, ...]:
            if scan.op == "logcumsumexp":
                found: Value = m.logaddexp(*given)
                return found
            if not scan.has_places:
                return combined(m, _FOLDS[scan.op], *given)
            x, x_place, y, y_place = given
            later = y >= x if scan.op == "cummax" else y <= x
            if scan.dtype.is_floating_point:
                later = later | (y != y)
            return m.where(later, y, x), m.where(later, y_place, x_place)

        def after(m: Emitter, *given: Value) -> Value | tuple[Value, ...]:
            x = given[0]
            if scan.op == "logcumsumexp":
                x = cast(m, x, scan.dtype)
            bits = narrowed(m, x, scan.dtype)
            return (bits, m.convert("sext", given[1], int64)) if scan.has_places else bits

        stored = stored_dtype(scan.dtype)
        self.library.define("before", self.width, before, [stored], cold=False)
        self.library.define("fold", self.width, fold, [*dtypes, *dtypes], cold=False)
        self.library.define("after", self.width, after, dtypes, cold=False)

    def _typed(self, values: Sequence[str]) -> list[str]:
        return [f"{kind} {v}" for kind, v in zip(self.kinds, values, strict=True)]

    def _folded(self, x: Sequence[str], y: Sequence[str]) -> list[str]:
        return self.called("fold", self.kinds, [*self._typed(x), *self._typed(y)])

    def unit(self, unit: str) -> None:
        """Write a unit: a scan along the lanes, or those of a block of lanes."""
        w, words = self.w, self.words
        rest, block = w.divmod(unit, words["blocks"])
        offset: Word = 0
        for d, place in enumerate(self.places(rest, [f"outer{d}" for d in range(self.scan.outer)])):
            offset = w.add(offset, w.mul(place, words[f"stride{d}"]))
        if not self.scan.across:
            self._along(words["size"], offset)
            return
        begin, end = self.block(block)

        def lanes(start: str) -> None:
            (mask,) = w.masks(w.sub(end, start), self.width, 1)
            column = w.add(offset, start)

            def turn(values: list[str]) -> list[Word]:
                place = w.add(column, w.mul(values[0], words["stride"]))
                known = self._folded(values[1:], self._read(place, values[0], mask))
                self._write(known, place, mask)
                return [w.add(values[0], 1), *known]

            self._repeat(words["size"], 1, turn)

        w.loop(end, lanes, start=begin, step=self.width)

    def _repeat(self, stop: Word, step: Word, turn: Callable[[list[str]], list[Word]]) -> list[str]:
        start: list[tuple[str, Word]] = [("i64", 0), *zip(self.kinds, self.neutral, strict=True)]
        return self.w.repeat(start, lambda v: self.w.compare("slt", v[0], stop), turn)

    def _along(self, size: Word, offset: Word) -> None:
        """Scan along the lanes: vectors of a row, what came before in every lane."""
        w, width = self.w, self.width

        def vector(start: Word, before: Sequence[str], mask: str | None) -> list[str]:
            place = w.add(offset, start)
            scanned, step = self._read(place, start, mask), 1
            while step < width:
                scanned = self._folded(self._shifted(scanned, step), scanned)
                step *= 2
            self._write(self._folded(before, scanned), place, mask)
            return self._folded(before, self._last(scanned))

        whole = w.sub(size, w.rem(size, width))

        def turn(values: list[str]) -> list[Word]:
            return [w.add(values[0], width), *vector(values[0], values[1:], None)]

        _, *known = self._repeat(whole, width, turn)
        left = w.sub(size, whole)

        def rest() -> None:
            (mask,) = w.masks(left, width, 1)
            vector(whole, known, mask)

        w.when(w.compare("sgt", left, 0), rest)

    def _shifted(self, values: Sequence[str], step: int) -> list[str]:
        """Move values up by some lanes; what changes nothing follows behind."""
        lanes = ", ".join(
            f"i32 {i - step if i >= step else self.width + i}" for i in range(self.width)
        )
        return [
            self.w.let(f"shufflevector {kind} {v}, {kind} {none}, <{self.width} x i32> <{lanes}>")
            for kind, v, none in zip(self.kinds, values, self.neutral, strict=True)
        ]

    def _last(self, values: Sequence[str]) -> list[str]:
        """Return the last lane in all lanes."""
        lanes = ", ".join(f"i32 {self.width - 1}" for _ in range(self.width))
        return [
            self.w.let(f"shufflevector {kind} {v}, {kind} poison, <{self.width} x i32> <{lanes}>")
            for kind, v in zip(self.kinds, values, strict=True)
        ]

    def _read(self, place: Word, number: Word, mask: str | None) -> list[str]:
        """Return what is folded: a vector of elements, with their numbers along the scan."""
        w, width = self.w, self.width
        bits = w.load_lanes(self.loaded, width, w.at(self.words["x"], place, self.loaded), mask)
        given = f"{vector_of(self.loaded, width)} {bits}"
        values = self.called("before", self.kinds[:1], [given])
        if self.scan.has_places:
            first = w.splat(w.let(f"trunc i64 {number} to i32"), "i32", width)
            numbers = ", ".join(f"i32 {0 if self.scan.across else i}" for i in range(width))
            values.append(w.let(f"add <{width} x i32> {first}, <{numbers}>"))
        return values

    def _write(self, values: Sequence[str], place: Word, mask: str | None) -> None:
        w, width = self.w, self.width
        kinds = [vector_of(kind, width) for kind in self.stored]
        made = self.called("after", kinds, self._typed(values))
        for i, (kind, value) in enumerate(zip(self.stored, made, strict=True)):
            w.store_lanes(kind, width, value, w.at(self.words[f"y{i}"], place, kind), mask)
