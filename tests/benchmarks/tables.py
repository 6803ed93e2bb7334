"""The table of programs: every mode in processes of its own, one after the other."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import modes
from tests.benchmarks.clock import shown

ROOT = Path(__file__).resolve().parents[2]
Cell = dict[str, Any]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Settings(NamedTuple):
    """How programs are timed; see the command line."""

    threads: int
    budget_s: float
    rounds: int
    cpu: bool


def process(command: Sequence[str], threads: int) -> subprocess.CompletedProcess[str]:
    """Run a module of this package in a process of its own, with a number of threads."""
    settings = os.environ | {name: str(threads) for name in _THREADS}
    command = [sys.executable, "-W", "ignore", "-m", *command]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)


def _process(mode: str, names: Sequence[str], how: Settings) -> list[Cell]:
    measured = "cpu" if how.cpu else "wall"
    command = ["tests.benchmarks.run", mode, str(how.threads), str(how.budget_s), measured, *names]
    done = process(command, how.threads)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        known = {line["name"] for line in lines}
        lines += [{"name": n, "error": last[0]} for n in names if n not in known]
    return lines


def collect(
    wanted: Sequence[str], names: Sequence[str], how: Settings
) -> dict[str, dict[str, Cell]]:
    """Return the times by program and mode: the least median and minimum of some rounds.

    Rounds alternate between modes, so that what else the machine does meets all of them.
    """
    found: dict[str, dict[str, Cell]] = {name: {} for name in names}
    for _ in range(how.rounds):
        for mode in wanted:
            for line in _process(mode, names, how):
                cell = found[line["name"]].setdefault(mode, line)
                for key in ("first", "median", "minimum"):
                    if key in line and key in cell:
                        cell[key] = min(cell[key], line[key])
    return found


def render(found: dict[str, dict[str, Cell]], wanted: Sequence[str], key: str) -> list[str]:
    """Return the lines of one table: seconds, and for each peer its time over our native one."""
    lines = [f"{key} seconds a call; in brackets: that time over native; last: the best peer's"]
    lines.append(f"{'':14}" + "".join(f"{mode:>20}" for mode in wanted) + f"{'best peer':>14}")
    ratios: dict[str, list[float]] = {}
    for name, cells in found.items():
        ours = cells.get("native", cells.get("eager", {})).get(key)
        row, best = f"{name:14}", math.inf
        for mode in wanted:
            cell = cells.get(mode, {})
            text = "-"
            if "error" in cell:
                text = cell["error"][:18]
            elif key in cell:
                text = shown(cell[key])
                if ours and mode not in modes.OURS:
                    text += f" ({cell[key] / ours:.2f})"
                    best = min(best, cell[key] / ours)
            row += f"{text:>20}"
        if best < math.inf:
            row += f"{best:>13.2f}x"
            if "native" in cells:
                group = "training" if name.startswith("train") else "inference"
                ratios.setdefault(group, []).append(best)
        lines.append(row)
    for group, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        lines.append(f"best peer over native, {group}: {mean:.2f}x as a geometric mean")
    return lines


def errors(found: dict[str, dict[str, Cell]]) -> list[str]:
    """Return what went wrong, whole."""
    return [
        f"{name} in {mode}: {cell['error']}"
        for name, cells in found.items()
        for mode, cell in cells.items()
        if "error" in cell
    ]
