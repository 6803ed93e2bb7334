"""CUDA devices, through CuPy. Without one, questions have an answer and the rest raises.

There is one stream of work, so stream and event objects only keep programs running.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tracegraph.api.legacy import construct
from tracegraph.cuda import amp, nvtx
from tracegraph.devices import Device, cuda_count, cupy_or_error, parse_device
from tracegraph.dtypes import bool_, float16, float32, float64, int32, int64, uint8
from tracegraph.eager.tensors import Tensor
from tracegraph.module_names import also_named
from tracegraph.random import Generator, generator_of

__all__ = ["amp", "nvtx"]

OutOfMemoryError = MemoryError


def is_available() -> bool:
    """Whether there is a usable CUDA device."""
    return cuda_count() > 0


def device_count() -> int:
    """Number of usable CUDA devices."""
    return cuda_count()


def is_initialized() -> bool:
    """Whether CUDA can be used."""
    return is_available()


def is_bf16_supported() -> bool:
    """Whether tensors of bfloat16 work on the GPU: CuPy has them from version 14 on."""
    return is_available()


def init() -> None:
    """Do nothing: CUDA starts at first use."""


def _index(device: Any) -> int:
    if device is None:
        return current_device()
    parsed = parse_device(device)
    return current_device() if parsed.index is None else parsed.index


def current_device() -> int:
    """Return the number of the present device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    return int(cupy_or_error().cuda.runtime.getDevice())


def set_device(device: Any) -> None:
    """Make a device the present one.

    Raises:
        DeviceError: there is no CUDA device.
    """
    cupy_or_error().cuda.Device(_index(device)).use()


def synchronize(device: Any = None) -> None:
    """Wait until the device has done its work.

    Raises:
        DeviceError: there is no CUDA device.
    """
    cupy_or_error().cuda.Device(_index(device)).synchronize()


def empty_cache() -> None:
    """Give unused memory of the pool back; without a device there is none."""
    if is_available():
        cupy_or_error().get_default_memory_pool().free_all_blocks()


def get_device_name(device: Any = None) -> str:
    """Return the name of a device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    return str(get_device_properties(device).name)


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Return the compute capability, (major, minor).

    Raises:
        DeviceError: there is no CUDA device.
    """
    found = get_device_properties(device)
    return found.major, found.minor


def get_device_properties(device: Any = None) -> Any:
    """Return name, major, minor, total_memory (bytes) and multi_processor_count of a device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    found = cupy_or_error().cuda.runtime.getDeviceProperties(_index(device))
    return SimpleNamespace(
        name=found["name"].decode(),
        major=int(found["major"]),
        minor=int(found["minor"]),
        total_memory=int(found["totalGlobalMem"]),
        multi_processor_count=int(found["multiProcessorCount"]),
    )


def manual_seed(seed: int) -> None:
    """Seed the default generator of the present device; nothing without a device."""
    if is_available():
        generator_of(Device("cuda", current_device())).manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the default generators of all devices."""
    for i in range(cuda_count()):
        generator_of(Device("cuda", i)).manual_seed(seed)


def _generator(device: Any) -> Generator:
    cupy_or_error()
    return generator_of(Device("cuda", _index(None if device == "cuda" else device)))


def get_rng_state(device: Any = "cuda") -> Tensor:
    """Return the random state of a device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    return _generator(device).get_state()


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Set the random state of a device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    _generator(device).set_state(new_state)


def get_rng_state_all() -> list[Tensor]:
    """Return the random states of all devices."""
    return [get_rng_state(Device("cuda", i)) for i in range(cuda_count())]


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Set the random states of all devices."""
    for i, state in enumerate(new_states):
        set_rng_state(state, Device("cuda", i))


def seed() -> None:
    """Seed the generator of the current device with a number that cannot be told before."""
    if is_available():
        manual_seed(secrets.randbits(63))


def seed_all() -> None:
    """Seed the generators of all devices with one number that cannot be told before."""
    manual_seed_all(secrets.randbits(63))


