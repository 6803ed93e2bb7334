"""Run a saved file in a fresh process, as a service would: no source, no modules, no PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
_SERVICE = """
import sys
import numpy as np
import tracegraph
path, given, made, calls = sys.argv[1:]
with np.load(given) as data:
    sets = {}
    for name, array in data.items():
        sets.setdefault(name.partition(".")[0], []).append(tracegraph.tensor(array))
program = tracegraph.load(path)
results = []
for inputs in sets.values() or [()]:
    for _ in range(int(calls)):
        result = program(*inputs)
        results += result if isinstance(result, (tuple, list)) else [result]
np.savez(made, *[t.numpy() for t in results])
unwanted = {"tracegraph.nn", "tracegraph.optim", "torch", "tests"} & set(sys.modules)
assert not unwanted, f"loading a file imported {unwanted}"
"""


def arrays_of(result: Any) -> list[np.ndarray[Any, Any]]:
    """Return the tensors of a result (one, or a tuple) as NumPy arrays."""
    many = result if isinstance(result, (tuple, list)) else (result,)
    return [t.detach().numpy().copy() for t in many]


def in_fresh_process(
    traced: Any, inputs: Sequence[Any], folder: Path, calls: int = 1
) -> list[np.ndarray[Any, Any]]:
    """Save a traced function, load it elsewhere, call it there; returns all results in order."""
    return all_in_fresh_process(traced, [inputs], folder, calls)


def all_in_fresh_process(
    traced: Any, sets: Sequence[Sequence[Any]], folder: Path, calls: int = 1
) -> list[np.ndarray[Any, Any]]:
    """As `in_fresh_process`, for several sets of inputs in turn."""
    import tracegraph

    path, given, made = folder / "model.tg", folder / "given.npz", folder / "made.npz"
    tracegraph.save(traced, path)
    arrays = {f"{n}.{i}": t.numpy() for n, ts in enumerate(sets) for i, t in enumerate(ts)}
    np.savez(given, **arrays)
    command = [sys.executable, "-c", _SERVICE, str(path), str(given), str(made), str(calls)]
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=settings, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(made) as data:
        return [data[f"arr_{i}"] for i in range(len(data.files))]
