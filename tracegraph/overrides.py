"""Functions taken over by classes that look like tensors: there are none of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tracegraph.eager.tensors import Tensor

__all__ = [
    "handle_torch_function", "has_torch_function", "has_torch_function_unary",
    "has_torch_function_variadic", "is_tensor_like",
]  # fmt: skip


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether another class takes the call over: never."""
    return False


def has_torch_function_unary(x: Any) -> bool:
    """Whether another class takes the call over: never."""
    return False


def has_torch_function_variadic(*args: Any) -> bool:
    """Whether another class takes the call over: never."""
    return False


def handle_torch_function(
    public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """Call the function."""
    return public_api(*args, **kwargs)


def is_tensor_like(inp: Any) -> bool:
    """Whether a value is a tensor."""
    return isinstance(inp, Tensor)
