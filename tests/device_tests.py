"""What is tested of every device besides the CPU, against the CPU.

For modules of tests to import; they have a fixture `dtypes`, those that rows are tried with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import device_checks, device_programs
from tracegraph.dtypes import DType
from tracegraph.ops.core import Op

__all__ = [
    "test_gradient",
    "test_program",
    "test_program_with_files",
    "test_replay",
    "test_row",
    "test_scatters_with_many_repeats",
    "test_training",
    "test_where_array_modules_differ",
]


@pytest.mark.parametrize("op", device_checks.rows(), ids=lambda op: op.name)
def test_row(op: Op, dtypes: Sequence[DType]) -> None:
    device_checks.check_row(op, "cuda", dtypes)


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
