"""Nothing is kept from call to call: objects, memory and open files stay as many as they were.

python -m tests.test_leaks                   a million replays and ten thousand traces, with RSS
python -m tests.test_leaks 5000 200          other numbers of them
python -m tests.test_leaks 10000 200 compiled_sizes       one of them
"""

from __future__ import annotations

import gc
import io
import os
import random
import sys
import tempfile
import time
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tracegraph as tg
from tracegraph import nn
from tracegraph.compiler import CompiledGraph
from tracegraph.eager.tensors import storage_of
from tracegraph.errors import TraceGraphError

Work = Callable[[], Any]
X = tg.tensor([[1.0, -2.0, 0.5], [0.5, 0.25, 4.0]])


def network() -> Any:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def training() -> Callable[[Any], Any]:
    """A step with dropout, whose State is written: weights, slots, statistics, random numbers."""
    net = nn.Sequential(network(), nn.Dropout(0.5))
    optimizer = tg.optim.Adam(net.parameters())

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


# What is repeated. Each returns the work of one round.


def inference(_: Path) -> Work:
    program = tg.trace(network().eval(), (X,)).program(level=2)
    return lambda: program(X)


def training_step(_: Path) -> Work:
    traced = tg.trace(training(), (X,))
    return lambda: traced(X)


def changing_state(_: Path) -> Work:
    net = network().eval()
    program = tg.trace(net, (X,)).program(level=2)

    def work() -> None:
        with tg.no_grad():
            net[0].weight.mul_(0.5)
            net[1].running_mean.data.add_(1)
        net[3].weight = nn.Parameter(tg.ones(2, 4))
        program(X)

    return work


def arrays_in_and_out(_: Path) -> Work:
    net = network().eval()
    program = tg.trace(net, (X,)).program(level=2)

    def work() -> None:
        array = net[0].weight.detach().numpy()
        array[0] = 1
        program(np.ones((2, 3), np.float32))[0].detach().numpy()[0] = 2

    return work


def from_a_file(_: Path) -> Work:
    target = io.BytesIO()
    tg.save(
        {"forward": tg.trace(network().eval(), (X,)), "step": tg.trace(training(), (X,))}, target
    )
    target.seek(0)
    loaded = tg.load(target)

    def work() -> None:
        loaded(X)
        loaded.step(X)

    return work


def refused_calls(_: Path) -> Work:
    weight = tg.eye(3)
    traced = tg.trace(lambda x: x @ tg.linalg.inv(weight * x.sum()), (X,))
    singular = tg.zeros(2, 3)

    def work() -> None:
        for bad in (lambda: traced(X[0]), lambda: traced(singular), lambda: traced()):
            try:
                bad()
            except (TraceGraphError, ValueError):
                continue
            raise AssertionError("not refused")

    return work


def compiled_sizes(_: Path) -> Work:
    """Sizes that change from call to call: one graph for all, and a graph for each."""
    net = tg.compile(network().eval())
    product = tg.compile(lambda x, y: (x * y).sum(), limit=4, dynamic=False)
    rng = random.Random(0)

    def work() -> None:
        x = tg.ones(rng.randrange(1, 500), 3)
        net(x)
        few = x[: rng.randrange(9)]
        product(few, few)

    return work


def eager_step(_: Path) -> Work:
    step = training()
    return lambda: step(X)


REPLAYS = {
    inference: 2000, training_step: 300, changing_state: 700, arrays_in_and_out: 1000,
    from_a_file: 200, refused_calls: 700, eager_step: 200, compiled_sizes: 150,
}  # fmt: skip


def small_step() -> Callable[[Any], Any]:
    """A step of few ops, which traces fast."""
    weight = tg.ones(3, requires_grad=True)

    def step(x: Any) -> Any:
        weight.grad = None
        loss = (x * weight).square().sum()
        loss.backward()
        with tg.no_grad():
            weight.sub_(weight.grad * 0.01)
        return loss

    return step


def traces(_: Path) -> Work:
    step = small_step()
    return lambda: tg.trace(step, (X,))


def traces_of_training(_: Path) -> Work:
    step = training()
    return lambda: tg.trace(step, (X,))


def traces_of_new_functions(_: Path) -> Work:
    return lambda: tg.trace(small_step(), (X,))(X)


def refused_traces(_: Path) -> Work:
    step = small_step()

    def f(x: Any) -> Any:
        return np.sqrt(step(x).detach().numpy())

    def work() -> None:
        try:
            tg.trace(f, (X,))
        except tg.errors.BakeError:
            return
        raise AssertionError("not refused")

    return work


def programs(_: Path) -> Work:
    traced = tg.trace(network().eval(), (X,))
    return lambda: [traced.program(level=level)(X) for level in (0, 1, 2)]


def files(folder: Path) -> Work:
    traced = tg.trace(small_step(), (X,))
    path = folder / "model.tg"

    def work() -> None:
        tg.save(traced, path)
        loaded = tg.load(path)
        loaded(X)
        loaded.load_state_dict(loaded.state_dict())

    return work


