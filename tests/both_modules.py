"""The fixture `T`: a test runs on tracegraph, and on PyTorch to prove that it expects PyTorch's.

Import it as `from tests.both_modules import T  # noqa: F401`.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest


@pytest.fixture(params=["tracegraph", pytest.param("torch", marks=pytest.mark.oracle)])
def T(request: pytest.FixtureRequest) -> Any:
    """The module that a test runs on."""
    return importlib.import_module(request.param)


def numbers(t: Any) -> list[Any]:
    """A tensor of either module as nested lists."""
    listed: list[Any] = t.detach().tolist()
    return listed
