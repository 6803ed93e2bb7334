"""Threads that help running plans, and `Call`: a plan made ready to be run by them.

A worker is a daemon Python thread that enters the native loop of `driver_code` once, without the
GIL, and stays there: it polls and parks natively, so waking it needs neither the GIL nor Python.
(Parked in Python, a worker was 19.6 ms late when another Python thread computed.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracegraph.runtime.cpu import WORKER
from tracegraph.runtime.cpu.driver.driver import Driver, host_driver
from tracegraph.runtime.cpu.driver.layout import CALL_WORDS, CORES_BYTES, RECORD_WORDS, Control

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.int64]

# How long a thread polls before it parks. Calls that follow each other within it find it awake.
SPIN_NS = 100_000
# Calls that cost less do not wake parked workers: after 5 ms of silence that costs the caller 40 us
# and the worker arrives after 60 (where the other core is a halted virtual one; 10 and 40 where it
# is only idle).
WAKE_NS = 200_000
# Calls that cost less keep the GIL. A call without it must get it back, which takes 5 ms while
# another Python thread computes; but others that call meanwhile wait for this one.
HOLD_NS = 100_000


class Pool:
    """A control block and the workers that serve it. With no workers, calls run alone."""

    def __init__(
        self, workers: int, spin_ns: int = SPIN_NS, wake_ns: int = WAKE_NS,
        driver: Driver | None = None,
    ) -> None:  # fmt: skip
        self.workers = workers
        self._driver = driver or host_driver()
        self._threads: list[threading.Thread] = []
        self._memory = _aligned_words(Control.SLOTS // 8 + workers + 1)
        self.address = int(self._memory.ctypes.data) if workers else 0
        if not workers:
            return
        settings = {
            Control.WORKERS: workers,
            Control.SPIN_NS: spin_ns,
            Control.WAKE_NS: wake_ns,
            Control.SHARE_SHIFT: (workers + 1).bit_length(),
        }
        for place, value in settings.items():
            self._memory[place // 8] = value
        steered = self._write_cores(_cores())
        self._driver.prepare(self.address)
        for slot in range(1, workers + 1):
            arguments = (self._driver, self._memory, slot, steered)
            name = f"{WORKER}-{slot}"
            thread = threading.Thread(target=_work, args=arguments, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads here: no call waits for those that are missing
                break
            self._threads.append(thread)

    def _write_cores(self, cores: set[int]) -> bool:
        if len(cores) < 2 or max(cores) >= 8 * CORES_BYTES:
            return False
        bits = self._memory.view(np.uint8)[Control.CORES :]
        for core in cores:
            bits[core // 8] |= 1 << core % 8
        return True

    def close(self, timeout_s: float = 1.0) -> None:
        """Send the workers home. A call that is under way finishes, alone if need be."""
        if self._threads:
            self._driver.stop(self.address)
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()


def _work(driver: Driver, memory: Words, slot: int, steered: bool) -> None:
    # Signals are for threads that return to Python; faults must still reach their handlers.
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
    if steered:
        memory.view(np.int32)[Control.SLOTS // 4 + 2 * slot + 1] = threading.get_native_id()
    address = int(memory.ctypes.data)
    driver.serve(address, slot, address + Control.STOP)


def _aligned_words(count: int, bytes_each: int = 8, line_bytes: int = 128) -> Words:
    spare = line_bytes // bytes_each
    raw = np.zeros(count + spare, np.int64)
    skip = -int(raw.ctypes.data) % line_bytes // bytes_each
    return raw[skip : skip + count]


class Call:
    """A plan made ready to be run, again and again, by one thread at a time.

    `records`: i64[n, 4], each row the address of a kernel, the address of its arguments, the number
    of its chunks and how many the rows behind it in its group have; `frame`: i64[m], handed to each
    kernel, its word 0 is the error word; `cost_ns`: about what it takes alone. Whatever else the
    records point to is the caller's to keep; a row may be changed between runs.
    """

    __slots__ = ("_address", "_block", "_run", "frame", "records")

    def __init__(
        self, records: Words, frame: Words, cost_ns: int = 1 << 62, driver: Driver | None = None
    ) -> None:
        if records.dtype != np.int64 or not records.flags.c_contiguous:
            raise TypeError("records are contiguous rows of int64")
        if records.ndim != 2 or records.shape[1] != RECORD_WORDS or frame.dtype != np.int64:
            raise TypeError(f"records are i64[n, {RECORD_WORDS}], a frame is i64[m]")
        driver = driver or host_driver()
        self.records, self.frame = records, frame
        self._block = np.zeros(CALL_WORDS, np.int64)
        self._block[:] = records.ctypes.data, len(records), frame.ctypes.data, cost_ns
        self._address = int(self._block.ctypes.data)
        self._run = driver.run_holding if cost_ns < HOLD_NS else driver.run

    def run(self, pool: Pool | None = None) -> int:
        """Run the plan and return its error word: 0, or the greatest code of the first fault."""
        pool = pool or _Shared.pool or shared_pool()
        return self._run(pool.address, self._address)


class _Shared:
    """The pool of the process. Made at the first call; None where it must be made anew."""

    pool: Pool | None = None
    threads: int | None = None
    leaving = False
    lock = threading.Lock()


def shared_pool() -> Pool:
    """Return the pool of the process, with a thread less than `get_num_threads()`.

    Cores that this process may not use get no thread.
    """
    with _Shared.lock:
        if _Shared.pool is None:
            threads = 1 if _Shared.leaving else min(get_num_threads(), usable_cores())
            _Shared.pool = Pool(threads - 1)
        return _Shared.pool


def set_num_threads(count: int) -> None:
    """Set how many threads native programs use.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"set_num_threads expects a positive integer, got {count}")
    with _Shared.lock:
        _Shared.threads = int(count)
        pool, _Shared.pool = _Shared.pool, None
    if pool is not None:
        pool.close()


def get_num_threads() -> int:
    """Return how many threads native programs use.

    The default is TRACEGRAPH_NUM_THREADS, else the cores that this process may use.

    Raises:
        ValueError: TRACEGRAPH_NUM_THREADS is not a number of threads.
    """
    if _Shared.threads is None:
        said = os.environ.get("TRACEGRAPH_NUM_THREADS") or str(usable_cores())
        if not said.isdecimal() or int(said) < 1:
            raise ValueError(f"TRACEGRAPH_NUM_THREADS expects a positive integer, got {said!r}")
        _Shared.threads = int(said)
    return _Shared.threads


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and its container's quota."""
    cores = len(_cores()) or os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no control groups, or "max": no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, -(-int(quota) // int(period)))
    return max(cores, 1)


def _cores() -> set[int]:
    """Return the cores that the process may use, as far as the system tells."""
    return os.sched_getaffinity(os.getpid()) if hasattr(os, "sched_getaffinity") else set()


def _leave() -> None:
    # Code must not be unmapped, nor Python be torn down, under a worker that still polls.
    _Shared.leaving = True
    pool, _Shared.pool = _Shared.pool, None
    if pool is not None:
        pool.close()


def _forget_after_fork() -> None:
    # Only the thread that forked lives on. Its parent's workers are not there: make new ones.
    _Shared.lock = threading.Lock()
    _Shared.pool = None


atexit.register(_leave)
os.register_at_fork(after_in_child=_forget_after_fork)
