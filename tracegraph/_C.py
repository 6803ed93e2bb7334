"""What programs ask of PyTorch's compiled part: whether a trace runs; switches without effect."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import DType as dtype
from tracegraph.eager.tensors import Size as Size
from tracegraph.eager.tensors import Tensor as TensorBase
from tracegraph.jit import is_tracing
from tracegraph.linalg import LinAlgError as _LinAlgError
from tracegraph.nn import functional as _nn
from tracegraph.random import Generator as Generator

__all__ = ["Generator", "Size", "TensorBase", "_LinAlgError", "_get_tracing_state", "_nn", "dtype"]

_TensorBase = TensorBase


def _get_tracing_state() -> bool | None:
    """Return something true while a trace runs, else None."""
    return is_tracing() or None


def _log_api_usage_once(name: str) -> None:
    """Do nothing."""


def _switch(*options: Any) -> bool:
    """Change nothing; what was asked for is off."""
    return False


_jit_set_profiling_mode = _jit_set_profiling_executor = _jit_set_texpr_fuser_enabled = _switch
_jit_set_autocast_mode = _jit_set_nvfuser_enabled = _get_graph_executor_optimize = _switch
_jit_override_can_fuse_on_cpu = _jit_override_can_fuse_on_gpu = _switch
_jit_can_fuse_on_cpu = _jit_can_fuse_on_gpu = _switch
