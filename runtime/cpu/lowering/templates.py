"""Which ops have templates: one function each that adds steps to a lowering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tracegraph.ir.control import SCAN
from tracegraph.ir.graph import KERNEL, Graph, Node, Value
from tracegraph.ops.core import ELEMENTWISE
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.attentions import attentions
from tracegraph.runtime.cpu.lowering.draws import lower_draw
from tracegraph.runtime.cpu.lowering.extremes import lower_extreme_place
from tracegraph.runtime.cpu.lowering.fused_convolutions import lower_weight_grad
from tracegraph.runtime.cpu.lowering.indexed import (
    lower_gather,
    lower_index,
    lower_index_put,
    lower_scatter,
)
from tracegraph.runtime.cpu.lowering.loops import lower_loop
from tracegraph.runtime.cpu.lowering.lowering import PRODUCTS, Lowering, lower_alone, lower_nest
from tracegraph.runtime.cpu.lowering.numbered import (
    lower_diagonal_scatter,
    lower_flip,
    lower_iota,
    lower_triangle,
)
from tracegraph.runtime.cpu.lowering.pooling import (
    lower_avg_pool,
    lower_avg_pool_grad,
    lower_max_pool,
    lower_max_pool_grad,
)
from tracegraph.runtime.cpu.lowering.recurrent import RECURRENT, lower_recurrent
from tracegraph.runtime.cpu.lowering.resampling import lower_resize, lower_resize_grad
from tracegraph.runtime.cpu.lowering.scans import SCANS, lower_scan
from tracegraph.runtime.cpu.lowering.searching import lower_searchsorted
from tracegraph.runtime.cpu.lowering.selection import lower_selection
from tracegraph.runtime.cpu.lowering.unfolding import lower_fold, lower_unfold, padded

Template = Callable[[Lowering, Node], None]


def _cat(low: Lowering, node: Node) -> None:
    operands = [low.place(v) for v in node.inputs]
    made, dim, start = low.new(node.out, operands), node.attrs["dim"], 0
    for x in operands:
        stop = start + x.shape[dim]
        index = [(start, stop, 1) if d == dim else (0, n, 1) for d, n in enumerate(made.shape)]
        low.copy(x, places.cut(made, index), node)
        start = stop


def _slice_scatter(low: Lowering, node: Node) -> None:
    x, y = (low.place(v) for v in node.inputs)
    made = low.new(node.out, [x])
    low.copy(x, made, node)
    low.copy(y, places.cut(made, node.attrs["index"]), node)


def _pad(low: Lowering, node: Node) -> None:
    x = low.place(node.inputs[0])
    made = low.new(node.out, [x])
    padded(low, node, x, node.attrs["pads"], node.attrs["value"], made)


def _full(low: Lowering, node: Node) -> None:
    one = low.number(node.attrs["value"], node.out.type.dtype)
    low.places[node.out] = places.expand(one, node.out.type.shape)


def _scan(low: Lowering, node: Node) -> None:
    body = node.regions["body"]
    lower_loop(low, node, delays(body, body.order()))


def _copy(low: Lowering, node: Node) -> None:
    low.copy(low.place(node.inputs[-1]), low.new(node.out), node)


TEMPLATES: Final[dict[str, Template]] = {
    KERNEL: lower_nest,
    "cat": _cat,
    "slice_scatter": _slice_scatter,
    "pad": _pad,
    "full": _full,
    "copy": _copy,
    "overwrite": _copy,
    SCAN: _scan,
    "index": lower_index,
    "index_put": lower_index_put,
    "gather": lower_gather,
    "iota": lower_iota,
    "flip": lower_flip,
    "draw": lower_draw,
    "diagonal_scatter": lower_diagonal_scatter,
    "unfold_windows": lower_unfold,
    "fold_windows": lower_fold,
    **dict.fromkeys(("tril", "triu"), lower_triangle),
    **dict.fromkeys(("argmax", "argmin", "max_at", "min_at"), lower_extreme_place),
    **dict.fromkeys(("sort", "topk"), lower_selection),
    "searchsorted": lower_searchsorted,
    **dict.fromkeys(SCANS, lower_scan),
    "resize": lower_resize,
    "resize_grad": lower_resize_grad,
    **dict.fromkeys(("max_pool", "max_pool_indices"), lower_max_pool),
    "max_pool_grad": lower_max_pool_grad,
    "avg_pool": lower_avg_pool,
    "avg_pool_grad": lower_avg_pool_grad,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), lower_scatter),
    **dict.fromkeys(PRODUCTS, lower_alone),
    **dict.fromkeys(RECURRENT, lower_recurrent),
    "convolution_weight_grad": lower_weight_grad,
}


def delays(graph: Graph, order: Sequence[Node]) -> dict[Value, Node]:
    """Return the Values that are computed where their only reader is, which may take them in."""
    results = set(graph.results())
    found = attentions(graph, order)
    for node in order:
        if (
            node.op not in PRODUCTS
            or node.out in results
            or found.keys() & {*node.inputs, node.out}
        ):
            continue
        reader, *others = graph.successors(node) or [node]
        taken = any(v in found for v in reader.inputs)
        if not others and not taken and _takes_in(reader, node):
            found[node.out] = node
    return found


def _takes_in(reader: Node, node: Node) -> bool:
    """Whether a node is elementwise over what another one gives."""
    if reader is node:
        return False
    if reader.op == KERNEL:
        fits = reader.attrs["kind"] == "pointwise"
    else:
        fits = reader.op in OPS and ELEMENTWISE in reader.row.traits
    return fits and all(v.type.shape == node.out.type.shape for v in reader.outs)
