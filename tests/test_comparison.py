"""`compare_files` and `tracegraph diff`: what differs between two files, by meaning."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tracegraph import nn
from tracegraph.cli import main
from tracegraph.dtypes import float32
from tracegraph.files.comparison import Difference
from tracegraph.ir.difference import compare_graphs
from tracegraph.ir.graph import Graph
from tracegraph.tensor_type import TensorType

Save = Callable[..., Path]


def draw(*shape: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return torch.tensor(random.uniform(-1, 1, shape).astype(np.float32))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save entry points under a name; returns the path."""

    def write(name: str, **entries: Any) -> Path:
        torch.save(entries, tmp_path / f"{name}.tg")
        return tmp_path / f"{name}.tg"

    return write


def network(*middle: Any) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.Linear(8, 2))


def forward(model: Any) -> Any:
    return torch.trace(model, (draw(3, 4),))


def training(lr: float) -> Any:
    w = draw(4, 2).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=lr, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (x @ w).tanh().sum()
        loss.backward()
        optimizer.step()
        return loss

    return torch.trace(step, (draw(3, 4),))


def told(a: Path, b: Path) -> list[Difference]:
    found = torch.compare_files(a, b)
    assert main(["diff", str(a), str(b)]) == bool(found)
    assert len(torch.compare_files(b, a)) == len(found)
    return found


def test_equal_files_have_no_difference(save: Save) -> None:
    a = save("a", forward=forward(network(nn.ReLU())), step=training(0.1))
    b = save("b", forward=forward(network(nn.ReLU())), step=training(0.1))
    assert told(a, b) == []


def test_a_changed_layer(save: Save) -> None:
    a = save("a", forward=forward(network(nn.ReLU())))
    b = save("b", forward=forward(network(nn.Tanh())))
    difference, report = told(a, b)
    assert str(report) == "report forward: frozen setting ReLU.inplace: only in the first"
    assert difference.kind == "graph" and difference.name == "forward"
    head, old, new = difference.text.split("\n")
    assert head == "changed" and old.startswith("  - relu(") and new.startswith("  + tanh(")
    assert ".py:" in old and ".py:" in new


def test_an_added_layer_is_told_once(save: Save) -> None:
    blocks = [nn.ReLU(), nn.Linear(8, 8)] * 6
    a = save("a", forward=forward(network(*blocks)))
    b = save("b", forward=forward(network(*blocks[:5], nn.Softplus(), *blocks[5:])))
    graphs = [d.text for d in told(a, b) if d.kind == "graph" and "state" not in d.text]
    assert graphs[0].startswith("added\n  + softplus(")
    assert all("softplus" in text or "14.weight" in text for text in graphs) and len(graphs) == 3


def test_a_layer_of_another_size(save: Save) -> None:
    a = save("a", forward=forward(network(nn.Linear(8, 8))))
    b = save("b", forward=forward(network(nn.Linear(8, 16), nn.Linear(16, 8))))
    found = told(a, b)
    shapes = {d.name: d.text for d in found if d.kind == "tensor"}
    assert shapes["1.weight"] == "f32[8,8] -> f32[16,8]"
    assert shapes["3.weight"] == "only in the second"
    assert any(d.text.startswith("added\n  + linear(") for d in found if d.kind == "graph")


def test_a_changed_learning_rate(save: Save) -> None:
    a, b = save("a", step=training(0.1)), save("b", step=training(0.05))
    (difference,) = told(a, b)
    assert str(difference) == "entry point step: hyper-parameter optimizer.lr: 0.1 -> 0.05"


def test_a_retrained_weight(save: Save) -> None:
    model = network(nn.ReLU())
    traced = forward(model)
    a = save("a", forward=traced)
    with torch.no_grad():
        model[0].weight[0, 0] += 0.25
        model[2].bias.mul_(float("nan"))
    found = told(a, save("b", forward=traced))
    assert [str(d) for d in found] == [
        "tensor 0.weight: 1 of 32 elements differ, at most by 0.25",
        "tensor 2.bias: 2 of 2 elements differ, at most by nan",
    ]


def test_frozen_parameters_are_told(save: Save) -> None:
    model = network()
    a = save("a", forward=forward(model))
    model[0].weight.requires_grad_(False)
    (difference,) = told(a, save("b", forward=forward(model)))
    assert str(difference) == "tensor 0.weight: trained -> not trained"


def test_another_order_and_other_lines_are_no_difference(save: Save) -> None:
    w, v = draw(4, 4), draw(4, 4, seed=1)

    def one(x: Any) -> Any:
        a = torch.tanh(x @ w)
        b = torch.exp(x @ v)
        return a * b

    def other(x: Any) -> Any:
        second = torch.exp(x @ v)

        first = torch.tanh(x @ w)
        return first * second

    paths = [
        save(f.__name__, forward=torch.trace(f, (draw(2, 4),), name="f")) for f in (one, other)
    ]
    assert told(*paths) == []


