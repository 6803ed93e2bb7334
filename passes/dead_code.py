"""Dead code: nodes whose results nobody reads."""

from __future__ import annotations

from tracegraph.ir.graph import Graph
from tracegraph.passes.rewriting import erase_unread


def eliminate_dead_code(graph: Graph) -> int:
    """Erase nodes that no output and no write depends on; inputs stay, they are the signature."""
    return erase_unread(graph, graph.order())
