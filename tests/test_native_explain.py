"""What a native program tells of itself: steps, bytes, operations; and a profile of it."""

from __future__ import annotations

from typing import Any

import pytest

import tracegraph as tg
from tests.random_graphs import assert_close
from tracegraph import nn
from tracegraph.errors import DeviceError, SignatureError
from tracegraph.runtime.cpu.explaining import work_of
from tracegraph.runtime.cpu.lowering.steps import Launch
from tracegraph.runtime.cpu.profiling import peak


def works(program: Any) -> dict[str, Any]:
    """Return what each launch does, by what it is; the first of those that are alike."""
    known: set[Any] = set()
    steps = program._program._main.plan().plan.steps
    found = [(s.what, work_of(s, known)) for s in steps if isinstance(s, Launch)]
    return dict(reversed(found))


def rows(told: str, kind: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith(kind + " ")]


def test_a_product_counts_its_operations_and_each_byte_once() -> None:
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    program = tg.trace(net, (tg.randn(7, 20),)).program()
    told = program.explain()
    assert "linear+add+relu  f32[7,30]" in told and "linear+add       f32[7,4]" in told
    assert "2 steps: 2 kernels in 2 launches, 0 host calls" in told
    assert len(rows(told, "ahead")) == 2 and "tests/test_native_explain.py" in told
    second, first = works(program).values()
    assert (first.flops, second.flops) == (2 * 7 * 20 * 30, 2 * 7 * 30 * 4)
    assert (first.written, second.written) == (4 * 7 * 30, 4 * 7 * 4)
    panels = first.read - 4 * (7 * 20 + 30)  # in columns that fill vectors
    assert panels >= 4 * 20 * 30 and panels % (4 * 20) == 0


def test_a_product_reads_no_more_than_the_slice_that_it_is_of() -> None:
    weight = tg.randn(10, 4)
    program = tg.trace(lambda x: x[:, 3].neg() @ weight + x[:, 5] @ weight, (tg.randn(8, 9, 10),))
    work = works(program.program())["matmul"]
    assert work.flops == 2 * 8 * 10 * 4 and work.written == 4 * 8 * 4
    assert work.read < 4 * 8 * 9 * 10


