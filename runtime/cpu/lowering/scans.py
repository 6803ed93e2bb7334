"""Scans along a dim: running sums, products, extremes with their places, as data.

Lanes are either places of another dim, each with a scan of its own, or lie along the dim that is
scanned: then a vector is scanned in log2(lanes) steps, and what came before is folded in
(Hillis and Steele 1986).
"""

from __future__ import annotations

import math
from typing import Final

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer, pointer
from tracegraph.runtime.cpu.moves.scans_code import Scan, scan_kernel, slots
from tracegraph.runtime.cpu.nests.nest import Dim, merged, ordered

_LANES: Final = 512
_VECTOR_NS: Final = 2.5
_MOST: Final = (1 << 31) - 1


def lower_scan(low: Lowering, node: Node) -> None:
    """Lower cumsum, cumprod, logcumsumexp, cummax and cummin."""
    x, dim = low.place(node.inputs[0]), node.attrs["dim"]
    if not x.shape or x.shape[dim] > _MOST:
        raise UnsupportedError("a scan without dims, or of more than 32 bits can count")
    x = x if places.is_dense(x) else low.dense(x)
    across = any(d != dim and n > 1 and x.strides[d] == 1 for d, n in enumerate(x.shape))
    results = [low.new_as(v, x.strides) for v in node.outs]
    if 0 in x.shape:
        return
    kept = [Dim(n, (s,), False) for d, (n, s) in enumerate(zip(x.shape, x.strides, strict=True))
            if d != dim and n > 1]  # fmt: skip
    outer = merged(ordered(kept, 0))
    lane = outer.pop().extent if across else 1
    spec = Scan(node.op, x.dtype, across, len(outer))
    block = min(lane, _LANES)
    blocks = -(-lane // block)
    units = blocks * math.prod(d.extent for d in outer)
    size, stride = x.shape[dim], x.strides[dim] if x.shape[dim] > 1 else 1
    width = max(1, low.target.vector_bytes // spec.widest)
    vectors = size * -(-block // width) if across else 3 * -(-size // width)
    unit_ns = 10 + vectors * _VECTOR_NS
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "size": size, "stride": stride, "lanes": lane, "block": block, "blocks": blocks,
        "units": units, "chunk": chunk,
    }  # fmt: skip
    for i, outer_dim in enumerate(outer):
        words[f"outer{i}"], words[f"stride{i}"] = outer_dim.extent, outer_dim.strides[0]
    kernel = scan_kernel(spec, low.target)
    arrays: list[int | Pointer] = [pointer(p) for p in (x, *results)]
    given = (*arrays, *(words[name] for name in slots(spec)[len(arrays) :]))
    use = Use([x.buffer], [p.buffer for p in results])
    chunks, cost = -(-units // chunk), int(units * unit_ns)
    low.steps.append(Launch(kernel, given, chunks, cost, use, node, node.op))
