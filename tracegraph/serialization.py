"""`save` and `load` under their other name, with the lists of safe classes that PyTorch keeps.

Files of tracegraph hold no classes, so nothing is looked up in these lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.files.archive import load
from tracegraph.files.saving import save

__all__ = [
    "add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save",
]  # fmt: skip

MAP_LOCATION = Any
_safe: list[Any] = []


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Say that classes are safe."""
    _safe.extend(g for g in safe_globals if g not in _safe)


def get_safe_globals() -> list[Any]:
    """Return the classes that were said to be safe."""
    return list(_safe)


def clear_safe_globals() -> None:
    """Forget them."""
    _safe.clear()


class safe_globals:  # noqa: N801
    """Says that classes are safe inside a `with` statement."""

    def __init__(self, safe_globals: Iterable[Any]) -> None:
        self._added = list(safe_globals)
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before = list(_safe)
        add_safe_globals(self._added)

    def __exit__(self, *exc: object) -> None:
        _safe[:] = self._before
