"""Tests that need a GPU: the checks of tests/device_checks and device_programs on real CuPy.

`sh tests/gpu/run_on_device.sh` runs them, and a table of times, where there is a GPU.
"""

from __future__ import annotations

import importlib.util


def missing() -> str | None:
    """Return why there is no GPU to test on, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "tests/gpu needs CuPy: pip install 'tracegraph[gpu]'"
    import cupy

    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"tests/gpu needs a CUDA device: {error}"
    return None if found else "tests/gpu needs a CUDA device: CuPy finds none"
