"""Resizing and its adjoint, dim by dim: each element is a weighted sum of a few along the dim.

Where the sum has one term, elements are moved. See `ops.resampling` for sources and weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from tracegraph.dtypes import int32, int64
from tracegraph.ir.graph import Node
from tracegraph.ops.resampling import Line, Tap, real_of, taps_of, turned_taps
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.indexed import Space, add_move
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Place
from tracegraph.runtime.cpu.lowering.pooling import layout_of, scratch
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer, pointer
from tracegraph.runtime.cpu.moves.resampling_code import Taps, slots, taps_kernel
from tracegraph.runtime.cpu.nests.nest import Dim, lane_of, merged, ordered

_LANES: Final = 1024
_VECTOR_NS: Final = 1.0
_GATHERED_NS: Final = 8.0


def lower_resize(low: Lowering, node: Node) -> None:
    """Lower resize: the last dim first."""
    size, mode, align = node.attrs["size"], node.attrs["mode"], node.attrs["align_corners"]
    lead = len(node.out.type.shape) - len(size)
    lines = []
    for i in reversed(range(len(size))):
        before = node.inputs[0].type.shape[lead + i]
        real = real_of(node.out.type.dtype.compute.np)
        line = Line(before, size[i], align, node.attrs["scales"][i], real)
        lines.append((lead + i, size[i], taps_of(mode, line)))
    _along_dims(low, node, lines)


def lower_resize_grad(low: Lowering, node: Node) -> None:
    """Lower the adjoint: the taps turned round, the first dim first."""
    size, mode, align = node.attrs["size"], node.attrs["mode"], node.attrs["align_corners"]
    lead = len(node.out.type.shape) - len(size)
    lines = []
    for i, n in enumerate(size):
        before = node.inputs[0].type.shape[lead + i]
        real = real_of(node.out.type.dtype.compute.np)
        line = Line(n, before, align, node.attrs["scales"][i], real)
        lines.append((lead + i, n, turned_taps(mode, line)))
    _along_dims(low, node, lines)


def _along_dims(
    low: Lowering, node: Node, lines: Sequence[tuple[int, int, tuple[Tap, ...]]]
) -> None:
    """Resample one dim after the other; between them elements are as they are computed with."""
    laid = layout_of(low, low.place(node.inputs[0]), len(lines))
    x, dtype = laid.x, node.out.type.dtype
    y = low.new_as(node.out, laid.strides(node.out.type.shape))
    if 0 in y.shape or 0 in x.shape:
        if 0 in y.shape:
            return
        raise UnsupportedError("resizing of nothing")
    moves = all(
        len(taps) == 1 and taps[0].weight is None and taps[0].missing is None for *_, taps in lines
    )
    for number, (dim, size, taps) in enumerate(lines):
        shape = tuple(size if d == dim else n for d, n in enumerate(x.shape))
        is_last = number == len(lines) - 1
        between = dtype if moves else dtype.compute
        made = y if is_last else scratch(between, shape, laid.strides(shape))
        if moves:
            _moved(low, node, x, made, dim, taps[0])
        else:
            _tapped(low, node, x, made, dim, taps)
        x = made


def _moved(low: Lowering, node: Node, x: Place, y: Place, dim: int, tap: Tap) -> None:
    """Add a move of the elements that one tap names."""
    index = low.held(np.ascontiguousarray(tap.source, np.int64), int64)
    under = tuple(int(d == dim) for d in range(len(y.shape)))
    rest = tuple(None if d == dim else d for d in range(len(y.shape)))
    low.in_range[index.buffer, x.shape[dim], False] = None
    index = index._replace(shape=y.shape, strides=under)
    add_move(low, node, "read", Space(y.shape, (dim,), rest, [(index, dim)], wraps=False), y, x)


def _tapped(low: Lowering, node: Node, x: Place, y: Place, dim: int, taps: Sequence[Tap]) -> None:
    """Add the weighted sums of taps along a dim."""
    computed, count = y.dtype.compute, np.full(y.shape[dim], len(taps), np.int32)
    for tap in taps:
        if tap.missing is not None:  # taps that are there come first
            count[tap.missing] -= 1
    ones = np.ones(y.shape[dim])
    held = (
        (np.stack([tap.source for tap in taps]).astype(np.int32), int32),
        (np.stack([ones if t.weight is None else t.weight for t in taps]).astype(computed.np),
         computed),
        (count, int32),
    )  # fmt: skip
    arrays = [x, y, *(low.held(np.ascontiguousarray(array), dtype) for array, dtype in held)]
    given = zip(x.shape, x.strides, y.strides, strict=True)
    kept = [Dim(n, (b, a), False) for d, (n, a, b) in enumerate(given) if d != dim and n > 1]
    outer = merged(ordered(kept, 0))
    across = bool(outer) and outer[-1].strides == (1, 1)
    lane = outer.pop().extent if across else y.shape[dim]
    spec = Taps(x.dtype, y.dtype, across, lane_of(1 if across else y.strides[dim]), len(outer))
    block = min(lane, _LANES)
    blocks = -(-lane // block)
    units = blocks * math.prod(d.extent for d in outer) * (y.shape[dim] if across else 1)
    width = max(1, low.target.vector_bytes // computed.itemsize)
    each = _VECTOR_NS if across else _GATHERED_NS
    unit_ns = 10 + -(-block // width) * len(taps) * each
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "lanes": lane, "block": block, "blocks": blocks, "units": units, "chunk": chunk,
        "outputs": y.shape[dim], "taps": len(taps), "x_stride": x.strides[dim],
        "y_stride": y.strides[dim],
    }  # fmt: skip
    for i, d in enumerate(outer):
        words[f"outer{i}"], (words[f"y_outer{i}"], words[f"x_outer{i}"]) = d.extent, d.strides
    pointers: list[int | Pointer] = [pointer(p) for p in arrays]
    rest = (words[name] for name in slots(spec)[len(arrays) :])
    use = Use([p.buffer for p in arrays if p is not y], [y.buffer])
    kernel, chunks = taps_kernel(spec, low.target), -(-units // chunk)
    cost = int(units * unit_ns)
    low.steps.append(Launch(kernel, (*pointers, *rest), chunks, cost, use, node, node.op))
