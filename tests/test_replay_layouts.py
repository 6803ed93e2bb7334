"""What a trace relied on of how its inputs lie in memory: replays do the same, or are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import device_checks
from tracegraph.capture.layouts import merges
from tracegraph.eager.dispatch import dispatch
from tracegraph.errors import GuardError
from tracegraph.ops.core import ELEMENTWISE, LAID_ALIKE, VIEW
from tracegraph.ops.table import OPS
from tracegraph.replay.layouts import Layout, check_layouts, order_of

Make = Callable[[], Any]


def numbers(*shape: int) -> Any:
    return tg.tensor(np.random.default_rng(3).normal(size=shape))


MAKES: dict[str, Make] = {
    "rows": lambda: numbers(3, 4),
    "turned": lambda: numbers(4, 3).T,
    "columns": lambda: numbers(3, 8)[:, ::2],
    "part": lambda: numbers(3, 8)[:, :4],
}


def write_through(x: Any) -> Any:
    y = x * 2
    y.reshape(-1)[0] = 5
    return y


def joined(x: Any) -> Any:
    y = x * 2
    y.flatten().view(3, 4)[0, 0] = 1
    return y


def stale(x: Any) -> Any:
    y = x * 2
    f = y.reshape(-1)
    y += 1
    return f


def stale_beside_fresh(x: Any) -> Any:
    y = x * 2
    f = y.reshape(-1)
    y += 1
    return f, y.reshape(-1)


def siblings(x: Any) -> Any:
    y = x * 2
    f, g = y.reshape(-1), y.reshape(-1)
    f += 1
    return g


def other_order(x: Any) -> Any:
    y = x * 2
    f = y.permute(1, 0).flatten()
    f += 1
    return y, f


def raveled(x: Any) -> Any:
    y = x * 2
    f = y.ravel()
    f += 1
    return y


def alike(x: Any) -> Any:
    y = tg.zeros_like(x)
    y.flatten()[1] = 1
    return y


def overwritten(x: Any) -> Any:
    y = x * 2
    y.copy_(tg.full((), 3.0, dtype=tg.float64))
    z = y * 2
    z.reshape(-1)[0] = 1
    return z


def twice(x: Any) -> Any:
    f = (x * 2).reshape(-1)
    g = f.view(3, 4).T.reshape(-1)
    g.mul_(0)
    return f, g


def gradient(x: Any) -> Any:
    x = x.detach().requires_grad_()
    (x * x).sum().backward()
    x.grad.reshape(-1)[0] = 5
    return x.grad


RELYING = (write_through, joined, stale, stale_beside_fresh, siblings, other_order, raveled, alike,
           overwritten, gradient)  # fmt: skip


def name_only(x: Any) -> Any:
    x = (x * 2).flatten()
    x += 1
    return x


def pieces(x: Any) -> Any:
    f = (x * 2).flatten()
    f[0] = 1
    f[1:].mul_(2)
    return f * f.sum()


def in_rows(x: Any) -> Any:
    y = (x * 2).contiguous()
    y.view(-1)[0] = 1
    return y


def product(x: Any) -> Any:
    y = x @ x.T
    y.flatten()[0] = 1
    return y


def fresh_each_time(x: Any) -> Any:
    y = x.contiguous() * 1
    for _ in range(3):
        y += y.reshape(-1).sum()
    return y


def inserted(x: Any) -> Any:
    y = x * 2
    y[None].reshape(1, 3, 2, 2)[..., 1] = 0
    return y


def repeated(x: Any) -> Any:
    y = x[None].expand(2, 3, 4).reshape(6, 4)
    y += 1
    return y, x * 3


@tg.no_grad()
def without_gradients(x: Any) -> Any:
    y = (x * 2).flatten()
    y[0] = 1
    y.view(-1)[1] = 2
    return y


def read_only(x: Any) -> Any:
    return x.permute(1, 0).reshape(2, 6).flatten(), x.flatten()


def one_row(x: Any) -> Any:
    y = x[:1] * 2
    return y.ravel(), y.flatten().reshape(-1)


FREE = (name_only, pieces, in_rows, product, fresh_each_time, inserted, repeated, read_only,
        without_gradients, twice, one_row)  # fmt: skip


def answers(result: Any) -> list[Any]:
    return [t.numpy().tolist() for t in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("first", MAKES)
@pytest.mark.parametrize("function", RELYING, ids=lambda f: f.__name__)
def test_another_layout_is_refused(function: Any, first: str) -> None:
    try:
        traced = tg.trace(function, (MAKES[first](),))
    except tg.errors.OpError:
        return  # view() of a copy
    file = io.BytesIO()
    tg.save(traced, file)
    file.seek(0)
    runs = [traced, traced.program("cpu"), traced.program("cpu", "interpreter"), tg.load(file)]
    other = "rows" if first == "turned" else "turned"
    for run in runs:
        given = MAKES[other]()
        with pytest.raises(GuardError, match=rf"'x'.*{__name__.split('.')[-1]}\.py:\d+"):
            run(given)
        assert answers(given) == answers(MAKES[other]())
        for name in MAKES:
            if (name == "turned") == (first == "turned"):
                assert answers(run(MAKES[name]())) == answers(function(MAKES[name]())), name
    with pytest.raises(GuardError):
        traced(MAKES[other]().requires_grad_())


@pytest.mark.parametrize("first", MAKES)
@pytest.mark.parametrize("function", FREE, ids=lambda f: f.__name__)
def test_nothing_else_is_refused(function: Any, first: str) -> None:
    traced = tg.trace(function, (MAKES[first](),))
    assert function is twice or not traced.layouts
    for name, make in MAKES.items():
        if function is twice and (name == "turned") != (first == "turned"):
            continue
        assert answers(traced(make())) == answers(function(make())), name


def raveled_row(x: Any) -> Any:
    f = x[:1].reshape(4, 1).ravel()
    f += 1
    return x * 1


def given_in_rows(x: Any) -> Any:
    y = x.contiguous()
    y[0] = 1
    return x * 2


def written_in_rows(x: Any) -> Any:
    y = x.mul_(2).contiguous()
    y += 1
    return y


@pytest.mark.parametrize("first", MAKES)
@pytest.mark.parametrize("function", [raveled_row, given_in_rows, written_in_rows])
def test_rows_that_an_input_may_have(function: Any, first: str) -> None:
    """`contiguous` and `ravel` give the input's own memory, or a copy if it is not in rows."""
    traced = tg.trace(function, (MAKES[first](),))
    for name, make in MAKES.items():
        mine, theirs = make(), make()
        try:
            result = answers(traced(mine))
        except GuardError:
            assert name != first
            assert answers(mine) == answers(theirs)
        else:
            assert result == answers(function(theirs)) and answers(mine) == answers(theirs)


