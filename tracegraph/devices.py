"""Devices: the CPU (NumPy) and CUDA GPUs (CuPy). No device is part of a graph."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tracegraph.errors import DeviceError
from tracegraph.storage import AbstractArray


class Device:
    """`Device("cpu")`, `Device("cuda")`, `Device("cuda:1")`, `Device("cuda", 1)`."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, kind: Any, index: int | None = None) -> None:
        if isinstance(kind, Device):
            kind, index = kind.type, kind.index
        name, _, number = str(kind).partition(":")
        if name not in ("cpu", "cuda"):
            raise DeviceError(f"no device type {name!r}; there are cpu and cuda")
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Device(other)
        if not isinstance(other, Device):
            return NotImplemented
        return self.type == other.type and (self.index or 0) == (other.index or 0)

    def __hash__(self) -> int:
        return hash((self.type, self.index or 0))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        inner = f"type='{self.type}'" + ("" if self.index is None else f", index={self.index}")
        return f"device({inner})"

    def place(self, array: Any) -> Any:
        """Return a copy of an array in this device's memory."""
        if self.type == "cpu":
            return array.get() if hasattr(array, "get") else array.copy()
        cupy = cupy_or_error()
        with cupy.cuda.Device(self.index or 0):
            return cupy.asarray(array)


_CPU = Device("cpu")


def parse_device(spec: Any) -> Device:
    """Return the Device for a spec: None is the CPU, an int is that CUDA device.

    Raises:
        DeviceError: an unknown device type.
    """
    if spec is None:
        return _CPU
    if isinstance(spec, Device):
        return spec
    return Device("cuda", spec) if isinstance(spec, int) else Device(spec)


def device_of(array: Any) -> Device:
    """Return the Device that an array lives on."""
    if isinstance(array, (np.ndarray, np.generic, AbstractArray)):
        return _CPU
    return Device("cuda", int(array.device.id))


@cache
def cuda_count() -> int:
    """Number of usable CUDA devices: 0 where CuPy or a driver is missing."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:
        return 0


def cupy_or_error() -> Any:
    """Return the CuPy module.

    Raises:
        DeviceError: CuPy is not installed, or there is no GPU.
    """
    if not cuda_count():
        raise DeviceError(
            "no CUDA device is available: install tracegraph[gpu] on a machine with an NVIDIA "
            "driver, or use device='cpu'"
        )
    import cupy

    return cupy


def module_of(device: Device) -> Any:
    """Return NumPy or CuPy for a device."""
    return np if device.type == "cpu" else cupy_or_error()
