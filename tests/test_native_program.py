"""The native runtime against the interpreter: every row of the op table, and random graphs."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tests.device_checks import TOLERANCE
from tests.random_graphs import assert_close, graphs, operands
from tests.test_ops_table import SAMPLES, accepts
from tests.test_ops_table import operands as sample_operands
from tracegraph import nn
from tracegraph.dtypes import (
    DType,
    as_pairs,
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
)
from tracegraph.eager.tensors import type_of, wrap
from tracegraph.errors import DeviceError, UnseenPathError
from tracegraph.ir.graph import Graph, Value
from tracegraph.ops.core import COUNTED, EFFECT, MARK
from tracegraph.passes.pipeline import run_passes
from tracegraph.runtime.cpu.arrays import lasting
from tracegraph.runtime.cpu.code.llvm import host_target
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.kernels import kernel_count
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.steps import HostCall
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

EXTENTS = (1, 2, 3, 7, 16, 17, 33, 64, 100)
UNARY = ("exp", "tanh", "neg", "abs", "sigmoid", "relu", "sqrt")
BINARY = ("add", "sub", "mul", "maximum", "div")
FOLDS = ("sum", "amax", "amin")


def run(program: Any, inputs: list[Any], states: dict[str, Any]) -> list[Any]:
    outputs, writes = program.run(inputs, states)
    return [*outputs, *writes.values()]


@pytest.mark.parametrize(
    "dtype", [float32, float64, float16, bfloat16, complex64, complex128], ids=str
)
def test_every_row_gives_what_the_interpreter_gives(dtype: DType) -> None:
    graph, arrays, labels = Graph("rows"), [], []
    for sample in SAMPLES:
        op, case = sample.values
        if op.traits & {MARK, EFFECT, COUNTED} or not accepts(op, case, dtype):
            continue
        given = sample_operands(op, case, dtype)
        types = [type_of(wrap(a)) for a in given]
        first = len(arrays)
        inputs = [graph.add_input(f"x{first + i}", t).out for i, t in enumerate(types)]
        node = graph.add(op.name, inputs, case.attrs)
        graph.outputs += node.outs
        arrays += given
        labels += [f"{op.name} of {types} with {case.attrs}"] * len(node.outs)
    wanted = run(InterpreterProgram(graph), arrays, {})
    got = run(NativeProgram(graph), arrays, {})
    tolerance = TOLERANCE[dtype.to_real().name]
    for label, a, b in zip(labels, got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), label
        one, right = (as_pairs(x).astype(np.float64) for x in (a, b))
        np.testing.assert_allclose(one, right, tolerance, tolerance, err_msg=label)


@settings(max_examples=40)
@given(graph=graphs(max_nodes=30), level=st.sampled_from((0, 1, 2)))
def test_random_graphs_give_what_the_interpreter_gives(graph: Graph, level: int) -> None:
    arrays = operands(graph)
    wanted = run(InterpreterProgram(graph), *arrays)
    run_passes(graph, level)
    assert_close(run(NativeProgram(graph), *arrays), wanted)


@st.composite
def spaces(draw: Any) -> Graph:
    """Elementwise ops and reductions over a few dims, on permuted, sliced and repeated operands."""
    graph = Graph("space")
    shape = tuple(draw(st.lists(st.sampled_from(EXTENTS), min_size=1, max_size=4)))
    dtype = draw(st.sampled_from((float32, float32, float64)))
    values: list[Value] = []
    for number in range(draw(st.integers(1, 3))):
        own = tuple(draw(st.sampled_from((n, n, n, 1))) for n in shape)
        order = draw(st.permutations(range(len(shape))))
        inverse = tuple(order.index(d) for d in range(len(shape)))
        stored = tuple(own[d] for d in order)
        steps = tuple(draw(st.sampled_from((1, 1, 2))) for _ in stored)
        larger = tuple(n * s for n, s in zip(stored, steps, strict=True))
        value = graph.add_input(f"x{number}", TensorType(dtype, larger)).out
        index = tuple((0, n, s) for n, s in zip(larger, steps, strict=True))
        if any(s != 1 for s in steps):
            value = graph.add("slice", (value,), {"index": index}).out
        value = graph.add("permute", (value,), {"dims": inverse}).out
        values.append(graph.add("expand", (value,), {"shape": shape}).out)
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(("unary", "binary", "binary", "fold")))
        x = draw(st.sampled_from(values))
        if kind == "unary":
            values.append(graph.add(draw(st.sampled_from(UNARY)), (x,)).out)
        elif kind == "binary":
            y = draw(st.sampled_from(values))
            values.append(graph.add(draw(st.sampled_from(BINARY)), (x, y)).out)
        elif x.type.shape == shape:
            dims = tuple(d for d in range(len(shape)) if draw(st.booleans()))
            if dims:
                fold = {"dim": dims, "keepdim": draw(st.sampled_from((True, True, False)))}
                made = graph.add(draw(st.sampled_from(FOLDS)), (x,), fold).out
                if fold["keepdim"]:
                    values.append(made)
                else:
                    graph.outputs.append(made)
    graph.outputs += [v for v in values if not graph.users(v)]
    return graph


@settings(max_examples=60)
@given(graph=spaces(), fuse=st.booleans())
def test_loop_nests_give_what_the_interpreter_gives(graph: Graph, fuse: bool) -> None:
    inputs, states = operands(graph)
    inputs = [np.clip(np.nan_to_num(a, nan=0.5), -2, 2) for a in inputs]
    if fuse:
        run_passes(graph, ["dead_code", "merge_common", "fuse"])
    with np.errstate(all="ignore"):
        wanted = run(InterpreterProgram(graph), inputs, states)
    got = run(NativeProgram(graph), inputs, states)
    for a, b in zip(got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=1.0))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)


def mlp(batch: Any) -> tuple[Any, Any]:
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 7))
    dims = {"input": {0: tg.Dim("batch", min=0, max=4096)}} if batch else None
    return net, tg.trace(net, (tg.randn(4, 20),), dynamic=dims)


def test_one_program_serves_every_batch_size() -> None:
    net, traced = mlp(True)
    program = traced.program()
    counts = []
    for size in (4, 1, 0, 2, 3, 64, 1000, 4):
        x = tg.randn(size, 20)
        assert_close([program(x).numpy()], [net(x).detach().numpy()])
        counts.append(kernel_count())
    assert counts[1] == counts[-1], "a new batch size compiled a kernel"
    kept = [p._kept[1] for p in program._program._main._plans.values()]
    pieces = {id(piece) for k in kept if k is not None for piece in k.memory}
    assert len(pieces) == 2, "each batch size has packed weights of its own"


def test_kernels_that_differ_in_numbers_alone_are_few() -> None:
    numbers = [0.5 * i for i in range(-20, 20)] + [float("nan"), float("inf"), -0.0]

    def f(x: Any) -> list[Any]:
        return [
            *(((x + c) * 3.0).tanh() for c in numbers),
            *((x - c).sum() for c in numbers),
            *(x.clamp(min=c) for c in numbers),
            *(tg.where(x > c, x, -c) for c in numbers),
        ]

    for dtype in (float32, float16):
        x = tg.randn(7, 9).to(dtype)
        program = tg.trace(f, (x,)).program()
        before = kernel_count()
        got = program(x)
        assert kernel_count() - before <= 3 * 10 + len(numbers), "clamp alone needs to know them"
        bare = [t.numpy() for t in f(x)]
        assert_close([t.numpy() for t in got], bare)


def test_what_is_kept_of_state_follows_it() -> None:
    net, traced = mlp(False)
    program = traced.program()
    x = tg.randn(4, 20)
    for change in (
        lambda: None,
        lambda: net[0].weight.data.mul_(2),
        lambda: net[2].load_state_dict(nn.Linear(33, 7).state_dict()),
        lambda: net[0].weight.detach().numpy().fill(0.25),
    ):
        with tg.no_grad():
            change()
        assert_close([program(x).numpy()], [net(x).detach().numpy()])


def test_threads_share_a_program() -> None:
    net, traced = mlp(True)
    program = traced.program()
    failures: list[Any] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            x = tg.tensor(generator.normal(size=(generator.integers(1, 9), 20)).astype("f"))
            try:
                assert_close([program(x).numpy()], [net(x).detach().numpy()])
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_failing_call_leaves_state_and_the_next_call_alone() -> None:
    weight = tg.ones(3)

    def step(x: Any) -> Any:
        weight.add_(1)
        if x.sum() > 0:
            return x * weight
        return x - weight

    traced = tg.trace(step, (tg.ones(3),))
    program = traced.program(runtime="native")
    with pytest.raises(UnseenPathError):
        program(-tg.ones(3))
    assert weight.tolist() == [1, 1, 1]
    assert program(tg.ones(3)).tolist() == [2, 2, 2]


def test_a_runtime_for_another_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="native runtime is for the CPU"):
        mlp(False)[1].program("cuda", runtime="native")


def test_explain_lists_what_was_fused() -> None:
    text = mlp(False)[1].program().explain()
    assert "linear+add+relu" in text
    assert "0 host calls" in text


def test_integers_divided_by_zero_are_refused_as_ever() -> None:
    traced = tg.trace(lambda x, y: (x + 1) // y - 1, (tg.arange(4), tg.ones(4, dtype=tg.int64)))
    program = traced.program()
    assert program(tg.arange(4), tg.full((4,), 2)).tolist() == [-1, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        program(tg.arange(4), tg.zeros(4, dtype=tg.int64))


def test_branches_and_loops_are_native_inside() -> None:
    weight = tg.randn(8, 8)

    def body(x: Any) -> Any:
        return (x @ weight).tanh() * 0.5 + x

    def f(x: Any) -> Any:
        y = tg.cond(x.sum() > 0, body, lambda x: body(x) - 1, (x,))
        z, ys = tg.scan(lambda c, t: (body(c) + t, c.sum()), y, tg.arange(3.0))
        return tg.while_loop(lambda c: c.sum() < 50, lambda c: (c.abs() + 1,), (z,)), ys

    x = tg.randn(4, 8)
    program = tg.trace(f, (x,)).program()
    for sign in (1, -1):
        got, wanted = program(x.abs() * sign), f(x.abs() * sign)
        assert_close([got[0][0].numpy(), got[1].numpy()], [wanted[0][0].numpy(), wanted[1].numpy()])


def test_both_modes_of_a_file_are_native() -> None:
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU())
    x = tg.randn(4, 5)
    traced = tg.trace(net, (x,))
    net.eval()
    traced.add_example(x)
    program = traced.program()
    assert_close([program(x).numpy()], [net(x).detach().numpy()])
    other = copy.deepcopy(net).train()
    net.train()
    assert_close([program(x).numpy()], [other(x).detach().numpy()])
    assert_close([net[1].running_mean.numpy()], [other[1].running_mean.numpy()])


@pytest.mark.parametrize("large", [10, 3 << 20])
def test_kept_memory_is_cut_into_pieces_on_lines(large: int) -> None:
    sizes = [large, 0, 5, 64, 65]
    pieces = lasting(sizes)
    for number, piece in enumerate(pieces):
        piece[...] = number
    assert [piece.size for piece in pieces] == sizes
    assert all(piece.ctypes.data % 64 == 0 for piece in pieces)
    assert all((piece == number).all() for number, piece in enumerate(pieces))
    assert lasting([]) == []


def test_a_template_that_does_not_serve_leaves_no_trace() -> None:
    """It may have placed what waits for its reader: that must be lowered again."""
    graph = Graph("undone")
    x, y = (graph.add_input(name, TensorType(float32, (8, 8))).out for name in "xy")
    product = graph.add("matmul", (x, y))
    middle = graph.add("median", (x,), {"skip_nan": False})
    graph.outputs = [middle.out, graph.add("relu", (product.out,)).out]

    def refuses(low: Lowering, node: Any) -> None:
        low.place(product.out)
        low.dense(low.place(x)._replace(strides=(1, 8)))
        low.in_range[low.place(x).buffer, 8, True] = None
        low.check(node)
        raise UnsupportedError("not today")

    templates = {**TEMPLATES, "median": refuses}
    low = Lowering(graph, host_target(), (), templates, {product.out: product})
    plan = low.run(graph.order())
    assert [s.node.op if isinstance(s, HostCall) else s.what for s in plan.steps] == [
        "median", "matmul+relu"
    ]  # fmt: skip
    assert not plan.checks and not low.in_range and not low.ahead


def test_numpy_scalars_are_operands_like_others() -> None:
    graph = Graph("scalars")
    x = graph.add_input("x", TensorType(float32, ())).out
    graph.outputs = [graph.add("neg", (x,)).out]
    (found,) = run(NativeProgram(graph), [np.float32(1.5)], {})
    assert found == np.float32(-1.5)
