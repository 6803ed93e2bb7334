"""The native driver: every record in order, every chunk once, whatever threads and systems do.

What must not be trusted to luck is planted: each fault of FAULTS makes the same run fail that the
driver itself survives.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from tests.driver_kernels import CHEAP, DEAR, Step, checked, kernels, plan, relay
from tracegraph.runtime.cpu.code.llvm import (
    compile_assembly,
    compile_object,
    host_target,
    level_target,
)
from tracegraph.runtime.cpu.driver import pool as pools
from tracegraph.runtime.cpu.driver.driver import Driver, make_driver
from tracegraph.runtime.cpu.driver.layout import Control
from tracegraph.runtime.cpu.driver.pool import Call, Pool
from tracegraph.runtime.cpu.driver.text import driver_text

ROOT = Path(__file__).resolve().parent.parent
WORKERS = range(8)
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no sched_setaffinity"
)


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Turn a hang into a failure that shows where."""
    faulthandler.dump_traceback_later(300, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def make_pool() -> Iterator[Callable[..., Pool]]:
    """Return `Pool`, closing what it made afterwards."""
    made: list[Pool] = []

    def make(*arguments: object, **options: object) -> Pool:
        made.append(Pool(*arguments, **options))
        return made[-1]

    try:
        yield make
    finally:
        for pool in made:
            pool.close()


def run_python(code: str, timeout_s: float = 120, **settings: str) -> str:
    """Run code in a fresh interpreter, which must end well, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | settings,
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def parked(pool: Pool) -> int:
    """Return how many workers of a pool are parked, or about to be."""
    slots = pool._memory.view(np.int32)[Control.SLOTS // 4 :: 2]
    return int(slots[1:].sum())


def wait_until(happened: Callable[[], bool]) -> None:
    """Ask again and again; fail after a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 7, 64, 1001])
def test_each_chunk_is_run_once(workers: int, chunks: int, make_pool: Callable[..., Pool]) -> None:
    words = np.zeros(1002, np.int64)
    made = plan(("count", words, chunks))
    pool = make_pool(workers)
    for _ in range(50):
        assert made.call.run(pool) == 0
    assert words[:chunks].tolist() == [50] * chunks
    assert not words[chunks:].any()


@pytest.mark.parametrize("spin_ns", [0, pools.SPIN_NS])
@pytest.mark.parametrize("workers", WORKERS)
def test_records_wait_for_each_other(
    workers: int, spin_ns: int, make_pool: Callable[..., Pool]
) -> None:
    pool = make_pool(workers, spin_ns=spin_ns)
    for chunks, steps, cost_ns in ((2, 1, DEAR), (5, 8, CHEAP), (64, 3, DEAR)):
        step = checked(relay(chunks, steps, cost_ns), pool)
        for _ in range(500):
            step()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    "sizes", [(2, 1), (1, 1, 1), (3, 0, 1, 0, 0, 2), (1, 64, 2), (64, 1), (5,) * 40]
)
def test_each_chunk_of_a_group_is_run_once(
    workers: int, sizes: tuple[int, ...], make_pool: Callable[..., Pool]
) -> None:
    words = [np.zeros(size + 1, np.int64) for size in sizes]
    before, after = (np.zeros(9, np.int64) for _ in range(2))
    group: list[Step] = [("count", x, size) for x, size in zip(words, sizes, strict=True)]
    made = plan(("count", before, 9), group, ("count", after, 9), group)
    pool = make_pool(workers)
    for _ in range(50):
        assert made.call.run(pool) == 0
    assert before.tolist() == after.tolist() == [50] * 9
    for x, size in zip(words, sizes, strict=True):
        assert x.tolist() == [100] * size + [0]


