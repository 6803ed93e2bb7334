"""The pass pipeline (to be replaced)."""

from __future__ import annotations

from typing import Any

from tracegraph.ir.graph import Graph


def run_passes(graph: Graph, level: int, *, report: Any = None, check: bool = False) -> None:
    """Run the passes of a level."""
