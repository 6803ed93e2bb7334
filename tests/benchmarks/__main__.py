"""Command line of the benchmarks; see the package."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tests import workloads
from tests.benchmarks import memory, models, modes, service, startup, tables

TABLES = ("programs", "models", "service", "startup", "memory", "micro")


def _arguments() -> argparse.Namespace:
    rows = (*workloads.NAMES, *models.NAMES)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"tables ({', '.join(TABLES)}; all by default) or rows ({', '.join(rows)})",
    )  # fmt: skip
    parser.add_argument("--peers", help=f"of {', '.join(modes.MODES)}; all installed by default")
    parser.add_argument("--quick", action="store_true", help="short, without what starts slowly")
    parser.add_argument("--cpu", action="store_true", help="processor seconds, for busy machines")
    threads = int(os.environ.get("THREADS") or os.cpu_count() or 1)
    parser.add_argument("--threads", type=int, default=threads, help="default: $THREADS, or cores")
    found = parser.parse_args()
    for name in found.names:
        if name not in TABLES and name not in rows:
            parser.error(f"no table or row {name!r}; there are {', '.join((*TABLES, *rows))}")
    return found


def _wanted(peers: str | None, quick: bool) -> list[str]:
    if peers is not None:
        chosen = [*modes.OURS, *(p for p in peers.split(",") if p and p not in modes.OURS)]
        unknown = [p for p in chosen if p not in modes.MODES]
        if unknown:
            raise SystemExit(f"no peer {unknown[0]!r}; there are {', '.join(modes.MODES)}")
        return chosen
    skipped = modes.SLOW_TO_START if quick else ()
    return [m for m in modes.MODES if not modes.missing(m) and m not in skipped]


def _times(names: Sequence[str], found: argparse.Namespace) -> Iterator[str]:
    wanted = _wanted(found.peers, found.quick)
    for mode in modes.MODES:
        if lack := modes.missing(mode):
            yield f"without {mode}: {', '.join(lack)} not installed"
    budget, rounds = (0.3, 1) if found.quick else (2.0, 3)
    how = tables.Settings(found.threads, budget, rounds, found.cpu)
    made = tables.collect(wanted, names, how)
    for key in ("minimum", "median", "first"):
        yield ""
        yield from tables.render(made, wanted, key)
    yield from tables.errors(made)


def _micro(quick: bool) -> Iterator[str]:
    from tests.benchmarks import micro

    return micro.render(quick)


def main() -> None:
    """Print the tables."""
    found = _arguments()
    measured = "processor" if found.cpu else "wall"
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    print(f"{found.threads} threads of {os.cpu_count()}, {measured} time")
    asked = found.names or TABLES
    rows = [n for n in asked if n not in TABLES]
    beside = [m for m in service.MODES if m in _wanted(found.peers, found.quick)]
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "programs": lambda: _times(workloads.NAMES, found),
        "models": lambda: _times(models.NAMES, found),
        "service": lambda: service.render(beside, found.threads, found.quick),
        "startup": lambda: startup.render(found.threads, found.quick),
        "memory": lambda: memory.render(found.threads, found.quick),
        "micro": lambda: _micro(found.quick),
    }
    if rows:
        parts = {"rows": lambda: _times(rows, found)} | parts
    for name, part in parts.items():
        if name == "rows" or name in asked:
            print()
            for line in part():
                print(line, flush=True)


if __name__ == "__main__":
    main()
