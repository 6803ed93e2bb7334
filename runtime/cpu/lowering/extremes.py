"""Places of extremes along a dim: argmax and argmin, max_at and min_at, in one pass."""

from __future__ import annotations

import math
from typing import Final, Literal

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Place, row_major
from tracegraph.runtime.cpu.lowering.steps import Launch, pointer
from tracegraph.runtime.cpu.moves.extremes_code import Extreme, extreme_kernel, slots, width_of
from tracegraph.runtime.cpu.nests.nest import Dim, merged, ordered

_LANES: Final = 512
# About what a vector costs, in ns, and a row or a block of lanes.
_VECTOR_NS: Final = {"along": 0.8, "across": 0.8, "strided": 8.0}
_ROW_NS: Final = 25.0
_MOST: Final = (1 << 31) - 1


def lower_extreme_place(low: Lowering, node: Node) -> None:
    """Lower argmax and argmin, max_at and min_at: the first place that has the extreme."""
    x, dim = low.place(node.inputs[0]), node.attrs["dim"]
    results = [low.new(v) for v in node.outs]
    if not x.shape or not 0 < x.shape[dim] <= _MOST:
        raise UnsupportedError("the place of an extreme of nothing, or of too much")
    if 0 in x.shape:
        return
    x = low.dense(x) if math.prod(x.shape) == x.shape[dim] else x
    outer = _kept(x, dim)
    lanes = _lanes_of(low, x, outer, dim)
    lane = outer.pop() if lanes != "along" and outer else Dim(1, (0, 0), False)
    spec = Extreme("max" in node.op, x.dtype, lanes, len(outer), len(results) == 2)
    width, along = width_of(spec.dtype, low.target), lanes == "along"
    block = min(lane.extent, _LANES)
    blocks = -(-lane.extent // block)
    units = blocks * math.prod(d.extent for d in outer)
    vectors = -(-x.shape[dim] // width) if along else x.shape[dim] * -(-block // width)
    unit_ns = _ROW_NS + vectors * _VECTOR_NS[lanes]
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "size": x.shape[dim], "stride": x.strides[dim], "lanes": lane.extent,
        "lane": lane.strides[1], "block": block, "blocks": blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    for d, kept in enumerate(outer):
        to, source = kept.strides
        words |= {f"outer{d}": kept.extent, f"to{d}": to, f"from{d}": source}
    arrays = [pointer(p) for p in (x, results[-1], *results[:-1])]
    given = (*arrays, *(words[name] for name in slots(spec)[len(arrays) :]))
    use = Use([x.buffer], [p.buffer for p in results])
    kernel, chunks = extreme_kernel(spec, low.target), -(-units // chunk)
    low.steps.append(Launch(kernel, given, chunks, int(units * unit_ns), use, node, node.op))


def _kept(x: Place, dim: int) -> list[Dim]:
    """Return the other dims, with the strides of the results and of x."""
    shape = tuple(1 if d == dim else n for d, n in enumerate(x.shape))
    strides = zip(shape, row_major(shape), x.strides, strict=True)
    return merged(ordered([Dim(n, (to, source), False) for n, to, source in strides if n > 1], 0))


def _lanes_of(
    low: Lowering, x: Place, kept: list[Dim], dim: int
) -> Literal["along", "across", "strided"]:
    """Return how to lay the lanes: along the dim where it has neighbours, and enough of them."""
    if kept and kept[-1].strides == (1, 1):
        return "across"
    is_long = not kept or x.shape[dim] >= 2 * width_of(x.dtype, low.target)
    return "along" if is_long and x.strides[dim] == 1 else "strided"