@pytest.mark.parametrize("workers", [1, 3])
def test_records_of_a_group_do_not_wait_for_each_other(
    workers: int, make_pool: Callable[..., Pool]
) -> None:
    arrivals = np.zeros(1, np.int64)
    made = plan([("meet", arrivals, 1), ("meet", arrivals, 1)])  # each waits for the other
    pool = make_pool(workers)
    for _ in range(50):
        assert made.call.run(pool) == 0


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("workers", WORKERS)
def test_groups_wait_for_each_other(
    workers: int, parts: int, make_pool: Callable[..., Pool]
) -> None:
    pool = make_pool(workers)
    for chunks, steps, cost_ns in ((8, 8, CHEAP), (65, 3, DEAR)):
        step = checked(relay(chunks, steps, cost_ns, parts=parts), pool)
        for _ in range(500):
            step()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_group_is_run_after_an_error(workers: int, make_pool: Callable[..., Pool]) -> None:
    words, code = [np.zeros(64, np.int64) for _ in range(3)], np.array([100])
    group: list[Step] = [("count", words[0], 3), ("count", words[1], 9), ("fail", code, 2)]
    made = plan(group, [("count", words[2], 5), ("count", words[2], 3)])
    pool = make_pool(workers)
    for _ in range(20):
        assert made.call.run(pool) == 101
    assert words[0].sum() == 60
    assert words[1].sum() == 180
    assert not words[2].any()


def test_sizes_may_change_from_run_to_run(make_pool: Callable[..., Pool]) -> None:
    words = np.zeros(64, np.int64)
    made = plan(("count", words, 0), ("count", words, 0))
    pool = make_pool(2)
    expected = np.zeros(64, np.int64)
    for first, second in ((3, 0), (0, 64), (1, 1), (-1, 5), (64, 63)):
        made.call.records[:, 2] = first, second
        assert made.call.run(pool) == 0
        expected[: max(first, 0)] += 1
        expected[: max(second, 0)] += 1
    assert words.tolist() == expected.tolist()


def test_a_plan_without_records_is_run(make_pool: Callable[..., Pool]) -> None:
    for workers in (0, 2):
        assert plan().call.run(make_pool(workers)) == 0


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("chunks", [1, 2, 50])
def test_an_error_ends_the_run(workers: int, chunks: int, make_pool: Callable[..., Pool]) -> None:
    before, after, code = (np.zeros(64, np.int64) for _ in range(3))
    code[0] = 100
    made = plan(("count", before, 64), ("fail", code, chunks), ("count", after, 64))
    pool = make_pool(workers)
    for _ in range(20):
        assert made.call.run(pool) == 100 + chunks - 1  # the greatest, whoever came first
    assert before.tolist() == [20] * 64
    assert not after.any()
    made.call.records[1, 2] = 0
    assert made.call.run(pool) == 0
    assert after.tolist() == [1] * 64


def test_a_call_checks_its_arrays() -> None:
    rows, frame = np.zeros((2, 4), np.int64), np.zeros(4, np.int64)
    for bad in (rows.astype(np.int32), rows[:, :2].copy(), rows.T, rows[0]):
        with pytest.raises(TypeError, match="records"):
            Call(bad, frame)
    with pytest.raises(TypeError, match="frame"):
        Call(rows, frame.astype(np.int32))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("gap_s", [0.0003, 0.005])
def test_parked_workers_are_woken(
    workers: int, gap_s: float, make_pool: Callable[..., Pool]
) -> None:
    pool = make_pool(workers)
    together = plan(("meet", np.zeros(1, np.int64), 2))  # two threads must be there
    step = checked(relay(8, 3), pool)
    for _ in range(30):
        time.sleep(gap_s)
        assert together.call.run(pool) == 0
        time.sleep(gap_s)
        step()