def test_a_write_to_the_input_itself() -> None:
    def f(x: Any) -> Any:
        x = x.flatten()
        x += 1
        return x

    traced = tg.trace(f, (MAKES["rows"](),))
    for name in ("turned", "part"):
        with pytest.raises(GuardError, match=r"give x.contiguous\(\)"):
            traced(MAKES[name]())


def test_arrays_and_sizes_of_one() -> None:
    x = tg.Dim("n", min=1)
    traced = tg.trace(write_through, (MAKES["rows"](),), dynamic={"x": {0: x}})
    array = MAKES["turned"]().numpy()
    with pytest.raises(GuardError):
        traced(array)
    assert answers(traced(array[:1])) == answers(write_through(tg.tensor(array[:1])))


class Holder(tg.nn.Module):
    """State in a buffer, given in some layout."""

    buffer: Any

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.register_buffer("buffer", make().clone())

    def forward(self, x: Any) -> Any:
        self.buffer.reshape(-1).add_(x)
        return self.buffer * 1


def _put(holder: Holder, how: str, make: Make) -> None:
    if how == "attribute":
        holder.buffer = make().clone()
    else:
        holder.buffer.data = make().clone()


@pytest.mark.parametrize("how", ["attribute", "data"])
@pytest.mark.parametrize("first", MAKES)
def test_state_in_another_layout(first: str, how: str) -> None:
    x = tg.ones(12, dtype=tg.float64)
    for name, make in MAKES.items():
        holder, other = Holder(MAKES[first]), Holder(make)
        traced = tg.trace(holder, (x,))
        runs = (traced, traced.program("cpu"))
        for run in runs:
            _put(holder, how, make)
            if (name == "turned") == (first == "turned"):
                assert answers(run(x)) == answers(other(x))
                other = Holder(make)
            else:
                with pytest.raises(GuardError, match=r"^buffer lies in memory in another order"):
                    run(x)
                assert answers(holder.buffer) == answers(make())


