"""Switches of cuDNN: kept, without effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

enabled = True
benchmark = False
benchmark_limit = 10
deterministic = False
allow_tf32 = True


def is_available() -> bool:
    """Whether convolutions go through cuDNN's own interface: no."""
    return False


def version() -> None:
    """Return None: there is no cuDNN."""


def is_acceptable(tensor: Any) -> bool:
    """Whether cuDNN can be used for a tensor: no."""
    return False


@contextmanager
def flags(**options: Any) -> Iterator[None]:
    """Set switches within a block."""
    before = {name: globals()[name] for name in options}
    globals().update(options)
    try:
        yield
    finally:
        globals().update(before)
