"""The op table, gradients, training and replays on a GPU, against the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gpu import missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from tests import device_checks, device_programs
from tracegraph.dtypes import bfloat16, bool_, float16, float32, float64, int64, uint8
from tracegraph.ops.core import Op

pytestmark = pytest.mark.gpu

# CuPy compiles each kernel once for each dtype, 0.1 s apiece: one integer of each size class.
DTYPES = (bool_, uint8, int64, float16, bfloat16, float32, float64)


@pytest.mark.parametrize("op", device_checks.rows(), ids=lambda op: op.name)
def test_row(op: Op) -> None:
    device_checks.check_row(op, "cuda", DTYPES)


@pytest.mark.parametrize("op", device_checks.rows(), ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    device_checks.check_gradient(op, "cuda")


@pytest.mark.parametrize("name", device_checks.HARD)
def test_where_array_modules_differ(name: str) -> None:
    device_checks.check_hard(name, "cuda")


def test_scatters_with_many_repeats() -> None:
    device_checks.check_repeats("cuda")


@pytest.mark.parametrize("program", device_programs.PLAIN, ids=lambda f: f.__name__)
def test_program(program: Callable[[str], None]) -> None:
    program("cuda")


@pytest.mark.parametrize("program", device_programs.FILES, ids=lambda f: f.__name__)
def test_program_with_files(program: Callable[[str, Path], None], tmp_path: Path) -> None:
    program("cuda", tmp_path)


@pytest.mark.parametrize("network", device_programs.NETWORKS)
@pytest.mark.parametrize("optimizer", device_programs.OPTIMIZERS)
def test_training(network: str, optimizer: str) -> None:
    device_programs.training(network, optimizer, "cuda")


@pytest.mark.parametrize("network", device_programs.NETWORKS)
def test_replay(network: str, tmp_path: Path) -> None:
    device_programs.replay(network, "cuda", tmp_path)
