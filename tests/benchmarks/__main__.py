"""Command line of the benchmarks; see the package."""

from __future__ import annotations

import argparse
import os
import platform

import numpy as np

from tests import workloads
from tests.benchmarks import modes, tables


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(workloads.NAMES)}, micro")
    parser.add_argument("--peers", help=f"of {', '.join(modes.MODES)}; all installed by default")
    parser.add_argument("--quick", action="store_true", help="short budgets, one round")
    parser.add_argument("--cpu", action="store_true", help="processor seconds, for busy machines")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    found = parser.parse_args()
    for name in found.names:
        if name not in (*workloads.NAMES, "micro"):
            parser.error(f"no program {name!r}; there are {', '.join(workloads.NAMES)} and micro")
    return found


def _wanted(peers: str | None) -> list[str]:
    if peers is not None:
        chosen = [*modes.OURS, *(p for p in peers.split(",") if p and p not in modes.OURS)]
        unknown = [p for p in chosen if p not in modes.MODES]
        if unknown:
            raise SystemExit(f"no peer {unknown[0]!r}; there are {', '.join(modes.MODES)}")
        return chosen
    slow_to_start = ("torch.compile", "interpreter")
    return [m for m in modes.MODES if not modes.missing(m) and m not in slow_to_start]


def main() -> None:
    """Print the tables."""
    found = _arguments()
    names = [n for n in found.names if n != "micro"]
    if not found.names:
        names = list(workloads.NAMES)
    measured = "processor" if found.cpu else "wall"
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    print(f"{found.threads} threads of {os.cpu_count()}, {measured} time")
    if names:
        wanted = _wanted(found.peers)
        absent = {m: lack for m in modes.MODES if (lack := modes.missing(m))}
        for mode, lack in absent.items():
            print(f"without {mode}: {', '.join(lack)} not installed")
        budget, rounds = (0.3, 1) if found.quick else (2.0, 3)
        how = tables.Settings(found.threads, budget, rounds, found.cpu)
        made = tables.collect(wanted, names, how)
        for key in ("minimum", "median", "first"):
            print("", *tables.render(made, wanted, key), sep="\n", flush=True)
        for line in tables.errors(made):
            print(line)
    if not found.names or "micro" in found.names:
        from tests.benchmarks import micro

        for line in micro.render(found.quick):
            print(line, flush=True)


if __name__ == "__main__":
    main()
