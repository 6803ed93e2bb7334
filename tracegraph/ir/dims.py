"""The dims of a graph: symbols in its types and attributes, and the facts about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tracegraph.dims.declared import check_symbol
from tracegraph.dims.expressions import Symbol
from tracegraph.dims.facts import Facts, Reasoner, assuming
from tracegraph.dims.relations import Relation
from tracegraph.dims.shapes import mentions, symbols_of
from tracegraph.dims.symint import DECIDER, SymInt
from tracegraph.errors import GraphError
from tracegraph.ir.control import FACT
from tracegraph.ir.graph import Graph, Node
from tracegraph.ops.table import OPS

Symbols = Mapping[str, Symbol]


def symbols_in(node: Node) -> dict[str, Symbol]:
    """Return the symbols in a node's types and attributes, by name; not those of its regions."""
    found: dict[str, Symbol] = {}
    for value in node.outs:
        if mentions(value.type.shape):
            found.update(symbols_of(value.type.shape))
    for attribute in node.attrs.values():
        if attribute.__class__ in (tuple, SymInt):
            found.update(symbols_of((attribute,)))
        elif attribute.__class__ is Relation:
            found.update(attribute.expr.symbols())
    return found


def dims_of(graph: Graph) -> dict[str, Symbol]:
    """Return the symbols that a graph mentions, by name; regions are graphs of their own."""
    return {name: s for node in graph.order() for name, s in symbols_in(node).items()}


def facts_of(graph: Graph, outer: Facts | None = None) -> Facts:
    """Return the facts that a graph checks, with those that hold around it."""
    known = () if outer is None else outer.relations
    inner = (node.attrs["relation"] for node in graph.nodes if node.op == FACT)
    return Facts([*known, *(r for r in inner if isinstance(r, Relation))])


def depends_on_sizes(node: Node) -> bool:
    """Whether a node, or one in its regions, mentions a symbolic size."""
    if symbols_in(node):
        return True
    return any(depends_on_sizes(n) for region in node.regions.values() for n in region.nodes)


def finds_read_size(graph: Graph, node: Node) -> bool:
    """Whether a node finds a size that others read, which no edge tells."""
    if node.op not in OPS or not node.row.counted:
        return False
    own = {name for name, s in symbols_in(node).items() if s.data}
    return any(not own.isdisjoint(_sizes_named(n)) for n in graph.nodes if n is not node)


def _sizes_named(node: Node) -> set[str]:
    """The sizes in the attributes of a node and of those in its regions."""
    found = set(symbols_of(v for v in node.attrs.values() if v.__class__ in (tuple, SymInt)))
    if node.op == FACT:
        found |= node.attrs["relation"].expr.symbols().keys()
    return found.union(*(_sizes_named(n) for r in node.regions.values() for n in r.nodes))


def reasoning(graph: Graph) -> AbstractContextManager[None]:
    """Decide about sizes by the facts of a graph, and of those around it that are known here."""
    decider = DECIDER.get()
    return assuming(facts_of(graph, decider.facts if isinstance(decider, Reasoner) else None))


def check_dims(graph: Graph, outer: Symbols) -> None:
    """Check that the inputs of a graph have the dims that it mentions, and each has one meaning.

    Raises:
        GraphError: no input has a dim, or its bounds contradict.
    """
    found = dims_of(graph)
    given = {*outer, *(name for node in graph.inputs for name in symbols_in(node))}
    for name, symbol in found.items():
        if name not in given and not symbol.data:
            raise GraphError(f"no input of graph {graph.name!r} has the dim {name!r}")
        _check_same(symbol, outer.get(name, symbol))
    for node in graph.nodes:
        for symbol in symbols_in(node).values():
            _check_same(symbol, found[symbol.name])


def _check_same(a: Symbol, b: Symbol) -> None:
    if (a.min, a.max, a.data) != (b.min, b.max, b.data):
        raise GraphError(f"the dim {a.name!r} has two different bounds")


def dims_to_data(symbols: Iterable[Symbol]) -> list[dict[str, Any]]:
    """Return symbols as JSON data."""
    return [
        {"name": s.name, "min": s.min, "max": s.max, "hint": s.hint, "data": s.data}
        for s in symbols
    ]  # fmt: skip


def dims_from_data(data: Any, outer: Symbols) -> dict[str, Symbol]:
    """Return the symbols in JSON data, and those known around it.

    Raises:
        GraphError: no such symbols, or two that contradict.
    """
    found = dict(outer)
    for item in data:
        made = make_symbol(**item)
        _check_same(made, found.setdefault(made.name, made))
    return found


def make_symbol(name: Any, min: Any = 0, max: Any = None, hint: Any = 0,
                data: Any = False) -> Symbol:  # fmt: skip
    """Return the symbol that a file or text describes.

    Raises:
        GraphError: it cannot be one.
    """
    try:
        check_symbol(name, min, max)
        check_symbol(name, hint, None)
    except ValueError as error:
        raise GraphError(str(error)) from None
    if type(data) is not bool:
        raise GraphError(f"dim {name!r}: data is {data!r:.60}")
    return Symbol(name, min, max, data, hint)
