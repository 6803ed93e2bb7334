"""Graph, Node, Value: the IR.

A node's ordered `inputs` are the truth; edges are an index that the few mutation methods keep, in
the dictionaries that a `networkx.DiGraph` has, so that `Graph.nx` can be one over them (networkx
takes a third of a cached start, and is imported for that alone). Order is topological, ties by
`seq`. Pseudo-nodes without a row in the op table: `input`, `state`, `constant`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracegraph.errors import GraphError
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

if TYPE_CHECKING:
    import networkx

INPUT: Final = "input"
STATE: Final = "state"
CONSTANT: Final = "constant"
KERNEL: Final = "kernel"
SOURCES: Final = (INPUT, STATE, CONSTANT)


class Loc(NamedTuple):
    """A place in the user's source: file, line, function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Value:
    """One result of a node. Compared by identity."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int, type: TensorType) -> None:
        self.node = node
        self.index = index
        self.type = type

    def __repr__(self) -> str:
        return f"<value {self.node.op}.{self.index}: {self.type}>"


class Node:
    """One operation.

    Attributes: `op` (name of a row, or a pseudo-op), `inputs` (Values, in order), `attrs`,
    `outs` (its Values), `seq` (place in the trace), `loc` (user's source line or None), `scope`
    (path of the module that ran it), `regions` (closed graphs by name).
    """

    __slots__ = ("attrs", "inputs", "loc", "op", "outs", "regions", "scope", "seq")

    op: str
    inputs: tuple[Value, ...]
    attrs: dict[str, Any]
    outs: tuple[Value, ...]
    seq: int
    loc: Loc | None
    scope: str
    regions: dict[str, Graph]

    @property
    def row(self) -> Op:
        """The row of the op table.

        Raises:
            GraphError: this is a pseudo-node or a kernel.
        """
        row = OPS.get(self.op)
        if row is None:
            raise GraphError(f"{self.op!r} is no row of the op table")
        return row

    @property
    def out(self) -> Value:
        """The only result."""
        return self.outs[0]

    @property
    def types(self) -> tuple[TensorType, ...]:
        """Types of the results."""
        return tuple(v.type for v in self.outs)

    def __repr__(self) -> str:
        return f"<node {self.op} #{self.seq}>"


class Graph:
    """A function: inputs, nodes, outputs, and the new values of State.

    `outputs` are Values; `writes` maps the name of a `state` or `input` node to the Value that
    its memory holds after the call.
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        # As a DiGraph has them: nodes, and a dict for each edge under both of its ends.
        self._nodes: dict[Node, dict[str, Any]] = {}
        self._readers: dict[Node, dict[Node, dict[str, Any]]] = {}
        self._read: dict[Node, dict[Node, dict[str, Any]]] = {}
        self.inputs: list[Node] = []
        self.states: dict[str, Node] = {}
        self.outputs: list[Value] = []
        self.writes: dict[str, Value] = {}
        self._next = 0

    @property
    def nx(self) -> networkx.DiGraph[Node]:
        """A read-only view as a `networkx.DiGraph`; any networkx algorithm runs on it."""
        import networkx

        view: Any = networkx.DiGraph()
        view._node, view._adj, view._pred = self._nodes, self._readers, self._read
        made: networkx.DiGraph[Node] = networkx.freeze(view)
        return made

    @property
    def nodes(self) -> KeysView[Node]:
        """The nodes, in no promised order: a view that follows the graph."""
        return self._nodes.keys()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self.order())

    def add(
        self,
        op: str,
        inputs: Iterable[Value] = (),
        attrs: Mapping[str, Any] | None = None,
        types: Sequence[TensorType] | None = None,
        *,
        like: Node | None = None,
        loc: Loc | None = None,
        scope: str = "",
        seq: int | None = None,
        regions: Mapping[str, Graph] | None = None,
    ) -> Node:
        """Add a node and return it.

        `types` are inferred from the row when absent. `like` lends seq, loc and scope (for
        replacements).

        Raises:
            OpError: the type rule refuses the inputs.
        """
        node = Node()
        node.op = op
        node.inputs = tuple(inputs)
        node.attrs = dict(attrs or {})
        node.regions = dict(regions or {})
        if types is None:
            types = node.row.infer([v.type for v in node.inputs], node.attrs)
        node.outs = tuple(Value(node, i, t) for i, t in enumerate(types))
        if like is not None:
            node.seq, node.loc, node.scope = like.seq, like.loc, like.scope
        else:
            node.seq, node.loc, node.scope = self._next if seq is None else seq, loc, scope
        self._next = max(self._next, node.seq + 1)
        self._enter(node)
        for value in node.inputs:
            self._join(value.node, node)
        return node

    def _enter(self, node: Node) -> None:
        self._nodes[node], self._readers[node], self._read[node] = {}, {}, {}

    def _join(self, read: Node, reader: Node) -> None:
        """Add an edge; a node that is not in the graph comes in, for the verifier to find."""
        if read not in self._nodes:
            self._enter(read)
        if reader not in self._readers[read]:
            self._readers[read][reader] = self._read[reader][read] = {}

    def add_input(self, name: str, type: TensorType, **attrs: Any) -> Node:
        """Add the next input."""
        node = self.add(INPUT, attrs={"name": name, **attrs}, types=(type,))
        self.inputs.append(node)
        return node

    def add_state(self, name: str, type: TensorType, **attrs: Any) -> Node:
        """Add a State by its name.

        Raises:
            GraphError: the name is taken.
        """
        if name in self.states:
            raise GraphError(f"two states are named {name!r}")
        node = self.add(STATE, attrs={"name": name, **attrs}, types=(type,))
        self.states[name] = node
        return node

    def add_constant(self, value: Any, type: TensorType, like: Node | None = None) -> Node:
        """Add a constant; `value` is a NumPy array of that type."""
        return self.add(CONSTANT, attrs={"value": value}, types=(type,), like=like)

    def set_inputs(self, node: Node, inputs: Iterable[Value]) -> None:
        """Replace the operands of a node."""
        old = {v.node for v in node.inputs}
        node.inputs = tuple(inputs)
        new = {v.node for v in node.inputs}
        for other in old - new:
            del self._readers[other][node], self._read[node][other]
        for other in new - old:
            self._join(other, node)

    def users(self, value: Value) -> list[Node]:
        """Nodes that read a Value."""
        return [n for n in self._readers[value.node] if value in n.inputs]

    def successors(self, node: Node) -> list[Node]:
        """Nodes that read any result of a node."""
        return list(self._readers[node])

    def predecessors(self, node: Node) -> list[Node]:
        """Nodes that a node reads results of, by the index of edges."""
        return list(self._read[node])

    def is_read(self, node: Node) -> bool:
        """Whether any node reads a result of a node; outputs and writes do not count."""
        return bool(self._readers[node])

    def replace_all_uses(self, old: Value, new: Value) -> None:
        """Make every reader of `old` (outputs and State writes included) read `new`."""
        if old is new:
            return
        for node in self.users(old):
            self.set_inputs(node, (new if v is old else v for v in node.inputs))
        self.outputs = [new if v is old else v for v in self.outputs]
        for name, value in self.writes.items():
            if value is old:
                self.writes[name] = new

    def erase(self, node: Node) -> None:
        """Remove a node that nothing reads.

        Raises:
            GraphError: something still reads it.
        """
        if self._readers[node]:
            raise GraphError(f"{node} is still read by {self.successors(node)[0]}")
        if node.op == STATE:
            del self.states[node.attrs["name"]]
        if node.op == INPUT:
            self.inputs.remove(node)
        for other in self._read[node]:
            del self._readers[other][node]
        del self._nodes[node], self._readers[node], self._read[node]

    def substitute(self, new: Mapping[Value, Value]) -> int:
        """Make all readers (outputs and State writes too) read `new[v]` for v; one walk for all.

        Chains (`new[new[v]]`) are followed. Returns the number of nodes that changed.
        """

        def follow(value: Value) -> Value:
            while value in new:
                value = new[value]
            return value

        if not new:
            return 0
        changed = 0
        readers = {n for old in new for n in self._readers.get(old.node, ())}
        for node in readers:
            if any(v in new for v in node.inputs):
                self.set_inputs(node, map(follow, node.inputs))
                changed += 1
        self.outputs = [follow(v) for v in self.outputs]
        self.writes = {name: follow(v) for name, v in self.writes.items()}
        return changed

    def order(self) -> list[Node]:
        """Nodes in topological order, ties by `seq`.

        Raises:
            GraphError: the graph has a cycle.
        """
        by_seq = sorted(self._nodes, key=_seq)
        return by_seq if _is_topological(by_seq) else self._sorted()

    def _sorted(self) -> list[Node]:
        """Kahn's algorithm with a heap: 3 times the cost of the common case above."""
        waiting = {node: len(read) for node, read in self._read.items()}
        heap = [(n.seq, i, n) for i, (n, d) in enumerate(waiting.items()) if d == 0]
        heapq.heapify(heap)
        count = len(waiting)
        ordered: list[Node] = []
        while heap:
            node = heapq.heappop(heap)[2]
            ordered.append(node)
            for reader in self._readers[node]:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    heapq.heappush(heap, (reader.seq, count, reader))
                    count += 1
        if len(ordered) != len(waiting):
            raise GraphError(f"graph {self.name!r} has a cycle")
        return ordered

    def results(self) -> list[Value]:
        """Everything that must be computed: outputs, then writes."""
        return [*self.outputs, *self.writes.values()]

    def inline(self, region: Graph, inputs: Sequence[Value], like: Node) -> list[Value]:
        """Copy a closed region's nodes here with its inputs bound; returns its outputs' Values."""
        if len(inputs) != len(region.inputs):
            raise GraphError(f"region wants {len(region.inputs)} inputs, got {len(inputs)}")
        mapped: dict[Value, Value] = {n.out: v for n, v in zip(region.inputs, inputs, strict=True)}
        for node in region.order():
            if node.op == INPUT:
                continue
            made = self._copy_node(node, mapped, like)
            mapped.update(zip(node.outs, made.outs, strict=True))
        return [mapped[v] for v in region.outputs]

    def _copy_node(self, node: Node, mapped: Mapping[Value, Value], like: Node | None) -> Node:
        return self.add(
            node.op, (mapped[v] for v in node.inputs), node.attrs, node.types, like=like or node,
            regions={k: r.copy() for k, r in node.regions.items()},
        )  # fmt: skip

    def subgraph(self, to: Any, from_: Any = None) -> Graph:
        """Return the part of the graph that gives `to`, from the inputs or from `from_`.

        Both are places, or lists of them: a Value, the name of an input or State, `%12` as `show`
        prints it, or a module's path; see `ir/cutting.py`.

        Raises:
            GraphError: no such place; or the part depends on inputs before `from_`.
        """
        from tracegraph.ir.cutting import cut

        return cut(self, from_, to)

    def copy(self) -> Graph:
        """Return an independent copy (constants' arrays are shared)."""
        other = Graph(self.name)
        mapped: dict[Value, Value] = {}
        for node in self.order():
            made = other._copy_node(node, mapped, None)
            mapped.update(zip(node.outs, made.outs, strict=True))
            if node.op == STATE:
                other.states[node.attrs["name"]] = made
        other.inputs = [mapped[n.out].node for n in self.inputs]
        other.states = {k: mapped[n.out].node for k, n in self.states.items()}
        other.outputs = [mapped[v] for v in self.outputs]
        other.writes = {k: mapped[v] for k, v in self.writes.items()}
        return other


_seq = attrgetter("seq")


def _is_topological(nodes: Iterable[Node]) -> bool:
    """Whether every node comes after the nodes that it reads."""
    seen: set[Node] = set()
    for node in nodes:
        for value in node.inputs:
            if value.node not in seen:
                return False
        seen.add(node)
    return True