def test_a_long_record_rouses_everybody(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(7)
    long = plan(("work", np.array([3_000_000]), 64))  # some ms a chunk
    awake = False
    for _ in range(8):  # a busy system may let some sleep until the others are done
        wait_until(lambda: parked(pool) == 7)
        thread = threading.Thread(target=long.call.run, args=(pool,))
        thread.start()
        while thread.is_alive() and not awake:
            awake = parked(pool) == 0
            time.sleep(0.0002)
        thread.join()
    assert awake


def test_cheap_calls_get_help_only_if_they_are_frequent(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1, spin_ns=2_000_000)
    words = np.zeros(2, np.int64)
    cheap = plan(("count", words, 2), cost_ns=CHEAP)
    wait_until(lambda: parked(pool) == 1)
    cheap.call.run(pool)
    assert parked(pool) == 1
    wait_until(lambda: cheap.call.run(pool) == 0 and parked(pool) == 0)


def test_several_threads_call_at_once(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(2)
    failures: list[BaseException] = []

    def calling(cost_ns: int) -> None:
        try:
            step = checked(relay(6, 3, cost_ns), pool)
            for _ in range(3000):
                step()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=calling, args=(c,)) for c in (DEAR, DEAR, CHEAP, DEAR)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_caller_runs_alone_while_another_has_the_pool(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1)
    arrivals = np.zeros(1, np.int64)
    held = plan(("meet", arrivals, 1))  # waits for a second one to arrive: us
    thread = threading.Thread(target=held.call.run, args=(pool,))
    thread.start()
    wait_until(lambda: arrivals[0] == 1)
    step = checked(relay(8, 3), pool)
    for _ in range(100):
        step()
    assert thread.is_alive()
    arrivals[0] = 2
    thread.join()


def test_a_busy_python_thread_does_not_stall_calls(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(1)
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        step = checked(relay(8, 3, CHEAP), pool)
        found = []
        for _ in range(2000):
            start = time.perf_counter()
            step()
            found.append(time.perf_counter() - start)
    finally:
        stop.set()
        thread.join()
    # A call that had to wait for the GIL would take sys.getswitchinterval(), 5 ms, each time.
    assert np.median(found) < 0.5e-3


def test_idle_workers_use_no_processor(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(3)
    checked(relay(8, 3), pool)()
    time.sleep(0.05)
    start = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - start < 0.05
    assert parked(pool) == 3


@needs_affinity
def test_all_threads_on_one_core() -> None:
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from tests.driver_kernels import checked, relay
from tracegraph.runtime.cpu.driver import pool
assert pool.usable_cores() == 1
pool.set_num_threads(4)
step = checked(relay(8, 3))
for _ in range(2000):
    step()
assert pool.shared_pool().address == 0  # nobody to share with
forced = pool.Pool(3)
step = checked(relay(8, 3), forced)
for _ in range(2000):
    step()
forced.close()
"""
    run_python(code)


FORKING = """
import os, threading, time
import numpy as np
from tests.driver_kernels import checked, plan, relay
from tracegraph.runtime.cpu.driver import pool

pool.usable_cores = lambda: 2
pool.set_num_threads(2)
step = checked(relay(8, 3))
together = plan(("meet", np.zeros(1, np.int64), 2))

def both(count):
    for _ in range(count):
        step()
    assert together.call.run() == 0  # there is a worker, a living one

def child():
    try:
        both(200)
        os._exit(0)
    finally:
        os._exit(1)

def fork_and_wait():
    pid = os.fork()
    if pid == 0:
        child()
    return os.waitpid(pid, 0)[1]

both(200)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("delay_s", [0, 0.01])
def test_a_forked_child_makes_its_own_workers(delay_s: float) -> None:
    code = f"""
for _ in range(5):
    time.sleep({delay_s})
    assert fork_and_wait() == 0
    both(200)
"""
    run_python(FORKING + code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_while_another_thread_calls() -> None:
    code = """
other, stop = checked(relay(8, 3)), threading.Event()

def calling():
    while not stop.is_set():
        other()

thread = threading.Thread(target=calling)
thread.start()
found = [fork_and_wait() for _ in range(20)]
stop.set()
thread.join()
assert found == [0] * 20
both(200)
"""
    run_python(FORKING + code)


@pytest.mark.parametrize("delay_s", [0, 0.0001, 0.02])
def test_the_interpreter_ends_under_polling_workers(delay_s: float) -> None:
    code = f"""
import time
from tests.driver_kernels import checked, relay
from tracegraph.runtime.cpu.driver import pool
pool.usable_cores = lambda: 4
pool.set_num_threads(4)
step = checked(relay(8, 3))
for _ in range(200):
    step()
time.sleep({delay_s})
"""
    run_python(code, timeout_s=30)


def test_the_interpreter_ends_under_a_calling_daemon_thread() -> None:
    code = """
import atexit, threading, time
from tests.driver_kernels import CHEAP, DEAR, checked, relay
atexit.register(lambda: checked(relay(8, 3))())  # runs after the pool has left
from tracegraph.runtime.cpu.driver import pool
pool.usable_cores = lambda: 4
pool.set_num_threads(4)

def calling(step):
    while True:
        step()

for cost_ns in (CHEAP, DEAR):
    threading.Thread(target=calling, args=(checked(relay(8, 3, cost_ns)),), daemon=True).start()
time.sleep(0.1)
"""
    for _ in range(3):
        run_python(code, timeout_s=30)


def test_control_c_arrives_between_calls() -> None:
    code = """
import os, signal, threading, time
from tests.driver_kernels import checked, relay
from tracegraph.runtime.cpu.driver import pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
pool.usable_cores = lambda: 2
pool.set_num_threads(2)
step = checked(relay(8, 3))
step()
for _ in range(5):
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            step()
    except KeyboardInterrupt:
        continue
    raise SystemExit("Ctrl-C did not arrive")
for _ in range(1000):
    step()
start = time.monotonic()
threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    time.sleep(20)  # workers are parked, and must not catch the signal
except KeyboardInterrupt:
    pass
assert time.monotonic() - start < 10
print("done")
"""
    assert run_python(code) == "done\n"


def test_number_of_threads() -> None:
    code = """
import tracegraph
from tracegraph.runtime.cpu.driver import pool
print(tracegraph.get_num_threads() == pool.usable_cores())
tracegraph.set_num_threads(3)
print(tracegraph.get_num_threads())
for bad in (0, -1):
    try:
        tracegraph.set_num_threads(bad)
    except ValueError as error:
        print(error)
pool.usable_cores = lambda: 2
print(pool.shared_pool().workers)
tracegraph.set_num_threads(1)
print(pool.shared_pool().workers)
"""
    expected = ["True", "3", "set_num_threads expects a positive integer, got 0"]
    expected += ["set_num_threads expects a positive integer, got -1", "1", "0"]
    assert run_python(code, TRACEGRAPH_NUM_THREADS="").splitlines() == expected


@pytest.mark.parametrize("said", ["5", "0", "-2", "many"])
def test_number_of_threads_from_the_environment(said: str) -> None:
    code = """
import tracegraph
try:
    print(tracegraph.get_num_threads())
except ValueError as error:
    print(error)
"""
    wrong = f"TRACEGRAPH_NUM_THREADS expects a positive integer, got {said!r}"
    expected = said if said == "5" else wrong
    assert run_python(code, TRACEGRAPH_NUM_THREADS=said) == expected + "\n"


def test_threads_may_change_while_calls_are_made() -> None:
    pools.set_num_threads(2)
    stop = threading.Event()
    failures: list[BaseException] = []

    def calling() -> None:
        try:
            step = checked(relay(8, 3))
            while not stop.is_set():
                step()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=calling)
    thread.start()
    try:
        for count in (1, 2, 3, 1, 2, 2):
            pools.set_num_threads(count)
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join()
        pools.set_num_threads(pools.usable_cores())
    assert failures == []


def other_parking() -> Driver:
    """Return the driver as it is where there is no futex."""
    return make_driver(compile_object([driver_text(host_target().triple, futex=False)]))


def test_parking_by_condition(make_pool: Callable[..., Pool]) -> None:
    driver = other_parking()
    for workers, spin_ns in ((1, 0), (3, 0), (3, pools.SPIN_NS)):
        pool = make_pool(workers, spin_ns=spin_ns, driver=driver)
        step = checked(relay(8, 3, driver=driver), pool)
        for _ in range(2000):
            step()
        together = plan(("meet", np.zeros(1, np.int64), 2), driver=driver)
        for _ in range(10):
            time.sleep(0.002)
            assert together.call.run(pool) == 0


@pytest.mark.parametrize(
    ("triple", "level", "parking"),
    [
        ("aarch64-unknown-linux-gnu", "neon", "syscall"),
        ("arm64-apple-macosx14.0.0", "neon", "pthread_cond_wait"),
        ("x86_64-apple-macosx14.0.0", "avx2", "pthread_cond_wait"),
        ("x86_64-unknown-linux-gnu", "sse2", "syscall"),
    ],
)
def test_other_platforms(triple: str, level: str, parking: str) -> None:
    text = compile_assembly([driver_text(triple)], level_target(level, triple))
    assert parking in text
    if level == "neon":  # ordered loads and stores, and a core that waits as it polls
        assert {"ldar", "stlr", "isb"} <= set(text.split())
    else:
        assert {"pause", "lock"} <= set(text.split())


# Name -> what is replaced in the driver by what. Each is a fault that a driver was seen to have, or
# that one line too few or in the wrong place would give it.
FAULTS = {
    "a chunk is taken without a swap": (
        """  %pair = cmpxchg weak ptr %left.at, i64 %left, i64 %less acquire monotonic, align 8
  %mine = extractvalue {i64, i1} %pair, 1""",
        """  store atomic i64 %less, ptr %left.at seq_cst, align 8
  %mine = icmp eq i64 0, 0""",
    ),
    "a record is read before a chunk of it is owned": (
        """  %first = load ptr, ptr %current.at, align 8
""",
        "",
        """  %less = sub i64 %left, 1
""",
        """  %less = sub i64 %left, 1
  %first = load ptr, ptr %current.at, align 8
""",
    ),
    "a record ends when its chunks are taken": (
        "%last = icmp eq i64 %pending, %share",
        "%last = icmp eq i64 %less, 0",
    ),
    "a share is taken without a swap": (
        "%share.part = select i1 %mine.part, i64 %part, i64 1",
        "%share.part = select i1 true, i64 %part, i64 1",
    ),
    "a thread goes on where it was in another group": (
        "%same = icmp eq i64 %group, %group.before",
        "%same = icmp ne i64 %group.before, 0",
    ),
    "chunks are offered before they are counted": (
        """  store atomic i64 %chunks, ptr %pending.at monotonic, align 8
  %slots = load i64, ptr %wakes.at, align 8
""",
        """  store atomic i64 %chunks, ptr %left.at seq_cst, align 8
  %slots = load i64, ptr %wakes.at, align 8
  store atomic i64 %chunks, ptr %pending.at monotonic, align 8
""",
    ),
    "a counter is reset while others read it": (
        """  store atomic i64 0, ptr %finished.at monotonic, align 8
  call void @advance(ptr %control)
""",
        """  call void @advance(ptr %control)
  store atomic i64 0, ptr %finished.at monotonic, align 8
""",
    ),
    "no second look before sleep": (
        "%up = or i1 %some.again, %leaving.again",
        "%up = icmp eq i64 0, 1",
    ),
    "the end is told after the wake-up": (
        """  store atomic i64 1, ptr %finished.at seq_cst, align 8
  call void @wake(ptr %control, i64 1, i64 1)
""",
        """  call void @wake(ptr %control, i64 1, i64 1)
  store atomic i64 1, ptr %finished.at seq_cst, align 8
""",
    ),
}


def endure(fault: str | None) -> None:
    """Run relays on a driver with a fault, or without; end the process if one takes too long."""
    text = driver_text(host_target().triple)
    if fault is not None:
        lines = iter(FAULTS[fault])
        for right, wrong in zip(lines, lines, strict=True):
            assert text.count(right) == 1
            text = text.replace(right, wrong)
    driver = make_driver(compile_object([text]))
    kernels()
    rounds = np.zeros(1, np.int64)
    for workers in (1, 3):
        pool = Pool(workers, spin_ns=0, driver=driver)
        for chunks, parts in ((2, 1), (3, 1), (16, 1), (16, 3)):
            faulthandler.dump_traceback_later(2 if fault else 100, exit=True)
            step = checked(relay(chunks, 4, driver=driver, parts=parts), pool)
            # Chunks of 0 to 2 us end at any point of the way that a waiting caller goes to sleep.
            work = plan(("work", rounds, chunks), driver=driver)
            for index in range(10_000):
                step()
                rounds[0] = index % 2000
                work.call.run(pool)
        pool.close()


# How a process ends whose memory a thread wrote to that came too late.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_planted_fault_is_found(fault: str | None) -> None:
    code = f"from tests.test_native_driver import endure; endure({fault!r})"
    for _ in range(1 if fault is None else 12):  # a race shows in most runs, not in each
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode >= 0 or -done.returncode in CRASHES
        found = any(text in done.stderr for text in ("began too early", "Timeout"))
        if fault is None:
            assert done.returncode == 0, done.stderr
        if found or done.returncode < 0:
            break
    assert (fault is None) is not (found or done.returncode < 0), done.stderr
