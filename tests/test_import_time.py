"""`import tracegraph` stays light: nothing heavy is loaded, and it costs less than NumPy itself."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tracegraph

ROOT = Path(__file__).resolve().parent.parent
# What only some users need: loaded at first use.
LATE = {
    *("asyncio", "cupy", "llvmlite", "logging", "networkx", "onnx", "scipy", "sqlite3", "tempfile"),
    *("torch", "unittest", "zipfile", "tracegraph.files.archive", "tracegraph.cli"),
    *("tracegraph.compiler", "tracegraph.ir.graph", "tracegraph.nn", "tracegraph.optim"),
    *("tracegraph.capture.recording", "tracegraph.runtime", "tracegraph.capture.tracing"),
}
# Our import took 0.4 of NumPy's when this was written; a limit above 1 only stops accidents.
MOST_OF_NUMPY = 1.5


def run(code: str, cache: Path) -> str:
    """Run code in a fresh interpreter that keeps its bytecode in `cache`."""
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    settings |= {"PYTHONPYCACHEPREFIX": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout


def loaded_by(statement: str, cache: Path) -> set[str]:
    """Return the modules that a statement loads."""
    code = (
        f"import json, sys, numpy, ml_dtypes; before = set(sys.modules); {statement}; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(run(code, cache)))


def test_import_loads_nothing_heavy(tmp_path: Path) -> None:
    found = loaded_by("import tracegraph", tmp_path)
    assert "tracegraph" in found
    assert not sorted(LATE & found)


@pytest.mark.parametrize("module", ["nn", "optim", "utils.data"])
def test_training_needs_no_graph_library(module: str, tmp_path: Path) -> None:
    found = loaded_by(f"import tracegraph.{module}", tmp_path)
    assert not {"networkx", "scipy", "llvmlite", "cupy", "torch"} & found


@pytest.mark.parametrize("runtime", ["native", "interpreter"])
def test_a_replayed_file_needs_no_graph_library(runtime: str, tmp_path: Path) -> None:
    x = tracegraph.ones(3, 4)
    path = tmp_path / "model.tg"
    tracegraph.save(tracegraph.trace(lambda x: (x @ x.T).relu(), (x,)), path)
    code = f"program = tracegraph.load({str(path)!r}).program(runtime={runtime!r})"
    call = "program(tracegraph.ones(3, 4))"
    found = loaded_by(f"import tracegraph; {code}; {call}", tmp_path)
    assert "tracegraph" in found
    assert not {"networkx", "scipy", "cupy", "torch"} & found


# What a replay of a perceptron has no use for, once its kernels are on the disk.
UNUSED = {
    *("audit.watching", "capture.recording", "capture.state", "control.flow", "files.samples"),
    *("files.saving", "ir.text", "ir.verify", "replay.on_tensors", "runtime.cpu.driver.text"),
    *("runtime.cpu.layers.attention", "runtime.cpu.lowering.pooling", "runtime.cpu.nests.code"),
    *("runtime.cpu.products.contraction_code", "runtime.cpu.products.convolution"),
    *("runtime.cpu.products.winograd",),
}


def test_a_service_loads_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAPH_CACHE_DIR", str(tmp_path / "kernels"))
    layers = tracegraph.nn.Sequential(
        tracegraph.nn.Linear(4, 8), tracegraph.nn.ReLU(), tracegraph.nn.Linear(8, 2)
    )
    path, x = tmp_path / "model.tg", tracegraph.ones(3, 4)
    tracegraph.save(tracegraph.trace(layers, (x,)), path)
    code = f"tracegraph.load({str(path)!r}).program()(tracegraph.ones(3, 4))"
    compiling, found = (loaded_by(f"import tracegraph; {code}", tmp_path) for _ in range(2))
    unused = {f"tracegraph.{name}" for name in UNUSED}
    assert not sorted(unused & found)
    assert unused & compiling  # so these names are those of modules


@pytest.mark.parametrize("module", ["templates", "lowering"])
def test_what_is_imported_late_is_there(module: str) -> None:
    package = "tracegraph.runtime.cpu.lowering"
    text = (ROOT / "runtime/cpu/lowering" / f"{module}.py").read_text(encoding="utf-8")
    places = set(re.findall(r'late\("(\w+)\.(\w+)"\)', text))
    assert places
    for name, function in places:
        assert callable(getattr(importlib.import_module(f"{package}.{name}"), function))


def test_import_takes_no_longer_than_numpy(tmp_path: Path) -> None:
    code = (
        "from time import process_time as now; start = now(); import numpy; middle = now(); "
        "import tracegraph; print((now() - middle) / (middle - start))"
    )
    ratios = sorted(float(run(code, tmp_path)) for _ in range(5))  # the first compiles bytecode
    assert ratios[0] < MOST_OF_NUMPY, f"import tracegraph / import numpy: {ratios}"
