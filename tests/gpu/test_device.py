"""The op table, gradients, training and replays on a GPU, against the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.gpu import missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from tests.device_tests import *  # noqa: F403
from tracegraph.dtypes import DType, bfloat16, bool_, float16, float32, float64, int64, uint8

pytestmark = pytest.mark.gpu


@pytest.fixture
def dtypes() -> Sequence[DType]:
    """CuPy compiles a kernel for each, 0.1 s apiece: one integer of each size class."""
    return (bool_, uint8, int64, float16, bfloat16, float32, float64)