def test_renumbered_graphs_are_equal() -> None:
    graph = forward(network(nn.ReLU(), nn.Dropout())).graph
    other = Graph("other")
    mapped: dict[Any, Any] = {}
    for node in graph.order():
        mapped[node] = made = other.add(
            node.op, [mapped[v.node].outs[v.index] for v in node.inputs], node.attrs, node.types,
            seq=node.seq * 10 + 3,
        )  # fmt: skip
        if node.op == "input":
            other.inputs.append(made)
        elif node.op == "state":
            other.states[node.attrs["name"]] = made
    other.outputs = [mapped[v.node].outs[v.index] for v in graph.outputs]
    other.writes = {n: mapped[v.node].outs[v.index] for n, v in graph.writes.items()}
    assert compare_graphs(graph, other) == []
    other.outputs[0] = other.outputs[0].node.inputs[0]
    assert len(compare_graphs(graph, other)) == 1


def test_a_changed_constant_and_argument(save: Save) -> None:
    a = save("a", f=torch.trace(lambda x, n: x * n + 0.5, (draw(2), 3), name="f"))
    b = save("b", f=torch.trace(lambda x, n: x * n + 0.75, (draw(2), 3), name="f"))
    (graph,) = [d for d in told(a, b) if d.kind == "graph"]
    assert "0.5" in graph.text and "0.75" in graph.text
    c = save("c", f=torch.trace(lambda x, n: x * n + 0.5, (draw(2), 4), name="f"))
    kinds = {d.kind for d in told(a, c)}
    assert {"entry point", "graph", "report"} <= kinds


def test_a_frozen_value_that_changed_is_told_with_its_name(save: Save) -> None:
    paths = []
    for scale in (2.0, 3.0):

        def f(x: Any, scale: float = scale) -> Any:
            return x * scale

        paths.append(save(f"s{scale}", f=torch.trace(f, (draw(2),), name="f")))
    assert any(d.kind == "graph" and "2.0" in d.text and "3.0" in d.text for d in told(*paths))


def test_nested_results_and_modes(save: Save) -> None:
    model = network(nn.Dropout(0.0))
    a = save("a", forward=forward(model.train()))
    b = save("b", forward=forward(model.eval()))
    assert any("training modes" in d.text for d in told(a, b))
    c = save("c", f=torch.trace(lambda x: (x, x + 1), (draw(2),), name="f"))
    d = save("d", f=torch.trace(lambda x: {"a": x, "b": x + 1}, (draw(2),), name="f"))
    assert [str(d) for d in told(c, d)] == ["entry point f: nests its results in another way"]


def test_plain_tensors_and_graphs_cannot_be_compared(save: Save, tmp_path: Path) -> None:
    torch.save({"w": draw(2)}, tmp_path / "w.tg")
    (difference,) = told(save("a", forward=forward(network())), tmp_path / "w.tg")
    assert str(difference) == "kind: graphs -> tensors only"
    torch.save({"w": draw(2, seed=1), "n": 3}, tmp_path / "v.tg")
    assert [d.kind for d in told(tmp_path / "w.tg", tmp_path / "v.tg")] == ["tensor", "value"]


def chain(count: int, changed: int | None = None, extra: int | None = None) -> Graph:
    graph = Graph("chain")
    value = graph.add_input("x", TensorType(float32, (4,))).out
    for i in range(count):
        if i == extra:
            value = graph.add("sin", [value]).out
        op = "exp" if i == changed else ("neg", "tanh", "relu")[i % 3]
        value = graph.add(op, [value]).out
    graph.outputs = [value]
    return graph


@pytest.mark.parametrize("change", [{"changed": 5000}, {"extra": 5000}])
def test_a_change_in_a_large_graph_is_found_at_its_place(change: dict[str, int]) -> None:
    started = time.perf_counter()
    found = compare_graphs(chain(20_000), chain(20_000, **change))
    assert [bool(d.first) for d in found] == ([True] if "changed" in change else [False, True])
    assert "exp(" in found[0].second or "sin(" in found[0].second
    assert all("sin(" in d.second for d in found[1:])  # what reads the new node
    assert time.perf_counter() - started < 20


def test_several_changes_in_a_large_graph() -> None:
    one, other = chain(3000, changed=10, extra=2000), chain(3000)
    found = compare_graphs(one, other)
    assert [(d.first[:4], d.second[:4]) for d in found] == [
        ("exp(", "tanh"), ("sin(", ""), ("relu", "relu")
    ]  # fmt: skip