def damaged_files(folder: Path) -> Work:
    path = folder / "damaged.tg"
    tg.save(tg.trace(network(), (X,)), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    def work() -> None:
        try:
            tg.load(path)
        except tg.errors.FileFormatError:
            return
        raise AssertionError("not refused")

    return work


TRACES = {
    traces: 200, traces_of_training: 10, traces_of_new_functions: 100, refused_traces: 100,
    programs: 30, files: 40, damaged_files: 100,
}  # fmt: skip


class Held(NamedTuple):
    """What a process holds, after a collection of garbage."""

    objects: int
    size_bytes: int
    open_files: int


def held() -> Held:
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    folder = Path("/proc/self/fd")
    return Held(len(gc.get_objects()), size, len(list(folder.iterdir())) if folder.exists() else 0)


def check(work: Work, rounds: int) -> None:
    """Refuse work that leaves something behind each time.

    What is made once, at whatever time, is no leak: the least of five growths counts. CPython
    caches names of attributes, thousands of them, which tracemalloc sees as some growth.
    """
    limits = Held(rounds // 10, 16 << 10, 0)
    for _ in range(max(5, rounds // 10)):
        work()
    tracemalloc.start()
    try:
        least = limits
        for number in range(5):
            before = held()
            for _ in range(rounds):
                work()
            grown = Held(*(b - a for a, b in zip(before, held(), strict=True)))
            least = grown if number == 0 else Held(*map(min, least, grown))
            if all(found <= limit for found, limit in zip(least, limits, strict=True)):
                return
    finally:
        tracemalloc.stop()
    raise AssertionError(f"{rounds} rounds leave behind {least}")


@pytest.mark.parametrize("make", [*REPLAYS, *TRACES], ids=lambda f: f.__name__)
def test_nothing_is_left(make: Callable[[Path], Work], tmp_path: Path) -> None:
    check(make(tmp_path), {**REPLAYS, **TRACES}[make])


# Leaks that are planted must be found.

KEPT: list[Any] = []


@pytest.mark.parametrize("what", ["an object", "an array", "bytes", "a file", "now and then"])
def test_a_planted_leak_is_found(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = CompiledGraph.run
    calls = 0

    def leak() -> Any:
        if what == "now and then":
            return [[], []] if calls % 8 == 0 else None
        makers: dict[str, Callable[[], Any]] = {
            "an object": list, "bytes": lambda: bytes([calls % 256]) * 20,
            "an array": lambda: np.zeros(4), "a file": lambda: open(os.devnull),  # noqa: SIM115
        }  # fmt: skip
        return makers[what]()

    def leaking(self: CompiledGraph, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        made = leak()
        if made is not None:
            KEPT.append(made)
        return run(self, *args)

    monkeypatch.setattr(CompiledGraph, "run", leaking)
    try:
        with pytest.raises(AssertionError, match="rounds leave behind"):
            check(inference(tmp_path), 60 if what == "a file" else 350)
    finally:
        for made in KEPT:
            if hasattr(made, "close"):
                made.close()
        KEPT.clear()


def test_state_that_was_rebound_is_let_go() -> None:
    class Box:
        h = tg.zeros(3)

    box = Box()
    box.h = tg.zeros(3)

    def reads(x: Any) -> Any:
        return x + box.h

    def rebinds(x: Any) -> Any:
        box.h = box.h * 0.5 + x
        return box.h.sum()

    for function in (reads, rebinds):
        traced = tg.trace(function, (tg.ones(3),), more_examples=[(tg.zeros(3),)])
        traced(tg.ones(3))
        first = weakref.ref(storage_of(box.h))
        box.h = tg.ones(3)
        traced(tg.ones(3))
        gc.collect()
        assert first() is None, function.__name__
        second = weakref.ref(storage_of(box.h))
        traced.add_example(tg.ones(3) * 2)
        assert traced.state_dict()["box.h"] is box.h
        traced(tg.ones(3))
        gc.collect()
        assert (second() is None) == (function is rebinds)


def test_a_trace_goes_without_the_collector() -> None:
    """Nothing of a recording is held in a circle: it goes when the trace does."""
    step = training()
    tg.trace(step, (X,), check=False)
    gc.collect()
    gc.disable()
    try:
        tg.trace(step, (X,), check=False)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_cycle_is_no_leak() -> None:
    """The collector takes what is held in a circle only."""

    def work() -> None:
        circle: list[Any] = []
        circle.append(circle)

    check(work, 300)


def _resident() -> int:
    """Resident memory in KiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _watch(name: str, work: Work, rounds: int) -> None:
    for _ in range(max(100, rounds // 10)):
        work()
    gc.collect()
    before, start = _resident(), time.perf_counter()
    for _ in range(rounds):
        work()
    taken = time.perf_counter() - start
    gc.collect()
    after = _resident()
    each = (after - before) * 1024 / rounds
    print(
        f"{name:24} {rounds:>10,} times {taken:8.1f} s   RSS {before:,} -> {after:,} KiB "
        f"({each:+.2f} bytes each)",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Run everything often, and print how resident memory grows."""
    plain = [a.replace(",", "") for a in arguments]
    numbers = [int(a) for a in plain if a.replace("_", "").isdigit()]
    names = [a for a in plain if a[0].isalpha()]
    replays, tracings = numbers if len(numbers) == 2 else (1_000_000, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        for make in (*REPLAYS, *TRACES):
            if not names or make.__name__ in names:
                rounds = replays if make in REPLAYS else tracings
                _watch(make.__name__, make(Path(folder)), rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
