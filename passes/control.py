"""Dead code through regions: what a control node takes and gives that nobody needs."""

from __future__ import annotations

from tracegraph.ir.control import COND, SCAN, WHILE_LOOP, has_effect
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.passes.rewriting import erase_unread


def trim_control(graph: Graph) -> int:
    """Drop results of `cond`, `while_loop` and `scan` that nobody reads, and unused operands."""
    nodes = [n for n in reversed(graph.order()) if n.op in (COND, SCAN, WHILE_LOOP)]
    return sum(_trim(graph, node) for node in nodes) if nodes else 0


def _trim(graph: Graph, node: Node) -> bool:
    results, reached = _needed(graph, node)
    carried = node.attrs.get("carried", 0)
    given = node.inputs[1:] if node.op == COND else node.inputs
    operands = [k for k in range(len(given)) if k in (results if k < carried else reached)]
    if (len(results), len(operands)) == (len(node.outs), len(given)) or not results:
        return False
    for name, region in node.regions.items():
        if not _decides(node, name):
            region.outputs = [v for i, v in enumerate(region.outputs) if i in results]
        erase_unread(region, region.order())
        for number, x in enumerate(list(region.inputs)):
            if number not in operands:
                region.erase(x)
    attrs = dict(node.attrs)
    if carried:
        attrs["carried"] = sum(k < carried for k in operands)
    if node.op == SCAN:
        attrs["scanned"] = sum(0 <= k - carried < attrs["scanned"] for k in operands)
    inputs = [*node.inputs[: len(node.inputs) - len(given)], *(given[k] for k in operands)]
    kept = [v for i, v in enumerate(node.outs) if i in results]
    made = graph.add(
        node.op, inputs, attrs, [v.type for v in kept], like=node, regions=node.regions
    )
    for old, new in zip(kept, made.outs, strict=True):
        graph.replace_all_uses(old, new)
    graph.erase(node)
    return True


def _needed(graph: Graph, node: Node) -> tuple[set[int], set[int]]:
    """Return the numbers of results that are needed, and of region inputs that are read for them.

    What is carried is needed as a result where a step reads it.
    """
    held = {*graph.outputs, *graph.writes.values()}
    results = {i for i, v in enumerate(node.outs) if v in held or graph.users(v)}
    while True:
        reached: set[int] = set()
        for name, region in node.regions.items():
            needed = [
                v for i, v in enumerate(region.outputs) if i in results or _decides(node, name)
            ]
            reached |= _inputs_reached(region, needed)
        more = {k for k in reached if k < node.attrs.get("carried", 0)}
        if more <= results:
            return results, reached
        results |= more


def _decides(node: Node, region: str) -> bool:
    return node.op == WHILE_LOOP and region == "condition"


def _inputs_reached(region: Graph, values: list[Value]) -> set[int]:
    """Return the numbers of inputs that Values, or nodes with an effect, depend on."""
    stack = [v.node for v in values] + [n for n in region.nodes if has_effect(n)]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [v.node for v in node.inputs]
    return {number for number, x in enumerate(region.inputs) if x in seen}