def test_loop_nests_count_elements_by_steps_and_what_they_repeat_once() -> None:
    def f(x: Any, y: Any) -> Any:
        return (x + y).exp() * x, (x * x).sum(dim=1)

    program = tg.trace(f, (tg.randn(50, 8), tg.randn(8))).program()
    found = works(program)
    one = found.pop("add+exp+mul", None)
    if one is None:  # both results may be one kernel
        (both,) = found.values()
        assert (both.flops, both.written) == (5 * 400, 4 * 450)
        assert both.read == 4 * 408
    else:
        (other,) = found.values()
        assert (one.flops, one.read, one.written) == (3 * 400, 4 * 408, 4 * 400)
        assert (other.flops, other.read, other.written) == (2 * 400, 4 * 400, 4 * 50)


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients_count_every_product(groups: int, stride: int) -> None:
    weight = tg.randn(6, 6 // groups, 3, 3, requires_grad=True)

    def step(x: Any) -> Any:
        y = tg.conv2d(x, weight, stride=stride, groups=groups)
        y.sum().backward()
        return y, weight.grad

    x = tg.randn(2, 6, 11, 11)
    weight.grad = tg.zeros(6, 6 // groups, 3, 3)
    found = works(tg.trace(step, (x,)).program())
    size = (11 - 3) // stride + 1
    products = 2 * 2 * 6 * size * size * (6 // groups) * 9
    told = {name: work.flops for name, work in found.items() if name.startswith("convolution")}
    assert set(told.values()) == {products}, told


def test_recurrent_layers_and_attention_count_their_products() -> None:
    lstm = nn.LSTM(5, 8, batch_first=True)
    program = tg.trace(lambda x: lstm(x)[0], (tg.randn(3, 4, 5),)).program()
    assert sum(w.flops for w in works(program).values()) >= 2 * 4 * 3 * 8 * 4 * (5 + 8)
    q, k, v = (tg.randn(2, 3, 64, 16) for _ in range(3))
    attention = nn.functional.scaled_dot_product_attention
    program = tg.trace(lambda q, k, v: attention(q, k, v), (q, k, v)).program()
    assert works(program)["attention"].flops == 2 * 2 * 3 * 64 * 64 * (16 + 16)


def test_it_says_why_a_product_is_alone_and_why_the_host_computes() -> None:
    def f(x: Any, y: Any) -> Any:
        first = x @ y
        return first.exp(), first.softmax(1), tg.median(x), x @ x.T, (y @ x).sum()

    told = tg.trace(f, (tg.randn(6, 5), tg.randn(5, 6))).program().explain()
    assert "alone: 2 nodes read it" in told
    assert "alone: it is a result" in told
    assert "alone: its reader (" in told
    (host,) = rows(told, "host")
    assert " median " in host and "host: there is no template; at " in host


def train_step() -> tuple[Any, Any]:
    tg.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = tg.optim.Adam(net.parameters())

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return net, step


def test_a_profile_measures_every_step_and_changes_nothing() -> None:
    net, step = train_step()
    x = tg.randn(5, 4)
    traced = tg.trace(step, (x,))
    program = traced.program()
    program(x)
    before = {name: t.clone() for name, t in traced.state.items()}
    told = program.explain(x, profile=True)
    for name, t in traced.state.items():
        assert tg.equal(t, before[name]), name
    steps = [*rows(told, "native"), *rows(told, "host")]
    assert len(steps) == int(told.split(" steps")[0].split()[-1])
    assert all(" us " in row or " ms " in row for row in steps)
    assert "GB/s" in told and "of peak" in told and "GFLOP/s f32" in told
    wanted = tg.trace(step, (x,)).program(runtime="interpreter")
    saved = {name: t.clone() for name, t in traced.state.items()}
    a = program(x)
    traced.load_state_dict(saved)
    assert_close([a.numpy()], [wanted(x).numpy()])
    assert all(p.isfinite().all() for p in net.parameters())


def test_a_profile_takes_arrays_that_lie_in_any_order() -> None:
    def f(x: Any, i: Any) -> Any:
        return tg.median(x[i] * 2)

    x, i = tg.randn(6, 40).t(), tg.tensor([3, 0, 39])
    program = tg.trace(f, (x, i)).program()
    told = program.explain(x, i, profile=True)
    assert len(rows(told, "host")) == 1 and "total" in told
    assert_close([program(x, i).numpy()], [f(x, i).numpy()])


def test_dynamic_sizes_are_told_and_prepared() -> None:
    dims = {"x": {0: tg.Dim("batch", min=1, max=512)}}
    program = tg.trace(lambda x: (x * 2).sum(1), (tg.randn(4, 3),), dynamic=dims).program()
    assert "nothing is compiled yet" in program.explain()
    assert "batch=9" in program.prepare(tg.zeros(9, 3)).explain()
    told = program.explain(tg.randn(17, 3))
    assert "batch=17" in told and "batch=9" not in told
    with pytest.raises(SignatureError):
        program.prepare(tg.zeros(9, 4))


def test_a_program_of_the_interpreter_has_no_profile() -> None:
    traced = tg.trace(lambda x: x + 1, (tg.ones(3),))
    program = traced.program(runtime="interpreter")
    assert "add" in program.explain() == program.explain(tg.ones(3))
    with pytest.raises(DeviceError, match="only a native program"):
        program.explain(tg.ones(3), profile=True)
    found = tg.trace(lambda x: x.nonzero() + 1, (tg.ones(3),)).program()
    assert found.explain().startswith("the interpreter runs it: a size in it follows from data")


def test_the_peak_is_measured_once_and_is_a_rate() -> None:
    found = peak(1)
    assert found is peak(1)
    assert all(1e8 < rate < 1e14 for rate in (*found.flops.values(), *found.copies.values()))
