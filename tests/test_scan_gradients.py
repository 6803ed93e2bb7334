"""Gradients of a traced scan, from what its steps kept and by running them again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import tracegraph as tg
from tests.test_control_flow import reloaded, same
from tracegraph.compiler import optimize
from tracegraph.control.flow import cond, map, scan, while_loop
from tracegraph.dims.declared import Dim
from tracegraph.ir.graph import Node
from tracegraph.ir.verify import verify

SCALE = tg.tensor([1.5, -0.5, 2.0])


def lstm_like(w: Any, c: Any, x: Any) -> Any:
    """Saves views, constants and its own results."""
    a, b = (x @ w).tanh().chunk(2)
    c = c * b.sigmoid() + tg.cat([a, a[:1]])[:3] * SCALE
    return c, (c.exp(), tg.tensor([2.0, 3.0, 4.0]) * c * c)


def branching(w: Any, c: Any, x: Any) -> Any:
    y = cond(c.sum() > x.sum(), lambda c: (c * w[0, :3]).sin(), lambda c: c * c, (c,))
    return y + x[:3], y


def nested(w: Any, c: Any, x: Any) -> Any:
    last, ys = scan(lambda h, v: ((h * v).sin() + c.sum(), h * h), x.sum(), x)
    return c * last + map(lambda v: v * v.exp(), x)[:3], ys


def drawing(w: Any, c: Any, x: Any) -> Any:
    y = tg.nn.functional.dropout(x @ w, 0.5)[:3]
    return c * 0.9 + y * c, y


def overwriting(w: Any, c: Any, x: Any) -> Any:
    """Its gradient reads what is written in place before, and is rebuilt from it."""
    y = (x @ w)[:3] * c
    y[0] = 0.0
    y.mul_(2)
    return y + 0.1, y.sum()


def linear(w: Any, c: Any, x: Any) -> Any:
    """Its gradient reads nothing that it computes; one result has no gradient at all."""
    return c + x[:3], (c > 0, x)


STEPS: tuple[Callable[..., Any], ...] = (
    lstm_like, branching, nested, drawing, overwriting, linear,
)  # fmt: skip


def gradients(step: Any, reverse: bool, checkpoint: bool, xs: Any, c: Any, w: Any) -> Any:
    """Gradients through a scan, of all that it gives."""
    last, ys = scan(partial(step, w), c, xs, reverse=reverse, checkpoint=checkpoint)
    ys = ys if isinstance(ys, tuple) else (ys,)
    loss = (last * last).sum() + sum((y * y).sum() for y in ys if y.is_floating_point())
    return loss, tg.autograd.grad(loss, [xs, c, w], allow_unused=True, materialize_grads=True)


def operands(length: int, seed: int = 0) -> Any:
    generator = tg.Generator().manual_seed(seed)
    made = [tg.rand(*shape, generator=generator) for shape in ((length, 4), (3,), (4, 6))]
    return [t.requires_grad_() for t in made]


def scans(traced: Any) -> list[Node]:
    return [n for n in traced.graph.order() if n.op == "scan"]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_traced_scan_has_the_gradients_of_the_loop(
    step: Any, reverse: bool, checkpoint: bool
) -> None:
    function = partial(gradients, step, reverse, checkpoint)
    traced = tg.trace(function, operands(4), check=False)
    verify(traced.graph)
    assert len(scans(traced)) == 2
    args = operands(4, 1)
    tg.manual_seed(1)
    right = function(*args)
    for run in (traced, traced.program(level=2)):
        tg.manual_seed(1)
        same(run(*args), right)
    if step is not drawing:  # a file has random numbers of its own
        same(reloaded(traced)(*args), right)


def test_steps_run_again_only_where_asked_for() -> None:
    def ops(checkpoint: bool) -> list[str]:
        function = partial(gradients, lstm_like, False, checkpoint)
        back = scans(tg.trace(function, operands(4), check=False))[1]
        return [n.op for n in back.regions["body"].order()]

    assert {"tanh", "exp"}.isdisjoint(ops(False))
    assert {"tanh", "exp"} < set(ops(True))


def test_memory_that_was_overwritten_is_made_again() -> None:
    """What the gradient needs of y is gone: an error where it is asked for, and none before."""

    def step(c: Any, x: Any) -> Any:
        y = (c * x).exp()
        z = y * 2
        y[0] = 0.0
        return z, y.detach()

    def loss(xs: Any, c: Any) -> Any:
        return scan(step, c, xs)[0].sum()

    xs, c, _ = operands(3)
    xs = xs[:, :3]
    traced = tg.trace(loss, (xs, c), check=False)
    same(traced(xs, c), loss(xs, c))
    with pytest.raises(tg.errors.AutogradError, match="modified by an inplace"):
        tg.trace(lambda xs, c: tg.autograd.grad(loss(xs, c), [c]), (xs, c))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_a_scan_writes_outside_is_written_once(checkpoint: bool) -> None:
    class Net(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.w = tg.nn.BatchNorm1d(3), tg.nn.Parameter(tg.ones(3))

        def forward(self, xs: Any) -> Any:
            def step(h: Any, x: Any) -> Any:
                h = (self.norm(x) * self.w + h).tanh()
                return h, ()

            return scan(step, tg.zeros(5, 3), xs, checkpoint=checkpoint)[0]

    xs = tg.rand(4, 5, 3, generator=tg.Generator().manual_seed(1))
    found = []
    for traces in (False, True):
        net = Net()
        optimizer = tg.optim.SGD(net.parameters(), lr=0.1)

        def train(net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = net(xs).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = tg.trace(train).program() if traces else train
        losses = [run() for _ in range(3)]
        found.append([*losses, *net.state_dict().values()])
    same(*found)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_taken_again_and_of_gradients(checkpoint: bool) -> None:
    def f(xs: Any, c: Any, w: Any) -> Any:
        last, (ys, _) = scan(partial(lstm_like, w), c, xs, checkpoint=checkpoint)
        loss = (last * ys.sum()).sum()
        once = tg.autograd.grad(loss, [xs, w], retain_graph=True)
        (g,) = tg.autograd.grad(loss, [c], create_graph=True)
        return *once, *tg.autograd.grad((g * g).sum() + g.sum(), [xs, c, w])

    args = operands(3)
    traced = tg.trace(f, args, check=False)
    same(traced(*args), f(*args))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_any_length(checkpoint: bool) -> None:
    function = partial(gradients, lstm_like, False, checkpoint)
    traced = tg.trace(function, operands(4), dynamic={"xs": {0: Dim("time", min=0)}}, check=False)
    for length in (4, 1, 7):
        args = operands(length, length)
        same(traced(*args), function(*args))
        same(traced.program()(*args), function(*args))


@pytest.mark.parametrize("op", ["scan", "cond"])
def test_views_that_were_taken_before_keep_their_history(op: str) -> None:
    """Once, a view of what the function reads lost its way to the gradient."""

    def f(p: Any, xs: Any) -> Any:
        t = p * 2
        view = t.view(2, 2)
        if op == "scan":
            out, _ = scan(lambda c, x: (c * t + x + view[0, 0], ()), tg.ones(4), xs)
        else:
            out = cond(xs.sum() > 0, lambda x: x * t + view[1, 1], lambda x: x - t, (xs[0],))
        first = tg.autograd.grad(out.sum(), [p], retain_graph=True)
        t[0] = 3.0
        return first, tg.autograd.grad((view * view).sum(), [p])

    args = tg.tensor([0.5, -1.0, 2.0, 0.25]).requires_grad_(), operands(3)[0].detach()
    same(tg.trace(f, args)(*args), f(*args))


def test_what_only_a_gradient_reads_is_not_kept_without_one() -> None:
    w = tg.rand(4, 6, requires_grad=True)

    def last(xs: Any, c: Any) -> Any:
        return scan(partial(lstm_like, w), c, xs)[0]

    xs, c, _ = operands(5)
    traced = tg.trace(last, (xs, c))
    assert len(scans(traced)[0].outs) > 4
    graph = optimize(traced.graph, 1)
    (node,) = [n for n in graph.order() if n.op == "scan"]
    assert len(node.outs) == 1 and "exp" not in {n.op for n in node.regions["body"].order()}
    verify(graph)
    same(traced.program(level=1)(xs, c), last(xs, c))


def test_what_is_carried_goes_only_where_no_step_reads_it() -> None:
    def f(xs: Any, flag: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            a, b, unread, fed = carry
            return (a + b, b * 0.5 + x, unread + x, fed + unread), (a * b, x)

        (a, *_), (ys, _) = scan(step, (xs[0], xs[1], xs[0], xs[0]), xs)
        x, *_ = while_loop(
            lambda x, n, other: n < 3, lambda x, n, other: (x + a, n + 1, other * 2), (a, 0, xs)
        )
        return cond(flag.sum() > 0, lambda a, b: (a, b), lambda a, b: (a - 1, b * 2), (x, ys))[0]

    args = operands(4)[0].detach(), tg.tensor([1.0])
    traced = tg.trace(f, args)
    graph = optimize(traced.graph, 1)
    verify(graph)
    shapes = {n.op: (len(n.outs), len(n.inputs)) for n in graph.order() if n.regions}
    assert shapes == {"scan": (2, 3), "while_loop": (2, 3), "cond": (1, 2)}
    for other in (args, (args[0] * 2, tg.tensor([-1.0]))):
        for level in (0, 1, 2):
            same(traced.program(level=level)(*other), f(*other))
