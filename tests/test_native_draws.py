"""Random draws of the native runtime: the interpreter's numbers to the last bit, no host calls."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tests.native_levels import LEVEL_TARGETS
from tracegraph import nn
from tracegraph.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
)
from tracegraph.ir.graph import Graph
from tracegraph.runtime.cpu.code.llvm import Code, compile_assembly, compile_object, level_target
from tracegraph.runtime.cpu.driver.pool import set_num_threads
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

pytestmark = pytest.mark.usefixtures("kept_threads")

SHAPES = ((), (0,), (1,), (3,), (7, 9), (2, 0, 3), (4, 1021), (33_000,))
STATES = ((0, 0), (12345, 3), (-7, 1 << 40), ((1 << 63) - 1, (1 << 63) - 1), (-1, -1))
RANGES = (
    (0, 1), (-5, 10), (0, 1 << 24), (-3, (1 << 24) + 1), (5 - (1 << 63), (1 << 62) + 12345),
    (-(1 << 63), (1 << 63) - 1),
)  # fmt: skip
DRAWS = [
    *(("uniform", dtype, (0, 0)) for dtype in (float16, bfloat16, float32, float64)),
    *(("normal", dtype, (0, 0)) for dtype in (float16, bfloat16, float32, float64)),
    *(("integers", int64, limits) for limits in RANGES),
    *(("integers", dtype, (-200, 200)) for dtype in (bool_, uint8, int8, int32)),
]


def drawing(shape: tuple[int, ...], distribution: str, dtype: DType, limits: Any) -> Graph:
    graph = Graph("draw")
    state = graph.add_input("state", TensorType(int64, (2,))).out
    attrs = {"shape": shape, "dtype": dtype, "distribution": distribution,
             "low": limits[0], "high": limits[1]}  # fmt: skip
    graph.outputs += graph.add("draw", (state,), attrs).outs
    return graph


def host_calls(program: NativeProgram) -> list[str]:
    return [s.node.op for s in program.plan().plan.steps if isinstance(s, HostCall)]


def check(graph: Graph, seed: int, tick: int) -> None:
    program, state = NativeProgram(graph), np.array([seed, tick])
    assert not host_calls(program)
    with np.errstate(over="ignore"):
        wanted = InterpreterProgram(graph).run([state], {})[0]
    for threads in (1, 2):
        set_num_threads(threads)
        for one, right in zip(program.run([state], {})[0], wanted, strict=True):
            assert (one.dtype, one.shape) == (right.dtype, right.shape)
            assert one.tobytes() == right.tobytes()
    assert state.tolist() == [seed, tick]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("distribution", "dtype", "limits"), DRAWS, ids=str)
def test_draws_are_the_interpreters_bits(
    distribution: str, dtype: DType, limits: Any, shape: tuple[int, ...]
) -> None:
    graph = drawing(shape, distribution, dtype, limits)
    for seed, tick in STATES:
        check(graph, seed, tick)


@settings(max_examples=40)
@given(
    size=st.integers(0, 9000),
    draw=st.sampled_from(DRAWS),
    state=st.tuples(*(st.integers(-(1 << 63), (1 << 63) - 1),) * 2),
)
def test_any_seed_and_tick(size: int, draw: Any, state: tuple[int, int]) -> None:
    check(drawing((size,), *draw), *state)


def test_what_the_host_draws() -> None:
    for limits, distribution in (((0, 0), "permutation"), ((-(1 << 63), 1 << 63), "integers")):
        graph = drawing((40,), distribution, int64, limits)
        program, state = NativeProgram(graph), np.array([3, 4])
        assert host_calls(program) == ["draw"]
        wanted = InterpreterProgram(graph).run([state], {})[0]
        for one, right in zip(program.run([state], {})[0], wanted, strict=True):
            np.testing.assert_array_equal(one, right)


def launches(graph: Graph, target: Any) -> list[Launch]:
    plan = Lowering(graph, target, [], TEMPLATES, {}).run(graph.order())
    return [s for s in plan.steps if isinstance(s, Launch)]


@pytest.mark.parametrize("level", LEVEL_TARGETS)
@pytest.mark.parametrize(("distribution", "dtype", "limits"), DRAWS, ids=str)
def test_bits_do_not_depend_on_the_instruction_set(
    level: str, distribution: str, dtype: DType, limits: Any
) -> None:
    graph, target = drawing((5003,), distribution, dtype, limits), LEVEL_TARGETS[level]
    kernel, words, chunks, *_ = launches(graph, target)[0]
    code = Code([compile_object([kernel.text()], target)], [kernel.name])
    state, values = np.array([99, 5]), np.zeros(5003, dtype.np)
    block = np.array([state.ctypes.data, values.ctypes.data, *words[2:]], np.int64)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
    prototype(code.address(kernel.name))(block.ctypes.data, None, 0, chunks)
    wanted = InterpreterProgram(graph).run([state], {})[0][0]
    assert values.tobytes() == wanted.tobytes()


def test_kernels_compile_for_other_machines() -> None:
    target = level_target("neon", "aarch64-unknown-linux-gnu")
    found = {s.kernel.name: s.kernel for draw in DRAWS for s in
             launches(drawing((5,), *draw), target)}  # fmt: skip
    assert compile_assembly([kernel.text() for kernel in found.values()], target)


class Noisy(nn.Module):
    """A network that draws in each of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 33), nn.Linear(33, 4)
        self.drop, self.drop_more = nn.Dropout(0.3), nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        hidden = self.drop(self.first(x).relu())
        hidden = hidden + 0.1 * tg.randn_like(hidden) + 0.01 * tg.rand(33)
        return self.last(self.drop_more(hidden)) * tg.randint(1, 3, (4,))


def training() -> Any:
    tg.manual_seed(7)
    model, x, y = Noisy(), tg.randn(11, 6), tg.arange(11) % 4
    optimizer = tg.optim.Adam(model.parameters(), lr=0.01)

    def step() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_a_training_step_draws_without_the_host() -> None:
    losses = []
    for runtime in ("native", "interpreter", "eager"):
        set_num_threads(1)
        step = training()
        chosen = step if runtime == "eager" else tg.trace(step, ()).program(runtime=runtime)
        if runtime == "native":
            assert not host_calls(chosen._program._main)
        tg.manual_seed(3)
        losses.append([chosen().item() for _ in range(5)])
        following = tg.rand(3).tolist()
        losses[-1] += following
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-4)
    assert losses[0][5:] == losses[2][5:]
    assert all(math.isfinite(x) for x in losses[0])
    assert len(set(losses[0])) == 8
