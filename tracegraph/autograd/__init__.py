"""Differentiation: the face of `torch.autograd`."""

from __future__ import annotations

import importlib
from typing import Any

from tracegraph.autograd import function
from tracegraph.autograd.anomaly import detect_anomaly, set_detect_anomaly
from tracegraph.autograd.differentiation import backward, grad
from tracegraph.autograd.function import Function, FunctionCtx
from tracegraph.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from tracegraph.autograd.variable import Variable

__all__ = [
    "Function",
    "FunctionCtx",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def __getattr__(name: str) -> Any:
    """Import what is seldom used at first use."""
    if name in ("gradcheck", "gradgradcheck"):
        return getattr(importlib.import_module("tracegraph.autograd.numerical"), name)
    if name in ("functional", "profiler"):
        return importlib.import_module(f"tracegraph.autograd.{name}")
    raise AttributeError(f"module 'tracegraph.autograd' has no attribute {name!r}")


def _is_checkpoint_valid() -> bool:
    """Whether the backward pass that runs may run another one, as checkpointing does: always."""
    return True
