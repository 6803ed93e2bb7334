"""The CPU as a device, under the names that `cuda` has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tracegraph.amp import GradScaler
from tracegraph.amp import autocast as _autocast


class _Autocast(_autocast):
    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)


amp = SimpleNamespace(autocast=_Autocast, GradScaler=GradScaler)


def is_available() -> bool:
    """Whether the CPU can be used."""
    return True


def is_initialized() -> bool:
    """Whether the CPU is ready."""
    return True


def device_count() -> int:
    """Return 1."""
    return 1


def current_device() -> str:
    """Return "cpu"."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Return at once: work is done when a call returns."""
