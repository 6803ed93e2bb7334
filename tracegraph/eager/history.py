"""`tensor.graph()`: the IR of what eager has already recorded on the tape.

The tape keeps nodes, not values: leaves become State, and operands that needed no gradient become
constants as long as they are still alive.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tracegraph.eager.dispatch import refresh
from tracegraph.eager.tape import AccumulateGrad, Node
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import TraceError
from tracegraph.ir.graph import Graph, Value
from tracegraph.ops.gradient_plan import SAVE_INPUT
from tracegraph.tensor_type import TensorType


def graph_of(t: Tensor) -> Graph:
    """Return the graph of the operations that led to `t`, back to the leaves.

    Leaves are State named `leaf0`, `leaf1`, ... in the order they were first used.

    Raises:
        TraceError: `t` has no history; an operand without gradient is gone; or a user-defined
            `autograd.Function` lies on the way.
    """
    refresh(t)
    if t._node is None:
        raise TraceError(
            "the tensor has no recorded history: it does not require a gradient. Use "
            "tracegraph.trace(function, inputs) to record everything"
        )
    graph = Graph("history")
    values: dict[Node, tuple[Value, ...]] = {}
    constants: dict[Any, Value] = {}
    for node in _ancestors(t._node):
        if isinstance(node, AccumulateGrad):
            values[node] = graph.add_state(f"leaf{len(graph.states)}", node.types[0]).outs
        else:
            values[node] = _add(graph, node, values, constants)
    graph.outputs = [values[t._node][t._index]]
    return graph


def _ancestors(start: Node) -> list[Node]:
    """All nodes that `start` rests on, oldest first; leaves before everything."""
    seen: dict[Node, None] = {}
    stack = [start]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen[node] = None
        stack.extend(edge[0] for edge in node.edges if edge is not None)
    return sorted(seen, key=lambda n: (0, n.order) if n.order > 0 else (1, -n.order))


def _add(
    graph: Graph, node: Node, values: dict[Node, tuple[Value, ...]], constants: dict[Any, Value]
) -> tuple[Value, ...]:
    if node.op is None:
        raise TraceError(f"{node.name()} is a user-defined function: its inside is not recorded")
    rest = node.rest or _kept(node)
    inputs: list[Value] = []
    for place, (edge, other) in enumerate(zip(node.edges, rest, strict=True)):
        if edge is not None:
            inputs.append(values[edge[0]][edge[1]])
        elif other is not None:
            inputs.append(_constant(graph, node, place, other, values, constants))
    if node.op.name == "copy":
        return (inputs[0],)
    made = graph.add(node.op.name, inputs, node.attrs, loc=node.loc)
    return made.outs


def _kept(node: Node) -> list[Any]:
    """Operands that the tape keeps for the gradient rules, by place."""
    rest: list[Any] = [None] * len(node.edges)
    if len(rest) != len([e for e in node.edges if e is not None]) and node.saved is None:
        raise TraceError(
            f"what {node.name()} kept was freed by backward(); call graph() before it, or keep it "
            "with backward(retain_graph=True)"
        )
    for (kind, index), value in zip(node.plan.saves, node.saved or (), strict=False):
        if kind == SAVE_INPUT and node.edges[index] is None:
            rest[index] = weakref.ref(value) if isinstance(value, Tensor) else value
    return rest


def _constant(
    graph: Graph, node: Node, place: int, other: Any, values: dict[Node, tuple[Value, ...]],
    constants: dict[Any, Value],
) -> Value:  # fmt: skip
    """Return an operand that is not on the tape as a constant."""
    assert node.op is not None
    if isinstance(other, (weakref.ref, Tensor)):
        t = other if isinstance(other, Tensor) else other()
        if t is None:
            raise TraceError(
                f"operand {place} of {node.op.name} needed no gradient and is gone by now; keep a "
                "reference to it, or use tracegraph.trace(function, inputs)"
            )
        value: Value | None = constants.get(id(t))
        if value is None:
            host = t._data.get() if hasattr(t._data, "get") else t._data
            value = constants[id(t)] = graph.add_constant(np.array(host), type_of(t)).out
        return value
    dtype = next(values[e[0]][e[1]].type.dtype for e in node.edges if e is not None)
    return graph.add_constant(np.asarray(other, dtype.np), TensorType(dtype, ())).out
