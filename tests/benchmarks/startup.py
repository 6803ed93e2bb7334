"""From the start of a process to the first answer of an MLP's file: seconds, and megabytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import workloads
from tests.benchmarks import modes
from tests.benchmarks.clock import shown
from tests.benchmarks.tables import ROOT

_NATIVE = """
import sys, numpy, tracegraph
program = tracegraph.load(sys.argv[1] + "/mlp.tg").program()
program(numpy.load(sys.argv[1] + "/x.npy")).numpy()
"""
_ANSWERS = {
    "numpy alone": "import numpy",
    "native, cached": _NATIVE,
    "native, compiling": _NATIVE,
    "interpreter": _NATIVE.replace("program()", "program(runtime='interpreter')"),
    "onnxruntime": """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/mlp.onnx")
session.run(None, {"x": numpy.load(sys.argv[1] + "/x.npy")})
""",
    "torch.jit": """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1] + "/mlp.pt")
with torch.no_grad():
    module(torch.from_numpy(numpy.load(sys.argv[1] + "/x.npy"))).numpy()
""",
}


def _write_ours(folder: Path) -> None:
    import numpy as np

    import tracegraph

    made = workloads.build(tracegraph, "mlp_b1")
    tracegraph.save(tracegraph.trace(made.module, made.inputs, name="forward"), folder / "mlp.tg")
    np.save(folder / "x.npy", made.inputs[0].numpy())


def _write_peers(folder: Path) -> None:
    import torch

    made = workloads.build(torch, "mlp_b1")
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(made.module, made.inputs), folder / "mlp.pt")
        if not modes.missing("onnxruntime"):
            file = io.BytesIO()
            torch.onnx.export(made.module, made.inputs, file, input_names=["x"], dynamo=False)
            (folder / "mlp.onnx").write_bytes(file.getvalue())


def _in_child(write: Callable[[Path], None], folder: Path) -> None:
    """Write files in a process of its own, so that this one stays small."""
    code = f"import pathlib, sys; from {__name__} import {write.__name__} as write; "
    command = [sys.executable, "-W", "ignore", "-c", code + "write(pathlib.Path(sys.argv[1]))"]
    subprocess.run([*command, str(folder)], cwd=ROOT, check=True, capture_output=True)


def _run(code: str, folder: Path, settings: dict[str, str]) -> tuple[float, float, float]:
    """Return the seconds of a process, those of processors, and the most megabytes that it had."""
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    child = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    took = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"exit status {child.returncode} of: {code}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _wanted() -> Sequence[str]:
    absent = {name for name in ("onnxruntime", "torch.jit") if modes.missing(name)}
    return [name for name in _ANSWERS if name not in absent]


def render(threads: int, quick: bool) -> Iterator[str]:
    """Yield the lines of the table: the least of some rounds, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _in_child(_write_ours, folder)
        if not modes.missing("torch"):
            _in_child(_write_peers, folder)
        settings: dict[str, Any] = {
            **os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "TRACEGRAPH_CACHE_DIR": str(folder / "cache"), "TRACEGRAPH_NUM_THREADS": str(threads),
        }  # fmt: skip
        settings.pop("PYTHONDONTWRITEBYTECODE", None)
        found: dict[str, list[tuple[float, float, float]]] = {}
        for turn in range(3 if quick else 8):
            for how in _wanted():
                own = {"TRACEGRAPH_CACHE_DIR": ""} if how == "native, compiling" else {}
                times = _run(_ANSWERS[how], folder, settings | own)
                if turn:  # the first one writes bytecode and the cache
                    found.setdefault(how, []).append(times)
    yield "process start to the first answer of mlp_b1's file: least time, processor time, memory"
    for how, runs in found.items():
        wall, worked, most = map(min, zip(*runs, strict=True))
        yield f"  {how:22}{shown(wall):>10}{shown(worked):>10}{most:>8.0f} MB"
