"""Everything over an array module that is not NumPy: the stand-in for CuPy (no GPU needed)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence

import pytest

from tests import cupy_facts, cupy_stand_in
from tests.device_tests import *  # noqa: F403
from tracegraph.dtypes import ALL, DType


@pytest.fixture(autouse=True, scope="module")
def _stand_in() -> Iterator[None]:
    with cupy_stand_in.installed():
        yield


@pytest.fixture
def dtypes() -> Sequence[DType]:
    return ALL


def test_the_tables_of_the_stand_in_are_those_of_cupy() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cupy", "cupyx"):
            patch.delitem(sys.modules, name, raising=False)
        if importlib.util.find_spec("cupy") is None:
            pytest.skip("CuPy is not installed (no GPU is needed for this test)")
        import cupy

        assert cupy_facts.check_against_cupy(cupy) == []
