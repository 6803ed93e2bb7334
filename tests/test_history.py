"""`tensor.graph()`: the IR of what eager has recorded."""

from __future__ import annotations

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.errors import TraceError
from tracegraph.runtime.interpreter import InterpreterProgram


def interpret(graph, *leaves):
    states = {f"leaf{i}": leaf.detach().numpy() for i, leaf in enumerate(leaves)}
    return InterpreterProgram(graph).run([], states)[0]


def test_graph_gives_back_the_value() -> None:
    w = tg.tensor(np.linspace(-1, 1, 12).reshape(3, 4).astype("f4"), requires_grad=True)
    x, y = tg.ones(5, 3), tg.zeros(5, 4)
    h = tg.matmul(x, w) * 2 + 1
    loss = ((h - y) ** 2).mean()
    graph = loss.graph()
    assert [n.op for n in graph if n.op not in ("constant", "state")] == [
        "matmul", "mul", "add", "sub", "pow", "mean",
    ]  # fmt: skip
    assert interpret(graph, w)[0] == loss.item()


def test_graph_follows_writes_through_views() -> None:
    w = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    base = w * 1.0
    view = base[1:]
    view.mul_(w[:2])
    base[0] = 7.0
    np.testing.assert_array_equal(interpret(base.graph(), w)[0], base.detach().numpy())


def test_two_leaves_are_state_in_order_of_use() -> None:
    a = tg.tensor([1.0, 2.0], requires_grad=True)
    b = tg.tensor([3.0, 4.0], requires_grad=True)
    graph = (b - a.exp()).graph()
    assert list(graph.states) == ["leaf0", "leaf1"]
    names = {name: node.types[0].shape for name, node in graph.states.items()}
    assert names == {"leaf0": (2,), "leaf1": (2,)}


def test_graph_refuses_what_it_cannot_know() -> None:
    with pytest.raises(TraceError, match="no recorded history"):
        tg.ones(2).graph()
    w = tg.ones(3, requires_grad=True)
    gone = w + tg.rand(3)
    with pytest.raises(TraceError, match="gone by now"):
        gone.graph()
    product = w * tg.ones(3)
    product.sum().backward()
    with pytest.raises(TraceError, match=r"freed by backward"):
        product.graph()
