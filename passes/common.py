"""Common subexpressions: of nodes that compute the same from the same, the first stays."""

from __future__ import annotations

from typing import Any, Final

from tracegraph.ir.graph import CONSTANT, INPUT, STATE, Graph, Node, Value
from tracegraph.ops.core import EFFECT
from tracegraph.ops.table import OPS
from tracegraph.passes.rewriting import follow

# Larger constants are compared by identity of their array, not by content.
_MAX_BYTES: Final = 1 << 16


def merge_common(graph: Graph) -> int:
    """Make equal nodes one: same op, attributes and operands, constants of the same bits.

    Random draws differ by their operand, the state, so equal ones are equal numbers.
    """
    known: dict[Any, Node] = {}
    replaced: dict[Value, Value] = {}
    merged: list[Node] = []
    for node in graph.order():
        follow(graph, node, replaced)
        if node.op in (INPUT, STATE) or node.regions or _runs_each_time(node):
            continue
        first = known.setdefault(_key(node), node)
        if first is not node:
            replaced.update(zip(node.outs, first.outs, strict=True))
            merged.append(node)
    graph.substitute(replaced)
    for node in reversed(merged):
        graph.erase(node)
    return len(merged)


def _runs_each_time(node: Node) -> bool:
    return node.op in OPS and EFFECT in node.row.traits


def _key(node: Node) -> Any:
    if node.op == CONSTANT:
        array = node.attrs["value"]
        known = node.types[0]
        return (CONSTANT, known, array.tobytes() if array.nbytes <= _MAX_BYTES else id(array))
    return (node.op, node.inputs, tuple(sorted((k, _exact(v)) for k, v in node.attrs.items())))


def _exact(value: Any) -> Any:
    """A hashable stand-in: tells 0.0 from −0.0 and 1 from 1.0 and True; NaN equals itself."""
    if isinstance(value, tuple):
        return (tuple, tuple(map(_exact, value)))
    return (type(value), repr(value))
