"""Graph to Program: the one module that joins passes and runtimes."""

from __future__ import annotations

import os
from typing import Any

from tracegraph.devices import Device, module_of, parse_device
from tracegraph.errors import DeviceError
from tracegraph.ir.graph import Graph
from tracegraph.runtime.interpreter import InterpreterProgram

RUNTIMES = ("interpreter",)


class _Threads:
    count = int(os.environ.get("TRACEGRAPH_NUM_THREADS", "0")) or os.cpu_count() or 1


def set_num_threads(count: int) -> None:
    """Set how many threads native programs use.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"set_num_threads expects a positive integer, got {count}")
    _Threads.count = int(count)


def get_num_threads() -> int:
    """Return how many threads native programs use."""
    return _Threads.count


def optimize(graph: Graph, level: int = 1, *, report: Any = None, check: bool = False) -> Graph:
    """Return an optimised copy of a graph.

    Level 0 changes nothing, 1 runs exact passes (bit-identical results), 2 also decomposes and
    fuses. `report` collects a row per pass: name, seconds, nodes before and after, changes.
    """
    from tracegraph.passes.pipeline import run_passes

    made = graph.copy()
    run_passes(made, level, report=report, check=check)
    return made


def make_program(
    graph: Graph, device: Any = "cpu", runtime: str | None = None, level: int = 1
) -> InterpreterProgram:
    """Return a graph made executable on a device.

    Raises:
        DeviceError: no such runtime or device here.
    """
    wanted: Device = parse_device(device)
    if runtime not in (None, *RUNTIMES):
        raise DeviceError(f"no runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
    return InterpreterProgram(optimize(graph, level), module_of(wanted))
