"""Symbolic sizes while a graph runs: where they come from, and nodes made ready for given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tracegraph.dims.expressions import Symbol
from tracegraph.dims.shapes import mentions, replaced, symbols_of, with_sizes
from tracegraph.dims.symint import SymInt
from tracegraph.errors import GraphError, SizesError
from tracegraph.ir.control import FACT, SCAN, has_effect
from tracegraph.ir.graph import SOURCES, Graph, Node, Value

# Sizes for which a node is kept ready.
_MAX_KEPT: Final = 64
# What an op gets for a size that it is to find: whatever there is.
_ANY: Final = -1


def bare_dims(values: Iterable[Value]) -> Iterator[tuple[str, Value, int]]:
    """Yield the dims of Values that are one symbol: its name, the Value, and which dim."""
    for value in values:
        for axis, size in enumerate(value.type.shape):
            symbol = size.expr.symbol if isinstance(size, SymInt) else None
            if symbol is not None:
                yield symbol.name, value, axis


def sizes_read(node: Node) -> dict[str, Symbol]:
    """Return the sizes that a node needs to run, by name; those that it finds itself too."""
    if node.op == FACT:
        known = node.attrs.get("sizes", {})
        found = node.attrs["relation"].expr.symbols()
        return {name: symbol for name, symbol in found.items() if name not in known}
    found = symbols_of(node.attrs.values())
    if node.op == SCAN:  # what it stacks has a shape where there is no step, too
        found.update(symbols_of(v.type.shape for v in node.regions["body"].outputs))
    for region in node.regions.values():
        inner = {name: s for n in region.nodes for name, s in sizes_read(n).items()}
        own = {name for name, value, _ in bare_dims(v for n in region.nodes for v in n.outs)
               if inner.get(name) and inner[name].data and value.node.op != "input"}  # fmt: skip
        found.update((name, s) for name, s in inner.items() if name not in own)
    return found


def sizes_first(order: Sequence[Node]) -> Sequence[Node]:
    """Return nodes in an order where sizes that follow from data are found before they are read.

    The edges of a graph do not tell, since a size is no operand.
    """
    reads = {node: {name for name, s in sizes_read(node).items() if s.data} for node in order}
    wanted = {name for names in reads.values() for name in names}
    if not wanted:
        return order
    finders: dict[str, Node] = {}  # a source, or the oldest: others with such a dim may read it
    for node in sorted(order, key=lambda node: (node.op not in SOURCES, node.seq)):
        for name, _, _ in bare_dims(node.outs):
            if name in wanted:
                finders.setdefault(name, node)
    ordered: list[Node] = []
    done: set[Node] = set()
    known = set(order)
    for first in order:
        stack = [first]
        while stack:
            node = stack[-1]
            before = [v.node for v in node.inputs]
            before += [finders[n] for n in sorted(reads[node]) if finders.get(n, node) is not node]
            left = [n for n in before if n not in done and n in known]
            if not left:
                stack.pop()
                if node not in done:
                    done.add(node)
                    ordered.append(node)
            elif len(stack) > len(order):
                raise GraphError(f"{node.op} at {node.loc} needs a size that follows from itself")
            else:
                stack += left
    return ordered


def facts_early(order: Sequence[Node]) -> list[Node]:
    """Return nodes in an order where facts about inputs come before what is costly.

    They stay behind whatever else may stop a replay: a guard on the same sizes says more.
    """
    ordered: list[Node] = []
    place = 0
    for node in order:
        if node.op == FACT and not any(s.data for s in sizes_read(node).values()):
            ordered.insert(place, node)
            place += 1
        else:
            ordered.append(node)
            if has_effect(node):
                place = len(ordered)
    return ordered


def check_fact(node: Node) -> Callable[[], tuple[Any, ...]]:
    """Return what checks a fact whose sizes are known."""
    relation, sizes = node.attrs["relation"], node.attrs.get("sizes", {})

    def check() -> tuple[Any, ...]:
        if not relation.holds(sizes):
            place = f" at {node.loc}" if node.loc is not None else ""
            shown = ", ".join(f"{name} = {size}" for name, size in sorted(sizes.items()))
            raise SizesError(
                f"{relation} does not hold for these inputs ({shown}), and the trace relies on it"
                f"{place}: nothing was written. Give inputs of other sizes, or trace this function "
                "with such an example"
            )
        return ()

    return check


def ready_for_sizes(
    node: Node, names: Sequence[str], prepare: Callable[[Node], Callable[..., Any]]
) -> Callable[..., Any]:
    """Return what runs a node on the sizes by `names`, then its operands.

    Sizes not among `names` are those that the node finds.
    """
    kept: dict[tuple[Any, ...], Callable[..., Any]] = {}
    count = len(names)

    def made(sizes: Sequence[Any]) -> Callable[..., Any]:
        return prepare(_specialised(node, dict(zip(names, sizes, strict=True)), True))

    def run(*values: Any) -> Any:
        sizes = values[:count]
        if mentions(sizes):  # of a trace that this graph runs in: they mean it alone
            return made(sizes)(*values[count:])
        call = kept.get(sizes)
        if call is None:
            if len(kept) >= _MAX_KEPT:
                kept.clear()
            call = kept[sizes] = made(sizes)
        return call(*values[count:])

    return run


def _specialised(node: Node, sizes: Mapping[str, Any], whole: bool = False) -> Node:
    """Return a node (in no graph) with sizes put in, its regions' nodes too."""
    made = Node()
    made.op, made.inputs, made.outs = node.op, node.inputs, node.outs
    made.seq, made.loc, made.scope = node.seq, node.loc, node.scope
    made.attrs = _put_in(node, sizes, whole)
    made.regions = {name: specialised(region, sizes) for name, region in node.regions.items()}
    return made


def specialised(region: Graph, sizes: Mapping[str, Any]) -> Graph:
    """Return a copy of a graph with sizes put in."""
    made = region.copy()
    for node in made.order():
        node.attrs = _put_in(node, sizes, False)
        for value in node.outs:
            shape = replaced(value.type.shape, lambda s: _value(s, sizes, False))
            value.type = value.type.with_shape(shape)
        node.regions = {name: specialised(inner, sizes) for name, inner in node.regions.items()}
    return made


def _put_in(node: Node, sizes: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    if node.op == FACT:
        return {**node.attrs, "sizes": {**node.attrs.get("sizes", {}), **sizes}}
    return {n: replaced(v, lambda s: _value(s, sizes, whole)) for n, v in node.attrs.items()}


def _value(size: SymInt, sizes: Mapping[str, Any], whole: bool) -> Any:
    """What a size is; `whole` says that those still unknown are what the node is to find."""
    if whole and size.expr.symbol is not None and size.expr.symbol.name not in sizes:
        return _ANY
    return with_sizes(size, sizes)
