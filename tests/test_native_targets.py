"""Native programs at lower instruction sets, for other processors, and with other thread counts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.native_levels import LEVEL_TARGETS
from tests.test_native_training import NETS, OPTIMIZERS
from tracegraph import nn
from tracegraph.compiler import optimize
from tracegraph.errors import DeviceError
from tracegraph.runtime.cpu.code.llvm import compile_object, host_target, level_target
from tracegraph.runtime.cpu.lowering.fused import is_native
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.steps import Launch
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES, delays

pytestmark = pytest.mark.usefixtures("kept_threads")

LEVELS = [level for level in LEVEL_TARGETS if level in ("avx2", "sse2")]


def step_of(net: str) -> Any:
    tg.manual_seed(0)
    model, x, y = NETS[net]()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    loss_of = nn.CrossEntropyLoss()

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(nn.functional.dropout(model(x), 0.2), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("level", LEVELS)
def test_all_rows_at_a_lower_instruction_set(level: str) -> None:
    tests = ["tests/test_native_program.py", "tests/test_native_training.py"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-x", "-p", "no:cacheprovider", *tests,
         "-k", "every_row and float32 or nests or eager_ones"],
        env={**os.environ, "TRACEGRAPH_NATIVE_LEVEL": level}, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:]


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAPH_NATIVE_LEVEL", "avx99")
    with pytest.raises(DeviceError, match="avx99"):
        host_target.__wrapped__()


@pytest.mark.parametrize("net", NETS)
def test_kernels_compile_for_arm(net: str) -> None:
    graph = optimize(tg.trace(step_of(net), ()).graph, 2, accept=is_native)
    target = level_target("neon", "aarch64-unknown-linux-gnu")
    order = [*graph.inputs, *(n for n in graph.order() if n not in graph.inputs)]
    plan = Lowering(graph, target, (), TEMPLATES, delays(graph, order)).run(order)
    kernels = {s.kernel.name: s.kernel for s in plan.steps if isinstance(s, Launch)}
    assert len(kernels) > 5
    assert compile_object([k.text() for k in kernels.values()], target)


@pytest.mark.parametrize("net", NETS)
def test_bits_do_not_depend_on_threads(net: str) -> None:
    def run(threads: int) -> list[Any]:
        tg.set_num_threads(threads)
        traced = tg.trace(step_of(net), ())
        program = traced.program()
        losses = [program().item() for _ in range(3)]
        return [np.array(losses), *(t.detach().numpy() for t in traced.state_dict().values())]

    one, two = run(1), run(3)
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()
