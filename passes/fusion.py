"""Fusion: chains of elementwise ops, and reductions with their neighbours, become kernels.

A kernel runs over one space, the shape S, and may fold one set R of its dims. Each node inside
is *full* (its shape is S) or a *row* (its shape is S without the dims R, or with 1 in their
place): that is all a loop nest with an inner loop over R needs. Softmax and layer norm are one
kernel. Nodes of other shapes stay outside: they would be computed once per element of S.

Groups grow from readers to what they read. Everything has a height above that of all that reads
it from outside, so no path leaves a group and comes back. A node may join a group of its readers
if the other readers are lower, or the group can be lifted above them without reaching what it
reads itself (its ceiling). One walk decides: no search, no cycle test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.dims.facts import by_form
from tracegraph.ir.graph import CONSTANT, KERNEL, SOURCES, Graph, Node, Value
from tracegraph.ops.core import COMPOSITE, ELEMENTWISE, REDUCTION
from tracegraph.ops.table import OPS
from tracegraph.passes.prologue import state_only
from tracegraph.passes.rewriting import erase_unread
from tracegraph.tensor_type import Shape

POINTWISE: Final = "pointwise"
_MAX_NODES: Final = 64
# How many of the groups around a node are tried.
_MAX_TRIES: Final = 4
_NO_CEILING: Final = 1 << 60
_GLUE: Final = ("expand", "reshape")


class Rows(NamedTuple):
    """A space S and the dims R of it that are folded."""

    shape: Shape
    dims: Shape

    @property
    def kept(self) -> Shape:
        """S with 1 in the place of each dim of R."""
        return tuple(1 if d in self.dims else n for d, n in enumerate(self.shape))

    @property
    def squeezed(self) -> Shape:
        """S without the dims R."""
        return tuple(n for d, n in enumerate(self.shape) if d not in self.dims)

    def holds(self, shape: Shape) -> bool:
        """Whether this is the shape of a row."""
        return shape == self.kept or shape == self.squeezed

    def lines_up(self, shape: Shape) -> bool:
        """Whether a row of this shape broadcasts against S along its own dims."""
        return (1,) * (len(self.kept) - len(shape)) + shape == self.kept


class Group:
    """Nodes that will be one kernel; a node that stays outside is a group of its own."""

    __slots__ = ("ceiling", "height", "is_early", "is_open", "nodes", "rows", "shape")

    def __init__(
        self, height: int, first: Node, rows: Rows | None, is_open: bool, is_early: bool
    ) -> None:
        self.height = height
        self.ceiling = _NO_CEILING
        self.is_open = is_open
        self.is_early = is_early
        self.nodes: dict[Node, None] = {}
        if rows is None:
            self.shape = first.types[0].shape if first.types else ()
        else:
            self.shape = rows.shape
        self.rows = rows


@by_form()
def fuse(graph: Graph, accept: Callable[[Node], bool] = lambda node: True) -> int:
    """Put elementwise ops and reductions into `kernel` nodes; returns how many nodes went in.

    `accept` may refuse nodes that a runtime cannot compute inside a kernel.
    """
    groups = _Grouping(graph, accept).groups
    replaced: dict[Value, Value] = {}
    fused: list[Node] = []
    results = set(graph.results())
    for nodes, kind in _kernels(groups):
        _emit(graph, nodes, kind, results, replaced)
        fused += nodes
    graph.substitute(replaced)
    erase_unread(graph, fused)
    return len(fused)


def _is_reduction(node: Node) -> bool:
    dim = node.attrs.get("dim")
    return REDUCTION in node.row.traits and isinstance(dim, tuple) and bool(dim)


def _can_fuse(node: Node) -> bool:
    if node.op in SOURCES or node.op not in OPS or len(node.outs) != 1:
        return False
    traits = node.row.traits
    if COMPOSITE in traits:
        return False
    return ELEMENTWISE in traits or node.op in _GLUE or _is_reduction(node)


def _row_tags(order: Sequence[Node]) -> dict[Node, Rows]:
    """For nodes that follow from a reduction and still have one element per row: which rows."""
    tags: dict[Node, Rows] = {}
    for node in order:
        if not _can_fuse(node):
            continue
        if _is_reduction(node):
            tags[node] = Rows(node.inputs[0].type.shape, node.attrs["dim"])
            continue
        found = {tags[v.node] for v in node.inputs if v.node in tags}
        if len(found) == 1:
            rows = found.pop()
            if rows.holds(node.out.type.shape):
                tags[node] = rows
    return tags


class _Grouping:
    """The one walk that assigns nodes to groups, readers first."""

    def __init__(self, graph: Graph, accept: Callable[[Node], bool]) -> None:
        order = graph.order()
        self.graph = graph
        self.accept = accept
        self.tags = _row_tags(order)
        self.early = state_only(graph)  # a prologue may take these out, so they stay apart
        self.results = {v.node for v in graph.results()}
        self.member: dict[Node, Group] = {}
        self.groups: list[Group] = []
        for node in reversed(order):
            if node.op not in SOURCES:
                self.place(node)

    def place(self, node: Node) -> None:
        """Put a node into a group of its readers, or start one."""
        readers = self.graph.successors(node)
        around = dict.fromkeys(self.member[r] for r in readers)
        is_glue = node.op in _GLUE
        fits = _can_fuse(node) and self.accept(node)
        group = None
        if fits and not (is_glue and (node in self.results or len(around) > 1)):
            group = self.choose(node, readers, around)
        if group is None:
            height = 1 + max((g.height for g in around), default=-1)
            is_open = fits and not is_glue
            group = Group(height, node, self.tags.get(node), is_open, node in self.early)
            self.groups.append(group)
        group.nodes[node] = None
        self.member[node] = group
        for other in around:
            if other is not group:
                other.ceiling = min(other.ceiling, group.height)

    def choose(
        self, node: Node, readers: Sequence[Node], around: Iterable[Group]
    ) -> Group | None:  # fmt: skip
        """The largest group of readers that a node can join, lifted above the other readers."""
        for group in sorted(around, key=lambda g: -len(g.nodes))[:_MAX_TRIES]:
            others = max((g.height for g in around if g is not group), default=-1)
            height = max(group.height, others + 1)
            if height < group.ceiling and self.joins(group, node, readers):
                group.height = height
                return group
        return None

    def joins(self, group: Group, node: Node, readers: Sequence[Node]) -> bool:
        """Whether a node fits into a group's space; a first row fixes the dims it folds."""
        if not group.is_open or len(group.nodes) >= _MAX_NODES:
            return False
        if group.is_early != (node in self.early):
            return False
        shape = node.out.type.shape
        if shape == group.shape and not _is_reduction(node):
            return node.op != "reshape"
        tag = self.tags.get(node)
        rows = tag if group.rows is None else group.rows
        if rows is None or rows.shape != group.shape or not rows.holds(shape):
            return False
        if _is_reduction(node) and tag != rows:
            return False
        if node.op == "reshape" and not rows.holds(node.inputs[0].type.shape):
            return False
        inside = (r for r in readers if self.member[r] is group)
        if any(r.out.type.shape == group.shape for r in inside) and not rows.lines_up(shape):
            return False
        group.rows = rows
        return True


