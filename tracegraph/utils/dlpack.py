"""Arrays handed to and taken from other libraries without a copy: `torch.utils.dlpack`."""

from __future__ import annotations

from typing import Any

from tracegraph.api.creation import from_dlpack
from tracegraph.eager.tensors import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """Return a capsule that stands for the tensor's memory."""
    return tensor.__dlpack__()
