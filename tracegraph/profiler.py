"""Time that named parts of a program take: `torch.profiler` for ranges that a program marks.

Single ops are not timed; `tracegraph bench` times the nodes of a saved graph.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

__all__ = [
    "ProfilerAction", "ProfilerActivity", "profile", "record_function", "schedule",
    "tensorboard_trace_handler",
]  # fmt: skip


class ProfilerActivity(Enum):
    """What PyTorch can watch."""

    CPU = 0
    CUDA = 1
    XPU = 2


class ProfilerAction(Enum):
    """What a profile does at a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


class Range(NamedTuple):
    """One run of a marked part: when it began, and how long it took, in seconds."""

    name: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Average:
    """All runs of one marked part."""

    key: str
    count: int
    seconds: float

    @property
    def cpu_time_total(self) -> float:
        """Microseconds of all runs."""
        return self.seconds * 1e6

    @property
    def cpu_time(self) -> float:
        """Microseconds of one run."""
        return self.cpu_time_total / max(self.count, 1)


class Averages(list[Average]):
    """The averages of a profile."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """Return them as text, the longest first."""
        rows = sorted(self, key=lambda a: -a.seconds)[: row_limit if row_limit >= 0 else None]
        width = max([4, *(len(a.key) for a in rows)])
        lines = [f"{'Name':<{width}}  {'total us':>12}  {'mean us':>12}  {'calls':>6}"]
        lines += [f"{a.key:<{width}}  {a.cpu_time_total:>12.1f}  {a.cpu_time:>12.1f}  {a.count:>6}"
                  for a in rows]  # fmt: skip
        return "\n".join(lines)

    def total_average(self) -> Average:
        """Return all ranges as one."""
        return Average("Total", sum(a.count for a in self), sum(a.seconds for a in self))


_running: list[profile] = []


class record_function:  # noqa: N801
    """Marks a part of a program, as a context manager or decorator."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self._starts: list[float] = []

    def __enter__(self) -> record_function:
        self._starts.append(time.perf_counter())
        return self

    def __exit__(self, *exc: object) -> None:
        start = self._starts.pop()
        took = Range(self.name, start, time.perf_counter() - start)
        for watching in _running:
            if watching.recording:
                watching.ranges.append(took)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, marked."""

        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return marked


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
    skip_first_wait: int = 0,
) -> Callable[[int], ProfilerAction]:  # fmt: skip
    """Return what to do at each step: wait, warm up, record, and so on in a circle."""

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        length = wait + warmup + active
        if step < 0 or (repeat and step >= repeat * length):
            return ProfilerAction.NONE
        place = step % length
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        last = place == length - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action


class profile:  # noqa: N801
    """Collects the ranges that run inside it."""

    def __init__(
        self, activities: Iterable[ProfilerActivity] | None = None, schedule: Any = None,
        on_trace_ready: Callable[[profile], Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.ranges: list[Range] = []
        self.step_num = 0
        self.on_trace_ready = on_trace_ready
        self._schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self.recording = False

    def _follow(self) -> None:
        action = self._schedule(self.step_num)
        self.recording = action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to collect."""
        _running.append(self)
        self._follow()

    def stop(self) -> None:
        """End, and hand over what was collected."""
        _running.remove(self)
        if self.on_trace_ready is not None and self.recording:
            self.on_trace_ready(self)
        self.recording = False

    def step(self) -> None:
        """Say that the next step begins."""
        if self._schedule(self.step_num) is ProfilerAction.RECORD_AND_SAVE and self.on_trace_ready:
            self.on_trace_ready(self)
        self.step_num += 1
        self._follow()

    def events(self) -> list[Range]:
        """Return the ranges in the order of their ends."""
        return self.ranges

    def key_averages(self, *args: Any, **options: Any) -> Averages:
        """Return the ranges, those of one name together."""
        names = dict.fromkeys(r.name for r in self.ranges)
        return Averages(
            Average(name, len(times), sum(times))
            for name in names
            for times in [[r.seconds for r in self.ranges if r.name == name]]
        )

    def export_chrome_trace(self, path: str) -> None:
        """Write the ranges as events of the Chrome trace viewer."""
        events = [
            {"name": r.name, "ph": "X", "ts": r.start * 1e6, "dur": r.seconds * 1e6, "pid": 0,
             "tid": 0}
            for r in self.ranges
        ]  # fmt: skip
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events}, file)


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """Return a handler that writes each trace into a folder."""

    def handle(done: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        name = f"{worker_name or 'worker'}.{done.step_num}.pt.trace.json"
        done.export_chrome_trace(os.path.join(dir_name, name))

    return handle
