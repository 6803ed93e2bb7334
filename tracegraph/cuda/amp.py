"""Mixed precision under its older name: see `tracegraph.amp`."""

from __future__ import annotations

import sys
from typing import Any

from tracegraph.amp import GradScaler, custom_bwd, custom_fwd
from tracegraph.amp import autocast as _autocast

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


class autocast(_autocast):  # noqa: N801
    """A context manager and decorator that changes nothing."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


autocast_mode = grad_scaler = sys.modules[__name__]
for _name in ("autocast_mode", "grad_scaler"):
    sys.modules[f"{__name__}.{_name}"] = autocast_mode
