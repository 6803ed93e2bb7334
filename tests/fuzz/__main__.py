"""Run many random programs: `python -m tests.fuzz --examples 20000 --seed 0`."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.util
import re
import time
from collections.abc import Callable

from tests.fuzz.check import Checker, Mismatch
from tests.fuzz.choices import seeded
from tests.fuzz.program import Program
from tests.fuzz.writer import write


def minimised(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Drop statements (and lines of blocks) while the program still fails in the same way."""
    changed = True
    while changed:
        changed = False
        for field in ("between", "body", "setup", "inputs"):
            lines = getattr(program, field)
            for i in range(len(lines) - 1, -1, -1):
                smaller = dataclasses.replace(program, **{field: lines[:i] + lines[i + 1 :]})
                if fails(smaller):
                    program, changed, lines = smaller, True, getattr(smaller, field)
        for name in [n for n, _ in program.inputs] + ["0", f"v{len(program.body)}"]:
            smaller = dataclasses.replace(program, result=name)
            if len(name) < len(program.result) and fails(smaller):
                program, changed = smaller, True
    return program


def _where(failure: Mismatch) -> str:
    """The part of a failure that stays the same when statements go away."""
    return re.sub(r"\d+", "0", failure.detail.split(":")[0])


def same_failure(check: Checker, failure: Mismatch) -> Callable[[Program], bool]:
    """A test whether a program fails as another did (an invalid program does not)."""

    def fails(program: Program) -> bool:
        try:
            check(program)
        except Mismatch as found:
            return found.what == failure.what and _where(found) == _where(failure)
        except Exception:
            return False
        return False

    return fails


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--statements", type=int, default=25)
    parser.add_argument("--keep-going", action="store_true", help="show up to 20 kinds of failure")
    options = parser.parse_args()
    check = Checker(torch=importlib.util.find_spec("torch") is not None)
    start = time.perf_counter()
    failures: collections.Counter[str] = collections.Counter()
    done = 0
    for seed in range(options.seed, options.seed + options.examples):
        if done and done % 5000 == 0:
            print(f"{done} programs, {sum(failures.values())} failures", flush=True)
        done += 1
        program = write(seeded(seed), options.statements)
        try:
            check(program)
        except Mismatch as failure:
            failures[failure.what] += 1
            if failures[failure.what] > 1:
                continue
            small = minimised(program, same_failure(check, failure))
            try:
                check(small)
            except Mismatch as found:
                print(f"\n=== seed {seed}: {found}", flush=True)
            if not options.keep_going or len(failures) >= 20:
                break
    print(f"\n{done} programs in {time.perf_counter() - start:.0f} s")
    for what, count in (*check.seen.most_common(), *failures.most_common()):
        print(f"{count:8} {what}")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
