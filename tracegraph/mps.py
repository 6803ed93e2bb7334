"""Apple's GPUs, of which there are none here; what programs call all the same does nothing."""

from __future__ import annotations

from tracegraph.random import manual_seed as manual_seed


def is_available() -> bool:
    """Whether there is such a device: no."""
    return False


def device_count() -> int:
    """Return 0."""
    return 0


def synchronize() -> None:
    """Do nothing."""


def empty_cache() -> None:
    """Do nothing."""
