"""Everything over an array module that is not NumPy: the stand-in for CuPy (no GPU needed)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import cupy_facts, cupy_stand_in, device_checks, device_programs
from tracegraph.ops.core import Op


@pytest.fixture(autouse=True, scope="module")
def _stand_in() -> Iterator[None]:
    with cupy_stand_in.installed():
        yield


def test_the_tables_of_the_stand_in_are_those_of_cupy() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cupy", "cupyx"):
            patch.delitem(sys.modules, name, raising=False)
        if importlib.util.find_spec("cupy") is None:
            pytest.skip("CuPy is not installed (no GPU is needed for this test)")
        import cupy

        assert cupy_facts.check_against_cupy(cupy) == []


@pytest.mark.parametrize("op", device_checks.rows(), ids=lambda op: op.name)
def test_row(op: Op) -> None:
    device_checks.check_row(op, "cuda")


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
