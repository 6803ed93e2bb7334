"""Functions that copy parts of the operands, which the nests of contractions share.

A copy is a function of its own: nests with the same layout of an operand have it in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracegraph.runtime.cpu.code.writer import Word, Writer, function
from tracegraph.runtime.cpu.products.contraction import (
    STAGED_PANELS,
    ALayout,
    BLayout,
    window_slots,
)
from tracegraph.runtime.cpu.products.contraction_places import Grid, Words
from tracegraph.runtime.cpu.products.contraction_staging import (
    Block,
    Lanes,
    copy_columns,
    copy_rows,
    copy_transposed,
)
from tracegraph.runtime.cpu.products.contraction_tiles import Tile
from tracegraph.runtime.cpu.products.contraction_windows import Part, Target, copy_windows

# A block of rows × columns of a matrix, and where it goes.
_BLOCK: Final = (
    "ptr noalias %place", "i64 %stride", "i64 %rows", "i64 %columns", "ptr noalias %to",
)  # fmt: skip
# A part of the windows over images.
_PART: Final = (
    "ptr noalias %arguments", "ptr noalias %images", "i64 %row", "i64 %rows", "i64 %column",
    "i64 %columns", "ptr noalias %to", "i64 %stride", "i64 %far",
)  # fmt: skip
# Where a part begins in its first dim, how much of it; the same in the second.
Span = tuple[Word, Word, Word, Word]


class Copies:
    """Writes calls of the copies of a nest, and the functions."""

    def __init__(
        self, w: Writer, a: ALayout, b: BLayout, kind: str, tile: Tile,
        a_strides: tuple[int, int], panel_size: int, has_masks: bool,
    ) -> None:  # fmt: skip
        self.w, self.a, self.b, self.tile = w, a, b, tile
        self.lanes = Lanes(kind, tile.width)
        self.a_strides, self.panel_size, self.has_masks = a_strides, panel_size, has_masks

    def rows(self, a: str, stride: Word, part: Span, to: str) -> None:
        """Copy rows of A: (row, rows, k, count)."""
        row, rows, k, count = part
        if self.a == "windows":
            return self._windows(a, part, to, (self.a_strides[0], self.tile.columns))
        if self.a == "rows":
            place = self._at(a, self.w.mul(row, stride), k)
            return self._block(self._rows_name, place, stride, rows, count, to)
        place = self._at(a, self.w.mul(k, stride), row)
        return self._block(self._rows_name, place, stride, count, rows, to)

    def panels(self, b: str, stride: Word, part: Span, to: str) -> None:
        """Copy a group of panels of B: (k, count, column, columns)."""
        k, count, column, columns = part
        if self.b == "windows":
            return self._windows(b, part, to, (self.tile.columns, self.panel_size))
        if self.b == "columns":
            place = self._at(b, self.w.mul(column, stride), k)
            return self._block(self._panels_name, place, stride, columns, count, to)
        place = self._at(b, self.w.mul(k, stride), column)
        return self._block(self._panels_name, place, stride, count, columns, to)

    def texts(self) -> list[str]:
        """Return the functions."""
        found = [self._windows_text()] if "windows" in (self.a, self.b) else []
        found += [] if self.a == "windows" else [self._rows_text()]
        return found if self.b in ("panels", "windows", "dots") else [*found, self._panels_text()]

    # Calls.

    @property
    def _shape(self) -> str:
        return f"{self.lanes.kind}x{self.lanes.width}x{self.tile.vectors}"

    @property
    def _rows_name(self) -> str:
        return f"copy_rows_{self.a}_{self.a_strides[1]}_{self._shape}"

    @property
    def _panels_name(self) -> str:
        return f"copy_panels_{self.b}_{self._shape}"

    def _at(self, pointer: str, *offsets: Word) -> str:
        for offset in offsets:
            pointer = self.w.at(pointer, offset, self.lanes.kind)
        return pointer

    def _block(
        self, name: str, place: str, stride: Word, rows: Word, columns: Word, to: str
    ) -> None:
        given = f"ptr {place}, i64 {stride}, i64 {rows}, i64 {columns}, ptr {to}"
        self.w.do(f"call void @{name}({given})")

    def _windows(self, images: str, part: Span, to: str, strides: tuple[int, int]) -> None:
        span, far = (", ".join(f"i64 {x}" for x in words) for words in (part, strides))
        given = f"ptr %arguments, ptr {images}, {span}, ptr {to}, {far}"
        self.w.do(f"call void @copy_windows_{self._shape}({given})")

    # Functions.

    def _rows_text(self) -> str:
        w, (row, step) = Writer(), self.a_strides
        block = Block("%place", "%stride", "%rows", "%columns")
        if self.a == "rows":
            copy_rows(w, self.lanes, block, "%to", row)
        elif self.b == "panels":
            places = list(range(0, step, self.lanes.width))
            masks = w.masks("%columns", self.lanes.width, len(places))
            copy_columns(w, self.lanes, block, "%to", step, places, masks)
        else:
            copy_rows(w, self.lanes, block, "%to", step)
        return self._text(self._rows_name, _BLOCK, w)

    def _panels_text(self) -> str:
        w, tile = Writer(), self.tile
        block = Block("%place", "%stride", "%rows", "%columns")
        if self.b == "columns":

            def place(vector: str) -> Word:
                panel, part = w.divmod(vector, tile.vectors)
                return w.add(w.mul(panel, self.panel_size), w.mul(part, tile.width))

            copy_transposed(w, self.lanes, block, "%to", tile.columns, place)
        else:
            places = [
                panel * self.panel_size + vector * tile.width
                for panel in range(STAGED_PANELS["rows"])
                for vector in range(tile.vectors)
            ]

            def copy(masks: list[str | None]) -> None:
                copy_columns(w, self.lanes, block, "%to", tile.columns, places, masks)

            w.in_lanes("%columns", tile.width, len(places), self.has_masks, copy)
        return self._text(self._panels_name, _BLOCK, w)

    def _windows_text(self) -> str:
        w = Writer()
        grid = Grid(w, Words(w, window_slots(), ()))
        part = Part("%row", "%rows", "%column", "%columns")
        to = Target("%to", "%stride", self.tile.columns, "%far")
        copy_windows(w, self.lanes, grid, "%images", part, to)
        return self._text(f"copy_windows_{self._shape}", _PART, w)

    def _text(self, name: str, parameters: Sequence[str], w: Writer) -> str:
        return function(name, parameters, w, "nounwind noinline", "linkonce_odr hidden")
