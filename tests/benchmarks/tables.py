"""The table of programs: every mode in processes of its own, one after the other."""

from __future__ import annotations

import json
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


def _process(mode: str, names: Sequence[str], how: Settings) -> list[Cell]:
    settings = os.environ | {name: str(how.threads) for name in _THREADS}
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.run"]
    command += [mode, str(how.threads), str(how.budget_s), "cpu" if how.cpu else "wall", *names]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
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
    """Return the lines of one table: seconds, and for each peer its time over our best."""
    lines = [f"{key} seconds a call; in brackets: that time over tracegraph's best"]
    lines.append(f"{'':14}" + "".join(f"{mode:>22}" for mode in wanted))
    for name, cells in found.items():
        ours = [cells[m][key] for m in wanted if m in modes.OURS and key in cells.get(m, {})]
        row = f"{name:14}"
        for mode in wanted:
            cell = cells.get(mode, {})
            text = "-"
            if "error" in cell:
                text = cell["error"][:20]
            elif key in cell:
                ratio = f" ({cell[key] / min(ours):.2f})" if ours and mode not in modes.OURS else ""
                text = shown(cell[key]) + ratio
            row += f"{text:>22}"
        lines.append(row)
    return lines


def errors(found: dict[str, dict[str, Cell]]) -> list[str]:
    """Return what went wrong, whole."""
    return [
        f"{name} in {mode}: {cell['error']}"
        for name, cells in found.items()
        for mode, cell in cells.items()
        if "error" in cell
    ]
