"""Graph: its order, and the methods that change it."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from tests.random_graphs import evaluate, graphs, operands
from tracegraph.dtypes import float32
from tracegraph.errors import GraphError
from tracegraph.ir.graph import Graph, Node
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
from tracegraph.tensor_type import TensorType

F2 = TensorType(float32, (2,))


def diamond() -> tuple[Graph, Node, Node, Node, Node]:
    graph = Graph()
    x = graph.add_input("x", F2)
    a = graph.add("neg", (x.out,))
    b = graph.add("exp", (x.out,))
    c = graph.add("add", (a.out, b.out))
    graph.outputs = [c.out]
    return graph, x, a, b, c


def test_order_is_topological_with_ties_by_place() -> None:
    graph, x, a, b, c = diamond()
    assert graph.order() == [x, a, b, c]
    a.seq, b.seq = 9, 1
    assert graph.order() == [x, b, a, c]
    assert list(graph) == graph.order()


def test_order_of_many_nodes_with_one_place() -> None:
    """Regression: nodes that were ready from the start shared heap keys with later ones."""
    graph = Graph()
    x = graph.add_input("x", F2)
    x.seq = 3
    late = [graph.add("neg", (x.out,), seq=3) for _ in range(4)]
    early = [graph.add_constant(np.zeros(2, np.float32), F2) for _ in range(4)]
    for node in early:
        node.seq = 3
    graph.set_inputs(late[0], (early[3].out,))
    order = graph.order()
    assert order.index(early[3]) < order.index(late[0])


@given(graph=graphs())
def test_both_ways_to_sort_are_topological(graph: Graph) -> None:
    for order in (graph.order(), graph._sorted()):
        place = {n: i for i, n in enumerate(order)}
        assert len(place) == len(graph)
        assert all(place[a] < place[b] for a, b in graph.nx.edges)


def test_a_cycle_is_an_error() -> None:
    graph, _, a, _, c = diamond()
    graph.set_inputs(a, (c.out,))
    with pytest.raises(GraphError, match="has a cycle"):
        graph.order()


def test_substitute_follows_chains_everywhere() -> None:
    graph, x, a, b, c = diamond()
    graph.writes["x"] = a.out
    changed = graph.substitute({a.out: b.out, b.out: x.out})
    assert changed == 1
    assert c.inputs == (x.out, x.out)
    assert graph.writes == {"x": x.out}
    assert graph.outputs == [c.out]
    verify(graph)
    graph.substitute({c.out: x.out})
    assert graph.outputs == [x.out]
    assert graph.substitute({}) == 0


def test_replace_all_uses_and_erase() -> None:
    graph, x, a, b, c = diamond()
    assert graph.users(x.out) == [a, b]
    assert graph.successors(x) == [a, b]
    with pytest.raises(GraphError, match="still read"):
        graph.erase(a)
    graph.replace_all_uses(a.out, b.out)
    assert c.inputs == (b.out, b.out)
    assert not graph.is_read(a)
    graph.erase(a)
    assert a not in graph
    assert len(graph) == 3
    verify(graph)


def test_sources_are_declared_and_forgotten() -> None:
    graph = Graph()
    x, s = graph.add_input("x", F2), graph.add_state("s", F2)
    with pytest.raises(GraphError, match="two states are named 's'"):
        graph.add_state("s", F2)
    graph.erase(x)
    graph.erase(s)
    assert (graph.inputs, graph.states) == ([], {})


def test_inline_binds_inputs_and_takes_the_place_of_a_node() -> None:
    body = parse_graph(
        "graph @f(%x: f32[2]) -> (f32[2], f32[2]) {\n %0: f32[2] = exp(%x)\n return %0, %x\n}"
    )
    graph, _, a, _, c = diamond()
    outs = graph.inline(body, [a.out], like=c)
    assert (outs[0].node.op, outs[0].node.inputs, outs[1]) == ("exp", (a.out,), a.out)
    assert outs[0].node.seq == c.seq
    with pytest.raises(GraphError, match="wants 1 inputs, got 2"):
        graph.inline(body, [a.out, a.out], like=c)


@given(graph=graphs())
def test_copies_are_equal_and_independent(graph: Graph) -> None:
    text = print_graph(graph)
    arrays = operands(graph)
    copied = graph.copy()
    assert print_graph(copied) == text
    for a, b in zip(evaluate(copied, *arrays), evaluate(graph, *arrays), strict=True):
        assert a.tobytes() == b.tobytes()
    copied.outputs.clear()
    copied.writes.clear()
    assert print_graph(graph) == text


def test_networkx_sees_the_graph_but_cannot_change_it() -> None:
    graph, x, _, _, c = diamond()
    assert nx.shortest_path_length(graph.nx, x, c) == 2
    with pytest.raises(nx.NetworkXError):
        graph.nx.remove_node(x)


def test_networkx_and_the_nodes_follow_the_graph() -> None:
    graph, x, _, _, c = diamond()
    seen, nodes = graph.nx, graph.nodes
    more = graph.add("add", (c.out, c.out))
    assert more in nodes
    assert list(seen.predecessors(more)) == graph.predecessors(more) == [c]
    graph.set_inputs(more, (c.out, x.out))
    assert {*seen.predecessors(more)} == {c, x}
    assert more in seen[x]
    graph.erase(more)
    assert more not in nodes
    assert more not in seen
    assert more not in seen[x]
    plain: nx.DiGraph[Node] = nx.DiGraph()
    plain.add_nodes_from(graph.order())
    plain.add_edges_from((v.node, n) for n in graph.order() for v in n.inputs)
    assert nx.utils.graphs_equal(seen, plain)
