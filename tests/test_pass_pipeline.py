"""The table, the levels and the reports; real traces through all of it; time on large graphs."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tests.random_graphs import assert_close, assert_same_bits, evaluate
from tests.test_pass_rules import graph_of
from tracegraph.dtypes import float32
from tracegraph.errors import GraphError
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.passes.fusion import kernel_counts
from tracegraph.passes.pipeline import BY_NAME, LEVELS, PASSES, run_passes
from tracegraph.tensor_type import TensorType

nn, F = torch.nn, torch.nn.functional


def test_the_table_is_sound() -> None:
    assert len(BY_NAME) == len(PASSES)
    assert all(row.doc.endswith(".") and row.phase for row in PASSES)
    used = {name for phases in LEVELS.values() for phase in phases for name in phase.names}
    assert used == set(BY_NAME)
    assert all(BY_NAME[name].exact for phase in LEVELS[1] for name in phase.names)


def test_unknown_levels_and_passes_are_refused() -> None:
    graph = graph_of("%x: f32[2]", "return %x")
    with pytest.raises(GraphError, match="no level 7; there are: 0, 1, 2"):
        run_passes(graph, 7)
    with pytest.raises(GraphError, match="no pass 'frobnicate'; there are: dead_code, "):
        run_passes(graph, ["frobnicate"])


def test_a_report_has_a_row_for_each_run() -> None:
    graph = graph_of("%x: f32[2]", "%0: f32[2] = neg(%x)\n%1: f32[2] = neg(%0)\nreturn %1")
    report: list[Any] = []
    assert run_passes(graph, ["simplify_algebra", "dead_code"], report=report) == 1
    assert [(r.name, r.before, r.after, r.changes) for r in report] == [
        ("simplify_algebra", 3, 1, 1),
        ("dead_code", 1, 1, 0),
    ]
    assert all(r.seconds >= 0 for r in report)


def test_level_0_changes_nothing_and_the_collector_comes_back() -> None:
    graph = graph_of("%x: f32[2]", "%0: f32[2] = neg(%x)\nreturn %x")
    assert run_passes(graph, 0) == 0
    assert len(graph) == 2
    assert gc.isenabled()


def test_a_verifier_fault_is_found_before_any_pass() -> None:
    graph = graph_of("%x: f32[2]", "%0: f32[2] = neg(%x)\nreturn %0")
    graph.outputs[0].node.op = "frobnicate"
    with pytest.raises(GraphError, match="there is no such op"):
        run_passes(graph, 1, check=True)
    assert gc.isenabled()


class Block(nn.Module):
    """Pre-norm attention and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.project, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        q, k, v = self.project(self.norm(x)).split(8, dim=2)
        scores = F.softmax(torch.matmul(q, k.transpose(-2, -1)) / 8**0.5, dim=-1)
        x = x + self.out(torch.matmul(scores, v))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def block() -> tuple[Any, tuple[Any, ...]]:
    return Block(), (torch.randn(2, 4, 8),)


def train_step() -> tuple[Any, tuple[Any, ...]]:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1]))


def convolution() -> tuple[Any, tuple[Any, ...]]:
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return net.eval(), (torch.randn(2, 2, 5, 5),)


def in_place() -> tuple[Any, tuple[Any, ...]]:
    def write(x: Any) -> Any:
        y = x * 2
        y[:, 1] = 0
        y[1:].add_(1)
        return y[:, 1], y.flatten()

    return write, (torch.randn(3, 4),)


@pytest.mark.parametrize("make", [block, train_step, convolution, in_place])
def test_real_traces_keep_their_results(make: Any) -> None:
    torch.manual_seed(0)
    function, inputs = make()
    traced = torch.trace(function, inputs)
    given = [t.numpy() for t in inputs]
    given += [np.asarray(n.attrs["default"]) for n in traced.graph.inputs[len(given) :]]
    states = {name: np.array(t.detach().numpy()) for name, t in traced.state.items()}
    wanted = evaluate(traced.graph, given, states)
    for level in (1, 2):
        graph = traced.graph.copy()
        run_passes(graph, level, check=True)
        text = print_graph(graph)
        assert print_graph(parse_graph(text)) == text
        assert run_passes(graph, 1) == 0 or level == 2
        compare = assert_same_bits if level == 1 else assert_close
        compare(evaluate(graph, given, states), wanted)


def test_a_transformer_block_fuses_into_a_few_kernels() -> None:
    function, inputs = block()
    graph = torch.trace(function, inputs).graph
    run_passes(graph, 2)
    assert kernel_counts(graph) == {"reduction": 3}
    rest = [n.op for n in graph if n.op not in ("input", "state", "kernel", "constant")]
    assert sorted(set(rest)) == ["add", "gelu", "linear", "matmul", "permute", "slice"]


def network(count: int) -> Graph:
    """Layers of normalisation, products and updates of State, all reading one constant."""
    graph = Graph("network")
    x = graph.add_input("x", TensorType(float32, (4, 8))).out
    two = graph.add_constant(np.array(2.0, np.float32), TensorType(float32, ())).out
    while len(graph) < count:
        name = f"layer{len(graph)}.weight"
        w = graph.add_state(name, TensorType(float32, (8, 8))).out
        y = graph.add("softmax", (x,), {"dim": 1}).out
        y = graph.add("linear", (y, w)).out
        y = graph.add("mul", (graph.add("neg", (graph.add("neg", (y,)).out,)).out, two)).out
        y = graph.add("reshape", (y,), {"shape": (32,)}).out
        y = graph.add("reshape", (y,), {"shape": (4, 8)}).out
        x = graph.add("add", (x, graph.add("div", (y, two)).out)).out
        graph.writes[name] = graph.add("sub", (w, graph.add("mul", (w, two)).out)).out
    graph.outputs = [x]
    return graph


def test_all_passes_are_near_linear() -> None:
    def seconds(count: int) -> float:
        graph = network(count)
        start = time.process_time()
        run_passes(graph, 2)
        return time.process_time() - start

    seconds(200)
    assert seconds(20_000) < 25 * max(seconds(2_000), 0.1)