def memory_allocated(device: Any = None) -> int:
    """Return the bytes that tensors use; 0 without a device."""
    return int(cupy_or_error().get_default_memory_pool().used_bytes()) if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """Return the bytes that the memory pool holds; 0 without a device."""
    return int(cupy_or_error().get_default_memory_pool().total_bytes()) if is_available() else 0


max_memory_allocated = max_memory_reserved = memory_reserved
memory_cached = max_memory_cached = memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    """Do nothing: the pool's total stands for the peak."""


reset_accumulated_memory_stats = reset_peak_memory_stats


def memory_stats(device: Any = None) -> dict[str, int]:
    """Return counts of the memory pool by PyTorch's names; none without a device."""
    if not is_available():
        return {}
    used, held = memory_allocated(device), memory_reserved(device)
    return {"allocated_bytes.all.current": used, "reserved_bytes.all.current": held,
            "allocated_bytes.all.peak": held, "reserved_bytes.all.peak": held}  # fmt: skip


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Return free and total bytes of a device.

    Raises:
        DeviceError: there is no CUDA device.
    """
    with cupy_or_error().cuda.Device(_index(device)):
        free, total = cupy_or_error().cuda.runtime.memGetInfo()
    return int(free), int(total)


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Return a sentence on the use of memory."""
    return f"{memory_allocated()} bytes in tensors, {memory_reserved()} bytes in the pool"


@contextmanager
def device(device: Any) -> Iterator[None]:
    """Make a device the present one in a block; nothing for None or a negative number.

    Raises:
        DeviceError: there is no CUDA device.
    """
    if device is None or (isinstance(device, int) and device < 0):
        yield
        return
    with cupy_or_error().cuda.Device(_index(device)):
        yield


class Stream:
    """A place holder: all work is in one order."""

    def __init__(self, device: Any = None, priority: int = 0, **options: Any) -> None:
        self.device = device

    def synchronize(self) -> None:
        """Wait until the device has done its work."""
        if is_available():
            synchronize()

    def wait_stream(self, stream: Any) -> None:
        """Do nothing: work is in one order."""

    def wait_event(self, event: Any) -> None:
        """Do nothing: work is in one order."""

    def record_event(self, event: Any = None) -> Event:
        """Return an event that has been recorded."""
        recorded: Event = event or Event()
        recorded.record()
        return recorded


class Event:
    """A point in time."""

    def __init__(self, enable_timing: bool = False, **options: Any) -> None:
        self._time_s = 0.0

    def record(self, stream: Any = None) -> None:
        """Keep the time at which all work so far is done."""
        if is_available():
            synchronize()
        self._time_s = time.perf_counter()

    def elapsed_time(self, end_event: Event) -> float:
        """Return the milliseconds between this event and another."""
        return (end_event._time_s - self._time_s) * 1e3

    def synchronize(self) -> None:
        """Do nothing: the event was reached when it was recorded."""

    def wait(self, stream: Any = None) -> None:
        """Do nothing: work is in one order."""

    def query(self) -> bool:
        """Whether the event was reached: always."""
        return True


def current_stream(device: Any = None) -> Stream:
    """Return the stream of all work."""
    return Stream(device)


default_stream = current_stream


@contextmanager
def stream(stream: Any) -> Iterator[None]:
    """Do nothing in a block: there is one stream."""
    yield


def ipc_collect() -> None:
    """Do nothing."""


def _typed(name: str, dtype: Any) -> Any:
    """Return the constructor that PyTorch calls `torch.cuda.FloatTensor`."""

    def make(*args: Any) -> Tensor:
        return construct(dtype, "cuda", args)

    make.__name__ = name
    make.__doc__ = f"Return a {dtype} tensor on the GPU, from data or of a shape."
    return make


FloatTensor = _typed("FloatTensor", float32)
DoubleTensor = _typed("DoubleTensor", float64)
HalfTensor = _typed("HalfTensor", float16)
LongTensor = _typed("LongTensor", int64)
IntTensor = _typed("IntTensor", int32)
ByteTensor = _typed("ByteTensor", uint8)
BoolTensor = _typed("BoolTensor", bool_)


_initialized = False  # PyTorch's flag for CUDA being in use, which CuPy does not tell

# PyTorch has these functions in smaller modules as well.
also_named(__name__, "memory random streams")
