"""What passes share: one walk that applies rules node by node, and removal of what nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tracegraph.dtypes import DType
from tracegraph.errors import UndecidedError
from tracegraph.ir.control import has_effect
from tracegraph.ir.dims import finds_read_size, reasoning
from tracegraph.ir.graph import CONSTANT, INPUT, Graph, Node, Value
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

# How often the replacement of a node may itself be replaced within one walk.
_MAX_STEPS: Final = 16

NodeRule = Callable[["Maker", Node], Value | None]
RuleTable = Mapping[str, Sequence[NodeRule]]


class Maker:
    """Adds nodes in the name of another node: they inherit its place in the trace and scope."""

    __slots__ = ("graph", "like")

    def __init__(self, graph: Graph, like: Node) -> None:
        self.graph = graph
        self.like = like

    def op(self, name: str, *inputs: Value, **attrs: Any) -> Value:
        """Add a node of one result and return that."""
        return self.graph.add(name, inputs, attrs, like=self.like).out

    def constant(self, value: Any, dtype: DType) -> Value:
        """Add a constant."""
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype=dtype.np)
        return self.graph.add_constant(array, TensorType(dtype, array.shape), self.like).out

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        """`x` under another shape; itself where it has that shape."""
        return x if x.type.shape == shape else self.op("reshape", x, shape=shape)

    def expand(self, x: Value, shape: tuple[int, ...]) -> Value:
        """`x` repeated to a shape; itself where it has that shape."""
        return x if x.type.shape == shape else self.op("expand", x, shape=shape)


def table(rules: Mapping[str, NodeRule | Sequence[NodeRule]]) -> dict[str, list[NodeRule]]:
    """Return rules by op name from `{"add sub": rule or rules}`; a trait names all its ops."""
    found: dict[str, list[NodeRule]] = {}
    for names, group in rules.items():
        for name in names.split():
            known = name in OPS or name == CONSTANT
            for row in [name] if known else _having(name):
                found.setdefault(row, []).extend([group] if callable(group) else group)
    return found


def _having(trait: str) -> list[str]:
    """Return the ops that have a trait."""
    rows = [name for name, row in OPS.items() if trait in row.traits]
    if not rows:
        raise KeyError(trait)
    return rows


def rewrite(graph: Graph, rules: RuleTable) -> int:
    """Apply rules in one walk, operands before readers; returns how many applied.

    A rule gets a `Maker` and a node whose operands are already rewritten, and returns the Value
    that replaces the node's only result, or None. What it returns is offered to the rules again.
    """
    with reasoning(graph):
        return _rewrite(graph, rules)


def _rewrite(graph: Graph, rules: RuleTable) -> int:
    replaced: dict[Value, Value] = {}
    dropped: list[Node] = []
    changes = 0
    for node in graph.order():
        follow(graph, node, replaced)
        current = node
        for _ in range(_MAX_STEPS):
            new = _first(rules.get(current.op, ()), Maker(graph, current), current)
            if new is None:
                break
            changes += 1
            replaced[current.out] = new
            dropped.append(current)
            current = new.node
    graph.substitute(replaced)
    erase_unread(graph, dropped)
    return changes


def _first(rules: Sequence[NodeRule], maker: Maker, node: Node) -> Value | None:
    for rule in rules:
        try:
            new = rule(maker, node)
        except UndecidedError:  # it depends on symbolic sizes whether the rule holds
            continue
        if new is not None:
            return new
    return None


def follow(graph: Graph, node: Node, replaced: Mapping[Value, Value]) -> None:
    """Make a node read what replaces its operands."""
    if any(v in replaced for v in node.inputs):
        inputs = []
        for value in node.inputs:
            while value in replaced:
                value = replaced[value]
            inputs.append(value)
        graph.set_inputs(node, inputs)


def erase_unread(graph: Graph, candidates: Iterable[Node]) -> int:
    """Erase those candidates that nothing reads, and then what only they read; inputs stay."""
    keep = {v.node for v in graph.results()}
    keep.update(n for name, n in graph.states.items() if name in graph.writes)
    stack = list(candidates)
    erased = 0
    while stack:
        node = stack.pop()
        if node in keep or node.op == INPUT or node not in graph or graph.is_read(node):
            continue
        if has_effect(node) or finds_read_size(graph, node):
            continue
        stack.extend(v.node for v in node.inputs)
        graph.erase(node)
        erased += 1
    return erased


def constant_of(value: Value) -> Any:
    """Return the array of a constant, else None."""
    return value.node.attrs["value"] if value.node.op == CONSTANT else None


def uniform_of(value: Value) -> Any:
    """Return the one element that all of a constant has (as a 0-d array), else None.

    Looks through `expand` and `reshape`.
    """
    node = value.node
    for _ in range(_MAX_STEPS):
        if node.op == CONSTANT:
            array = node.attrs["value"]
            return array.reshape(()) if array.size == 1 else None
        if node.op not in ("expand", "reshape"):
            return None
        node = node.inputs[0].node
    return None
