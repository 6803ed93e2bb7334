"""Templates that few graphs need are imported when a graph first does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def late(place: str) -> Callable[..., None]:
    """Return the function at "module.name" of this package; its first call imports the module."""

    def lower(*args: Any) -> None:
        _found(place)(*args)

    return lower


@cache
def _found(place: str) -> Callable[..., None]:
    module, _, name = place.partition(".")
    found: Callable[..., None] = getattr(import_module(f"{__package__}.{module}"), name)
    return found
