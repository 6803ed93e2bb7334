"""One process of the table: times programs in one mode, printing a line of JSON for each.

It can be called alone: `python -m tests.benchmarks.run torch 2 0.5 wall mlp_b1`.
"""

from __future__ import annotations

import json
import sys
import time

from tests.benchmarks import clock, modes


def main(mode: str, threads: int, budget_s: float, cpu: bool, names: list[str]) -> None:
    """Print {name, first, median, minimum} or {name, error}, or nothing where it does not apply."""
    for name in names:
        line: dict[str, object] = {"name": name}
        try:
            start = time.perf_counter()
            made = modes.make(mode, name, threads)
            if made is None:
                continue
            made.wait(made.step())
            line["first"] = time.perf_counter() - start
            found = clock.measure(made.step, budget_s, wait=made.wait, cpu=cpu)
            line.update(median=found.median, minimum=found.minimum, calls=found.calls)
        except Exception as error:  # a mode that cannot do one program still does the others
            line["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "cpu", sys.argv[5:])
