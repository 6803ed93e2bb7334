"""Microbenchmarks: the cost of one op, one node, one trace, one file, one import.

What runs in this process is measured in processor seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tracegraph as torch
from tests import workloads
from tests.benchmarks.clock import measure, per_item, shown

RECORDED = ("mlp_b64", "gpt", "lstm", "train_mlp")
ROOT = Path(__file__).resolve().parents[2]
Row = tuple[str, str]


def _chain(x: Any, y: Any) -> Callable[[int], Any]:
    def run(count: int) -> Any:
        z = x
        for _ in range(count):
            z = z + y
        return z

    return run


def _calls(function: Callable[[Any], Any], x: Any) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            function(x)

    return run


def dispatch_cost() -> Iterator[Row]:
    """Yield seconds an eager op on 8 floats, less what NumPy itself takes."""
    x = np.ones(8, np.float32)
    t = torch.tensor(x)
    plain = per_item(_chain(x, x), 1000)
    yield "NumPy: x + y", shown(plain)
    with torch.no_grad():
        yield "x + y", shown(per_item(_chain(t, t), 1000))
        yield "x * 2.0", shown(per_item(_calls(lambda v: v * 2.0, t), 1000))
        yield "x.tanh()", shown(per_item(_calls(lambda v: v.tanh(), t), 1000))
        yield "x.sum()", shown(per_item(_calls(lambda v: v.sum(), t), 1000))
        yield "x.sum(0, keepdim=True)", shown(per_item(_calls(lambda v: v.sum(0, True), t), 1000))
        yield "x.reshape(2, 4)", shown(per_item(_calls(lambda v: v.reshape(2, 4), t), 1000))
        yield "x[1:5]", shown(per_item(_calls(lambda v: v[1:5], t), 1000))
        yield "x @ y, 8 x 8", shown(per_item(_calls(lambda v: v @ v, torch.ones(8, 8)), 1000))
        yield "x.add_(1)", shown(per_item(_calls(lambda v: v.add_(1), torch.ones(8)), 1000))


def tape_cost() -> Iterator[Row]:
    """Yield seconds a node: to record it, and to run it backward."""
    leaf, other = torch.ones(8, requires_grad=True), torch.ones(8)
    plain = per_item(_chain(torch.ones(8), other), 1000)
    taped = per_item(_chain(leaf, other), 1000)

    def both(count: int) -> None:
        _chain(leaf, other)(count).sum().backward()

    yield "x + y with a tape node", f"{shown(taped)} (the node: {shown(max(taped - plain, 0))})"
    yield "backward of a node", shown(max(per_item(both, 1000) - taped, 0))


def trace_cost() -> Iterator[Row]:
    """Yield the seconds of a trace and of a replay, against the eager run of the same function."""
    x = torch.ones(8)
    count = 2000

    def function(v: Any, count: int = count) -> Any:
        for _ in range(count):
            v = (v + 1.0) * 0.5
        return v

    def few(v: Any) -> Any:
        return function(v, 6)

    eager = measure(lambda: few(x), 0.3, cpu=True).minimum
    traced = measure(lambda: torch.trace(few, (x,), check=False), 0.5, cpu=True).minimum
    yield "trace of a dozen ops", f"{shown(traced)} ({shown(eager)} eager)"
    eager = measure(lambda: function(x), 1.0, cpu=True).minimum
    traced = measure(lambda: torch.trace(function, (x,), check=False), 2.0, cpu=True).minimum
    program = torch.trace(function, x).program()
    replayed = measure(lambda: program(x), 1.0, cpu=True).minimum
    nodes = 2 * count
    yield "eager, an op", shown(eager / nodes)
    yield "trace, a node", f"{shown(traced / nodes)} ({traced / eager:.1f} times eager)"
    yield "replay, a node", f"{shown(replayed / nodes)} ({replayed / eager:.2f} times eager)"
    for name in RECORDED:
        made = workloads.build(torch, name)
        call, inputs = (made.step, ()) if made.trains else (made.module, made.inputs)
        eager = measure(partial(call, *inputs), 1.0).minimum
        traced = measure(partial(torch.trace, call, inputs, check=False), 1.0).minimum
        yield f"trace of {name}", f"{shown(traced)} ({traced / eager:.1f} times eager; 3 at most)"


def file_cost(sizes: tuple[int, ...]) -> Iterator[Row]:
    """Yield seconds and bytes of files of many nodes."""
    for nodes in sizes:

        def function(v: Any, count: int = nodes // 2) -> Any:
            for _ in range(count):
                v = (v + 1.0).tanh()
            return v

        start = time.process_time()
        traced = torch.trace(function, torch.ones(8))
        made = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tg"
            saving = measure(
                lambda path=path, traced=traced: torch.save(traced, path), 0, 1, cpu=True
            )
            loading = measure(lambda path=path: torch.load(path), 0, 1, cpu=True)
            size = path.stat().st_size
        yield (
            f"{nodes} nodes",
            f"trace {shown(made)}, save {shown(saving.minimum)}, load {shown(loading.minimum)}, "
            f"{size / 1e6:.2f} MB, {size / nodes:.0f} bytes a node",
        )


# Not getrusage: the most memory it knows of is the parent's where that was larger.
_MEMORY = """
from pathlib import Path
status = Path("/proc/self/status")
peak = status.read_text().partition("VmHWM:")[2].split()[0] if status.exists() else 0
"""
_START = f"""
import json, time
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import tracegraph
end = time.perf_counter()
{_MEMORY}
print(json.dumps([middle - start, end - middle, int(peak) / 1024]))
"""


def _best(code: str, rounds: int = 5) -> list[float]:
    """Return the least of each number that fresh processes print; bytecode is kept."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        settings |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": cache}
        runs = []
        for _ in range(rounds):
            command = [sys.executable, "-W", "ignore", "-c", code]
            done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
    return [min(values) for values in zip(*runs, strict=True)]


def start_cost() -> Iterator[Row]:
    """Yield the seconds and megabytes of the import; for the rest see `startup`."""
    numpy, ours, memory = _best(_START)
    yield "import numpy", shown(numpy)
    yield "import tracegraph, beyond NumPy", f"{shown(ours)}, {memory:.0f} MB in all"


def render(quick: bool) -> Iterator[str]:
    """Yield the lines of the tables."""
    groups = {
        "eager ops on 8 floats": dispatch_cost,
        "the tape": tape_cost,
        "tracing": trace_cost,
        "files": lambda: file_cost((10_000,) if quick else (10_000, 100_000)),
        "starting": start_cost,
    }
    for title, rows in groups.items():
        yield ""
        yield title
        for name, value in rows():
            yield f"  {name:40}{value}"
