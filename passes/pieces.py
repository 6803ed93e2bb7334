"""Sums of pieces that lie side by side in zeros, as gradients of slices are, as their cat."""

from __future__ import annotations

from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.passes.rewriting import Maker, rewrite, table


def join_pads(graph: Graph) -> int:
    """Write sums of neighbouring pieces in zeros as their cat: exact but for the sign of zeros."""
    return rewrite(graph, _RULES)


def _sum_of_pads(make: Maker, node: Node) -> Value | None:
    x, y = node.inputs
    joined = _joined(make, x, y)
    if joined is not None:
        return joined
    for total, piece in ((x, y), (y, x)):
        if total.node.op != "add" or len(make.graph.users(total)) > 1:
            continue
        for one, other in (total.node.inputs, total.node.inputs[::-1]):
            joined = _joined(make, one, piece)
            if joined is not None:
                return make.op("add", joined, other)
    return None


def _joined(make: Maker, x: Value, y: Value) -> Value | None:
    """The sum of two pads whose pieces touch along one dim, as a pad of one piece."""
    if not (_is_piece(x) and _is_piece(y) and x.type == y.type):
        return None
    x_pads, y_pads = x.node.attrs["pads"], y.node.attrs["pads"]
    dims = [d for d, (p, q) in enumerate(zip(x_pads, y_pads, strict=True)) if p != q]
    if len(dims) != 1:
        return None
    dim, size = dims[0], x.type.shape[dims[0]]
    if x_pads[dim][0] > y_pads[dim][0]:
        x, y, x_pads, y_pads = y, x, y_pads, x_pads
    if size - x_pads[dim][1] != y_pads[dim][0]:
        return None
    made = make.op("cat", x.node.inputs[0], y.node.inputs[0], dim=dim)
    pads = (*x_pads[:dim], (x_pads[dim][0], y_pads[dim][1]), *x_pads[dim + 1 :])
    return make.op("pad", made, pads=pads, value=0.0) if any(map(any, pads)) else made


def _is_piece(value: Value) -> bool:
    """Whether a Value is something amid zeros, at places that are known."""
    node = value.node
    if node.op != "pad" or node.attrs["value"] != 0:
        return False
    pads = node.attrs["pads"]
    return all(type(n) is int and n >= 0 for pair in pads for n in pair) and all(
        type(n) is int for n in value.type.shape
    )


_RULES = table({"add": _sum_of_pads})
