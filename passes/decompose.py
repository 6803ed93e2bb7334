"""Decomposition: composites written out in primitives, so that other passes see through them."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Final

from tracegraph.dtypes import HALVES, float32
from tracegraph.errors import GraphError, UndecidedError
from tracegraph.ir.dims import reasoning
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.ops.core import COMPOSITE, CONTRACTION, ELEMENTWISE, REDUCTION, Op
from tracegraph.ops.table import OPS
from tracegraph.passes.build import GraphMath, Term, build
from tracegraph.passes.rewriting import erase_unread
from tracegraph.tensor_type import TensorType

# A decomposition of more nodes (a recurrent layer unrolled over time) stays one node if it can.
_MAX_NODES: Final = 48
_ARITHMETIC: Final = {ELEMENTWISE, REDUCTION, CONTRACTION}


def decompose(graph: Graph, keep: Collection[str] = ()) -> int:
    """Replace composites by their decompositions, in float32 where they are of 16-bit floats.

    Contractions (`linear`) stay whole, as do the ops named in `keep` and those whose
    decomposition is long: a runtime has better code for them.
    """
    with reasoning(graph):
        return _decompose(graph, keep)


def _decompose(graph: Graph, keep: Collection[str]) -> int:
    replaced: dict[Value, Value] = {}
    expanded: list[Node] = []
    known: dict[Any, Graph | None] = {}
    for node in graph.order():
        if node.op not in OPS or node.op in keep:
            continue
        try:
            body = _decomposition(node.row, [v.type for v in node.inputs], node.attrs, keep, known)
        except UndecidedError:  # it depends on symbolic sizes
            continue
        if body is None:
            continue
        outs = graph.inline(body, node.inputs, like=node)
        replaced.update(zip(node.outs, outs, strict=True))
        expanded.append(node)
    graph.substitute(replaced)
    erase_unread(graph, expanded)
    return len(expanded)


def _decomposition(
    row: Op, types: list[TensorType], attrs: Any, keep: Collection[str], known: dict[Any, Any]
) -> Graph | None:
    """The primitives that a composite stands for; None where it should stay."""
    if COMPOSITE not in row.traits or CONTRACTION in row.traits or row.decompose is None:
        return None
    key = (row.name, tuple(types), repr(sorted(attrs.items())))
    if key not in known:
        body = written_out(row, types, attrs)
        decompose(body, keep)
        known[key] = body if len(body) <= _MAX_NODES or row.kernel is None else None
    found: Graph | None = known[key]
    return found


def written_out(row: Op, types: list[TensorType], attrs: Any) -> Graph:
    """Return a composite's decomposition for operands of some types, as a closed graph.

    16-bit floats are widened around arithmetic, as the row's kernel does: a float16 sum of
    100 000 ones is not infinite. Operands that the decomposition only moves are not.

    Raises:
        GraphError: the decomposition gives other types than the row.
    """
    assert row.decompose is not None
    results = row.infer(types, attrs)
    body = build(row.name, types, partial(row.decompose, **attrs))
    has_halves = any(t.dtype in HALVES for t in types)
    if has_halves and any(n.op in OPS and n.row.traits & _ARITHMETIC for n in body):
        body = build(row.name, types, partial(_widened, row, results, attrs))
    if [v.type for v in body.outputs] != list(results):
        shown = ", ".join(str(v.type) for v in body.outputs)
        raise GraphError(f"the decomposition of {row.name} gives {shown}, not its type {results}")
    erase_unread(body, body.order())
    return body


def _widened(
    row: Op, results: tuple[TensorType, ...], attrs: Any, m: GraphMath, *terms: Term
) -> list[Any]:
    """The decomposition on float32 operands, with its results cast back."""
    assert row.decompose is not None
    wide = [m.cast(t, dtype=float32) if t.dtype in HALVES else t for t in terms]
    found = row.decompose(m, *wide, **attrs)
    several = found if isinstance(found, (tuple, list)) else (found,)
    return [
        m.cast(t, dtype=known.dtype) if t.dtype is float32 and known.dtype in HALVES else t
        for t, known in zip(several, results, strict=True)
    ]
