"""What happens to the sums of a tile: they are added to those of blocks of k before, and stored.

They come from a small block on the stack, row by row: so the epilogue is written once, not once
for every register of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracegraph.runtime.cpu.code.writer import Word, Writer, element_bytes
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_places import Line


class Form(NamedTuple):
    """What the code depends on: vectors of `width` elements, `vectors` of them in a row of sums.

    `kinds` has the element types of the arrays, by their names; "a" is that of sums.
    """

    output: Output
    width: int
    vectors: int
    kinds: dict[str, str]


class Area(NamedTuple):
    """A tile of C."""

    pointers: dict[str, str]
    rows: Line
    first: list[Word]  # the place of the first row
    height: Word
    column: Word
    masks: list[str | None]  # of the vectors of a row
    sums: str
    # Whether there are no earlier sums in the array "partial"; None: there never are.
    is_first: str | None = None


def store_area(w: Writer, form: Form, area: Area) -> None:
    """Store what the epilogue makes of the sums of a tile, and of earlier ones."""
    _Store(w, form, area).results()


def add_area(w: Writer, form: Form, area: Area) -> None:
    """Add the sums of a tile to those of earlier blocks of k."""
    _Store(w, form, area).partial()


class _Store:
    """Writes the loops over rows; vectors of a row are unrolled."""

    def __init__(self, w: Writer, form: Form, area: Area) -> None:
        self.w, self.form, self.area = w, form, area
        self.width, self.kinds = form.width, form.kinds
        self.vector = f"<{self.width} x {form.kinds['a']}>"

    def partial(self) -> None:
        """Add the sums to those of earlier blocks."""

        def row(i: str, place: list[str]) -> None:
            self._write("partial", self._places("partial", place), self._totals(i, place))

        self._rows(row)

    def results(self) -> None:
        """Store what the epilogue makes of the sums, those of earlier blocks added."""
        arrays = {f"operand{i}": x.extent for i, x in enumerate(self.form.output.operands)}
        names = [f"result{i}" for i in range(len(self.form.output.results))]
        fixed = {
            name: self._fixed(name, extent)
            for name, extent in arrays.items()
            if extent in ("column", "scalar")
        }

        def row(i: str, place: list[str]) -> None:
            places = [self._places(name, place) for name in names]
            operands = {
                name: fixed.get(name) or self._varying(name, extent, place)
                for name, extent in arrays.items()
            }
            made = self._apply(self._totals(i, place), operands, names)
            for name, found, values in zip(names, places, made, strict=True):
                self._write(name, found, values)

        self._rows(row)

    def _rows(self, body: Callable[[str, list[str]], None]) -> None:
        w, area = self.w, self.area

        def turn(values: list[str]) -> list[Word]:
            i, *place = values
            body(i, place)
            return [w.add(i, 1), *area.rows.following(place)]

        start: list[Word] = [0, *area.first]
        w.repeat(
            [("i64", word) for word in start],
            lambda values: w.compare("slt", values[0], area.height),
            turn,
        )

    def _apply(
        self, totals: list[str], operands: dict[str, list[str]], names: list[str]
    ) -> list[list[str]]:
        """Return the vectors of each result."""
        w = self.w
        kinds = [f"<{self.width} x {self.kinds[name]}>" for name in names]
        returned = kinds[0] if len(kinds) == 1 else f"{{ {', '.join(kinds)} }}"
        results: list[list[str]] = [[] for _ in names]
        for v, total in enumerate(totals):
            given = [f"{self.vector} {total}"]
            given += [f"<{self.width} x {self.kinds[x]}> {y[v]}" for x, y in operands.items()]
            made = w.let(f"call {returned} @epilogue({', '.join(given)})")
            for r, values in enumerate(results):
                one = made if len(names) == 1 else w.let(f"extractvalue {returned} {made}, {r}")
                values.append(one)
        return results

    def _totals(self, i: str, place: list[str]) -> list[str]:
        """Return the sums of a row: of this block of k, and of those before."""
        w, area, kind = self.w, self.area, self.kinds["a"]
        columns = self.form.vectors * self.width
        totals = []
        for v in range(self.form.vectors):
            found = w.at(area.sums, w.add(w.mul(i, columns), v * self.width), kind)
            totals.append(w.load(self.vector, found, self.width * element_bytes(kind)))
        if area.is_first is None:
            return totals
        earlier = self._places("partial", place)
        for v, (far, mask) in enumerate(zip(earlier, area.masks, strict=True)):
            before = w.let(f"select i1 {area.is_first}, ptr @zeros, ptr {far}")
            known = w.load_lanes(kind, self.width, before, mask)
            totals[v] = w.let(f"fadd {self.vector} {totals[v]}, {known}")
        return totals

    def _write(self, name: str, places: list[str], values: list[str]) -> None:
        for place, value, mask in zip(places, values, self.area.masks, strict=True):
            self.w.store_lanes(self.kinds[name], self.width, value, place, mask)

    def _places(self, name: str, place: list[str]) -> list[str]:
        """Return where the vectors of a row of an array are."""
        w, kind = self.w, self.kinds[name]
        row = w.at(self.area.pointers[name], self.area.rows.offset(name, place), kind)
        start = w.at(row, self.area.column, kind)
        return [w.at(start, v * self.width, kind) for v in range(self.form.vectors)]

    def _fixed(self, name: str, extent: str) -> list[str]:
        """Return the vectors of an operand that is the same in every row."""
        w, kind, pointer = self.w, self.kinds[name], self.area.pointers[name]
        if extent == "scalar":
            value = w.splat(w.load(kind, pointer, element_bytes(kind)), kind, self.width)
            return [value] * self.form.vectors
        start = w.at(pointer, self.area.column, kind)
        return [
            w.load_lanes(kind, self.width, w.at(start, v * self.width, kind), mask)
            for v, mask in enumerate(self.area.masks)
        ]

    def _varying(self, name: str, extent: str, place: list[str]) -> list[str]:
        """Return the vectors of an operand in one row."""
        w, kind = self.w, self.kinds[name]
        if extent == "place":
            places = zip(self._places(name, place), self.area.masks, strict=True)
            return [w.load_lanes(kind, self.width, found, mask) for found, mask in places]
        found = w.at(self.area.pointers[name], self.area.rows.offset(name, place), kind)
        value = w.splat(w.load(kind, found, element_bytes(kind)), kind, self.width)
        return [value] * self.form.vectors
