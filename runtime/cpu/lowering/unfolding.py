"""Borders, all windows of an array and their adjoint, as copies and sums of places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tracegraph.ir.graph import Node
from tracegraph.ops.windows import counts, tap_range
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.nests.nest import LOAD, Step


def lower_unfold(low: Lowering, node: Node) -> None:
    """Lower all windows of an array: a copy of a place with a stride for each tap and window."""
    x, attrs = low.place(node.inputs[0]), node.attrs
    window, stride, dilation = attrs["window"], attrs["stride"], attrs["dilation"]
    lead, pads = len(x.shape) - len(window), [(p, p) for p in attrs["padding"]]
    made = low.new(node.out)
    count = counts(x.shape[lead:], window, stride, tuple(pads), dilation)
    if any(map(any, pads)):
        x = padded(low, node, x, [(0, 0)] * lead + pads, 0)
    near = x.strides[lead:]
    taps = tuple(s * d for s, d in zip(near, dilation, strict=True))
    moves = tuple(s * m for s, m in zip(near, stride, strict=True))
    shape, strides = (*x.shape[:lead], *window, *count), (*x.strides[:lead], *taps, *moves)
    low.copy(x._replace(shape=shape, strides=strides), made, node)


def padded(
    low: Lowering, node: Node, x: Place, pads: Sequence[tuple[int, int]], number: float,
    made: Place | None = None,
) -> Place:  # fmt: skip
    """Return a place with a border of a number; `made` is where it is to be."""
    if made is None:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
        buffer = Buffer("arena", math.prod(shape) * x.dtype.itemsize)
        made = Place(buffer, x.dtype, shape, places.row_major(shape))
    low.copy(places.expand(low.number(number, x.dtype), made.shape), made, node)
    low.copy(x, places.cut(made, [(a, a + n, 1) for n, (a, _) in zip(x.shape, pads, strict=True)]))
    return made


def lower_fold(low: Lowering, node: Node) -> None:
    """Lower the adjoint of all windows: each tap is added where it came from."""
    y, attrs, shape = low.place(node.inputs[0]), node.attrs, node.out.type.shape
    size, window, stride = attrs["size"], attrs["window"], attrs["stride"]
    lead, made, dtype = len(shape) - len(size), low.new(node.out), node.out.type.dtype
    count = y.shape[len(y.shape) - len(size) :]
    whole = [(0, n, 1) for n in shape[:lead]]
    if 0 in shape:
        return
    total = made
    if dtype.compute is not dtype:  # it is rounded once, at the end
        buffer = Buffer("arena", math.prod(shape) * dtype.compute.itemsize)
        total = Place(buffer, dtype.compute, shape, made.strides)
    low.copy(places.expand(low.number(0, total.dtype), shape), total, node)
    loads = (Step(LOAD, (0,), total.dtype), Step(LOAD, (1,), dtype))
    steps = (*loads, Step("add", (0, 1), total.dtype))
    for taps in itertools.product(*map(range, window)):
        offsets = [
            t * d - p for t, d, p in zip(taps, attrs["dilation"], attrs["padding"], strict=True)
        ]
        ranges = list(map(tap_range, size, count, stride, offsets))
        if any(source.start >= source.stop for source, _ in ranges):
            continue
        into = places.cut(total, whole + [(r.start, r.stop, r.step) for _, r in ranges])
        part = places.cut(y, [*whole, *taps, *((r.start, r.stop, 1) for r, _ in ranges)])
        low.nest(into.shape, (), steps, [into, part], [(2, into)], frozenset(), node, "add")
    if total is not made:
        low.copy(total, made, node)
