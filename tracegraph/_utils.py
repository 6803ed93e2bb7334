"""Helpers that programs import though their names begin with an underscore, and their like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.shape import cat
from tracegraph.eager.tensors import Tensor


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Return the elements of all tensors in one dim."""
    return cat([t.contiguous().view(-1) for t in tensors])


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return views of one dim's elements in the shapes of `tensors`."""
    parts = flat.split([t.numel() for t in tensors])
    return tuple(part.view_as(t) for part, t in zip(parts, tensors, strict=True))


def _assert(condition: Any, message: Any) -> None:
    """Raise AssertionError unless the condition holds."""
    assert condition, message


def typename(obj: Any, /) -> str:
    """Return the name of a value's type: `"torch.FloatTensor"` for a tensor."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = type(obj)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"
