"""Devices: the CPU (NumPy) and CUDA GPUs (CuPy). No device is part of a graph."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from typing import Any, Final

import numpy as np

from tracegraph.eager.storage import AbstractArray, SymbolicArray
from tracegraph.errors import DeviceError


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

    def __enter__(self) -> Device:
        """Make this the device that new tensors are made on."""
        _DEFAULTS.set((self, *_DEFAULTS.get()))
        return self

    def __exit__(self, *exc: object) -> None:
        _DEFAULTS.set(_DEFAULTS.get()[1:])

    def place(self, array: Any) -> Any:
        """Return a copy of an array in this device's memory."""
        if self.type == "cpu":
            return array.get() if hasattr(array, "get") else array.copy()
        cupy = cupy_or_error()
        with cupy.cuda.Device(self.index or 0):
            return cupy.asarray(array)


_CPU = Device("cpu")
_DEFAULTS: Final[ContextVar[tuple[Device, ...]]] = ContextVar("devices", default=())


def get_default_device() -> Device:
    """Return the device that tensors are made on where a program names none."""
    defaults = _DEFAULTS.get()
    return defaults[0] if defaults else _CPU


def set_default_device(device: Any) -> None:
    """Set the device that tensors are made on where a program names none; None is the CPU.

    Raises:
        DeviceError: an unknown device type.
    """
    _DEFAULTS.set((parse_device(device), *_DEFAULTS.get()[1:]))


def device_for_new(spec: Any) -> Device:
    """Return the Device for a new tensor: that of a spec, or the default one."""
    return get_default_device() if spec is None else parse_device(spec)


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
    if isinstance(array, SymbolicArray):
        return device_of(array.array)
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
