"""Copies: loop nests, or transpositions where other elements follow each other afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Place
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer, pointer
from tracegraph.runtime.cpu.nests.nest import LOAD, Dim, Step, merged, ordered

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.lowering.lowering import Lowering

# Rows, columns, strides and outer dims of matrices; see `transposition.Matrices`.
_Matrices = tuple[int, int, int, int, tuple[tuple[int, int, int], ...]]
# Matrices with fewer rows or columns leave too much of a square empty: loop nests are no slower.
_LEAST: Final = 8


def add_copy(low: Lowering, x: Place, y: Place, node: Node | None) -> None:
    """Add a copy of x to y, which has its shape."""
    if 0 in x.shape:
        return
    if x.dtype.is_complex:
        x, y = _as_parts(x), _as_parts(y)
    matrices = _matrices(x, y)
    if matrices is None:
        steps = (Step(LOAD, (0,), x.dtype),)
        low.nest(x.shape, (), steps, [x], [(0, y)], frozenset(), node, "copy")
        return
    _transpose(low, x, y, matrices, node)


def _as_parts(x: Place) -> Place:
    """Return the place of the parts of complex elements, side by side in a last dim."""
    return Place(
        x.buffer, x.dtype.to_real(), (*x.shape, 2), (*(2 * s for s in x.strides), 1), 2 * x.offset
    )


def _transpose(low: Lowering, x: Place, y: Place, found: _Matrices, node: Node | None) -> None:
    """Add a copy that is a transposition of matrices."""
    from tracegraph.runtime.cpu.products.launches import Buffer
    from tracegraph.runtime.cpu.products.transposition import Matrices, Transposition

    matrices = Matrices(*found)
    spec = Transposition.of(x.dtype, len(matrices.outer), low.target)
    made = spec.launch(matrices, Buffer("operand", 0), Buffer("result", 0))
    named: dict[str, int | Pointer] = {"source": pointer(x), "target": pointer(y)}
    words = tuple(named[n] if isinstance(word, Buffer) else word
                  for n, word in made.arguments.items())  # fmt: skip
    use, kernel = Use([x.buffer], [y.buffer]), spec.kernel(low.target)
    low.steps.append(Launch(kernel, words, made.chunks, made.cost_ns, use, node, "copy"))


def _matrices(x: Place, y: Place) -> _Matrices | None:
    """Return a copy as a transposition, if it is one of matrices that are large enough."""
    if x.dtype is not y.dtype:
        return None
    dims = zip(x.shape, x.strides, y.strides, strict=True)
    found = merged(ordered([Dim(n, (s, t), False) for n, s, t in dims if n != 1], 1))
    columns, rows = ([d for d in found if d.strides[i] == 1] for i in (0, 1))
    if len(columns) != 1 or len(rows) != 1 or rows == columns:
        return None
    (column,), (row,) = columns, rows
    if min(column.extent, row.extent) < _LEAST:
        return None
    outer = tuple((d.extent, d.strides[0], d.strides[1]) for d in found if d not in (row, column))
    return row.extent, column.extent, row.strides[0], column.strides[1], outer