def _kernels(groups: Iterable[Group]) -> Iterable[tuple[list[Node], str]]:
    """The nodes and kind of each kernel that is worth one.

    A group that folds nothing has no use for rows: they become a kernel of their own, if they
    have one shape (of several, kernels by shape could read each other).
    """
    for group in groups:
        if len(group.nodes) == 1:
            continue
        nodes = list(reversed(group.nodes))
        parts = [(nodes, REDUCTION)]
        if not any(map(_is_reduction, nodes)):
            full = [n for n in nodes if n.out.type.shape == group.shape]
            rest = [n for n in nodes if n.out.type.shape != group.shape]
            parts = [(full, POINTWISE)]
            if len({n.out.type.shape for n in rest}) == 1:
                parts.append((rest, POINTWISE))
        for part, kind in parts:
            if sum(n.op not in _GLUE for n in part) > 1:
                yield part, kind


def _emit(
    graph: Graph, nodes: list[Node], kind: str, results: set[Value], replaced: dict[Value, Value]
) -> None:
    """Add the kernel of some nodes, and say which Values it replaces."""
    body = Graph(KERNEL)
    inside = set(nodes)
    known: dict[Value, Value] = {}
    inputs: list[Value] = []
    for node in nodes:
        for value in node.inputs:
            if value not in known:
                known[value] = _bring_in(body, value, inputs)
        made = body.add(node.op, [known[v] for v in node.inputs], node.attrs, node.types, like=node)
        known[node.out] = made.out
    outs = [
        n.out
        for n in nodes
        if n.out in results or any(r not in inside for r in graph.successors(n))
    ]
    body.outputs = [known[v] for v in outs]
    kernel = graph.add(
        KERNEL, inputs, {"kind": kind}, [v.type for v in outs], like=nodes[-1],
        regions={"body": body},
    )  # fmt: skip
    replaced.update(zip(outs, kernel.outs, strict=True))


def _bring_in(body: Graph, value: Value, inputs: list[Value]) -> Value:
    """A Value from outside as the body sees it: numbers are copied in, the rest are inputs."""
    node = value.node
    if node.op == CONSTANT and not value.type.shape:
        return body.add_constant(node.attrs["value"], value.type, node).out
    inputs.append(value)
    return body.add_input(f"x{len(inputs) - 1}", value.type).out


def kernel_counts(graph: Graph) -> dict[str, int]:
    """Return how many kernels of each kind a graph has."""
    counts: dict[str, int] = {}
    for node in graph.order():
        if node.op == KERNEL:
            kind: Any = node.attrs["kind"]
            counts[kind] = counts.get(kind, 0) + 1
    return counts