def test_state_that_a_call_turns() -> None:
    """It lies otherwise in the second call, which the first cannot know."""
    held = numbers(3, 4)

    def f() -> Any:
        nonlocal held
        held.reshape(-1).add_(1)
        held = (held.T.contiguous() * 2).T.clone()
        return held * 1

    with pytest.raises(tg.errors.TraceError, match="held lies in memory in another order after"):
        tg.trace(f)
    f()
    traced = tg.trace(f)
    for _ in range(3):
        before = held
        expected = f() * 1
        held = before
        assert answers(traced()) == answers(expected)


def test_a_view_that_is_given_other_memory() -> None:
    """State that is a part of other memory does not follow `.data`: once it kept the old memory."""
    holder = Holder(MAKES["rows"])
    holder.buffer = numbers(4, 3).T
    traced = tg.trace(lambda: holder.buffer * 2)
    holder.buffer.data = numbers(3, 4)
    for run in (traced, traced.program("cpu")):
        with pytest.raises(GuardError, match="several places share"):
            run()


def test_traces_in_traces() -> None:
    inner = tg.trace(write_through, (MAKES["rows"](),))
    outer = tg.trace(lambda x: inner(x + 1) * 2, (MAKES["rows"](),))
    with pytest.raises(GuardError):
        outer(MAKES["turned"]())
    free = tg.trace(lambda x: inner((x + 1).contiguous()) * 2, (MAKES["rows"](),))
    assert not free.layouts


def test_an_example_of_another_layout_that_records_other_rows_is_refused() -> None:
    traced = tg.trace(write_through, (MAKES["rows"](),))
    with pytest.raises(tg.errors.TraceError):
        traced.add_example(MAKES["turned"]())
    assert answers(traced(MAKES["rows"]())) == answers(write_through(MAKES["rows"]()))


def test_compile_makes_a_graph_for_each_layout() -> None:
    compiled = tg.compile(write_through, fullgraph=True)
    for name in ("rows", "turned", "part", "turned", "rows", "columns"):
        assert answers(compiled(MAKES[name]())) == answers(write_through(MAKES[name]()))
    assert "0 eager" in compiled.explain()


def test_parts_of_a_graph() -> None:
    traced = tg.trace(write_through, (MAKES["rows"](),))
    with pytest.raises(GuardError):
        traced.subgraph(traced.graph.outputs[0])(MAKES["turned"]())


@pytest.mark.parametrize(
    ("array", "order"),
    [
        (np.zeros((2, 3)), "0,1"),
        (np.zeros((2, 3)).T, "1,0"),
        (np.zeros((2, 6))[:, :3], "0|,1"),
        (np.zeros((2, 6))[:, ::2], "0,1|"),
        (np.zeros((2, 1, 3)).transpose(2, 1, 0), "2,0"),
        (np.zeros(()), ""),
        (np.zeros((4, 1, 3)), "0,1,2"),
    ],
)
def test_orders(array: Any, order: str) -> None:
    assert order_of(array) == order
    check_layouts({"x": Layout((order,), True, "here")}, {"x": array})


def test_merges() -> None:
    assert merges((2, 3), (6,)) and merges((2, 3), (3, 2)) and merges((4, 2, 3), (4, 6))
    assert not merges((6,), (2, 3)) and not merges((2, 3), (1, 2, 1, 3))
    assert not merges((2, 0), (0,)) and not merges((), (1, 1))


def test_ops_that_carry_a_layout_are_known() -> None:
    """Other ops give rows, whatever the order of their operands."""
    ran = set()
    for name, op in OPS.items():
        if {ELEMENTWISE, VIEW, LAID_ALIKE} & op.traits:
            continue
        for case in device_checks.cases(op):
            for dtype in list(device_checks.accepted(op, case))[:1]:
                for turn in (_swapped, _channels_last):
                    arrays = [turn(a) for a in device_checks.draw(case, dtype)]
                    try:
                        out = dispatch(op, list(map(tg.from_numpy, arrays)), case.attrs)
                    except (tg.errors.TraceGraphError, TypeError):
                        continue  # this device has no such op, or no such operands
                    ran.add(name)
                    for y in out if isinstance(out, tuple) else (out,):
                        assert y.is_contiguous(), name
    assert len(ran) > 80


def _swapped(array: Any) -> Any:
    if array.ndim < 2:
        return array
    return np.ascontiguousarray(array.swapaxes(0, -1)).swapaxes(0, -1)


def _channels_last(array: Any) -> Any:
    if array.ndim < 2:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
