"""`tracegraph bench`: how long replays take on the interpreter, at each level, and native."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tracegraph.cli.files import File
from tracegraph.cli.inputs import make_call
from tracegraph.cli.output import TIMING_HEAD, measure, time_text, write, write_table
from tracegraph.cli.run import wait
from tracegraph.compiler import optimize
from tracegraph.replay.entry import EntryPoint

_ROWS = (("interpreter", 0), ("interpreter", 1), ("interpreter", 2), ("native", 2))
_BUDGET_S = 1.0
_MAX_CALLS = 10_000


def run(args: argparse.Namespace) -> int:
    """Time entry points with random inputs; State is put back after each row."""
    file = File(args.file, args.device, args.allow_host_call)
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    rows = [["entry point", "runtime", "level", "nodes", "compile", *TIMING_HEAD]]
    for name, entry in entries.items():
        for runtime, level in _wanted(args):
            label = f"{name}, {runtime}, level {level}"
            rows.append([name, runtime, str(level), *_time(entry, runtime, level, label, args)])
    write(f"random inputs, seed {args.seed}; device {args.device}")
    write_table(rows, "<<>>>>>>>")
    return 0


def _wanted(args: argparse.Namespace) -> list[tuple[str, int]]:
    """Return runtimes and levels: all that the device has, or those of one runtime."""
    if args.runtime is None:
        return [row for row in _ROWS if row[0] == "interpreter" or args.device == "cpu"]
    return [row for row in _ROWS if row[0] == args.runtime] or [(args.runtime, 1)]


def _time(
    entry: EntryPoint, runtime: str, level: int, label: str, args: argparse.Namespace
) -> list[str]:
    values, named = make_call(entry, {}, args.seed, dict(args.size))
    before = {name: t.clone() for name, t in entry.state.items()}
    started = time.perf_counter()
    program = entry.program(args.device, runtime, level).prepare(*values, **named)
    compile_s = time.perf_counter() - started

    def call() -> Any:
        program(*values, **dict(named))
        wait(args.device)

    try:
        first = measure(call, 1, label).seconds[0]
        repeat = args.repeat or max(3, min(_MAX_CALLS, int(_BUDGET_S / max(first, 1e-6))))
        timing = measure(call, repeat, label)
    finally:
        if entry.graph.writes:
            entry.load_state_dict(before)
    nodes = len(optimize(entry.graph, level))
    return [str(nodes), time_text(compile_s), *timing.cells]
