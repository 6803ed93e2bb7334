"""The timed programs compute what PyTorch computes: eager, traced, and as training steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph
from tests import references, workloads

STEPS = 3
TRACED = [name for name in workloads.NAMES if name not in workloads.EAGER_ONLY]


def outcome(torch: Any, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Run a program a few times; returns the results of each call and the weights afterwards."""
    made = workloads.build(torch, name, small=True)
    found = {f"call {i}": made.step().detach().numpy().copy() for i in range(STEPS)}
    if made.trains:
        for i, parameter in enumerate(made.parameters()):
            found[f"parameter {i}"] = parameter.detach().numpy().copy()
    return found


def replayed(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Trace a program and replay it as often as `outcome` runs it."""
    made = workloads.build(tracegraph, name, small=True)
    if made.trains:
        program = tracegraph.trace(made.step, ())
        call = program
    else:
        program = tracegraph.trace(made.module, made.inputs)
        call = made.calling(program)
    found = {f"call {i}": call().detach().numpy().copy() for i in range(STEPS)}
    if made.trains:
        for i, parameter in enumerate(made.parameters()):
            found[f"parameter {i}"] = parameter.detach().numpy().copy()
    return found


@pytest.mark.parametrize("name", workloads.NAMES)
def test_program_gives_the_stored_numbers(name: str) -> None:
    kept = references.load("workloads")[name]
    found = outcome(tracegraph, name)
    assert sorted(found) == sorted(kept)
    for key, array in found.items():
        references.check_summary(array, kept[key], f"{name}: {key}")


@pytest.mark.oracle
@pytest.mark.parametrize("name", workloads.NAMES)
def test_program_does_what_pytorch_does(name: str) -> None:
    import torch

    found, wanted = outcome(tracegraph, name), outcome(torch, name)
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[key], array, 1e-4, 2e-5 * scale, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", TRACED)
def test_replay_gives_what_eager_gives(name: str) -> None:
    found, wanted = replayed(name), outcome(tracegraph, name)
    for key, array in wanted.items():
        np.testing.assert_allclose(found[key], array, 1e-5, 1e-6, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", ["mlp_b64", "gpt", "train_mlp"])
def test_a_small_program_has_the_operations_of_the_timed_one(name: str) -> None:
    operations = []
    for small in (True, False):
        made = workloads.build(tracegraph, name, small)
        arguments = (made.step, ()) if made.trains else (made.module, made.inputs)
        graph = tracegraph.trace(*arguments).graph
        operations.append([node.op for node in graph.order()])
    assert operations[0] == operations[1]
