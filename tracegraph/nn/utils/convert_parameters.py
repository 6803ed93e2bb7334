"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.api import shape
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import DeviceError


def _on_one_device(parameters: list[Tensor]) -> None:
    if len({p.device for p in parameters}) > 1:
        raise DeviceError(
            "Found two parameters on different devices, this is currently not supported."
        )


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Return all elements, one tensor after the other: f[total].

    Raises:
        DeviceError: they live on several devices.
    """
    parts = list(parameters)
    _on_one_device(parts)
    return shape.cat([p.reshape(-1) for p in parts])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Any]) -> None:
    """Let Parameters stand for the pieces of a vector.

    Raises:
        TypeError: `vec` is not a tensor.
        DeviceError: the Parameters live on several devices.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    parts = list(parameters)
    _on_one_device(parts)
    start = 0
    for p in parts:
        stop = start + p.numel()
        p.data = vec[start:stop].reshape(p.shape).data
        start = stop
