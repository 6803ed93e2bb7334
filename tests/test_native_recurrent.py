"""Recurrent layers as native code: against the interpreter, PyTorch, and themselves cut anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tracegraph
from tracegraph.dtypes import DType, float32, float64
from tracegraph.ir.graph import Graph
from tracegraph.runtime.cpu.layers import recurrence
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

pytestmark = pytest.mark.usefixtures("kept_threads")

OPS = ("rnn", "gru", "lstm", "rnn_grad", "gru_grad", "lstm_grad")
# time, batch, units, units after the projection (0: there is none)
SIZES = ((1, 1, 1, 0), (4, 7, 17, 3), (5, 13, 100, 33), (2, 2, 64, 0))


def shapes(op: str, time: int, batch: int, size: int, projected: int) -> list[tuple[int, ...]]:
    """Return the shapes of the operands of an op."""
    out = projected or size
    extra = [(projected, size)] if projected else []
    step = (time, batch, size)
    return {
        "rnn": [step, (batch, size), (size, size)],
        "gru": [(time, batch, 3 * size), (batch, size), (3 * size, size), (3 * size,)],
        "lstm": [(time, batch, 4 * size), (batch, out), (batch, size), (4 * size, out), *extra],
        "rnn_grad": [step, step, (size, size)],
        "gru_grad": [step, (time, batch, 3 * size), step, (3 * size, size)],
        "lstm_grad": [(time, batch, out), step, step, (time, batch, 4 * size), step,
                      (4 * size, out), *extra],
    }[op]  # fmt: skip


def case(
    op: str, sizes: tuple[int, int, int, int], dtype: DType, turned: bool = False
) -> tuple[Graph, list[Any]]:
    """Return a graph of one op and its inputs; `turned`: which lie in another order of dims."""
    rng = np.random.default_rng(3)
    graph, arrays, operands = Graph("layer"), [], []
    time, batch, size, projected = sizes
    for number, shape in enumerate(shapes(op, time, batch, size, projected if "lstm" in op else 0)):
        scale = 0.5 / math.sqrt(max(1, shape[-1])) if len(shape) == 2 else 0.5
        lies = shape[::-1] if turned else shape
        arrays.append((rng.standard_normal(lies) * scale).astype(dtype.np))
        value = graph.add_input(f"x{number}", TensorType(dtype, lies)).out
        if turned:
            value = graph.add("permute", (value,), {"dims": (*range(len(shape)),)[::-1]}).out
        operands.append(value)
    attrs = {"relu": False} if op == "rnn" else {}
    graph.outputs += graph.add(op, operands, attrs).outs
    return graph, arrays


def native(graph: Graph, arrays: list[Any]) -> list[Any]:
    """Return the outputs of a graph of which the host computes nothing."""
    program = NativeProgram(graph)
    assert "host  " not in program.explain()
    return program.run(arrays, {})[0]


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_layers_give_what_the_interpreter_gives(
    op: str, sizes: tuple[int, int, int, int], dtype: DType
) -> None:
    graph, arrays = case(op, sizes, dtype)
    tolerance = 2e-5 if dtype is float32 else 1e-12
    for a, b in zip(
        native(graph, arrays), InterpreterProgram(graph).run(arrays, {})[0], strict=True
    ):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, tolerance, tolerance)


@pytest.mark.parametrize("op", OPS)
def test_operands_may_lie_in_any_order(op: str) -> None:
    graph, arrays = case(op, (3, 4, 6, 5), float64, turned=True)
    for a, b in zip(
        native(graph, arrays), InterpreterProgram(graph).run(arrays, {})[0], strict=True
    ):
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)


@pytest.mark.parametrize("op", OPS)
def test_a_batch_may_be_empty(op: str) -> None:
    graph, arrays = case(op, (3, 0, 4, 0), float32)
    for value, array in zip(graph.outputs, native(graph, arrays), strict=True):
        assert array.shape == value.type.shape


@pytest.mark.parametrize("op", OPS)
def test_results_do_not_depend_on_cuts_and_threads(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, arrays = case(op, (6, 21, 150, 70), float32)
    tracegraph.set_num_threads(1)
    wanted = native(graph, arrays)
    for step_ns, threads in ((0, 1), (0, 2), (1 << 60, 2)):
        monkeypatch.setattr(recurrence, "_STEP_NS", step_ns)
        tracegraph.set_num_threads(threads)
        for a, b in zip(native(graph, arrays), wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_plan_of_a_long_sequence_is_small() -> None:
    graph, _ = case("lstm", (2000, 2, 16, 0), float32)
    assert len(NativeProgram(graph).plan().plan.steps) <= 2
    graph, _ = case("lstm", (2000, 2, 16, 4), float32)
    compiled = NativeProgram(graph).plan()
    assert len(compiled.plan.steps) == 2 + 2 * 2000
    assert len(compiled.blocks.words) < 4001 * 40


def test_faults_of_a_state_stay_in_their_row() -> None:
    graph, arrays = case("lstm", (4, 6, 20, 0), float32)
    arrays[1][2, 3] = np.nan
    ys, cs = native(graph, arrays)
    wrong = np.isnan(ys).any((0, 2)) | np.isnan(cs).any((0, 2))
    assert wrong.tolist() == [False, False, True, False, False, False]


def test_a_gradient_starts_without_a_product() -> None:
    graph, arrays = case("rnn_grad", (1, 3, 8, 0), float32)
    arrays[2][...] = np.inf
    (dx,) = native(graph, arrays)
    np.testing.assert_array_equal(dx, arrays[0] * arrays[1])


LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm of two layers and ways": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "projected lstm": ("LSTM", {"proj_size": 5}),
    "gru": ("GRU", {"batch_first": True}),
    "rnn": ("RNN", {"nonlinearity": "relu"}),
    "gru without biases": ("GRU", {"bias": False, "bidirectional": True}),
}


def _gradients(torch: Any, layer: Any, x: Any) -> Any:
    x = x.detach().requires_grad_()
    y, _ = layer(x)
    loss = (y * torch.sin(torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape))).sum()
    return y.detach(), *torch.autograd.grad(loss, (x, *layer.parameters()))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    kind, options = LAYERS[name]
    ours, theirs = (getattr(t.nn, kind)(7, 11, **options) for t in (tracegraph, torch))
    rng = np.random.default_rng(5)
    with torch.no_grad(), tracegraph.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            held = (rng.standard_normal(tuple(b.shape)) * 0.3).astype(np.float32)
            a.copy_(tracegraph.from_numpy(held))
            b.copy_(torch.from_numpy(held))
    x = rng.standard_normal((4, 6, 7)).astype(np.float32)

    def step(given: Any) -> Any:
        return _gradients(tracegraph, ours, given)

    given = tracegraph.from_numpy(x)
    traced = tracegraph.trace(step, (given,))
    program = traced.program(runtime="native")
    got, wanted = program(given), _gradients(torch, theirs, torch.from_numpy(x))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-4, 2e-5)
