"""Switches of CUDA: kept, without effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

matmul = SimpleNamespace(
    allow_tf32=False,
    allow_fp16_reduced_precision_reduction=True,
    allow_bf16_reduced_precision_reduction=True,
)


def is_built() -> bool:
    """Whether CUDA can be used where there is a device: yes."""
    return True


def _on() -> bool:
    return True


flash_sdp_enabled = mem_efficient_sdp_enabled = math_sdp_enabled = _on


def enable_flash_sdp(enabled: bool) -> None:
    """Accept a choice of attention kernel."""


enable_mem_efficient_sdp = enable_math_sdp = enable_cudnn_sdp = enable_flash_sdp


@contextmanager
def sdp_kernel(*options: Any, **switches: Any) -> Iterator[None]:
    """Accept a choice of attention kernel within a block."""
    yield
