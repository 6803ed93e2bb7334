"""Long chains and memory: no recursion, nothing kept longer than needed, no cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tracegraph as tg

LENGTH = 100_000


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    """Reference counts alone must free everything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def chain(x: Any, length: int = LENGTH) -> Any:
    for _ in range(length):
        x = x * 1.0
    return x


def test_backward_through_a_long_chain() -> None:
    x = tg.ones(2, requires_grad=True)
    chain(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_long_chain_is_shown_and_freed() -> None:
    y = chain(tg.ones(2, requires_grad=True))
    assert "MulBackward0" in repr(y)
    middle = weakref.ref(y.grad_fn)
    del y
    assert middle() is None


def test_a_long_chain_of_second_gradients() -> None:
    x = tg.full((2,), 1.0, requires_grad=True)
    (g,) = tg.autograd.grad(chain(x * x, LENGTH // 10).sum(), x, create_graph=True)
    g.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_long_chains_of_views_and_writes() -> None:
    x = tg.ones(2, requires_grad=True)
    v = base = tg.zeros(2)
    for _ in range(2000):
        v = v.view(2)
    v.copy_(x)
    base.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    y = x * 1
    for _ in range(5000):
        y.mul_(1.0)
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_wide_sum() -> None:
    x = tg.ones(1, dtype=tg.float64, requires_grad=True)
    parts = [x * float(i) for i in range(20_000)]
    tg.cat(parts).sum().backward()
    assert x.grad.item() == float(sum(range(20_000)))


def arrays_of(*tensors: Any) -> list[Any]:
    return [weakref.ref(t._data) for t in tensors]


def test_intermediate_results_live_as_long_as_the_graph() -> None:
    x = tg.ones(1000, requires_grad=True)
    a = x * 2.0
    b = a * a
    loss = b.sum()
    kept, unused = arrays_of(a, b)
    del a, b
    assert kept() is not None, "the factor of a square is needed"
    assert unused() is None, "what a sum adds up is not needed"
    loss.backward()
    assert kept() is None, "backward frees what was kept"


def test_a_retained_graph_keeps_its_values() -> None:
    x = tg.ones(10, requires_grad=True)
    a = x * 2.0
    loss = (a * a).sum()
    (kept,) = arrays_of(a)
    del a
    loss.backward(retain_graph=True)
    assert kept() is not None
    del loss
    assert kept() is None


@pytest.mark.parametrize("function", ["exp", "sigmoid", "tanh", "sqrt", "reciprocal", "softmax"])
def test_a_kept_result_closes_no_cycle(function: str) -> None:
    x = tg.ones(10, requires_grad=True)
    y = getattr(x, function)(*((0,) if function == "softmax" else ()))
    node, (array,) = weakref.ref(y.grad_fn), arrays_of(y)
    del y
    assert node() is None and array() is None


def test_user_functions_close_no_cycle() -> None:
    class Exp(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x.exp()
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[1]

    x = tg.ones(10, requires_grad=True)
    y = Exp.apply(x)
    node, (array,) = weakref.ref(y.grad_fn), arrays_of(y)
    del y
    assert node() is None and array() is None
    (g,) = tg.autograd.grad(Exp.apply(x).sum(), x, create_graph=True)
    (second,) = tg.autograd.grad(g.sum(), x)
    assert np.allclose(second.tolist(), np.e)


def test_hooks_and_retained_gradients_close_no_cycle() -> None:
    x = tg.ones(10, requires_grad=True)
    y = x * 2.0
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    y.sum().backward()
    node, (array,) = weakref.ref(y.grad_fn), arrays_of(y)
    del y
    assert node() is None and array() is None


def test_views_close_no_cycle() -> None:
    x = tg.ones(10, requires_grad=True)
    y = x * 2.0
    v = y[2:4]
    v.mul_(3.0)
    y.sum().backward()
    (array,) = arrays_of(y)
    del y, v
    assert array() is None
    assert x.grad.tolist() == [2.0] * 2 + [6.0] * 2 + [2.0] * 6


def test_a_leaf_is_freed_with_its_gradient() -> None:
    x = tg.ones(10, requires_grad=True)
    (x * 2).sum().backward()
    leaf, grad = weakref.ref(x), weakref.ref(x.grad)
    del x
    assert leaf() is None and grad() is None


def test_a_failed_backward_leaves_nothing_behind() -> None:
    x = tg.ones(10, requires_grad=True)
    y = x * 2.0

    def fail(g: Any) -> Any:
        raise KeyError("hook")

    y.register_hook(fail)
    with pytest.raises(KeyError):
        (y * y).sum().backward()
    assert tg.is_grad_enabled()
    (array,) = arrays_of(y)
    del y
    gc.collect()  # the traceback held frames
    assert array() is None


def test_training_makes_no_garbage() -> None:
    model = [tg.randn(8, 8).requires_grad_() for _ in range(3)]

    def step() -> None:
        h = tg.ones(4, 8)
        for w in model:
            h = tg.tanh(h @ w) * 2.0
            h[0] = 0.0
        h.sum().backward()
        with tg.no_grad():
            for w in model:
                w -= 0.01 * w.grad
                w.grad = None

    for _ in range(5):
        step()
    gc.collect()
    for _ in range(50):
        step()
    assert gc.collect() == 0, "objects in cycles that only the collector frees"
