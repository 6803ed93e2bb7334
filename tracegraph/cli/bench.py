"""`tracegraph bench`: how long replays take at each level of optimisation."""

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

_LEVELS = (0, 1, 2)
_BUDGET_S = 1.0
_MAX_CALLS = 10_000


def run(args: argparse.Namespace) -> int:
    """Time entry points with random inputs; State is put back after each row."""
    file = File(args.file, args.device, args.allow_host_call)
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    rows = [["entry point", "level", "nodes", "compile", *TIMING_HEAD]]
    for name, entry in entries.items():
        for level in _LEVELS:
            rows.append([name, str(level), *_time(entry, level, f"{name}, level {level}", args)])
    write(f"random inputs, seed {args.seed}; device {args.device}")
    write_table(rows, "<>>>>>>>")
    return 0


def _time(entry: EntryPoint, level: int, label: str, args: argparse.Namespace) -> list[str]:
    values, named = make_call(entry, {}, args.seed)
    before = {name: t.clone() for name, t in entry.state.items()}
    started = time.perf_counter()
    program = entry.program(args.device, args.runtime, level)
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
