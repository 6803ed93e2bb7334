"""Mixed precision under its older name: see `tracegraph.amp`."""

from __future__ import annotations

from typing import Any

from tracegraph.amp import GradScaler, custom_bwd, custom_fwd
from tracegraph.amp import autocast as _autocast
from tracegraph.module_names import also_named

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


class autocast(_autocast):  # noqa: N801
    """A context manager and decorator that changes nothing."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


also_named(__name__, "autocast_mode grad_scaler")
