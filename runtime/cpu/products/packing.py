"""Packing of the second operand of a contraction into panels, ahead of time or natively.

A panel holds `columns` columns of B, all k after each other: panels[panel, k, columns], so that
tiles read it from one end to the other. Columns that the last panel has too many are anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_staging import (
    Block,
    Lanes,
    copy_columns,
    transposed,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The words of the argument block of a packing kernel: pointers; columns and panels of a matrix;
# the extents of k, outermost first, and the strides of the source in elements; matrices.
PACKING_SLOTS = (
    "source", "panels", "n", "panel_count", "k2", "k1", "k0", "k2_stride", "k1_stride", "k0_stride",
    "n_stride", "matrices", "matrix_stride",
)  # fmt: skip
_LINE_BYTES = 64
Source = Literal["columns", "runs", "any"]


def packed_shape(shape: tuple[int, ...], columns: int) -> tuple[int, ...]:
    """Return the shape of the panels of B[.., k, n]: (.., panels, k, columns)."""
    *batch, k, n = shape
    return (*batch, -(-n // columns), k, columns)


def pack_panels(b: NDArray[Any], columns: int) -> NDArray[Any]:
    """Return the panels of B[.., k, n], at an address that is a multiple of a cache line."""
    shape = packed_shape(b.shape, columns)
    panels = aligned_zeros(shape, b.dtype)
    for number in range(shape[-3]):
        part = b[..., number * columns : (number + 1) * columns]
        panels[..., number, :, : part.shape[-1]] = part
    return panels


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros at an address that is a multiple of a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + _LINE_BYTES, np.uint8)
    skip = -int(raw.ctypes.data) % _LINE_BYTES
    return raw[skip : skip + size].view(dtype).reshape(shape)


class Packing(NamedTuple):
    """What the code of a packing kernel depends on; `width`: elements of a vector.

    `source`: what is contiguous in it: "columns" (n), "runs" (all of k for each n, in the order
    k0, k2, k1, and at least a vector), or "any".
    """

    dtype: DType
    columns: int
    width: int
    source: Source

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"packing_{self.source}_{self.dtype.code}x{self.columns}x{self.width}"


def source_of(words: dict[str, int], width: int) -> Source:
    """Return what is contiguous in a source, by the words of its packing."""
    taps = words["k2"] * words["k1"]
    if words["n_stride"] == 1 and taps == 1:
        return "columns"
    steps = (("k0", taps), ("k2", words["k1"]), ("k1", 1))
    is_run = all(words[k] == 1 or words[f"{k}_stride"] == step for k, step in steps)
    return "runs" if is_run and taps * words["k0"] >= width else "any"


def packing_text(spec: Packing, target: Target) -> str:
    """Return the kernel; a chunk is a panel of a matrix.

    Element (matrix, k2, k1, k0, n) is taken from the sum of index · stride; strides may be
    negative. Rows of a panel are in the order of (k2, k1, k0).
    """
    packing = _Packing(spec, target)
    packing.write()
    return "\n".join((function(spec.name, KERNEL_PARAMETERS, packing.w, "nounwind"), METADATA))


class _Panel(NamedTuple):
    """A panel: its first column in the source, where it goes, and how many columns are there."""

    source: str
    to: str
    present: Word


class _Packing:
    """Writes the loops."""

    def __init__(self, spec: Packing, target: Target) -> None:
        self.spec, self.w, self.kind = spec, Writer(), element_type(spec.dtype)
        self.lanes = Lanes(self.kind, spec.width)
        self.has_masks = target.vector_bytes == 64

    def write(self) -> None:
        """Write the whole body."""
        w, spec = self.w, self.spec
        self.words = words = {
            name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(PACKING_SLOTS)
        }
        self.taps = w.mul(words["k2"], words["k1"])
        self.k = w.mul(self.taps, words["k0"])
        pack = {"columns": self._columns, "runs": self._runs, "any": self._any}[spec.source]

        def chunk(number: str) -> None:
            matrix, panel = w.divmod(number, words["panel_count"])
            column = w.mul(panel, spec.columns)
            far = w.mul(matrix, words["matrix_stride"])
            source = w.at(words["source"], w.add(far, w.mul(column, words["n_stride"])), self.kind)
            to = w.at(words["panels"], w.mul(number, w.mul(self.k, spec.columns)), self.kind)
            pack(_Panel(source, to, w.least(w.sub(words["n"], column), spec.columns)))

        w.loop("%end", chunk, start="%begin")

    def _columns(self, panel: _Panel) -> None:
        """Copy rows of columns that follow each other."""
        w, spec = self.w, self.spec
        places = list(range(0, spec.columns, spec.width))
        block = Block(panel.source, self.words["k0_stride"], self.k, panel.present)

        def copy(masks: list[str | None]) -> None:
            copy_columns(w, self.lanes, block, panel.to, spec.columns, places, masks)

        w.in_lanes(panel.present, spec.width, len(places), self.has_masks, copy)

    def _runs(self, panel: _Panel) -> None:
        """Transpose squares in registers; columns that are not there repeat the last one."""
        w, (kind, width), words = self.w, self.lanes, self.words
        last = w.sub(panel.present, 1)

        def group(first: str) -> None:
            rows = [w.least(w.add(first, i), last) for i in range(width)]
            sources = [w.at(panel.source, w.mul(row, words["n_stride"]), kind) for row in rows]
            to = w.at(panel.to, first, kind)

            def square(start: str) -> None:
                # The last square goes back so far that it is whole.
                place = w.least(start, w.sub(self.k, width))
                loaded = [w.load_lanes(kind, width, w.at(x, place, kind), None) for x in sources]
                outer, tap = w.divmod(place, self.taps)
                for column in transposed(w, self.lanes, loaded):
                    k = w.add(w.mul(tap, words["k0"]), outer)
                    found = w.at(to, w.mul(k, self.spec.columns), kind)
                    w.store_lanes(kind, width, column, found, None)
                    following = w.add(tap, 1)
                    wraps = w.compare("eq", following, self.taps)
                    tap, outer = (
                        w.choose(wraps, 0, following),
                        w.choose(wraps, w.add(outer, 1), outer),
                    )

            w.loop(self.k, square, step=width)

        w.loop(self.spec.columns, group, step=width)

    def _any(self, panel: _Panel) -> None:
        """Copy element by element."""
        w, words, size = self.w, self.words, self.spec.dtype.itemsize

        def row(place: Word, k: Word) -> None:
            start = w.at(panel.source, place, self.kind)
            to = w.at(panel.to, w.mul(k, self.spec.columns), self.kind)

            def copy(i: str) -> None:
                value = w.load(self.kind, w.at(start, w.mul(i, words["n_stride"]), self.kind), size)
                w.store(self.kind, value, w.at(to, i, self.kind), size)

            w.loop(panel.present, copy)

        self._over_k(row)

    def _over_k(self, row: Callable[[Word, Word], None]) -> None:
        """Call row(offset in the source, number of the row) in loops over k."""
        w, words = self.w, self.words

        def outer(k2: str) -> None:
            def middle(k1: str) -> None:
                first = w.mul(w.add(w.mul(k2, words["k1"]), k1), words["k0"])
                far = w.add(w.mul(k2, words["k2_stride"]), w.mul(k1, words["k1_stride"]))

                def inner(k0: str) -> None:
                    row(w.add(far, w.mul(k0, words["k0_stride"])), w.add(first, k0))

                w.loop(words["k0"], inner)

            w.loop(words["k1"], middle)

        w.loop(words["k2"], outer)
