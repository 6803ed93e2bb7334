"""One type for what several branches give: a size that each fixes to its own number is one dim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.dims.expressions import Symbol
from tracegraph.dims.shapes import same
from tracegraph.dims.symint import SymInt, variable
from tracegraph.ir.control import FACT
from tracegraph.ir.graph import Graph


def unify_results(graphs: Sequence[Graph]) -> None:
    """Give the results of branches the dims that they share.

    A branch for three sequences gives f32[3,1], one for two f32[2,1]; where the facts of each say
    that `batch` is that number, both give f32[batch,1].
    """
    fixed = [_fixed(graph) for graph in graphs]
    for place, values in enumerate(zip(*(g.outputs for g in graphs), strict=True)):
        shapes = [v.type.shape for v in values]
        if len({len(shape) for shape in shapes}) > 1:
            continue
        wanted = tuple(_shared(sizes, fixed) for sizes in zip(*shapes, strict=True))
        if None in wanted:
            continue
        for graph, value in zip(graphs, values, strict=True):
            if not same(value.type.shape, wanted):
                made = graph.add(
                    "reshape", (value,), {"shape": wanted}, (value.type.with_shape(wanted),),
                    like=value.node,
                )  # fmt: skip
                made.seq = max(n.seq for n in graph.nodes)  # behind the facts
                graph.outputs[place] = made.out


def _fixed(graph: Graph) -> dict[str, tuple[Symbol, int]]:
    """The symbols that the facts of a graph fix, by name, with their sizes."""
    facts = (n.attrs["relation"].pinned for n in graph.nodes if n.op == FACT)
    return {pinned[0].name: pinned for pinned in facts if pinned is not None}


def _shared(sizes: Sequence[Any], fixed: Sequence[dict[str, tuple[Symbol, int]]]) -> Any:
    """A dim that is each of `sizes` in its branch, None where there is none."""
    if all(same(sizes[0], size) for size in sizes):
        return sizes[0]
    names = [set(known) for known in fixed]
    symbols = [n.expr.symbol for n in sizes if isinstance(n, SymInt)]
    for name in sorted(set.union(*names, {s.name for s in symbols if s is not None})):
        known = [k.get(name) for k in fixed]
        if all(_is(size, name, k) for size, k in zip(sizes, known, strict=True)):
            symbol = next((k[0] for k in known if k is not None), None)
            return variable(symbol or next(s for s in symbols if s is not None and s.name == name))
    return None


def _is(size: Any, name: str, known: tuple[Symbol, int] | None) -> bool:
    """Whether a size is a symbol, or the number that it is fixed to."""
    if isinstance(size, SymInt):
        symbol = size.expr.symbol
        return symbol is not None and symbol.name == name
    return known is not None and known[1] == size
