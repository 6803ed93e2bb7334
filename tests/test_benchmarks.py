"""What the benchmarks time is right: models of any library and runtime, and ratios in tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph
from tests.benchmarks import memory, models, modes, service, tables
from tests.benchmarks.clock import latencies


def answers(step: Any) -> list[np.ndarray[Any, Any]]:
    return [step().detach().numpy() for _ in range(3)]


def close(found: Any, wanted: Any) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, 1e-4, 1e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", models.NAMES)
def test_a_model_gives_the_same_on_every_runtime(name: str) -> None:
    made = models.build(tracegraph, name, small=True)
    wanted = answers(made.step)
    assert not np.allclose(wanted[0], wanted[1])
    for runtime in ("native", "interpreter"):
        again = models.build(tracegraph, name, small=True)
        program = tracegraph.trace(again.module, again.inputs).program(runtime=runtime)
        close(answers(again.calling(program)), wanted)


@pytest.mark.oracle
@pytest.mark.parametrize("name", models.NAMES)
def test_a_model_gives_what_pytorch_gives(name: str) -> None:
    import torch

    ours, theirs = (models.build(library, name, small=True) for library in (tracegraph, torch))
    close(answers(ours.step), answers(theirs.step))


def test_a_table_tells_ratios_and_their_mean() -> None:
    def cell(seconds: float) -> dict[str, float]:
        return {"minimum": seconds, "median": 2 * seconds}

    found = {
        "gpt": {"native": cell(1e-3), "torch": cell(4e-3), "jax": cell(3e-3)},
        "lstm": {"native": cell(2e-3), "torch": cell(24e-3)},
        "train_gpt": {"native": cell(1e-3), "torch": {"error": "RuntimeError: no"}},
    }
    _, names, *rows, mean = tables.render(found, ["native", "torch", "jax"], "minimum")
    assert names.split() == ["native", "torch", "jax", "best", "peer"]
    assert rows[0].split() == ["gpt", "1", "ms", "4", "ms", "(4.00)", "3", "ms", "(3.00)", "3.00x"]
    assert rows[1].split()[-2:] == ["-", "12.00x"]
    assert "RuntimeError" in rows[2]
    assert mean == "best peer over native, inference: 6.00x as a geometric mean"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux")
def test_the_memory_of_a_process_is_told(tmp_path: Path) -> None:
    command = ["tests.benchmarks.memory", "loaded", "1", "mlp_b1", str(tmp_path)]
    (line,) = tables.process(command, 1).stdout.splitlines()
    found = json.loads(line)
    weights = 4 * (784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10)
    plan = found["plan"]
    assert plan["State"] == weights <= plan["packed"] <= 1.1 * weights
    assert plan["arena"] >= plan["alive"] >= 4 * (512 + 256)
    assert plan["results"] == 40
    # The system counts in batches of pages, for each thread.
    assert min(found["peak"], found["kept"]) > 0.5 * plan["packed"]
    before = memory.status()
    held = np.ones(10_000_000)
    assert memory.status()["anonymous"] - before["anonymous"] > 0.9 * held.nbytes


def test_every_mode_has_a_name_that_others_know() -> None:
    assert {*modes.OURS, *modes.SLOW_TO_START, *service.MODES} <= set(modes.MODES)
    assert len(latencies(lambda: None, 5)) == 5
