"""The verifier finds each planted fault, and shows the lines around it and the user's line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from tests.random_graphs import graphs
from tracegraph.dtypes import float32, int64
from tracegraph.errors import GraphError
from tracegraph.ir.graph import KERNEL, Graph, Loc, Value
from tracegraph.ir.text import parse_graph
from tracegraph.ir.verify import verify
from tracegraph.passes.pipeline import run_passes
from tracegraph.tensor_type import TensorType

F2 = TensorType(float32, (2,))
TEXT = """\
graph @net(%x: f32[2], %y: f32[2], %w: f32[2] = state "w") -> (f32[2]) {
  %0: f32[] = constant(value=2.0)
  %1: f32[2] = mul(%x, %0)
  %2: f32[2] = add(%1, %w)
  %3: f32[2] = exp(%2)
  write "w" = %2
  return %3
}
"""


def nodes_of(graph: Graph) -> dict[str, object]:
    return {n.op: n for n in graph}


def wrong_type(graph: Graph, nodes) -> None:
    nodes["add"].outs = (Value(nodes["add"], 0, TensorType(float32, (3,))),)
    graph.set_inputs(nodes["exp"], nodes["add"].outs)
    graph.writes.clear()


def wrong_operands(graph: Graph, nodes) -> None:
    one = graph.add_constant(np.array(1), TensorType(int64, ())).out
    graph.add("add", (nodes["mul"].out, one), types=(F2,))


def unknown_attribute(graph: Graph, nodes) -> None:
    nodes["exp"].attrs["base"] = 2


def missing_attribute(graph: Graph, nodes) -> None:
    graph.add("sum", (nodes["mul"].out,), {"dim": (0,)}, (F2,))


def unknown_op(graph: Graph, nodes) -> None:
    nodes["exp"].op = "frobnicate"


def stale_edges(graph: Graph, nodes) -> None:
    nodes["exp"].inputs = (nodes["mul"].out,)


def foreign_operand(graph: Graph, nodes) -> None:
    other = Graph()
    value = other.add_input("z", F2).out
    nodes["exp"].inputs = (value,)


def forged_result(graph: Graph, nodes) -> None:
    graph.set_inputs(nodes["exp"], (Value(nodes["add"], 0, F2),))


def stolen_result(graph: Graph, nodes) -> None:
    nodes["exp"].outs = nodes["add"].outs


def cycle(graph: Graph, nodes) -> None:
    graph.set_inputs(nodes["mul"], (nodes["exp"].out, nodes["constant"].out))


def negative_seq(graph: Graph, nodes) -> None:
    nodes["exp"].seq = -1


def hidden_input(graph: Graph, nodes) -> None:
    graph.inputs.pop()


def hidden_state(graph: Graph, nodes) -> None:
    graph.writes.clear()
    graph.states.clear()


def nameless_input(graph: Graph, nodes) -> None:
    del graph.inputs[0].attrs["name"]


def same_names(graph: Graph, nodes) -> None:
    graph.inputs[0].attrs["name"] = "w"


def declared_twice(graph: Graph, nodes) -> None:
    graph.inputs[0] = nodes["mul"]


def absent_input(graph: Graph, nodes) -> None:
    graph.inputs.append(Graph().add_input("z", F2))


def absent_output(graph: Graph, nodes) -> None:
    graph.outputs = [Graph().add_input("z", F2).out]


def unknown_target(graph: Graph, nodes) -> None:
    graph.writes["v"] = graph.writes.pop("w")


def write_of_other_type(graph: Graph, nodes) -> None:
    graph.writes["w"] = nodes["constant"].out


def constant_of_other_type(graph: Graph, nodes) -> None:
    nodes["constant"].attrs["value"] = np.zeros(3, np.float32)


def constant_without_array(graph: Graph, nodes) -> None:
    nodes["constant"].attrs["value"] = 2.0


def constant_with_operand(graph: Graph, nodes) -> None:
    graph.set_inputs(nodes["constant"], (nodes["mul"].out,))
    graph.set_inputs(nodes["mul"], (nodes["input"].out, nodes["input"].out))


def region_where_none_is(graph: Graph, nodes) -> None:
    nodes["exp"].regions["body"] = Graph()


def kernel(graph: Graph, body: Graph) -> None:
    graph.outputs = list(
        graph.add(KERNEL, (graph.inputs[0].out,), {"kind": "pointwise"}, (F2,),
                  regions={"body": body}).outs
    )  # fmt: skip


def kernel_without_input(graph: Graph, nodes) -> None:
    kernel(graph, parse_graph("graph @k() -> () {\n return\n}"))


def kernel_without_output(graph: Graph, nodes) -> None:
    kernel(graph, parse_graph("graph @k(%x: f32[2]) -> () {\n return\n}"))


def kernel_with_state(graph: Graph, nodes) -> None:
    kernel(graph, parse_graph(
        'graph @k(%x: f32[2], %s: f32[2] = state "s") -> (f32[2]) {\n return %x\n}'))  # fmt: skip


def kernel_without_body(graph: Graph, nodes) -> None:
    kernel(graph, Graph())
    graph.outputs[0].node.regions.clear()


def fault_in_region(graph: Graph, nodes) -> None:
    kernel(graph, parse_graph(
        "graph @k(%x: f32[2]) -> (f32[2]) {\n%0: f32[2] = sum(%x; dim=(0,), keepdim=false)\n"
        "return %0\n}"))  # fmt: skip


FAULTS = [
    (wrong_type, r"of \(f32\[2\], f32\[2\]\) gives \(f32\[2\]\), the node says \(f32\[3\]\)"),
    (wrong_operands, "type rule refuses .*different dtypes"),
    (unknown_attribute, "type rule refuses .*'base'"),
    (missing_attribute, "type rule refuses .*'keepdim'"),
    (unknown_op, "node 'frobnicate': there is no such op"),
    (stale_edges, "edges differ from operands"),
    (foreign_operand, "operand <value input.0: f32.*is not in the graph"),
    (forged_result, "is no result of its node"),
    (stolen_result, "result 0 does not belong to its node"),
    (cycle, "it reads its own result: mul -> add -> exp -> mul"),
    (negative_seq, "place in the trace is -1"),
    (hidden_input, "it is not among the graph's inputs"),
    (hidden_state, "it is not among the graph's states"),
    (nameless_input, "needs an attribute `name`"),
    (same_names, "the name 'w' is taken"),
    (declared_twice, "needs an attribute `name`"),
    (absent_input, "is declared but not in the graph"),
    (absent_output, "returns or writes .*, which is not in it"),
    (unknown_target, "writes 'v', which is no State or input"),
    (write_of_other_type, r"f32\[\] is written to 'w', a f32\[2\]"),
    (constant_of_other_type, r"its value is float32\[3\], its type f32\[\]"),
    (constant_without_array, "must be a NumPy array, not float"),
    (constant_with_operand, "it takes nothing and has one result"),
    (region_where_none_is, "it has no regions"),
    (kernel_without_input, r"its body takes \(\), its operands are \(f32\[2\]\)"),
    (kernel_without_output, r"its body gives \(\), the node \(f32\[2\]\)"),
    (kernel_with_state, "a region is closed"),
    (kernel_without_body, "a kernel has one region, `body`"),
    (fault_in_region, r"graph 'k', node 'sum': of \(f32\[2\]\) gives \(f32\[\]\)"),
]


@pytest.mark.parametrize(("plant", "message"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_planted_fault_is_found(plant, message: str) -> None:
    graph = parse_graph(TEXT)
    verify(graph)
    plant(graph, nodes_of(graph))
    with pytest.raises(GraphError, match=message):
        verify(graph)


def test_the_error_shows_the_lines_around_and_the_source(tmp_path: Path) -> None:
    source = tmp_path / "model.py"
    source.write_text("def f(x):\n    y = x * 2 + w\n")
    graph = parse_graph(TEXT)
    nodes = nodes_of(graph)
    nodes["add"].loc = Loc(str(source), 2, "f")
    wrong_type(graph, nodes)
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value).splitlines() == [
        "graph 'net', node 'add': of (f32[2], f32[2]) gives (f32[2]), the node says (f32[3])",
        '  %w: f32[2] = state "w"',
        "  %0: f32[] = constant(value=2.0)",
        "  %1: f32[2] = mul(%x, %0)",
        "> %2: f32[3] = add(%1, %w)                      # model.py:2 in f",
        "  %3: f32[2] = exp(%2)",
        f"from {source}:2: y = x * 2 + w",
    ]


def test_graphs_with_a_cycle_or_without_a_place_are_shown() -> None:
    graph = parse_graph(TEXT)
    cycle(graph, nodes_of(graph))
    with pytest.raises(GraphError, match=r"> %\d: f32\[2\] = mul\(%3, %0\)"):
        verify(graph)
    graph = parse_graph(TEXT)
    foreign_operand(graph, nodes_of(graph))
    with pytest.raises(GraphError, match=r"> %3: f32\[2\] = exp\(%\?\)"):
        verify(graph)


@given(graph=graphs())
def test_random_graphs_are_sound(graph: Graph) -> None:
    verify(graph)
    verify(graph.copy())


def test_a_pass_that_breaks_a_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracegraph.passes import pipeline

    def broken(graph: Graph) -> int:
        unknown_op(graph, nodes_of(graph))
        return 1

    row = pipeline.BY_NAME["merge_common"]._replace(run=broken)
    monkeypatch.setitem(pipeline.BY_NAME, "merge_common", row)
    with pytest.raises(GraphError, match=r"after pass merge_common: .*frobnicate"):
        run_passes(parse_graph(TEXT), ["merge_common"], check=True)
