"""The first elements of rows in an order: topk of few, sort of short rows."""

from __future__ import annotations

import math
from typing import Final

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import row_major
from tracegraph.runtime.cpu.lowering.steps import Launch, pointer
from tracegraph.runtime.cpu.moves.selection_code import (
    MOST_SELECTED,
    Selection,
    selection_kernel,
    slots,
)
from tracegraph.runtime.cpu.nests.nest import Dim, merged, ordered

_FEW: Final = 32
_MOST_SORTED: Final = 128  # more are sorted faster by other means
# About what a vector of a row costs, in ns, and to put an element in its place, by their number.
_VECTOR_NS: Final = 1.2
_INSERTION_NS: Final = 0.25


def lower_selection(low: Lowering, node: Node) -> None:
    """Lower topk and sort: elements are inserted among those that come first so far."""
    x, dim = low.place(node.inputs[0]), node.attrs["dim"]
    values, indices = (low.new(v) for v in node.outs)
    if not x.shape:
        raise UnsupportedError("an order of one element")
    dim %= len(x.shape)
    count, size = values.shape[dim], x.shape[dim]
    most = _MOST_SORTED if node.op == "sort" else MOST_SELECTED
    if count > most:
        raise UnsupportedError(f"an order of more than {most}")
    if 0 in values.shape:
        return
    others = [d for d in range(len(x.shape)) if d != dim]
    if size > 1 and x.strides[dim] != 1:
        inner = row_major((*(x.shape[d] for d in others), size))
        x = low.laid(x, tuple(inner[-1] if d == dim else inner[others.index(d)]
                              for d in range(len(x.shape))))  # fmt: skip
    outer = merged(ordered(
        [Dim(x.shape[d], (values.strides[d], x.strides[d]), False) for d in others
         if x.shape[d] > 1], 0,
    ))  # fmt: skip
    largest = node.attrs["descending"] if node.op == "sort" else node.attrs["largest"]
    spec = Selection(x.dtype, largest, count > _FEW, len(outer))
    units = math.prod(d.extent for d in outer)
    vectors = size / (low.target.vector_bytes // spec.key.itemsize)
    unit_ns = 20 + vectors * _VECTOR_NS + count * (20 + count * _INSERTION_NS)
    chunk = units_in_chunk(units, unit_ns)
    words = {"size": size, "count": count, "step": values.strides[dim], "units": units,
             "chunk": chunk}  # fmt: skip
    for d, kept in enumerate(outer):
        to, source = kept.strides
        words |= {f"outer{d}": kept.extent, f"to{d}": to, f"from{d}": source}
    arrays = [pointer(p) for p in (x, values, indices)]
    given = (*arrays, *(words[name] for name in slots(spec)[len(arrays) :]))
    use = Use([x.buffer], [values.buffer, indices.buffer])
    kernel, chunks = selection_kernel(spec, low.target), -(-units // chunk)
    low.steps.append(Launch(kernel, given, chunks, int(units * unit_ns), use, node, node.op))
