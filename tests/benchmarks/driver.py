"""Latencies and endurance of the native driver: `python -m tests.benchmarks.driver`.

Every call of the endurance runs checks itself natively: a record that begins before the one before
it is done, a chunk run twice or not at all, is an error; a hang is a hang.
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from collections.abc import Iterator

import numpy as np

from tests import driver_kernels
from tests.benchmarks.clock import busy_python, latencies
from tests.driver_kernels import CHEAP, DEAR, checked, plan, relay
from tracegraph.runtime.cpu.driver.pool import SPIN_NS, Pool, usable_cores


def line(name: str, found: np.ndarray, each: int = 1) -> str:
    """Return percentiles in microseconds, for one of `each` parts of a call."""
    p50, p99, most = (np.percentile(found, p) / each / 1e3 for p in (50, 99, 100))
    least = found.min() / each / 1e3
    return f"{name:<44}{least:9.2f}{p50:9.2f}{p99:9.2f}{most:11.2f}"


def multiplications(ns: float) -> np.ndarray:
    """Return the argument of `work` that takes about so long on one core."""
    rounds = np.array([100_000])
    made = plan(("work", rounds, 1))
    took = latencies(lambda: made.call.run(Pool(0)), 20).min()
    return np.array([max(1, int(rounds[0] * ns / took))])


def basics(pool: Pool, calls: int) -> Iterator[str]:
    """Yield what calls, hand-offs and wake-ups cost."""
    alone = Pool(0)
    words = np.zeros(64, np.int64)
    one, few = plan(("count", words, 1)), plan(("count", words, 64), cost_ns=5000)
    yield line("call: 1 record of 1 chunk, alone", latencies(lambda: one.call.run(alone), calls))
    yield line("call: the same with the pool", latencies(lambda: one.call.run(pool), calls))
    yield line("call: 64 empty chunks, alone", latencies(lambda: few.call.run(alone), calls))
    yield line("call: the same shared", latencies(lambda: few.call.run(pool), calls))
    if pool.address == 0:
        return
    meetings = plan(*[("meet", np.zeros(1, np.int64), 2)] * 1000)
    found = latencies(lambda: meetings.call.run(pool), 50)
    yield line("hand-off: two polling threads meet", found, 1000)
    meeting = plan(("meet", np.zeros(1, np.int64), 2))
    found = latencies(lambda: meeting.call.run(pool), 400, 0.005)
    yield line("wake: a parked worker arrives, 5 ms gaps", found)


def service(name: str, pool: Pool, calls: int) -> Iterator[str]:
    """Yield latencies of a small plan (3 records, 60 us of work) as a service meets them."""
    work = multiplications(2500)
    made = plan(*[("work", work, 8)] * 3, cost_ns=60_000)

    def run() -> None:
        made.call.run(pool)

    yield line(f"60 us, {name}, hot", latencies(run, calls))
    yield line(f"60 us, {name}, 5 ms gaps", latencies(run, 400, 0.005))
    with busy_python():
        found = latencies(run, calls)
    yield line(f"60 us, {name}, busy Python thread", found)
    yield line(f"60 us, {name}, four callers", callers(4, pool, work, calls // 4))


def callers(count: int, pool: Pool, work: np.ndarray, calls: int) -> np.ndarray:
    """Return the latencies of several threads that call at the same time."""
    found: list[np.ndarray] = []

    def one() -> None:
        made = plan(*[("work", work, 8)] * 3, cost_ns=60_000)
        found.append(latencies(lambda: made.call.run(pool), calls))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate(found)


def endurance(pool: Pool, calls: int, cost_ns: int) -> Iterator[str]:
    """Yield latencies of relays that check themselves, in batches of at most a million."""
    made = relay(8, 3, cost_ns)
    step = checked(made, pool)
    done, began = 0, time.perf_counter()
    while done < calls:
        batch = min(calls - done, 1_000_000)
        found = latencies(step, batch)
        done += batch
        seconds = time.perf_counter() - began
        yield line(f"relay: {done} calls, {seconds:.0f} s", found)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.driver", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of the endurance run")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--spin-ns", type=int, default=SPIN_NS, help="0: threads park at once")
    parser.add_argument("--wake", action="store_true", help="parked threads, whatever it costs")
    parser.add_argument("--one-core", action="store_true", help="all threads on one core")
    parser.add_argument("--only", choices=("basics", "service", "endurance"))
    found = parser.parse_args()
    if found.one_core:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    driver_kernels.kernels()
    pool = Pool(found.threads - 1, found.spin_ns)
    print(f"{found.threads} threads, {usable_cores()} cores; microseconds")
    print(f"{'':<44}{'least':>9}{'p50':>9}{'p99':>9}{'max':>11}")
    parts = {
        "basics": lambda: basics(pool, 20_000),
        "service": lambda: itertools.chain(
            service("alone", Pool(0), 4000), service("pool", pool, 4000)
        ),
        "endurance": lambda: endurance(pool, found.calls, DEAR if found.wake else CHEAP),
    }
    for name, part in parts.items():
        if found.only in (None, name):
            for text in part():
                print(text, flush=True)
    pool.close()


if __name__ == "__main__":
    main()
