"""Ops that are loop nests over the numbers of places: triangles; and copies of places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracegraph.dtypes import DType, bool_, int32
from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.places import Place
from tracegraph.runtime.cpu.nests.nest import LOAD, NUMBER, Step

_MOST = (1 << 31) - 1


def _numbers(low: Lowering, shape: Sequence[int], dim: int, start: int = 0) -> Place:
    """Return the number of each place along a dim, from `start` on, under a shape."""
    held = low.held(np.arange(start, start + shape[dim], dtype=np.int32), int32)
    strides = tuple(int(d == dim) for d in range(len(shape)))
    return held._replace(shape=tuple(shape), strides=strides)


def _number(value: float, dtype: DType) -> Step:
    return Step(NUMBER, (), dtype, (("value", value),))


def lower_triangle(low: Lowering, node: Node) -> None:
    """Lower tril and triu."""
    x, offset = low.place(node.inputs[0]), node.attrs["diagonal"]
    y, ndim = low.new(node.out, [x]), len(x.shape)
    if 0 in x.shape:
        return
    offset = min(max(offset, -x.shape[-2]), x.shape[-1])
    steps = (
        Step(LOAD, (0,), x.dtype), Step(LOAD, (1,), int32), Step(LOAD, (2,), int32),
        Step("ge" if node.op == "tril" else "le", (1, 2), bool_), _number(0, x.dtype),
        Step("where", (3, 0, 4), x.dtype),
    )  # fmt: skip
    given = [x, _numbers(low, x.shape, ndim - 2, offset), _numbers(low, x.shape, ndim - 1)]
    low.nest(x.shape, (), steps, given, [(5, y)], frozenset(), node, node.op)


def lower_iota(low: Lowering, node: Node) -> None:
    """Lower iota: its elements are known."""
    kernel = node.row.kernel
    assert kernel is not None
    low.places[node.out] = low.constant(kernel(np, **node.attrs), node.out)


def lower_flip(low: Lowering, node: Node) -> None:
    """Lower flip: a copy that walks dims from their ends."""
    x, dims = low.place(node.inputs[0]), {d % len(node.out.type.shape) for d in node.attrs["dims"]}
    made = low.new(node.out, [x])
    offset = x.offset + sum((x.shape[d] - 1) * x.strides[d] for d in dims)
    strides = tuple(-s if d in dims else s for d, s in enumerate(x.strides))
    low.copy(x._replace(strides=strides, offset=offset), made, node)


def lower_diagonal_scatter(low: Lowering, node: Node) -> None:
    """Lower a copy with another diagonal."""
    x, y = (low.place(v) for v in node.inputs)
    made = low.new(node.out)
    low.copy(x, made, node)
    diagonal = places.view("diagonal", made, node.attrs)
    assert diagonal is not None
    low.copy(y, diagonal, node)
