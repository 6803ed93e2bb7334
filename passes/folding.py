"""Constant folding: nodes that read only constants are computed now."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracegraph.errors import TraceGraphError
from tracegraph.ir.dims import symbols_in
from tracegraph.ir.graph import CONSTANT, SOURCES, Graph, Node, Value
from tracegraph.ops.core import EFFECT, ELEMENTWISE, RANDOM, VIEW
from tracegraph.ops.table import OPS, run_op
from tracegraph.passes.rewriting import erase_unread, follow

# Results of more elements stay computed: a graph should not carry data it can make.
_MAX_ELEMENTS: Final = 1 << 14


def fold_constants(graph: Graph) -> int:
    """Replace nodes whose operands are all constants by their value, up to a bounded size.

    State is never folded: it can be replaced after the trace. A node that raises stays, and
    raises when the graph runs. `expand` stays, and what other rules move in front of it: views
    and elementwise ops.
    """
    replaced: dict[Value, Value] = {}
    folded: list[Node] = []
    for node in graph.order():
        follow(graph, node, replaced)
        if not _is_foldable(node):
            continue
        arrays = _compute(node)
        if arrays is None:
            continue
        folded.append(node)
        for value, array in zip(node.outs, arrays, strict=True):
            replaced[value] = graph.add_constant(array, value.type, like=node).out
    graph.substitute(replaced)
    erase_unread(graph, folded)
    return len(folded)


def _is_foldable(node: Node) -> bool:
    if node.op in SOURCES or node.op == "expand" or node.op not in OPS or node.regions:
        return False
    if symbols_in(node):
        return False
    traits = node.row.traits
    if {RANDOM, EFFECT} & traits or any(t.size > _MAX_ELEMENTS for t in node.types):
        return False
    return all(
        _array_of(v, VIEW in traits or ELEMENTWISE in traits) is not None for v in node.inputs
    )


def _array_of(value: Value, plain: bool = False) -> Any:
    """The array of a constant, or (not `plain`) of a small constant that is repeated."""
    node = value.node
    if node.op == "expand" and not plain and not symbols_in(node) and (
        value.type.size <= _MAX_ELEMENTS
    ):  # fmt: skip
        origin = _array_of(node.inputs[0], True)
        return None if origin is None else np.broadcast_to(origin, value.type.shape)
    return node.attrs["value"] if node.op == CONSTANT else None


def _compute(node: Node) -> list[Any] | None:
    """The results as fresh arrays of the declared types, or None where the op raises."""
    operands = [_array_of(v) for v in node.inputs]
    try:
        with np.errstate(all="ignore"):
            results = run_op(node.row, np, *operands, **node.attrs)
    except (TraceGraphError, ArithmeticError, IndexError, ValueError, TypeError):
        return None
    several = results if isinstance(results, (tuple, list)) else (results,)
    arrays = [np.array(r, order="C") for r in several]
    known = [(a.dtype, a.shape) for a in arrays]
    return arrays if known == [(t.dtype.np, t.shape) for t in node.types] else None
