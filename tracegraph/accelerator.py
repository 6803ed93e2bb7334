"""The accelerator of this machine, whatever it is: a CUDA device, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tracegraph import cuda
from tracegraph.devices import Device


def is_available() -> bool:
    """Whether there is an accelerator."""
    return cuda.is_available()


def device_count() -> int:
    """Number of accelerators."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """Return the device type of the accelerator, None where there is none."""
    return Device("cuda") if is_available() else None


def current_device_index() -> int:
    """Return the number of the present accelerator.

    Raises:
        DeviceError: there is none.
    """
    return cuda.current_device()


current_device_idx = current_device_index


def set_device_index(device: Any, /) -> None:
    """Make an accelerator the present one.

    Raises:
        DeviceError: there is none.
    """
    cuda.set_device(device)


set_device_idx = set_device_index


@contextmanager
def device_index(device: int | None, /) -> Iterator[None]:
    """Make an accelerator the present one inside a `with` statement; None changes nothing."""
    if device is None:
        yield
        return
    before = cuda.current_device()
    cuda.set_device(device)
    try:
        yield
    finally:
        cuda.set_device(before)


def synchronize(device: Any = None, /) -> None:
    """Wait until the accelerator has done its work.

    Raises:
        DeviceError: there is none.
    """
    cuda.synchronize(device)


def empty_cache() -> None:
    """Give unused memory back to the device."""
    if is_available():
        cuda.empty_cache()


def memory_allocated(device: Any = None, /) -> int:
    """Bytes that tensors take on the accelerator."""
    return int(cuda.memory_allocated(device)) if is_available() else 0


def max_memory_allocated(device: Any = None, /) -> int:
    """Most bytes that tensors took on the accelerator."""
    return int(cuda.max_memory_allocated(device)) if is_available() else 0
