"""Which ops have templates: one function each that adds steps to a lowering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tracegraph.ir.control import SCAN
from tracegraph.ir.graph import KERNEL, Graph, Node, Value
from tracegraph.ops.core import ELEMENTWISE
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.late import late
from tracegraph.runtime.cpu.lowering.lowering import PRODUCTS, Lowering, lower_alone, lower_nest

Template = Callable[[Lowering, Node], None]
_SCANS: Final = ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
_RECURRENT: Final = ("rnn", "lstm", "gru", "rnn_grad", "lstm_grad", "gru_grad")


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
    from tracegraph.runtime.cpu.lowering.unfolding import padded

    x = low.place(node.inputs[0])
    made = low.new(node.out, [x])
    padded(low, node, x, node.attrs["pads"], node.attrs["value"], made)


def _full(low: Lowering, node: Node) -> None:
    one = low.number(node.attrs["value"], node.out.type.dtype)
    low.places[node.out] = places.expand(one, node.out.type.shape)


def _scan(low: Lowering, node: Node) -> None:
    from tracegraph.runtime.cpu.lowering.loops import lower_loop

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
    "overwrite_view": _copy,
    SCAN: _scan,
    "index": late("indexed.lower_index"),
    "index_put": late("indexed.lower_index_put"),
    "gather": late("indexed.lower_gather"),
    "iota": late("numbered.lower_iota"),
    "flip": late("numbered.lower_flip"),
    "draw": late("draws.lower_draw"),
    "diagonal_scatter": late("numbered.lower_diagonal_scatter"),
    "unfold_windows": late("unfolding.lower_unfold"),
    "fold_windows": late("unfolding.lower_fold"),
    **dict.fromkeys(("tril", "triu"), late("numbered.lower_triangle")),
    **dict.fromkeys(("argmax", "argmin", "max_at", "min_at"), late("extremes.lower_extreme_place")),
    **dict.fromkeys(("sort", "topk"), late("selection.lower_selection")),
    "searchsorted": late("searching.lower_searchsorted"),
    **dict.fromkeys(_SCANS, late("scans.lower_scan")),
    "resize": late("resampling.lower_resize"),
    "resize_grad": late("resampling.lower_resize_grad"),
    **dict.fromkeys(("max_pool", "max_pool_indices"), late("pooling.lower_max_pool")),
    "max_pool_grad": late("pooling.lower_max_pool_grad"),
    "avg_pool": late("pooling.lower_avg_pool"),
    "avg_pool_grad": late("pooling.lower_avg_pool_grad"),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), late("indexed.lower_scatter")),
    **dict.fromkeys(PRODUCTS, lower_alone),
    **dict.fromkeys(_RECURRENT, late("recurrent.lower_recurrent")),
    "convolution_weight_grad": late("fused_convolutions.lower_weight_grad"),
}


def _attentions(graph: Graph, order: Sequence[Node]) -> dict[Value, Node]:
    if not any(node.op == "matmul" for node in order):
        return {}
    from tracegraph.runtime.cpu.lowering.attentions import attentions

    return attentions(graph, order)


def delays(graph: Graph, order: Sequence[Node]) -> dict[Value, Node]:
    """Return the Values that are computed where their only reader is, which may take them in."""
    results = set(graph.results())
    found = _attentions(graph, order)
    for node in order:
        if (
            node.op not in PRODUCTS
            or node.out.type.dtype.is_complex
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
