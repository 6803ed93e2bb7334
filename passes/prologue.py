"""What depends on State only: batch-norm folding makes it, the prologue takes it out.

State is never folded into constants, since it can be replaced after the trace. Instead, what a
graph computes from State alone becomes a graph of its own that runs once per version of State.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracegraph.dims.facts import by_form
from tracegraph.dtypes import HALVES
from tracegraph.ir.control import has_effect
from tracegraph.ir.dims import depends_on_sizes
from tracegraph.ir.graph import CONSTANT, SOURCES, STATE, Graph, Node, Value
from tracegraph.ops.core import VIEW
from tracegraph.ops.table import OPS
from tracegraph.passes.build import GraphMath, Term
from tracegraph.passes.rewriting import erase_unread

_CONTRACTIONS: Final = ("convolution", "linear")


def state_only(graph: Graph) -> set[Node]:
    """Return the nodes that depend on State, and on nothing that changes from call to call.

    State that the graph writes does change. Constants and State itself are not among them.
    """
    found: set[Node] = set()
    for node in graph.order():
        if node.op in SOURCES or not node.inputs or has_effect(node) or depends_on_sizes(node):
            continue
        origins = [v.node for v in node.inputs]
        if all(_is_lasting(n, graph) or n in found for n in origins) and any(
            n.op != CONSTANT for n in origins
        ):
            found.add(node)
    return found


def _is_lasting(node: Node, graph: Graph) -> bool:
    if node.op == STATE:
        return node.attrs["name"] not in graph.writes
    return node.op == CONSTANT


@by_form()
def fold_batch_norm(graph: Graph) -> int:
    """Scale the weights of a convolution or linear layer instead of its result, for inference.

    batch_norm(conv(x, w) + b) = conv(x, w·s) + (b − mean)·s + bias, s = weight / sqrt(var + eps).
    Done where everything but x depends on State only, so that a prologue can scale once.
    """
    early = state_only(graph)
    results = {v.node for v in graph.results()}
    replaced: dict[Value, Value] = {}
    folded: list[Node] = []
    for node in graph.order():
        if node.op != "batch_norm_inference" or node.out.type.dtype in HALVES:
            continue
        if not all(_is_lasting(v.node, graph) or v.node in early for v in node.inputs[1:]):
            continue
        found = _layer_before(graph, node, early, results)
        if found is not None:
            replaced[node.out] = _folded(graph, node, *found)
            folded.append(node)
    graph.substitute(replaced)
    erase_unread(graph, folded)
    return len(folded)


def _layer_before(
    graph: Graph, norm: Node, early: set[Node], results: set[Node]
) -> tuple[Node, Value | None] | None:
    """The contraction that only a batch norm reads, and what is added to it on the way."""

    def is_fixed(value: Value) -> bool:
        return value.node in early or _is_lasting(value.node, graph)

    def is_private(node: Node) -> bool:
        return node not in results and len(graph.successors(node)) == 1

    layer = norm.inputs[0].node
    bias = None
    if layer.op == "add" and is_private(layer):
        for value, other in (layer.inputs, layer.inputs[::-1]):
            if value.node.op in _CONTRACTIONS and _is_channel(other) and is_fixed(other):
                layer, bias = value.node, other
                break
    if layer.op not in _CONTRACTIONS or not is_private(layer) or layer.out.type != norm.out.type:
        return None
    return (layer, bias) if all(map(is_fixed, layer.inputs[1:])) else None


def _is_channel(bias: Value) -> bool:
    """Whether this is one number per channel, laid out as [1, channel, 1, ...]."""
    shape = bias.type.shape
    return len(shape) > 1 and bias.type.size == shape[1]


def _folded(graph: Graph, norm: Node, layer: Node, bias: Value | None) -> Value:
    m = GraphMath(graph, norm)
    x, mean, var, *affine = (m.term(v) for v in norm.inputs)
    weight = m.term(layer.inputs[1])
    count = norm.out.type.shape[1]
    scale = m.rsqrt(var + norm.attrs["eps"])
    if affine:
        scale = scale * affine[0]
    added = [m.reshape(m.term(bias), shape=(count,))] if bias is not None else []
    added += [m.term(v) for v in layer.inputs[2:]]
    shift = -mean
    for term in added:
        shift = shift + term
    shift = shift * scale
    if len(affine) > 1:
        shift = shift + affine[1]
    scaled = weight * m.reshape(scale, shape=(count, *(1,) * (weight.ndim - 1)))
    made: Term = m.call(OPS[layer.op], m.term(layer.inputs[0]), scaled, **layer.attrs)
    result: Term = made + m.reshape(shift, shape=(1, count, *(1,) * (x.ndim - 2)))
    return result.value


def split_prologue(graph: Graph) -> Graph:
    """Take what depends on State only out of a graph, in place, and return it as a graph.

    Its outputs are, in order, the new States `prologue.0`, `prologue.1`, ... of `graph`. Views
    stay where they are read: they cost nothing.
    """
    early = state_only(graph)
    results = set(graph.results())
    stays: set[Node] = set()
    wanted: list[Value] = []
    for node in reversed(graph.order()):
        readers = [r for r in graph.successors(node) if r in stays]
        needed = [v for v in node.outs if v in results or any(v in r.inputs for r in readers)]
        is_view = node.op in OPS and VIEW in node.row.traits
        if node not in early or (needed and is_view):
            stays.add(node)
        else:
            wanted += needed
    wanted.reverse()
    prologue = _part(graph, wanted)
    replaced: dict[Value, Value] = {}
    number = 0
    for value in wanted:
        while f"prologue.{number}" in graph.states:
            number += 1
        state = graph.add_state(f"prologue.{number}", value.type)
        state.seq = value.node.seq  # so its readers stay in front of what uses their sizes alone
        replaced[value] = state.out
    graph.substitute(replaced)
    erase_unread(graph, [v.node for v in wanted])
    return prologue


def parts_of(prologue: Graph) -> list[tuple[list[int], Graph]]:
    """Return graphs that share no node but sources, with the numbers of the outputs they make."""
    root: dict[Node, Node] = {}

    def find(node: Node) -> Node:
        while root.setdefault(node, node) is not node:
            root[node] = node = root[root[node]]
        return node

    order = prologue.order()
    for node in order:
        for value in node.inputs:
            if value.node.op not in SOURCES:
                root[find(value.node)] = find(node)
    parts: dict[Node, tuple[list[int], Graph, dict[Value, Value]]] = {}
    for node in order:
        if node.op not in SOURCES:
            _, part, same = parts.setdefault(find(node), ([], Graph(prologue.name), {}))
            for value in node.inputs:
                if value not in same:
                    _copy(part, value.node, same)
            _copy(part, node, same)
    for number, value in enumerate(prologue.outputs):
        numbers, part, same = parts[find(value.node)]
        numbers.append(number)
        part.outputs.append(same[value])
    return [(numbers, part) for numbers, part, _ in parts.values()]


def _part(graph: Graph, outputs: Sequence[Value]) -> Graph:
    """The part of a graph that some Values depend on, as a graph."""
    part = Graph(f"{graph.name}_prologue")
    needed: set[Node] = set()
    stack = [v.node for v in outputs]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [v.node for v in node.inputs]
    same: dict[Value, Value] = {}
    for node in graph.order():
        if node in needed:
            _copy(part, node, same)
    part.outputs = [same[v] for v in outputs]
    return part


def _copy(part: Graph, node: Node, same: dict[Value, Value]) -> None:
    """Add a node of another graph; `same` tells what its operands are, and what it gives."""
    made = part.add(
        node.op, [same[v] for v in node.inputs], node.attrs, node.types, like=node,
        regions={name: region.copy() for name, region in node.regions.items()},
    )  # fmt: skip
    same.update(zip(node.outs, made.outs, strict=True))
    if node.op == STATE:
        part.states[node.attrs["name"]] = made
