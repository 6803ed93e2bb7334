"""Comparing two graphs node by node, whatever their nodes are numbered.

A node's key is made of its op, attributes, types and the keys of its operands (structural hashing,
as in value numbering), so equal computations have equal keys in both graphs. Nodes without a
partner are then aligned in order, as lines of text are, and count as equal from there on: a change
is reported once and not again at everything that follows from it. Where several nodes could be the
changed one, that of the same module and source line is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.ir.graph import CONSTANT, INPUT, STATE, Graph, Node, Value
from tracegraph.ir.text import literal, source_text

# Aligning more nodes than this ignores the commonest of them, to stay out of quadratic time.
_MAX_EXACT: Final = 4000
# A changed node is looked for among so many.
_MAX_CANDIDATES: Final = 64

Key = str


class GraphDifference(NamedTuple):
    """One difference: a line of the first graph, one of the second; "" where there is none."""

    first: str
    second: str


def _digest(*parts: Any) -> Key:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _attribute_key(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return _digest(str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    return literal(value)


class _Side:
    """One of the two graphs: its nodes in order, their keys with and without operands."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.order()
        self.shallow: dict[Node, Key] = {}
        self.keys: dict[Node, Key] = {}
        for node in self.nodes:
            self.shallow[node] = _digest(
                node.op,
                [str(t) for t in node.types],
                sorted((k, _attribute_key(v)) for k, v in node.attrs.items() if k != "default"),
                sorted((k, graph_key(r)) for k, r in node.regions.items()),
            )
            self.keys[node] = _digest(self.shallow[node], self.operands(node))

    def value_key(self, value: Value) -> tuple[Key, int]:
        """The key of a node's result."""
        return self.keys[value.node], value.index

    def operands(self, node: Node) -> list[tuple[Key, int]]:
        """The keys of what a node reads."""
        return [self.value_key(v) for v in node.inputs]

    def unmatched(self, other: _Side) -> list[Node]:
        """Nodes that the other graph does not have, in order; numbers belong to their readers."""
        spare = Counter(other.keys.values())
        found = []
        for node in self.nodes:
            spare[self.keys[node]] -= 1
            if spare[self.keys[node]] < 0 and not _is_number(node):
                found.append(node)
        return found


def _is_number(node: Node) -> bool:
    return node.op == CONSTANT and node.types[0].shape == ()


def graph_key(graph: Graph) -> Key:
    """Return the key of a whole graph: what it computes from which inputs and State."""
    side = _Side(graph)
    return _digest(
        [side.keys[n] for n in graph.inputs],
        [side.value_key(v) for v in graph.outputs],
        sorted((k, side.value_key(v)) for k, v in graph.writes.items()),
        sorted(side.keys.values()),
    )


def compare_graphs(first: Graph, second: Graph) -> list[GraphDifference]:
    """Return the differences of two graphs; an empty list means that they are the same.

    Source lines, module paths, the order of independent nodes and defaults of hyper-parameters do
    not count.
    """
    left, right = _Side(first), _Side(second)
    ours, theirs = left.unmatched(right), right.unmatched(left)
    found: list[GraphDifference] = []
    a, b = [left.shallow[n] for n in ours], [right.shallow[n] for n in theirs]
    for mine, others in _aligned(a, b):
        _compare_block(left, ours[mine], right, theirs[others], found)
    return found + _result_differences(left, right)


def _aligned(a: list[Key], b: list[Key]) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of two lists that belong together: equal ones, or changed from one to another.

    What both begin and end with is taken off first: there is no more in the usual case.
    """
    least = min(len(a), len(b))
    start = next((i for i in range(least) if a[i] != b[i]), least)
    end = next((i for i in range(least - start) if a[-1 - i] != b[-1 - i]), least - start)
    yield slice(0, start), slice(0, start)
    inner, other = a[start : len(a) - end], b[start : len(b) - end]
    matcher = SequenceMatcher(None, inner, other, max(len(inner), len(other)) > _MAX_EXACT)
    for _, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        yield slice(start + a_start, start + a_end), slice(start + b_start, start + b_end)
    yield slice(len(a) - end, len(a)), slice(len(b) - end, len(b))


def _compare_block(
    left: _Side, ours: list[Node], right: _Side, theirs: list[Node], found: list[GraphDifference]
) -> None:
    """Pair the nodes of two blocks in order; report those that differ by more than operands do."""
    waiting = dict.fromkeys(theirs)
    for node in ours:
        match = next(iter(waiting), None)
        if match is None or left.shallow[node] != right.shallow[match]:
            match = _partner(node, list(islice(waiting, _MAX_CANDIDATES)))
        if match is None:
            found.append(GraphDifference(_line(node), ""))
            continue
        del waiting[match]
        same = left.shallow[node] == right.shallow[match]
        if not same or left.operands(node) != right.operands(match):
            found.append(GraphDifference(_line(node), _line(match)))
        left.keys[node] = right.keys[match]
    found += [GraphDifference("", _line(node)) for node in waiting]


def _partner(node: Node, others: list[Node]) -> Node | None:
    """Return the node that this one was changed into, if there is one."""

    def likeness(other: Node) -> tuple[bool, ...]:
        same_line = node.loc is not None and node.loc == other.loc
        return node.scope == other.scope, node.op == other.op, same_line

    return max((o for o in others if _alike(node, o)), key=likeness, default=None)


def _alike(node: Node, other: Node) -> bool:
    """Whether one node can be seen as the other, changed."""
    if node.op in (INPUT, STATE) or other.op in (INPUT, STATE):
        return (node.op, node.attrs.get("name")) == (other.op, other.attrs.get("name"))
    return len(node.outs) == len(other.outs) and (node.op == other.op or node.types == other.types)


def _result_differences(left: _Side, right: _Side) -> list[GraphDifference]:
    """Outputs and writes that name different Values, once all nodes are matched."""
    found = []
    sides = [
        {**{f"output {i}": v for i, v in enumerate(side.graph.outputs)},
         **{f"write {name}": v for name, v in side.graph.writes.items()}}
        for side in (left, right)
    ]  # fmt: skip
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        ours, theirs = sides[0].get(name), sides[1].get(name)
        if ours is None or theirs is None or left.value_key(ours) != right.value_key(theirs):
            found.append(GraphDifference(_result_line(name, ours), _result_line(name, theirs)))
    return found


def _result_line(name: str, value: Value | None) -> str:
    return "" if value is None else f"{name} = {_operand_text(value)}: {value.type}"


def _operand_text(value: Value) -> str:
    """What an operand is, without numbers that another trace would change."""
    node = value.node
    if node.op in (INPUT, STATE):
        return str(node.attrs["name"])
    if node.op == CONSTANT:
        return source_text(node)
    place = f".{value.index}" if len(node.outs) > 1 else ""
    return f"{node.op}(...){place}"


def _line(node: Node) -> str:
    """One line for a node: what it computes from what, and where it comes from."""
    types = ", ".join(map(str, node.types))
    place = f"  # {node.loc}" if node.loc is not None else ""
    if node.op in (INPUT, STATE):
        return f"{node.op} {node.attrs['name']}: {types}{place}"
    if node.op == CONSTANT:
        return f"{_operand_text(node.out)}: {types}{place}"
    operands = ", ".join(map(_operand_text, node.inputs))
    attrs = ", ".join(f"{k}={literal(v)}" for k, v in sorted(node.attrs.items()))
    return f"{node.op}({'; '.join(t for t in (operands, attrs) if t)}): {types}{place}"
