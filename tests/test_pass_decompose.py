"""Decomposition: every composite of the op table means what its kernel computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.random_graphs import assert_close, evaluate
from tests.test_pass_rules import graph_of
from tracegraph.compiler import optimize
from tracegraph.dtypes import BY_NUMPY, HALVES, bfloat16, float16, float32, float64
from tracegraph.errors import GraphError, OpError
from tracegraph.ir.graph import Graph
from tracegraph.ir.verify import verify
from tracegraph.ops.core import Case, Op
from tracegraph.ops.table import OPS, run_op
from tracegraph.passes.build import GraphMath, build
from tracegraph.passes.decompose import decompose, written_out
from tracegraph.passes.pipeline import run_passes
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

COMPOSITES = [row for row in OPS.values() if row.decompose is not None]


def draw(row: Op, sample: Case, dtype: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    arrays = []
    for spec in sample.inputs:
        array = generator.uniform(spec.low, spec.high, spec.shape)
        kind = {"f": dtype.np, "i": np.int64, "b": np.bool_}[spec.kind]
        arrays.append(np.asarray(np.floor(array) if spec.kind == "i" else array).astype(kind))
    return arrays


def types_of(arrays: list[Any]) -> list[TensorType]:
    return [TensorType(BY_NUMPY[a.dtype], a.shape) for a in arrays]


@pytest.mark.parametrize("dtype", [float32, float64, float16, bfloat16], ids=str)
@pytest.mark.parametrize("row", COMPOSITES, ids=lambda row: row.name)
def test_a_decomposition_agrees_with_the_kernel(row: Op, dtype: Any) -> None:
    tried = 0
    for sample in row.sample:
        arrays = draw(row, sample, dtype)
        try:
            results = row.infer(types_of(arrays), sample.attrs)
        except OpError:
            continue
        body = written_out(row, types_of(arrays), sample.attrs)
        verify(body)
        assert tuple(v.type for v in body.outputs) == results
        with np.errstate(all="ignore"):
            wanted = run_op(row, np, *arrays, **sample.attrs)
        several = wanted if isinstance(wanted, (tuple, list)) else (wanted,)
        assert_close(evaluate(body, arrays, {}), [np.asarray(a) for a in several])
        tried += 1
    assert tried or dtype in HALVES


def test_a_16_bit_mean_does_not_overflow() -> None:
    graph = graph_of("%x: f16[70000]", "%0: f16[] = mean(%x; dim=(0,), keepdim=false)\nreturn %0")
    assert decompose(graph) == 1
    verify(graph)
    assert [n.op for n in graph] == ["input", "cast", "sum", "constant", "div", "cast"]
    ones = np.ones(70000, np.float16)
    assert evaluate(graph, [ones], {})[0] == 1


def test_16_bit_weights_that_are_only_moved_are_not_widened() -> None:
    graph = graph_of(
        "%w: bf16[9,4], %i: i64[3]",
        "%0: bf16[3,4] = embedding(%w, %i; padding_idx=-1, scale_grad_by_freq=false)\nreturn %0",
    )
    decompose(graph)
    assert "cast" not in [n.op for n in graph]


def test_contractions_kept_ops_and_long_ones_stay() -> None:
    def text(steps: int) -> Graph:
        return graph_of(
            f"%x: f32[2,4], %w: f32[4,4], %s: f32[{steps},2,3], %h: f32[2,5], %r: f32[5,5]",
            "%0: f32[2,4] = linear(%x, %w)\n%1: f32[2,4] = softmax(%0; dim=1)\nreturn %1",
        )

    graph = text(3)
    assert decompose(graph, keep={"softmax"}) == 0
    assert decompose(graph) == 1
    assert [n.op for n in graph][-6:] == ["linear", "amax", "sub", "exp", "sum", "div"]


def test_a_long_decomposition_stays_whole_if_it_has_a_kernel() -> None:
    row = OPS["rnn"]
    sample = row.sample[0]
    types = types_of(draw(row, sample, float32))
    long = [types[0].with_shape((40, *types[0].shape[1:])), *types[1:]]
    graph = Graph()
    values = [graph.add_input(f"x{i}", t).out for i, t in enumerate(long)]
    graph.outputs = list(graph.add("rnn", values, sample.attrs).outs)
    assert decompose(graph) == 0


def test_decomposed_nodes_inherit_line_and_module() -> None:
    graph = graph_of(
        "%x: f32[2,4]", "%0: f32[2,4] = softmax(%x; dim=1)  # model.py:7 in f @net.head\nreturn %0"
    )
    decompose(graph)
    assert {(str(n.loc), n.scope) for n in graph if n.op != "input"} == {("model.py:7", "net.head")}


def test_nested_composites_are_written_out_too() -> None:
    graph = graph_of("%x: f32[4]", "%0: f32[] = std(%x; dim=(0,), keepdim=false, correction=1)\n"
                     "return %0")  # fmt: skip
    assert decompose(graph) == 1
    assert not any(n.op in {r.name for r in COMPOSITES} for n in graph)


def test_equal_layers_share_one_decomposition() -> None:
    lines = "".join(f"%{i + 1}: f32[2,4] = softmax(%{i}; dim=1)\n" for i in range(300))
    graph = graph_of("%x: f32[2,4]", f"%0: f32[2,4] = neg(%x)\n{lines}return %300")
    report: list[Any] = []
    assert run_passes(graph, ["decompose"], report=report, check=True) == 300
    assert len(graph) == 2 + 5 * 300


def test_graphs_are_written_in_python() -> None:
    known = TensorType(float32, (3,))

    def formula(m: Any, x: Any, y: Any) -> Any:
        z = 2 - x * y / 3 + abs(-x) ** 2
        return m.where(z > 1, 0.0, z), m.logical_not(x >= y)

    graph = build("formula", [known, known], formula)
    verify(graph)
    x, y = np.array([1.0, -2.0, 0.1], np.float32), np.array([2.0, 1.0, 3.0], np.float32)
    z = 2 - x * y / 3 + np.abs(-x) ** 2
    assert_close(evaluate(graph, [x, y], {}), [np.where(z > 1, np.float32(0), z), ~(x >= y)])


def test_what_cannot_be_written_says_so() -> None:
    m = GraphMath(Graph())
    x = m.term(m.graph.add_input("x", TensorType(OPS_INT, (2,))).out)
    with pytest.raises(GraphError, match="cast first"):
        x * 0.5
    with pytest.raises(GraphError, match="is not known"):
        bool(x > 1)
    with pytest.raises(AttributeError, match="there is no op 'frobnicate'"):
        m.frobnicate(x)
    with pytest.raises(OpError):
        m.matmul(x, x)


OPS_INT = BY_NUMPY[np.dtype(np.int64)]


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_rows_of_no_number_are_written_out_as_well(name: str) -> None:
    """Only the dim that is folded must be known not to be empty."""
    function = getattr(tg, name)
    traced = tg.trace(lambda x: function(x, -1), (tg.rand(3, 4),), dynamic={"x": {0: "rows"}})
    graph = optimize(traced.graph, ("decompose",))
    assert name not in {node.op for node in graph.order()}
    run = InterpreterProgram(graph)
    for rows in (0, 1, 5):
        x = tg.rand(rows, 4)
        (result,), _ = run.run([x.numpy()], {})
        np.testing.assert_allclose(result, function(x, -1).numpy(), 1e-6, 1e-7)
