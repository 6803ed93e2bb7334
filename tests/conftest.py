"""Settings of every test: fixed seeds, hypothesis profiles, and skips that say what is missing."""

from __future__ import annotations

import importlib.util
import os
import random
import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

SEED = 20240229
# Native code is compiled anew: what an earlier run left behind must not decide a test.
os.environ["TRACEGRAPH_CACHE_DIR"] = ""

# `ci` (the default) draws the same examples each time; `explore` searches for new ones:
# HYPOTHESIS_PROFILE=explore pytest. No deadline: the first example compiles kernels.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=1000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@cache
def _oracle_missing() -> str | None:
    """Return why PyTorch cannot be the oracle here, or None after setting it to one thread."""
    if importlib.util.find_spec("torch") is None:
        return "the oracle PyTorch is not installed (pip install torch)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

    torch.set_num_threads(1)  # the tests run in parallel already
    return None


@cache
def _gpu_missing() -> str | None:
    """Return why there is no GPU to test on, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'tracegraph[gpu]')"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cupy

        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"CuPy finds no CUDA device: {error}"
    return None if count else "CuPy finds no CUDA device"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `oracle` or `gpu` where their tool is missing."""
    for marker, missing in (("oracle", _oracle_missing), ("gpu", _gpu_missing)):
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Seed Python's and NumPy's global generators; generators made by a test take SEED."""
    random.seed(SEED)
    np.random.seed(SEED)


@pytest.fixture(scope="module")
def kept_threads() -> Iterator[None]:
    """Put back how many threads native programs use."""
    from tracegraph.runtime.cpu.driver.pool import get_num_threads, set_num_threads

    before = get_num_threads()
    yield
    set_num_threads(before)
