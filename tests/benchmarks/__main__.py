"""`python -m tests.benchmarks [NAME ...]`: eager code, replays, and PyTorch where it is installed.

A row is one way to run one program: the time until its first result (trace and compile), then the
least and the median of later calls. Rows of one program are timed one after the other in the same
process; compare rows of one run only.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tracegraph
from tests import workloads
from tracegraph.cli.output import Timing, time_text, write_table

LEVELS = (0, 1, 2)
HEAD = ["program", "way", "first", "calls", "min", "median", "p99"]

Way = tuple[str, Callable[[], Callable[[], Any]]]


def ways(name: str) -> Iterator[Way]:
    """Yield the ways to run a program: a label, and what prepares its step."""
    yield "eager", lambda: workloads.build(tracegraph, name).step
    if name not in workloads.EAGER_ONLY:
        for level in LEVELS:
            yield f"replay {level}", lambda level=level: _replay(name, level)
    if importlib.util.find_spec("torch") is not None:
        yield "PyTorch eager", lambda: workloads.build(importlib.import_module("torch"), name).step


def _replay(name: str, level: int) -> Callable[[], Any]:
    made = workloads.build(tracegraph, name)
    if made.trains:
        return tracegraph.trace(made.step, ()).program(level=level)
    return made.calling(tracegraph.trace(made.module, made.inputs).program(level=level))


def clock(prepare: Callable[[], Callable[[], Any]], budget_s: float) -> list[str]:
    """Return the cells of a row."""
    started = time.perf_counter()
    step = prepare()
    step()
    first_s = time.perf_counter() - started
    seconds: list[float] = []
    end = time.perf_counter() + budget_s
    while len(seconds) < 3 or (time.perf_counter() < end and len(seconds) < 1000):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    return [time_text(first_s), *Timing(seconds).cells]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="programs (default: all)")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds a row (default: 1)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [HEAD]
    for name in args.names or workloads.NAMES:
        for label, prepare in ways(name):
            print(f"{name}, {label} ...", file=sys.stderr, flush=True)
            rows.append([name, label, *clock(prepare, args.budget)])
    write_table(rows, "<<>>>>>")


if __name__ == "__main__":
    main()
