"""cond, while_loop, scan, map: eager, traced, from a file, and their gradients."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.control.flow import cond, map, scan, while_loop
from tracegraph.errors import AutogradError, OpError, TraceError, UnseenPathError
from tracegraph.ir.verify import verify


def reloaded(traced: Any) -> Any:
    file = io.BytesIO()
    tg.save(traced, file)
    file.seek(0)
    return tg.load(file)


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [x for v in value for x in flat(v)]
    if isinstance(value, dict):
        return [x for v in value.values() for x in flat(v)]
    return [value]


def same(mine: Any, right: Any) -> None:
    for a, b in zip(flat(mine), flat(right), strict=True):
        np.testing.assert_allclose(a.numpy(force=True), b.numpy(force=True), rtol=1e-5, atol=1e-6)


def agree(function: Any, *calls: tuple[Any, ...]) -> Any:
    """The trace of the first call must do what eager does for every call."""
    traced = tg.trace(function, calls[0])
    verify(traced.graph)
    runs = [traced, *(traced.program(level=n) for n in (0, 1, 2)), reloaded(traced)]
    for args in calls:
        tg.manual_seed(7)
        right = function(*args)
        for run in runs:
            tg.manual_seed(7)
            if run is runs[-1]:
                continue
            same(run(*args), right)
    return traced


def x3(*values: float) -> Any:
    return tg.tensor(values)


# cond


def test_cond_covers_both_outcomes_from_one_example() -> None:
    def f(x: Any) -> Any:
        return cond(x.sum() > 0, lambda x: (x * 2, x.sum()), lambda x: (x - 1, x.mean()), (x,))

    traced = agree(f, (x3(1.0, 2.0),), (x3(-1.0, -2.0),))
    loaded = reloaded(traced)
    for x in (x3(1.0, 2.0), x3(-1.0, -2.0)):
        same(loaded(x), f(x))
    assert [n.op for n in traced.graph.order()].count("cond") == 1


def test_cond_reads_closures_and_nests() -> None:
    w, b = tg.randn(3), tg.randn(3)

    def f(x: Any, y: Any) -> Any:
        def inner(z: Any) -> Any:
            return cond(z.mean() > y, lambda z: z * w, lambda z: z + b, (z,))

        out = cond(x[0] > 0, lambda d: {"r": inner(d["z"])}, lambda d: {"r": d["z"] - w},
                   ({"z": x},))  # fmt: skip
        return out["r"]

    a, b = x3(1.0, 2.0, 3.0), x3(-1.0, 2.0, 3.0)
    agree(f, (a, x3(0.0)), (a, x3(5.0)), (b, x3(0.0)))


def test_cond_writes_state_of_the_arm_that_runs() -> None:
    hits, misses = tg.zeros(()), tg.zeros(2)

    def f(x: Any) -> Any:
        def yes(x: Any) -> Any:
            with tg.no_grad():
                hits.add_(1)
            return x * hits

        def no(x: Any) -> Any:
            with tg.no_grad():
                misses[0] += x.sum()
            return x + misses.sum()

        return cond(x[0] > 0, yes, no, (x,))

    traced = tg.trace(f, (x3(1.0, 1.0),))
    assert hits.item() == 0 and misses.tolist() == [0, 0]
    calls = [x3(1.0, 1.0), x3(-1.0, 3.0), x3(2.0, 0.0)]
    right = [f(x).tolist() for x in calls]
    end = (hits.item(), misses.tolist())
    loaded = reloaded(traced)
    hits.zero_()
    misses.zero_()
    assert [traced(x).tolist() for x in calls] == right
    assert (hits.item(), misses.tolist()) == end == (2.0, [2.0, 0.0])
    loaded.load_state_dict({n: tg.zeros_like(t) for n, t in loaded.state_dict().items()})
    assert [loaded(x).tolist() for x in calls] == right


def test_cond_draws_random_numbers_in_its_arms() -> None:
    def f(x: Any) -> Any:
        y = cond(x[0] > 0, lambda x: x + tg.rand(2), lambda x: x + tg.rand(2) + tg.rand(2), (x,))
        return y + tg.rand(2)

    agree(f, (x3(1.0, 1.0),), (x3(-1.0, 1.0),))


@pytest.mark.parametrize(
    "no", [lambda x: x.sum(), lambda x: (x, x), lambda x: x.to(tg.float64), lambda x: x[:1]]
)
def test_cond_refuses_arms_that_differ(no: Any) -> None:
    with pytest.raises(OpError, match="same nesting, dtypes and shapes"):
        tg.trace(lambda x: cond(x[0] > 0, lambda x: x, no, (x,)), (x3(1.0, 2.0),))


def test_a_tensor_of_a_region_cannot_be_used_outside() -> None:
    def f(x: Any) -> Any:
        kept = []
        y = cond(x[0] > 0, lambda x: kept.append(x * 2) or x, lambda x: x, (x,))
        return y + kept[0]

    with pytest.raises(TraceError, match=r"used outside of it at .*test_control_flow"):
        tg.trace(f, (x3(1.0),))


def test_operands_are_not_changed_in_place() -> None:
    with pytest.raises(TraceError, match="in place"):
        tg.trace(lambda x: cond(x[0] > 0, lambda x: x.add_(1), lambda x: x, (x,)), (x3(1.0),))


# while_loop


def test_while_loop_runs_as_long_as_data_says() -> None:
    def collatz(n: Any) -> Any:
        def body(n: Any, steps: Any) -> Any:
            return cond(n % 2 == 0, lambda n: n // 2, lambda n: 3 * n + 1, (n,)), steps + 1

        return while_loop(lambda n, steps: n > 1, body, (n, 0))[1]

    numbers = [7, 1, 27, 6]
    traced = agree(collatz, *((tg.tensor(n),) for n in numbers))
    assert [reloaded(traced)(tg.tensor(n)).item() for n in numbers] == [16, 0, 111, 8]


def test_while_loop_carries_state_and_random_numbers() -> None:
    total = tg.zeros(())

    def f(x: Any) -> Any:
        def body(x: Any) -> Any:
            with tg.no_grad():
                total.add_(x.sum())
            return x + tg.rand(2)

        return while_loop(lambda x: x.sum() < 6, body, (x,))

    traced = tg.trace(f, (x3(0.0, 0.0),))
    results = []
    for run in (f, traced):
        total.zero_()
        tg.manual_seed(3)
        results.append([*run(x3(0.0, 1.0))[0].tolist(), *run(x3(5.0, 5.0))[0].tolist(),
                        total.item()])  # fmt: skip
    assert results[0] == results[1]


def test_while_loop_has_gradients_within_a_bound() -> None:
    w = tg.tensor(1.5, requires_grad=True)

    def f(x: Any) -> Any:
        (y,) = while_loop(lambda y: y.sum() < 20, lambda y: (y * w + 0.1,), (x * w,), bound=12)
        return tg.autograd.grad((y**2).sum(), [w])[0], y.detach()

    traced = agree(f, (x3(1.0, 2.0),), (x3(30.0, 2.0),), (x3(0.5, 0.2),))
    with pytest.raises(UnseenPathError, match="after its bound of 12 steps"):
        traced(x3(0.0, -9.0))
    with pytest.raises(OpError, match="bound of 12"):
        f(x3(0.0, -9.0))


def test_while_loop_without_a_bound_refuses_its_gradient_in_a_trace() -> None:
    w = tg.tensor(2.0, requires_grad=True)

    def f(x: Any) -> Any:
        (y,) = while_loop(lambda y: y.sum() < 20, lambda y: (y * w,), (x,))
        y.sum().backward()
        return w.grad

    with pytest.raises(AutogradError, match="bound=n"):
        tg.trace(f, (x3(1.0),))


def test_a_bound_holds_without_gradients_too() -> None:
    def f(x: Any) -> Any:
        return while_loop(lambda y: y < 5, lambda y: (y + 1,), (x,), bound=4)[0]

    traced = agree(f, (tg.tensor(2.0),), (tg.tensor(1.0),))
    with pytest.raises(UnseenPathError, match="bound of 4"):
        traced(tg.tensor(0.0))


# scan and map


def rnn(w: Any, u: Any) -> Any:
    def run(h: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = tg.tanh(h @ w + x @ u)
            return h, h.sum()

        return scan(step, h, xs)

    return run


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [0, 1])
def test_scan_is_the_loop(reverse: bool, dim: int) -> None:
    def f(h: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            a, n = carry["a"], carry["n"]
            return {"a": a * 0.5 + x["v"], "n": n + 1}, (a, x["v"] * n)

        return scan(step, {"a": h, "n": 0}, {"v": xs}, dim=dim, reverse=reverse)

    xs = tg.randn(4, 4, 3) if dim else tg.randn(4, 3)
    h = tg.randn(4, 3) if dim else tg.randn(3)
    traced = agree(f, (h, xs))
    assert sum(n.op == "scan" for n in traced.graph.order()) == 1
    carry, (before, scaled) = f(h, xs)
    a = h
    order = range(4) if not reverse else reversed(range(4))
    for k, i in enumerate(order):
        x = xs.select(dim, i)
        same(before.select(dim, i), a)
        same(scaled.select(dim, i), x * k)
        a = a * 0.5 + x
    same(carry, {"a": a, "n": tg.tensor(4)})


@pytest.mark.parametrize("length", [1, 5])
def test_scan_has_the_gradients_of_the_loop(length: int) -> None:
    tg.manual_seed(0)
    w, u = tg.randn(3, 3, requires_grad=True), tg.randn(2, 3, requires_grad=True)

    def by_scan(h: Any, xs: Any) -> Any:
        last, sums = rnn(w, u)(h, xs)
        return tg.autograd.grad((last * sums.sum()).sum(), [h, xs, w, u])

    def by_hand(h: Any, xs: Any) -> Any:
        total, carry = 0, h
        for x in xs:
            carry = tg.tanh(carry @ w + x @ u)
            total = total + carry.sum()
        return tg.autograd.grad((carry * total).sum(), [h, xs, w, u])

    args = tg.randn(3).requires_grad_(), tg.randn(length, 2).requires_grad_()
    right = by_hand(*args)
    same(by_scan(*args), right)
    traced = tg.trace(by_scan, args)
    for run in (traced, traced.program(level=2), reloaded(traced)):
        same(run(*args), right)
    assert sum(n.op == "scan" for n in traced.graph.order()) == 2


def test_scan_can_be_differentiated_twice() -> None:
    w = tg.tensor(0.7, requires_grad=True)

    def f(x: Any, use: Any = scan) -> Any:
        last, ys = use(lambda c, v: (tg.sin(c * w) + v, c * v), x.sum(), x)
        (g,) = tg.autograd.grad(last * ys.sum(), [w], create_graph=True)
        return tg.autograd.grad(g * g + g, [w, x])

    def looped(step: Any, carry: Any, xs: Any) -> Any:
        ys = []
        for v in xs:
            carry, y = step(carry, v)
            ys.append(y)
        return carry, tg.stack(ys)

    x = tg.tensor([0.3, -0.2, 0.9], requires_grad=True)
    right = f(x, looped)
    same(f(x), right)
    traced = tg.trace(f, (x,))
    same(traced(x), right)


def test_cond_can_be_differentiated_twice() -> None:
    w = tg.tensor(0.7, requires_grad=True)

    def f(x: Any) -> Any:
        y = cond(x > 0, lambda x: tg.sin(x * w), lambda x: (x * w) ** 3, (x,))
        (g,) = tg.autograd.grad(y * y, [x], create_graph=True)
        return tg.autograd.grad(g, [w, x])

    for value in (0.4, -0.3):
        x = tg.tensor(value, requires_grad=True)
        traced = tg.trace(f, (tg.tensor(0.1, requires_grad=True),))
        same(traced(x), f(x))


def test_dropout_in_a_scan_is_the_same_backward() -> None:
    drop = tg.nn.Dropout(0.5)
    w = tg.ones(4, requires_grad=True)

    def f(xs: Any) -> Any:
        last, _ = scan(lambda c, x: (c + drop(x * w), ()), tg.zeros(4), xs)
        return last.detach(), tg.autograd.grad(last.sum(), [w])[0], tg.rand(2)

    agree(f, (tg.ones(6, 4),))


def test_a_training_step_through_scan() -> None:
    class Net(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = tg.nn.GRUCell(3, 5), tg.nn.Linear(5, 1)

        def forward(self, xs: Any) -> Any:
            h, _ = scan(lambda h, x: (self.cell(x, h), ()), tg.zeros(2, 5), xs)
            return self.head(h)

    results = []
    for traces in (False, True):
        tg.manual_seed(0)
        net = Net()
        optimizer = tg.optim.Adam(net.parameters(), lr=0.05)

        def step(xs: Any, y: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = ((net(xs) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        data = tg.randn(6, 2, 3), tg.randn(2, 1)
        run = tg.trace(step, data) if traces else step
        results.append([run(*data).item() for _ in range(20)])
    np.testing.assert_allclose(*results, rtol=1e-5)
    assert results[0][-1] < results[0][0]


def test_scan_of_no_slices_and_without_slices() -> None:
    def f(h: Any, xs: Any) -> Any:
        return scan(lambda c, x: (c + x.sum(), (x * 2, c)), h, xs)

    h, (a, b) = f(tg.tensor(1.0), tg.ones(0, 3))
    assert h.item() == 1 and a.shape == (0, 3) and b.shape == (0,)
    agree(f, (tg.tensor(1.0), tg.ones(0, 3)))
    agree(lambda x: scan(lambda c, _: (c * 2, c), x, length=5), (tg.tensor(1.0),))


def test_map_is_the_stacked_calls() -> None:
    w = tg.randn(3, requires_grad=True)

    def f(xs: Any, bias: Any) -> Any:
        ys = map(lambda x, b: {"p": (x * w).sum() + b, "q": x.exp()}, xs, bias)
        return ys["p"].detach(), ys["q"], *tg.autograd.grad(ys["p"].sum(), [w])

    xs = tg.randn(5, 3)
    agree(f, (xs, tg.tensor(2.0)))
    p, q, g = f(xs, tg.tensor(2.0))
    same((p, q, g), ((xs * w).sum(1) + 2, xs.exp(), xs.sum(0)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scan(lambda c, x: (c.sum(), x), tg.ones(2), tg.ones(3)), "carries"),
        (lambda: scan(lambda c, x: c, tg.ones(2), tg.ones(3)), "pair"),
        (lambda: scan(lambda c, x: (c, x), 0, (tg.ones(3), tg.ones(4))), "one length"),
        (lambda: scan(lambda c, x: (c, x), 0), "one length"),
        (lambda: while_loop(lambda x: x < 3, lambda x: x.to(tg.int32), (tg.zeros(()),)), "carries"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(OpError, match=message):
        call()
    with pytest.raises(OpError, match=message):
        tg.trace(lambda: call(), ())
