"""The choice of a kernel for attention, which programs make; there is one kernel here."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SDPBackend(enum.IntEnum):
    """Names of kernels."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """Accept a choice of kernels; results do not depend on it."""
    chosen = backends if isinstance(backends, (list, tuple)) else [backends]
    if not chosen or not all(isinstance(backend, SDPBackend) for backend in chosen):
        raise TypeError("backends must be an SDPBackend or a list of them")
    yield
