"""Pooling over the last dims, and its gradients, as sliding windows (see `windows`) and moves.

An array whose channels are side by side is pooled as it lies, another one along rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tracegraph.dtypes import DType
from tracegraph.ir.graph import Node
from tracegraph.ops.average_pooling import divisor_of
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.indexed import Space, add_move
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer, pointer
from tracegraph.runtime.cpu.moves.windows import Dimension, Kind, make_windows, slots
from tracegraph.runtime.cpu.moves.windows_code import windows_kernel
from tracegraph.runtime.cpu.nests.nest import LOAD, Step
from tracegraph.tensor_type import Shape

# Elements of a pooled box have 32-bit numbers.
_MOST: int = (1 << 31) - 1


class Layout(NamedTuple):
    """An array that can be pooled where it lies; `inner`: the dim that is side by side, if not the
    last one.
    """  # noqa: D205

    x: Place
    inner: int | None

    def strides(self, shape: Shape) -> tuple[int, ...]:
        """Return the strides of a result of some shape that lies alike."""
        order = [d for d in range(len(shape)) if d != self.inner]
        order += [] if self.inner is None else [self.inner]
        laid = dict(zip(order, places.row_major([shape[d] for d in order]), strict=True))
        return tuple(laid[d] for d in range(len(shape)))


def layout_of(low: Lowering, x: Place, pooled: int) -> Layout:
    """Return an array as it can be walked: with one dim, or rows of the last one, side by side."""
    if math.prod(x.shape[len(x.shape) - pooled :]) > _MOST:
        raise UnsupportedError("pooling of more elements than 32 bits can count")
    lead = range(len(x.shape) - pooled)
    found = next((d for d in lead if x.strides[d] == 1 and x.shape[d] > 1), None)
    is_row = x.shape[-1] == 1 or x.strides[-1] == 1
    return Layout(x if found is not None or is_row else low.dense(x), found)


def _windows(
    low: Lowering, node: Node, kind: Kind, x: Place, y: Place, dims: Sequence[Dimension]
) -> None:
    lead = len(x.shape) - len(dims)
    cut = make_windows(
        kind, (x.dtype, y.dtype), x.shape[:lead], (x.strides[:lead], y.strides[:lead]), dims,
        low.target.vector_bytes,
    )  # fmt: skip
    kernel = windows_kernel(cut.windows, low.target)
    arrays: list[int | Pointer] = [pointer(x), pointer(y)]
    words = (*arrays, *(cut.words[name] for name in slots(cut.windows)[2:]))
    use = Use([x.buffer], [y.buffer])
    low.steps.append(Launch(kernel, words, cut.chunks, cut.cost_ns, use, node, node.op))


def _dimensions(x: Place, y: Place, attrs: Any) -> list[Dimension]:
    window, lead = attrs["window"], len(x.shape) - len(attrs["window"])
    dilation = attrs.get("dilation", (1,) * len(window))
    return [
        Dimension(
            x.shape[d], y.shape[d], window[i], attrs["stride"][i], attrs["padding"][i],
            dilation[i], x.strides[d], y.strides[d],
        )
        for i, d in enumerate(range(lead, len(x.shape)))
    ]  # fmt: skip


def lower_max_pool(low: Lowering, node: Node) -> None:
    """Lower max_pool and max_pool_indices."""
    laid = layout_of(low, low.place(node.inputs[0]), len(node.attrs["window"]))
    y = low.new_as(node.out, laid.strides(node.out.type.shape))
    if 0 not in y.shape:
        kind: Kind = "amax" if node.op == "max_pool" else "places"
        dims = _dimensions(laid.x, y, node.attrs)
        _windows(low, node, kind, laid.x, y, dims)
        if kind == "places" and all(dim.dilation == 1 for dim in dims):  # each window has a tap
            low.in_range[y.buffer, math.prod(dim.size for dim in dims), False] = None


def lower_max_pool_grad(low: Lowering, node: Node) -> None:
    """Lower the sums of gradients at the places of maxima."""
    g, index = (low.place(v) for v in node.inputs)
    size, lead = node.attrs["size"], len(g.shape) - len(node.attrs["size"])
    laid = layout_of(low, g, len(size))
    x = low.new_as(node.out, laid.strides(node.out.type.shape))
    low.copy(places.expand(low.number(0, x.dtype), x.shape), x, node)
    flat = x._replace(
        shape=(*x.shape[:lead], math.prod(size)), strides=(*x.strides[:lead], x.strides[-1])
    )
    serial = tuple(range(lead, len(g.shape)))
    rest = (*range(lead), *(None for _ in size))
    space = Space(g.shape, serial, rest, [(index, lead)], wraps=False)
    add_move(low, node, "sum", space, laid.x, flat)


def _divided(low: Lowering, node: Node, sums: Place, y: Place, size: Shape, count: Shape) -> None:
    """Divide sums, or gradients, by the elements of each window."""
    attrs = {name: value for name, value in node.attrs.items() if name != "size"}
    computed = y.dtype.compute
    divisor = np.asarray(divisor_of(np, computed.np, size, count, **attrs), computed.np)
    by = places.expand(low.held(np.ascontiguousarray(divisor), computed), y.shape)
    steps = (
        Step(LOAD, (0,), sums.dtype),
        Step(LOAD, (1,), computed),
        Step("div", (0, 1), computed),
    )
    low.nest(y.shape, (), steps, [sums, by], [(2, y)], frozenset((2,)), node, "div")


def scratch(dtype: DType, shape: Shape, strides: tuple[int, ...]) -> Place:
    """Return a fresh place for what is needed between steps."""
    return Place(Buffer("arena", math.prod(shape) * dtype.itemsize), dtype, shape, strides)


def lower_avg_pool(low: Lowering, node: Node) -> None:
    """Lower the means of windows: sums, which are then divided."""
    window = node.attrs["window"]
    laid = layout_of(low, low.place(node.inputs[0]), len(window))
    shape, lead = node.out.type.shape, len(node.out.type.shape) - len(window)
    y = low.new_as(node.out, laid.strides(shape))
    if 0 in shape:
        return
    sums = scratch(y.dtype.compute, shape, y.strides)
    _windows(low, node, "sum", laid.x, sums, _dimensions(laid.x, sums, node.attrs))
    _divided(low, node, sums, y, laid.x.shape[lead:], shape[lead:])


def lower_avg_pool_grad(low: Lowering, node: Node) -> None:
    """Lower the adjoint: each element sums the windows that it is in.

    Elements a stride apart are in windows of the same taps: they are windows over the gradient.
    """
    size, attrs = node.attrs["size"], node.attrs
    laid = layout_of(low, low.place(node.inputs[0]), len(size))
    g, shape = laid.x, node.out.type.shape
    lead = len(shape) - len(size)
    x = low.new_as(node.out, laid.strides(shape))
    if 0 in shape or 0 in g.shape:
        raise UnsupportedError("the gradient of a mean of nothing")
    shares = scratch(x.dtype.compute, g.shape, laid.strides(g.shape))
    _divided(low, node, g, shares, size, g.shape[lead:])
    for phases in itertools.product(*map(range, attrs["stride"])):
        dims, offset = [], x.offset
        for i, phase in enumerate(phases):
            window, stride, pad = attrs["window"][i], attrs["stride"][i], attrs["padding"][i]
            taps = max(0, -(-(window - phase) // stride))
            first = max(
                0, -(-(pad - phase) // stride)
            )  # the window whose tap `phase` is first in x
            start = first * stride + phase - pad
            count = -(-(size[i] - start) // stride)
            d = lead + i
            offset += start * x.strides[d]
            dims.append(
                Dimension(
                    g.shape[d], count, taps, 1, taps - 1 - first, 1, shares.strides[d],
                    stride * x.strides[d],
                )
            )  # fmt: skip
        if all(dim.windows > 0 for dim in dims):
            _windows(low, node, "sum", shares, x._replace(offset=offset), dims)
