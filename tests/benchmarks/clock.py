"""Timing: the median and the minimum of repeated calls."""

from __future__ import annotations

import contextlib
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Times(NamedTuple):
    """Seconds a call: the median, the minimum, and how many calls were timed."""

    median: float
    minimum: float
    calls: int


def measure(
    step: Callable[[], Any], budget_s: float, most: int = 2000,
    wait: Callable[[Any], Any] = id, cpu: bool = False,
) -> Times:  # fmt: skip
    """Time `step` for about `budget_s` seconds, after two calls that are not counted.

    `wait` is called with each result, inside the time: it waits for asynchronous work. `cpu`
    counts the seconds that processors worked for this process, which other processes disturb less.
    """
    for _ in range(2):
        wait(step())
    times: list[float] = []
    gc.collect()
    now = time.process_time if cpu else time.perf_counter
    end = now() + budget_s
    while len(times) < 3 or (len(times) < most and now() < end):
        start = now()
        wait(step())
        times.append(now() - start)
    return Times(statistics.median(times), min(times), len(times))


def per_item(function: Callable[[int], Any], count: int, budget_s: float = 0.3) -> float:
    """Return the least seconds an item, for a function that handles `count` items in a call."""
    return measure(lambda: function(count), budget_s, cpu=True).minimum / count


def shown(seconds: float) -> str:
    """Return a duration with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def latencies(call: Callable[[], object], calls: int, gap_s: float = 0.0) -> np.ndarray:
    """Return the nanoseconds of each of a number of calls, pausing before each."""
    found = np.empty(calls, np.int64)
    now = time.perf_counter_ns
    for index in range(calls):
        if gap_s:
            time.sleep(gap_s)
        start = now()
        call()
        found[index] = now() - start
    return found


@contextlib.contextmanager
def busy_python() -> Iterator[None]:
    """Compute in another Python thread meanwhile."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
