"""Transposition of matrices in memory, square by square in registers: NCHW to NHWC and back.

For an image, NCHW is a matrix of channels × pixels, NHWC one of pixels × channels. The words of
the argument block, in order, strides in elements:

    source, target
    matrices, rows, columns                of the source
    source_matrix, source_row, target_matrix, target_row          strides
    row_blocks, chunk                      from `schedule_transposition`
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_staging import Lanes, transposed

TRANSPOSITION_SLOTS: Final = (
    "source", "target", "matrices", "rows", "columns", "source_matrix", "source_row",
    "target_matrix", "target_row", "row_blocks", "chunk",
)  # fmt: skip
# Elements that are worth a chunk.
_CHUNK_ELEMENTS: Final = 1 << 15
_NS: Final = 0.3


class Transposition(NamedTuple):
    """What the code depends on; `width`: elements of a vector."""

    dtype: DType
    width: int

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"transposition_{self.dtype.code}x{self.width}"


def schedule_transposition(
    spec: Transposition, matrices: int, rows: int, columns: int
) -> tuple[dict[str, int], int, int]:
    """Return the words of the argument block but for pointers, chunks, and about what it takes.

    The matrices, and the rows of each, follow each other in memory.
    """
    row_blocks = -(-rows // spec.width)
    blocks = matrices * row_blocks
    chunk = max(1, min(blocks, _CHUNK_ELEMENTS // max(1, columns * spec.width)))
    words = {
        "matrices": matrices, "rows": rows, "columns": columns,
        "source_matrix": rows * columns, "source_row": columns,
        "target_matrix": rows * columns, "target_row": rows,
        "row_blocks": row_blocks, "chunk": chunk,
    }  # fmt: skip
    return words, -(-blocks // chunk), int(matrices * rows * columns * _NS)


def transposition_text(spec: Transposition, _target: Target) -> str:
    """Return the kernel, the same for all targets.

    target[matrix, column, row] = source[matrix, row, column].
    """
    w, kind, width = Writer(), element_type(stored_dtype(spec.dtype)), spec.width
    words = {
        name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
        for i, name in enumerate(TRANSPOSITION_SLOTS)
    }

    def block(number: str) -> None:
        matrix, part = w.divmod(number, words["row_blocks"])
        row = w.mul(part, width)
        source = w.at(words["source"], w.mul(matrix, words["source_matrix"]), kind)
        target = w.at(words["target"], w.mul(matrix, words["target_matrix"]), kind)
        target = w.at(target, row, kind)
        (there,) = w.masks(w.sub(words["rows"], row), width, 1)
        last = w.sub(words["rows"], 1)
        rows = [w.least(w.add(row, i), last) for i in range(width)]
        sources = [w.at(source, w.mul(r, words["source_row"]), kind) for r in rows]

        def square(column: str) -> None:
            left = w.sub(words["columns"], column)
            (mask,) = w.masks(left, width, 1)
            loaded = [w.load_lanes(kind, width, w.at(x, column, kind), mask) for x in sources]
            for i, value in enumerate(transposed(w, Lanes(kind, width), loaded)):
                place = w.at(target, w.mul(w.add(column, i), words["target_row"]), kind)
                w.store_lanes(kind, width, value, place, _where(w, left, i, there, width))

        w.loop(words["columns"], square, step=width)

    blocks = w.mul(words["matrices"], words["row_blocks"])
    chunk = words["chunk"]
    w.loop(w.least(w.mul("%end", chunk), blocks), block, start=w.mul("%begin", chunk))
    return "\n".join((function(spec.name, KERNEL_PARAMETERS, w, "nounwind"), METADATA))


def _where(w: Writer, left: Word, i: int, mask: str | None, width: int) -> str:
    """Return the mask if column i is there, else none of its lanes."""
    vector = f"<{width} x i1>"
    is_there = w.compare("sgt", left, i)
    return w.let(f"select i1 {is_there}, {vector} {mask}, {vector} zeroinitializer")
