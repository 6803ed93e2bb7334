"""`scan` as launches against the interpreter's: what is carried, scanned and stacked, where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.test_scan_gradients import STEPS, branching, gradients, nested, operands
from tracegraph.control.flow import scan
from tracegraph.ir.control import SCAN
from tracegraph.ir.graph import Graph
from tracegraph.runtime.cpu.driver.pool import set_num_threads
from tracegraph.runtime.cpu.lowering import loops
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram

pytestmark = pytest.mark.usefixtures("kept_threads")

W = tg.rand(4, 3, generator=tg.Generator().manual_seed(5))


def same(mine: Any, right: Any) -> None:
    for a, b in zip(mine, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def hosts(program: NativeProgram) -> list[str]:
    (plan,) = program._plans.values()
    return [s.node.op for s in plan.plan.steps if isinstance(s, HostCall)]


def ran(function: Callable[..., Any], *args: Any) -> tuple[Graph, NativeProgram]:
    """Compare a trace's native program with the interpreter, with one thread and with three."""
    traced = tg.trace(function, args, check=False)
    graph, given = traced.graph, [t.numpy(force=True) for t in args]
    states = {name: t.numpy(force=True).copy() for name, t in traced.state_dict().items()}
    right, written = InterpreterProgram(graph).run(given, states)
    program = NativeProgram(graph)
    found = []
    for threads in (1, 3):
        set_num_threads(threads)
        results, new = program.run(given, states)
        same([*results, *new.values()], [*right, *written.values()])
        found.append([r.tobytes() for r in results])
    assert found[0] == found[1]
    return graph, program


def scanned(step: Any, *init: Any, **options: Any) -> Callable[..., Any]:
    def function(xs: Any) -> Any:
        return scan(step, tuple(init), xs, **options)

    return function


def swapping(carry: Any, x: Any) -> Any:
    """Results that are other operands, one twice, one that never changes."""
    a, b, fixed = carry
    return (b, a, fixed), (a, a, fixed + x.sum(), x)


def sharing(carry: Any, x: Any) -> Any:
    """What is carried is stacked too, and in two places."""
    a, b, _ = carry
    h = (a @ W.T)[:3] + x[:3] + b
    return (h, h, h.exp()), (h, h.exp(), h.reshape(3, 1).expand(3, 2))


def the_same_each_time(carry: Any, x: Any) -> Any:
    """Parts that need no step; a write over such a part; numbers and results without one."""
    a, b, c = carry
    table = W.T @ W
    table[0] = x[:3]
    return (a + table.sum(0), b, c * 0 + 2), (W.sum(0), tg.ones(2), table)


def halves(carry: Any, x: Any) -> Any:
    a, b, c = carry
    y = (x.half()[:3] * a.half()).float()
    return (y, b + y, c - 1), (y.half(), (y > b), (y * 8).long())


INIT = (tg.tensor([0.5, 1.0, -1.0]), tg.tensor([2.0, 0.0, 1.0]), tg.tensor([1.0, 1.0, 3.0]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("step", [swapping, sharing, the_same_each_time, halves])
def test_a_loop_is_launches(step: Any, length: int, reverse: bool) -> None:
    xs = tg.rand(length, 4, generator=tg.Generator().manual_seed(length))
    _, program = ran(scanned(step, *INIT, reverse=reverse), xs)
    assert not hosts(program)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_slices_are_read_where_they_lie(order: tuple[int, ...]) -> None:
    generator = tg.Generator().manual_seed(3)
    xs = tg.rand(4, 5, 6, generator=generator)

    def function(xs: Any) -> Any:
        turned = xs.permute(order)
        return scan(lambda c, x: (c + x.exp(), x[1:, ::2] * c[:-1, ::2]), turned[0] * 2, turned[1:])

    _, program = ran(function, xs)
    assert not hosts(program)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("step", [s for s in STEPS if s is not branching])
def test_gradients_are_launches(step: Any, checkpoint: bool) -> None:
    function = partial(gradients, step, False, checkpoint)
    _, program = ran(function, *operands(3))
    assert not hosts(program)


def test_scans_in_scans_in_scans() -> None:
    def outer(c: Any, x: Any) -> Any:
        last, ys = scan(lambda h, v: nested(W, h, v), c, x)
        return last.tanh(), (ys, last)

    xs = tg.rand(2, 3, 4, generator=tg.Generator().manual_seed(1)) * 0.1
    _, program = ran(lambda xs: scan(outer, INIT[0], xs), xs)
    assert not hosts(program)


def test_state_that_a_loop_makes_is_written() -> None:
    state = tg.zeros(3)

    def function(xs: Any) -> Any:
        last, ys = scan(lambda c, x: (c * 0.5 + x[:3], c.sum()), state, xs)
        state.copy_(last)
        return ys

    traced = tg.trace(function, (tg.rand(4, 4),))
    program, again = traced.program(), tg.zeros(3)
    for seed in range(3):
        xs = tg.rand(4, 4, generator=tg.Generator().manual_seed(seed))
        same([program(xs)], [scan(lambda c, x: (c * 0.5 + x[:3], c.sum()), again, xs)[1]])
        again = scan(lambda c, x: (c * 0.5 + x[:3], c.sum()), again, xs)[0]
        same([state], [again])


def test_the_host_takes_the_steps_of_other_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    xs = tg.rand(6, 4, generator=tg.Generator().manual_seed(2))
    branches = scanned(lambda c, x: ((branching(W.T.repeat(1, 2), c[0], x)[0],), ()), INIT[0])
    checked = scanned(lambda c, x: ((c[0][x[:3].long()],), ()), INIT[0])
    simple = scanned(lambda c, x: ((c[0] + x[:3],), ()), INIT[0])
    for function in (branches, checked):
        assert hosts(ran(function, xs)[1]) == [SCAN]
    assert not hosts(ran(simple, xs)[1])
    monkeypatch.setattr(loops, "_MOST_LAUNCHES", 5)
    assert hosts(ran(simple, xs)[1]) == [SCAN]


def test_an_index_out_of_range_in_a_loop_is_refused() -> None:
    traced = tg.trace(scanned(lambda c, x: ((c[0][x],), ()), INIT[0]), (tg.zeros(2, 3).long(),))
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        traced.program()(tg.full((2, 3), 7))


def test_a_loop_is_a_line_for_each_launch_of_a_step() -> None:
    xs = tg.rand(50, 4)
    traced = tg.trace(scanned(sharing, *INIT), (xs,))
    program = traced.program()
    for text in (program.explain(xs), program.explain(xs, profile=True)):
        lines = text.splitlines()
        assert len(lines) < 25 and any("50 x matmul" in line for line in lines), text


def test_what_needs_no_step_is_computed_once() -> None:
    _, program = ran(scanned(lambda c, x: ((c[0] + (W.T @ W).exp().sum(0),), x), INIT[0]),
                     tg.rand(7, 4))  # fmt: skip
    (plan,) = program._plans.values()
    names = [s.what for s in plan.plan.steps if isinstance(s, Launch)]
    assert sum("matmul" in name for name in names) == 1
