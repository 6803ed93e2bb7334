"""Measure how far the native elementary functions are off, and write the table into the docs.

`python -m tests.tools.measure_elementary [--step 997] [--points 20000] [--write] [NAME...]`

float32: every `step`-th of all 2^32 bit patterns (all of them: `--step 1`, an hour), against NumPy
and SciPy in float64. float64: so many points against mpmath. Both with FMA and without. `--write`
also puts the rows into docs/numerics.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tests.native_accuracy import (
    BINARY,
    NOTHING,
    UNARY,
    Worst,
    float32_patterns,
    float64_pairs,
    float64_points,
    worst_double,
    worst_single,
)
from tests.native_scalars import NativeFunction, binary, compiled, unary
from tracegraph.dtypes import float32, float64
from tracegraph.runtime.cpu.code import llvm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "numerics.md"
BEGIN, END = "<!-- elementary functions: begin -->", "<!-- elementary functions: end -->"
HEAD = """
| function | float32 | without FMA | float64 | without FMA |
|---|---|---|---|---|
"""
PAIRS = 1 << 24  # arguments that float32 functions of two are tried on, at step 1


def worst_of(found: Iterable[Worst]) -> Worst:
    """Return the worst of some results."""
    return max(found, key=lambda worst: worst.ulp, default=NOTHING)


def measure_single(name: str, function: NativeFunction, step: int) -> Worst:
    """Return the worst float32 result of a function."""
    if name in UNARY:
        oracle = UNARY[name][0]
        return worst_of(worst_single(function, oracle, x) for x in float32_patterns(step))
    rng, count = np.random.default_rng(0), 1 + PAIRS // step
    x = np.exp2(rng.uniform(-149, 127, count)).astype(np.float32)
    y = (np.exp2(rng.uniform(-149, 127, count)) * rng.choice([-1, 1], count)).astype(np.float32)
    if name == "power":
        y = (rng.uniform(-1, 1, count) * 150 / np.log2(x + 1e-9)).astype(np.float32)
    return worst_single(function, BINARY[name][0], x, y)


def measure_double(name: str, function: NativeFunction, count: int) -> Worst:
    """Return the worst float64 result of a function."""
    if name in UNARY:
        return worst_double(function, UNARY[name][1], float64_points(name, count))
    return worst_double(function, BINARY[name][1], *float64_pairs(name, count))


def row(name: str, step: int, points: int) -> str:
    """Return one row of the table; the arguments of the worst results are shown as it goes."""
    cells, make = [name], unary if name in UNARY else binary
    for dtype in (float32, float64):
        for target in (llvm.host_target(), llvm.level_target("sse2")):
            function = compiled([make(name, dtype)], 8, target)[f"{name}.{dtype.code}"]
            if dtype is float32:
                worst = measure_single(name, function, step)
            else:
                worst = measure_double(name, function, points)
            print(name, dtype.code, worst, file=sys.stderr, flush=True)
            cells.append(f"{worst.ulp:.2f}")
    return f"| {' | '.join(cells)} |"


def write(found: str, name: str) -> None:
    """Put one row into the table of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split()[1]: line for line in table.splitlines() if line.startswith("| ")}
    rows.pop("function", None)
    rows[name] = found
    text = HEAD + "".join(f"{rows[key]}\n" for key in sorted(rows))
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted({**UNARY, **BINARY}))
    parser.add_argument("--step", type=int, default=997)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.names:
        found = row(name, options.step, options.points)
        print(found, flush=True)
        if options.write:
            write(found, name)


if __name__ == "__main__":
    main()
