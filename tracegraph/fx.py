"""The part of `torch.fx` that model code touches without tracing symbolically."""

from __future__ import annotations

from typing import Any


def wrap(fn_or_name: Any) -> Any:
    """Mark a function as a leaf for symbolic tracers; `tracegraph.trace` needs no marks."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError(f"wrap expects a function or its name, got {fn_or_name!r}")
    return fn_or_name
