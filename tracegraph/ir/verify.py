"""The verifier: checks that a graph keeps the rules of the IR. Runs after each pass in tests."""

from __future__ import annotations

import linecache
from collections.abc import Collection, Iterable
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from tracegraph.dims.facts import Facts, assuming
from tracegraph.errors import GraphError, OpError, UndecidedError
from tracegraph.ir.control import CONTROL, infer
from tracegraph.ir.dims import Symbols, check_dims, dims_of, facts_of
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, SOURCES, STATE, Graph, Loc, Node, Value
from tracegraph.ir.text import excerpt
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType


def verify(graph: Graph, dims: Symbols = MappingProxyType({}), facts: Facts | None = None) -> None:
    """Check types, edges, order, sources, writes, constants and regions of a graph.

    `dims` and `facts` are those of the graph around a region.

    Raises:
        GraphError: with the lines around the fault and the user's source line.
    """
    nodes = dict.fromkeys(graph.nodes)
    for node in nodes:
        _check_results(graph, node)
        _check_edges(graph, node)
    _check_acyclic(graph)
    _check_sources(graph, nodes)
    known, inside = facts_of(graph, facts), {**dims, **dims_of(graph)}
    with assuming(known):
        _check_ends(graph, nodes)
        for node in graph.order():
            for region in node.regions.values():
                verify(region, inside, known)
            try:
                _check_node(graph, node)
            except UndecidedError as error:
                _refuse(graph, node, str(error))
    check_dims(graph, dims)


def source_line(loc: Loc) -> str:
    """Return `model.py:12: y = x + b`, without the code where the file is not at hand."""
    code = linecache.getline(loc.file, loc.line).strip()
    return f"{loc}: {code}" if code else str(loc)


def _refuse(graph: Graph, node: Node, message: str) -> NoReturn:
    place = f"\nfrom {source_line(node.loc)}" if node.loc is not None else ""
    raise GraphError(
        f"graph {graph.name!r}, node {node.op!r}: {message}\n{excerpt(graph, node)}{place}"
    )


