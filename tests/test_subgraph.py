"""Parts of graphs and entry points, and networkx algorithms on `graph.nx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import tracegraph as torch
from tracegraph import nn
from tracegraph.errors import GraphError, SignatureError, UnseenPathError
from tracegraph.ir.text import print_graph
from tracegraph.ir.verify import verify


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return x + self.drop(torch.relu(self.norm(self.fc(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block(4)
        self.second = Block(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.second(self.first(x)))


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.tensor(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return Net()


def test_features_are_those_of_the_module(net: Any, tmp_path: Path) -> None:
    net.eval()
    x = draw(3, 4)
    torch.save(torch.trace(net, (draw(3, 4, seed=1),)), tmp_path / "net.tg")
    loaded = torch.load(tmp_path / "net.tg")
    with torch.no_grad():
        first = net.first(x)
        whole = net(x)
    part = loaded.subgraph(to="first")
    verify(part.graph)
    assert torch.equal(part(x), first)
    assert set(part.state) == {n for n in loaded.state_dict() if n.startswith("first.")}
    rest = loaded.subgraph(from_="second", to="head")
    assert str(rest.signature) == "(second: f32[3,4])"
    assert torch.equal(rest(first), whole)
    both = loaded.subgraph(to=["first", "head"])
    assert all(map(torch.equal, both(x), (first, whole)))
    only = loaded.subgraph(from_="second.norm", to="second.norm")
    with torch.no_grad():
        assert torch.equal(only(x), net.second.norm(x))
    torch.save({"features": part, "rest": rest}, tmp_path / "parts.tg")
    parts = torch.load(tmp_path / "parts.tg")
    assert torch.equal(parts.rest(parts.features(x)), whole)


def test_a_part_is_trained_with_the_State_of_the_whole(net: Any, tmp_path: Path) -> None:
    net.eval()
    torch.save(torch.trace(net, (draw(3, 4),)), tmp_path / "net.tg")
    loaded = torch.load(tmp_path / "net.tg")
    part = loaded.subgraph(to="first")
    assert [n for n, _ in part.named_parameters()] == [
        n for n, p in net.named_parameters() if n.startswith("first.")
    ]
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    before = loaded(draw(3, 4)).detach()
    part(draw(3, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(loaded(draw(3, 4)).detach(), before)
    assert torch.equal(part.state["first.fc.weight"], loaded.state_dict()["first.fc.weight"])


def test_writes_and_draws_of_a_part_are_its_own(net: Any) -> None:
    """In train mode a part updates its own statistics and takes its own random numbers."""
    traced = torch.trace(net, (draw(3, 4),))
    part = traced.subgraph(to="first")
    updated = {"first.norm.running_mean", "first.norm.running_var", "random.state"}
    assert updated <= set(part.graph.writes) and set(part.graph.writes) <= {
        *updated, "first.norm.num_batches_tracked",
    }  # fmt: skip
    torch.manual_seed(7)
    found = [part(draw(3, 4, seed=2)).detach() for _ in range(2)]
    mean = net.first.norm.running_mean.clone()
    torch.manual_seed(7)
    wanted = [net.first(draw(3, 4, seed=2)).detach() for _ in range(2)]
    assert all(map(torch.equal, found, wanted)) and not torch.equal(*found)
    assert not torch.equal(net.first.norm.running_mean, mean)
    second = traced.subgraph(from_="second", to="second")
    assert not any(name.startswith("first") for name in second.graph.writes)
    assert "second.norm.running_mean" in second.graph.writes


def test_places_by_name_and_value() -> None:
    w = draw(4, 4)

    def f(x: Any, scale: Any) -> Any:
        y = torch.tanh(x @ w)
        return (y * scale).sum()

    traced = torch.trace(f, (draw(2, 4), draw(4)))
    text = print_graph(traced.graph)
    tanh = next(line.split(":")[0].strip() for line in text.splitlines() if "tanh" in line)
    x, scale = draw(2, 4, seed=3), draw(4, seed=4)
    y = traced.subgraph(to=tanh)
    assert y.signature.names == ("x",)
    assert torch.equal(y(x), torch.tanh(x @ w))
    rest = traced.graph.subgraph(from_=[tanh, "scale"], to=traced.graph.outputs[0])
    assert [n.attrs["name"] for n in rest.inputs] == [tanh.replace("%", "value"), "scale"]
    node = next(n for n in traced.graph if n.op == "mul")
    assert torch.equal(traced.subgraph(to=node, from_=["scale", tanh])(scale, y(x)), y(x) * scale)
    with_weight = traced.graph.subgraph(from_=["w", "x"], to=tanh)
    assert [n.attrs["name"] for n in with_weight.inputs] == ["w", "x"] and not with_weight.states
    with pytest.raises(GraphError, match="depends on other inputs too: scale"):
        traced.subgraph(from_=tanh, to=node)


def test_arguments_of_a_part_keep_their_nesting() -> None:
    def f(batch: Any, n: int, unused: Any, *, shift: Any) -> Any:
        h = batch["a"] * n
        return h + shift, unused * 2 + h

    one = torch.ones(2)
    traced = torch.trace(f, ({"a": one, "b": one}, 3, one), {"shift": one})
    part = traced.subgraph(to=traced.graph.outputs[0])
    assert part.signature.names == ("batch", "shift") and part.signature.positional == 1
    assert part({"a": one, "b": one}, shift=one).tolist() == [4.0, 4.0]
    with pytest.raises(SignatureError, match="keys"):
        part({"a": one}, shift=one)


def test_a_guard_inside_a_part_still_stops_it() -> None:
    def f(x: Any) -> Any:
        h = x * 2
        if h.sum() > 0:
            h = h + 1
        return h.exp()

    traced = torch.trace(f, (torch.ones(2),))
    added = next(n for n in traced.graph if n.op == "add")
    part = traced.subgraph(to=added)
    with pytest.raises(UnseenPathError):
        part(-torch.ones(2))
    before = traced.subgraph(to=next(n for n in traced.graph if n.op == "mul"))
    assert before(-torch.ones(2)).tolist() == [-2.0, -2.0]
    after = traced.subgraph(from_=added, to=traced.graph.outputs[0])
    assert torch.equal(after(torch.zeros(2)), torch.ones(2))


def test_what_cannot_be_cut_is_named(net: Any) -> None:
    traced = torch.trace(net.eval(), (draw(3, 4),))
    with pytest.raises(GraphError, match="no input, State or module 'third'; there are: first"):
        traced.subgraph(to="third")
    with pytest.raises(GraphError, match=r"several modules of that name 'fc'.*first.fc, second.fc"):
        traced.subgraph(to="fc")
    with pytest.raises(GraphError, match="no value %99999"):
        traced.subgraph(to="%99999")
    with pytest.raises(GraphError, match="depends on other inputs too: x"):
        traced.subgraph(from_="first.norm", to="first")
    other = torch.trace(net, (draw(3, 4),)).graph
    with pytest.raises(GraphError, match="is no value of graph"):
        traced.graph.subgraph(to=other.outputs[0])


def test_the_graph_that_was_cut_is_as_it_was(net: Any) -> None:
    traced = torch.trace(net, (draw(3, 4),))
    before = print_graph(traced.graph)
    part = traced.graph.subgraph(from_="second", to="second")
    for node in part.order():
        node.attrs.clear()
    assert print_graph(traced.graph) == before


# Any networkx algorithm.


def test_longest_path_of_a_network_goes_through_its_layers(net: Any) -> None:
    graph = torch.trace(net.eval(), (draw(3, 4),)).graph
    path = nx.dag_longest_path(graph.nx)
    assert [n.op for n in path if n.op == "linear"] == ["linear"] * 3
    assert path[-1] is graph.outputs[0].node


def test_dominators_find_what_everything_flows_through(net: Any) -> None:
    graph = torch.trace(net.eval(), (draw(3, 4),)).graph
    inputs, last = graph.inputs[0], graph.outputs[0].node
    above = nx.immediate_dominators(graph.nx, inputs)
    chain = [last]
    while chain[-1] is not inputs and above[chain[-1]] is not None:
        chain.append(above[chain[-1]])
    assert [n.op for n in chain if n.op in ("linear", "add")] == ["linear", "add", "add"]


def test_ancestors_are_what_a_part_holds(net: Any) -> None:
    graph = torch.trace(net.eval(), (draw(3, 4),)).graph
    part = graph.subgraph(to="first")
    middle = next(n for n in reversed(graph.order()) if n.scope == "first" and n.op == "add")
    above = nx.ancestors(graph.nx, middle) | {middle}
    assert len(part) == len(above)
    assert nx.is_isomorphic(
        graph.nx.subgraph(above), part.nx,
        node_match=None,
    )  # fmt: skip
    with pytest.raises(nx.NetworkXError):
        graph.nx.remove_node(middle)
