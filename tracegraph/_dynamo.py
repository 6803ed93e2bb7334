"""Settings of PyTorch's compiler: they can be set, and change nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tracegraph.capture.compiling import allow_in_graph, disable, is_compiling, reset
from tracegraph.capture.compiling import compile as optimize

__all__ = ["allow_in_graph", "config", "disable", "is_compiling", "mark_dynamic", "optimize",
           "reset"]  # fmt: skip

config = SimpleNamespace(
    cache_size_limit=8, capture_scalar_outputs=False, recompile_limit=8, suppress_errors=False,
    verbose=False,
)  # fmt: skip


def mark_dynamic(t: Any, index: Any, **options: Any) -> None:
    """Do nothing: `compile` makes a graph for each size."""
