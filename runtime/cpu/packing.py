"""Packing of the second operand of a contraction into panels, ahead of time or natively.

A panel holds `columns` columns of B, all k after each other: panels[panel, k, columns], so that
tiles read it from one end to the other. Columns that the last panel has too many are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.values import element_type
from tracegraph.runtime.cpu.writer import METADATA, Word, Writer, function

# The words of the argument block of a packing kernel: pointers; columns and panels of a matrix;
# the extents of k, outermost first, and the strides of the source in elements; matrices.
PACKING_SLOTS = (
    "source", "panels", "n", "panel_count", "k2", "k1", "k0", "k2_stride", "k1_stride", "k0_stride",
    "n_stride", "matrices", "matrix_stride",
)  # fmt: skip
_LINE_BYTES = 64


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
    """What the code of a packing kernel depends on."""

    dtype: DType
    columns: int

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"packing_{self.dtype.code}x{self.columns}"


def packing_text(spec: Packing) -> str:
    """Return the kernel; a chunk is a panel of a matrix.

    Element (matrix, k2, k1, k0, n) is taken from the sum of index · stride; strides may be
    negative. Rows of a panel are in the order of (k2, k1, k0).
    """
    w, kind, size = Writer(), element_type(spec.dtype), spec.dtype.itemsize
    words = {
        name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
        for i, name in enumerate(PACKING_SLOTS)
    }
    k01 = w.mul(words["k1"], words["k0"])
    panel_size = w.mul(w.mul(words["k2"], k01), spec.columns)

    def chunk(number: str) -> None:
        matrix, panel = w.divmod(number, words["panel_count"])
        column = w.mul(panel, spec.columns)
        far = w.mul(matrix, words["matrix_stride"])
        source = w.at(words["source"], w.add(far, w.mul(column, words["n_stride"])), kind)
        target = w.at(words["panels"], w.mul(number, panel_size), kind)
        count = w.least(w.sub(words["n"], column), spec.columns)

        def row(place: Word, k: Word) -> None:
            start, to = w.at(source, place, kind), w.at(target, w.mul(k, spec.columns), kind)

            def copy(i: str) -> None:
                value = w.load(kind, w.at(start, w.mul(i, words["n_stride"]), kind), size)
                w.store(kind, value, w.at(to, i, kind), size)

            def clear(i: str) -> None:
                w.store(kind, "zeroinitializer", w.at(to, i, kind), size)

            w.loop(count, copy)
            w.loop(spec.columns, clear, start=count)

        _over_k(w, words, row)

    w.loop("%end", chunk, start="%begin")
    parameters = ("ptr noalias %arguments", "ptr %frame", "i64 %begin", "i64 %end")
    return "\n".join((function(spec.name, parameters, w, "nounwind"), METADATA))


def _over_k(w: Writer, words: dict[str, str], row: Callable[[Word, Word], None]) -> None:
    """Call row(offset in the source, number of the row) in loops over k."""

    def outer(k2: str) -> None:
        def middle(k1: str) -> None:
            first = w.mul(w.add(w.mul(k2, words["k1"]), k1), words["k0"])
            far = w.add(w.mul(k2, words["k2_stride"]), w.mul(k1, words["k1_stride"]))

            def inner(k0: str) -> None:
                row(w.add(far, w.mul(k0, words["k0_stride"])), w.add(first, k0))

            w.loop(words["k0"], inner)

        w.loop(words["k1"], middle)

    w.loop(words["k2"], outer)
