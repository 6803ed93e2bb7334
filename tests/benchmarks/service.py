"""Latencies of an MLP on one row as a service meets them: ours against ONNX Runtime's.

Called by itself it is one process: `python -m tests.benchmarks.service native 2 400 all`.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tests.benchmarks import modes
from tests.benchmarks.clock import busy_python, latencies, shown

MODES = ("native", "onnxruntime", "torch")
SITUATIONS = ("hot", "5 ms gaps", "busy Python thread", "four callers", "one core")
_NAME = "mlp_b1"
_GAP_S = 0.005


def _situations(step: Callable[[], Any], calls: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    latencies(step, 200)
    yield "hot", latencies(step, 10 * calls)
    yield "5 ms gaps", latencies(step, calls, _GAP_S)
    with busy_python():
        yield "busy Python thread", latencies(step, calls)
    yield "four callers", _callers(4, step, calls)


def _callers(count: int, step: Callable[[], Any], calls: int) -> np.ndarray[Any, Any]:
    found: list[np.ndarray[Any, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(latencies(step, calls))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate(found)


def main(mode: str, threads: int, calls: int, one_core: bool) -> None:
    """Print a line of JSON for each situation: its name, p50 and p99 in seconds."""
    if one_core:  # before libraries look how many there are
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    made = modes.make(mode, _NAME, threads)
    assert made is not None
    situations = _situations(made.step, calls)
    if one_core:
        situations = (("one core", found) for _, found in itertools.islice(situations, 1))
    for name, found in situations:
        p50, p99 = np.percentile(found, (50, 99)) / 1e9
        print(json.dumps({"name": name, "p50": p50, "p99": p99}), flush=True)


def render(wanted: Sequence[str], threads: int, quick: bool) -> Iterator[str]:
    """Yield the lines of the table: the least of some rounds, modes in turn."""
    from tests.benchmarks.tables import process

    found: dict[tuple[str, str, str], float] = {}
    own = [str(threads), "200" if quick else "1000"]
    for _ in range(1 if quick else 3):
        for mode, cores in itertools.product(wanted, ("all", "one")):
            done = process(["tests.benchmarks.service", mode, *own, cores], threads)
            if done.returncode:
                yield f"{mode}: {done.stderr.strip().splitlines()[-1]}"
            for line in map(json.loads, done.stdout.splitlines()):
                for part in ("p50", "p99"):
                    key = (line["name"], mode, part)
                    found[key] = min(found.get(key, line[part]), line[part])
    yield "service latency of mlp_b1, p50 / p99; in brackets: p99 over native's"
    yield f"{'':22}" + "".join(f"{mode:>30}" for mode in wanted)
    for name in SITUATIONS:
        row = f"{name:22}"
        for mode in wanted:
            if (name, mode, "p99") in found:
                p50, p99 = found[name, mode, "p50"], found[name, mode, "p99"]
                ours = found.get((name, "native", "p99"), p99)
                told = "" if mode == "native" else f" ({p99 / ours:.2f})"
                row += f"{f'{shown(p50)} / {shown(p99)}{told}':>30}"
            else:
                row += f"{'-':>30}"
        yield row


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "one")