def _shown(types: Iterable[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"


def _check_results(graph: Graph, node: Node) -> None:
    for index, value in enumerate(node.outs):
        if value.node is not node or value.index != index:
            _refuse(graph, node, f"result {index} does not belong to its node")
    if node.seq < 0:
        _refuse(graph, node, f"its place in the trace is {node.seq}")


def _check_edges(graph: Graph, node: Node) -> None:
    for value in node.inputs:
        if value.node not in graph:
            _refuse(graph, node, f"operand {value} is not in the graph")
        if not any(value is v for v in value.node.outs):
            _refuse(graph, node, f"operand {value} is no result of its node")
    if set(graph.predecessors(node)) != {v.node for v in node.inputs}:
        _refuse(graph, node, "edges differ from operands: use the graph's methods to change it")


def _check_acyclic(graph: Graph) -> None:
    try:
        graph.order()
    except GraphError:
        import networkx

        ring = [edge[0] for edge in networkx.find_cycle(graph.nx)]
        first = ring.index(min(ring, key=lambda n: n.seq))
        ring = ring[first:] + ring[:first]
        names = " -> ".join(n.op for n in (*ring, ring[0]))
        _refuse(graph, ring[0], f"it reads its own result: {names}")


def _check_sources(graph: Graph, nodes: Collection[Node]) -> None:
    names: set[str] = set()
    for node in (*graph.inputs, *graph.states.values()):
        if node not in nodes:
            raise GraphError(f"graph {graph.name!r}: {node} is declared but not in the graph")
        name = node.attrs.get("name")
        if not isinstance(name, str):
            _refuse(graph, node, "it needs an attribute `name`")
        if name in names:
            _refuse(graph, node, f"the name {name!r} is taken")
        names.add(name)
    inputs = set(graph.inputs)
    for node in nodes:
        if node.op == INPUT and node not in inputs:
            _refuse(graph, node, "it is not among the graph's inputs")
        if node.op == STATE and graph.states.get(node.attrs["name"]) is not node:
            _refuse(graph, node, "it is not among the graph's states")
    for declared in graph.inputs:
        if declared.op != INPUT:
            _refuse(graph, declared, "it is declared as an input")


def _check_ends(graph: Graph, nodes: Collection[Node]) -> None:
    for value in graph.results():
        if value.node not in nodes or not any(value is v for v in value.node.outs):
            raise GraphError(f"graph {graph.name!r} returns or writes {value}, which is not in it")
    places = {n.attrs["name"]: n for n in (*graph.inputs, *graph.states.values())}
    for name, value in graph.writes.items():
        target = places.get(name)
        if target is None:
            raise GraphError(f"graph {graph.name!r} writes {name!r}, which is no State or input")
        if target.types[0] != value.type:
            _refuse(graph, value.node, f"{value.type} is written to {name!r}, a {target.types[0]}")


def _check_node(graph: Graph, node: Node) -> None:
    if node.op in SOURCES:
        if len(node.outs) != 1 or node.inputs or node.regions:
            _refuse(graph, node, "it takes nothing and has one result")
        if node.op == CONSTANT:
            _check_constant(graph, node)
    elif node.op == KERNEL:
        _check_kernel(graph, node)
    elif node.op in OPS:
        _check_types(graph, node)
    elif node.op in CONTROL:
        _check_control(graph, node)
    else:
        _refuse(graph, node, "there is no such op")


def _check_types(graph: Graph, node: Node) -> None:
    row = node.row
    if node.regions:
        _refuse(graph, node, "it has no regions")
    operands = [v.type for v in node.inputs]
    try:
        types = row.infer(operands, node.attrs)
    except UndecidedError:
        raise
    except (OpError, TypeError, ValueError, IndexError, AttributeError) as error:
        _refuse(graph, node, f"its type rule refuses the operands: {error}")
    if types != node.types:
        _refuse(graph, node, f"of {_shown(operands)} gives {_shown(types)}, "
                             f"the node says {_shown(node.types)}")  # fmt: skip


def _check_control(graph: Graph, node: Node) -> None:
    operands = [v.type for v in node.inputs]
    try:
        types = infer(node.op, operands, node.attrs, node.regions)
    except UndecidedError:
        raise
    except GraphError as error:
        _refuse(graph, node, str(error))
    if types != node.types:
        _refuse(graph, node, f"its regions give {_shown(types)}, the node says "
                             f"{_shown(node.types)}")  # fmt: skip


def _check_constant(graph: Graph, node: Node) -> None:
    value = node.attrs.get("value")
    known = node.types[0]
    if not isinstance(value, np.ndarray):
        _refuse(graph, node, f"its value must be a NumPy array, not {type(value).__name__}")
    if value.dtype != known.dtype.np or value.shape != known.shape:
        _refuse(graph, node, f"its value is {value.dtype}{list(value.shape)}, its type {known}")


def _check_kernel(graph: Graph, node: Node) -> None:
    if set(node.regions) != {"body"}:
        _refuse(graph, node, "a kernel has one region, `body`")
    body = node.regions["body"]
    if body.states or body.writes:
        _refuse(graph, node, "a region is closed: it has no State")
    _check_signature(graph, node, body.inputs, body.outputs)


def _check_signature(
    graph: Graph, node: Node, inputs: list[Node], outputs: list[Value]
) -> None:  # fmt: skip
    takes, gives = [n.types[0] for n in inputs], [v.type for v in outputs]
    operands = [v.type for v in node.inputs]
    if takes != operands:
        _refuse(graph, node, f"its body takes {_shown(takes)}, its operands are {_shown(operands)}")
    if gives != list(node.types):
        _refuse(graph, node, f"its body gives {_shown(gives)}, the node {_shown(node.types)}")
