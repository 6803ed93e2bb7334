"""Time grows with the size of a graph, not with its square: trace, optimise, save, load, replay.

What is judged is counted work (calls of functions, the same on every machine), and for work inside
of C code a ratio of times, generously. No time is judged by itself.

    python -m tests.test_scaling                  the table for chains of 10,000 and 100,000 ops
    python -m tests.test_scaling 1000 8000 wide   other sizes, and another shape or `all`
"""

from __future__ import annotations

import gc
import io
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tracegraph as tg
from tracegraph.compiler import optimize
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify

Function = Callable[[Any], Any]


def chain(n: int) -> Function:
    """n ops in a row."""

    def f(x: Any) -> Any:
        for _ in range(n // 2):
            x = (x * 1.0001).tanh()
        return x

    return f


def wide(n: int) -> Function:
    """n readers of one value, all of them results."""
    return lambda x: [x * float(i) for i in range(n // 2)]


def cat(n: int) -> Function:
    """One op of n operands."""
    return lambda x: tg.cat([x + float(i) for i in range(n // 2)])


def writes(n: int) -> Function:
    """Many writes through views of one tensor."""

    def f(x: Any) -> Any:
        y = tg.zeros(n, 4)
        for i in range(n // 3):
            y[i] = x
        return y.sum()

    return f


def views(n: int) -> Function:
    """Many views of one State."""
    table = tg.ones(n, 4)

    def f(x: Any) -> Any:
        for i in range(n // 2):
            x = x + table[i]
        return x

    return f


def reshapes(n: int) -> Function:
    """Views of views: one reshape after another."""

    def f(x: Any) -> Any:
        y = x * 2.0
        for _ in range(n // 2):
            y = y.reshape(2, 2).unsqueeze(0)
        return y.sum()

    return f


def states(n: int) -> Function:
    """Many States, each read once."""
    weights = [tg.ones(4) for _ in range(n // 2)]

    def f(x: Any) -> Any:
        for w in weights:
            x = x * w
        return x

    return f


def prologue(n: int) -> Function:
    """Half of the graph depends on State only."""
    weights = [tg.ones(4) for _ in range(n // 3)]

    def f(x: Any) -> Any:
        for w in weights:
            x = x * w.exp()
        return x

    return f


def training(n: int) -> Function:
    """Forward, backward and optimizer."""
    weights = [tg.ones(4, requires_grad=True) for _ in range(n // 12)]
    optimizer = tg.optim.SGD(weights, lr=0.1, momentum=0.9)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        for w in weights:
            x = x * w
        x.sum().backward()
        optimizer.step()
        return x

    return f


def composites(n: int) -> Function:
    """Ops that level 2 writes out, and fuses."""

    def f(x: Any) -> Any:
        for _ in range(n // 8):
            x = tg.nn.functional.layer_norm(x, (4,)).softmax(-1)
        return x

    return f


def unread(n: int) -> Function:
    """Half of the ops are for nothing."""

    def f(x: Any) -> Any:
        for _ in range(n // 2):
            x.exp()
            x = x + 1.0
        return x

    return f


SHAPES: dict[str, Callable[[int], Function]] = {
    f.__name__: f
    for f in (
        chain,
        wide,
        cat,
        writes,
        views,
        reshapes,
        states,
        prologue,
        training,
        composites,
        unread,
    )
}


def stages(shape: str, n: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is done with a graph of about n nodes, one thing after the other."""
    made: dict[str, Any] = {}
    function, x, file = SHAPES[shape](n), tg.ones(4), io.BytesIO()

    def keep(name: str, run: Callable[[], Any]) -> tuple[str, Callable[[], Any]]:
        def work() -> None:
            made[name] = run()

        return name, work

    yield keep("trace", lambda: tg.trace(function, (x,)))
    graph = made["trace"].graph
    yield keep("optimize 1", lambda: optimize(graph, 1))
    yield keep("optimize 2", lambda: optimize(graph, 2))
    yield keep("save", lambda: tg.save(made["trace"], file))
    file.seek(0)
    yield keep("load", lambda: tg.load(file))
    yield keep("program", lambda: made["load"].program())
    yield keep("first replay", lambda: made["program"](x))
    yield keep("replay", lambda: made["program"](x))
    yield keep("print", lambda: print_graph(graph))
    yield keep("parse", lambda: parse_graph(made["print"]))
    yield keep("verify", lambda: verify(graph))


def calls(work: Callable[[], Any]) -> int:
    """How many calls of functions, in Python and C, some work takes."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def seconds(work: Callable[[], Any]) -> float:
    """How much processor time some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(
    shape: str, n: int, measure: Callable[[Any], Any], last: str = "verify"
) -> dict[str, Any]:
    """Return what each stage takes, up to the last that is asked for."""
    found = {}
    gc.collect()
    for name, work in stages(shape, n):
        found[name] = measure(work)
        if name == last:
            break
    return found


def growth(shape: str, n: int) -> dict[str, float]:
    """Return by what factor the calls of each stage grow from n to 8 n nodes."""
    measured(shape, 8 * n, calls)  # imports, caches, and kernels that are compiled once
    small, large = (measured(shape, size, calls) for size in (n, 8 * n))
    return {name: large[name] / small[name] for name in small}


def slow_stages(shape: str, n: int, last: str = "verify") -> dict[str, float]:
    """Return the stages whose time grows by more than 32 from n to 8 n nodes, and by how much."""
    measured(shape, 24, seconds)
    small, large = (measured(shape, size, seconds, last) for size in (n, 8 * n))
    return {name: s / small[name] for name, s in large.items() if s > max(0.05, 32 * small[name])}


@pytest.mark.parametrize("shape", SHAPES)
def test_work_grows_with_the_size(shape: str) -> None:
    found = growth(shape, 48)
    assert max(found.values()) < 8.8, found


@pytest.mark.parametrize(
    "shape",
    ["chain", "reshapes", *(pytest.param(s, marks=pytest.mark.slow) for s in ("writes", "wide"))],
)
def test_time_does_not_grow_with_the_square(shape: str) -> None:
    """Work that no call shows: 64 times where it is quadratic. What seems slow is tried again."""
    rounds = [slow_stages(shape, 400)]
    while rounds[-1] and len(rounds) < 4:
        rounds.append(slow_stages(shape, 400))
    assert not rounds[-1], rounds


def test_recording_an_op_takes_few_calls() -> None:
    """A small op takes 0.8 us in eager code; what a trace adds is judged in calls."""
    function, x = chain(800), tg.ones(4)
    tg.trace(function, (x,), check=False)
    added = calls(lambda: tg.trace(function, (x,), check=False)) - calls(lambda: function(x))
    assert added < 15 * 800


def test_a_trace_of_few_ops_takes_few_calls() -> None:
    """What a trace costs by itself: the walk, the run's frame, what was frozen, the signature."""
    function, x = chain(12), tg.ones(4)
    tg.trace(function, (x,), check=False)
    assert calls(lambda: tg.trace(function, (x,), check=False)) < 950


def test_the_graph_of_a_trace_is_made_once() -> None:
    traced = tg.trace(chain(400), (tg.ones(4),), check=False)
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda _: traced.graph, range(16)))
    assert len({id(graph) for graph in graphs}) == 1 and graphs[0] is traced.graph


def test_a_planted_walk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `erase` that looks at every node."""
    erase = Graph.erase

    def slow(self: Graph, node: Any) -> None:
        assert all(callable(n.__repr__) for n in self._nodes)
        erase(self, node)

    monkeypatch.setattr(Graph, "erase", slow)
    found = growth("unread", 72)
    assert found["optimize 1"] > 20 and found["trace"] < 8.8


def test_a_planted_copy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `add` that sorts the table of nodes: few calls, but 64 times the time."""
    add = Graph.add

    def slow(self: Graph, *args: Any, **options: Any) -> Any:
        for _ in range(9):
            sorted(self._nodes, key=id)
        return add(self, *args, **options)

    monkeypatch.setattr(Graph, "add", slow)
    assert any(slow_stages("chain", 250, last="trace") for _ in range(4))


def main(arguments: list[str]) -> None:
    """Print seconds per stage for each size, and their ratio."""
    sizes = [int(a) for a in arguments if a.isdigit()] or [10_000, 100_000]
    names = [a for a in arguments if not a.isdigit()] or ["chain"]
    for shape in SHAPES if names == ["all"] else names:
        measured(shape, 100, seconds)
        rows = [measured(shape, n, seconds) for n in sizes]
        print(f"{shape:14}", *(f"{n:>10,}" for n in sizes), "    ratio")
        for stage in rows[0]:
            taken = [row[stage] for row in rows]
            ratio = f"{taken[-1] / taken[0]:9.1f}" if taken[0] else ""
            print(f"  {stage:12}", *(f"{s:9.2f}s" for s in taken), ratio)


if __name__ == "__main__":
    main(sys.argv[1:])
