"""How much a process grows when a program is made and called: ours against other libraries.

Every program and system has a process of its own. Before the measure begins the library is loaded,
and a small program of the same kind has run; what comes on top is growth. Those that are handed a
live model (`native`, `torch`) have it before, too; for those that a service starts with (`loaded`,
`torch_made`, `onnxruntime`) it is part of the growth. Growth is told as *peak / kept*: the most
there was meanwhile, and the anonymous memory that stays after some calls. Pages of files (of a
mapped model, say) are in the peak alone, since the system takes them back where another process
needs them.

Called by itself it is one process: `python -m tests.benchmarks.memory torch 2 gpt FOLDER`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests import workloads
from tests.benchmarks import modes
from tests.benchmarks.tables import ROOT

SYSTEMS = {
    "native": "native", "torch": "torch", "loaded": "native", "torch_made": "torch",
    "onnxruntime": "onnxruntime",
}  # fmt: skip
"""System -> the mode whose libraries it needs. `native` traces a live model in the process, and the
peak of that is told apart; `loaded` has a file of the model, and so has ONNX Runtime; `torch_made`
makes the model."""
NAMES = tuple(name for name in workloads.NAMES if name not in workloads.EAGER_ONLY)
_LIBRARIES = {"torch": "torch", "torch_made": "torch", "onnxruntime": "torch"}
_CALLS = 6
_MIB = 1 << 20
_LINES = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak"}


def status() -> dict[str, int]:
    """Return the bytes of this process: resident, anonymous, and the most there were."""
    pairs = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {_LINES[key]: int(rest.split()[0]) << 10 for key, rest in pairs if key in _LINES}


def count_peak() -> None:
    """Have the peak count from now on, where that is allowed; else it is that of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def settled() -> dict[str, int]:
    """Return the status when what is free was given back. The peak counts from now on."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # the GNU C library's
        ctypes.CDLL(None).malloc_trim(0)
    count_peak()
    return status()


class Made(NamedTuple):
    """What is measured: `make()` gives a trace, a file or a session."""

    make: Callable[[], Any]
    program: Callable[[Any], Callable[..., Any]]


Build = Callable[[], workloads.Workload]


def _native(build: Build, path: Path) -> Made:
    import tracegraph

    made = build()
    arguments = (made.step, ()) if made.trains else (made.module, made.inputs)
    return Made(lambda: tracegraph.trace(*arguments), lambda traced: traced.program())


def _loaded(build: Build, path: Path) -> Made:
    import tracegraph

    if not path.exists():
        tracegraph.save(_native(build, path).make(), path)
    return Made(lambda: tracegraph.load(path), lambda loaded: loaded.program())


def _torch(build: Build, path: Path) -> Made:
    made = build()
    return Made(lambda: made, _called_by_torch)


def _torch_made(build: Build, path: Path) -> Made:
    return Made(build, _called_by_torch)


def _called_by_torch(made: workloads.Workload) -> Callable[..., Any]:
    import torch

    def call(*inputs: Any) -> Any:
        with torch.no_grad():
            return made.module(*inputs)

    return made.step if made.trains else call


def _onnxruntime(build: Build, path: Path) -> Made:
    import onnxruntime
    import torch

    made = build()
    names = [f"x{i}" for i in range(len(made.inputs))]
    if not path.exists():
        with torch.no_grad():
            torch.onnx.export(made.module, made.inputs, path, input_names=names, dynamo=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()

    def program(session: Any) -> Callable[..., Any]:
        return lambda *inputs: session.run(
            None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}
        )

    open_session = onnxruntime.InferenceSession
    return Made(lambda: open_session(path, settings, ["CPUExecutionProvider"]), program)


_HOW = {
    "native": _native, "torch": _torch, "loaded": _loaded, "torch_made": _torch_made,
    "onnxruntime": _onnxruntime,
}  # fmt: skip


def _prepared(system: str, name: str, folder: Path, small: bool) -> tuple[Made, list[Any]]:
    """Return what is to be measured, and the inputs of its calls."""
    library = importlib.import_module(_LIBRARIES.get(system, "tracegraph"))
    build = partial(workloads.build, library, name, small=small)
    ways = _HOW[system](build, folder / f"{system}.{name}.{small}")
    made = build()
    inputs = ((),) if made.trains else made.variants
    return ways, list(itertools.islice(itertools.cycle(inputs), _CALLS))


def main(system: str, threads: int, name: str, folder: Path) -> None:
    """Print a line of JSON: the growth of peaks and of memory kept, and the plan's own account."""
    importlib.import_module(_LIBRARIES.get(system, "tracegraph")).set_num_threads(threads)
    ways, inputs = _prepared(system, name, folder, small=True)
    program = ways.program(ways.make())
    for given in inputs:
        program(*given)
    ways, inputs = _prepared(system, name, folder, small=False)
    before = settled()
    found = ways.make()
    making = status()["peak"]
    count_peak()
    program = ways.program(found)
    for given in inputs:
        program(*given)
    gc.collect()
    after = status()
    line: dict[str, Any] = {
        "making": making - before["resident"],
        "peak": after["peak"] - before["resident"],
        "kept": after["anonymous"] - before["anonymous"],
    }
    if system not in _LIBRARIES:
        line["plan"] = account(program)
    print(json.dumps(line), flush=True)


def account(program: Any) -> dict[str, int]:
    """Return the bytes of a native program's memory by what it is for."""
    native = program._program._main
    (plan,) = native._plans.values()
    kept = [buffer.bytes for ahead in plan._ahead for buffer in ahead.buffers]
    held = (node.types[0] for node in plan.graph.states.values())
    return {
        "arena": plan.arena.bytes, "alive": plan.arena.live_bytes, "packed": sum(kept),
        "State": sum(math.prod(type.shape) * type.dtype.itemsize for type in held),
        "results": sum(p.buffer.bytes for p in plan.plan.results if p.buffer.origin == "output"),
    }  # fmt: skip


def _measured(system: str, threads: int, name: str, folder: Path) -> dict[str, Any]:
    """Return what a process found; an earlier one wrote the files that it reads."""
    settings = os.environ | {"TRACEGRAPH_CACHE_DIR": str(folder / "cache")}
    settings |= {n: str(threads) for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-W", "ignore", "-m", __name__, system, str(threads), name]
    # One that also wrote the file had other kernels already: the next compiles what was missing.
    for _ in range({"torch": 1, "loaded": 3}.get(system, 2)):
        done = subprocess.run(
            [*command, str(folder)], cwd=ROOT, env=settings, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{system} {name}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def render(threads: int, quick: bool) -> Iterator[str]:
    """Yield the lines of two tables: what plans need, and what processes grow by."""
    wanted = [system for system, mode in SYSTEMS.items() if not modes.missing(mode)]
    names = ("mlp_b1", "gpt", "train_cnn") if quick else NAMES
    rows, parts = [], ("arena", "alive", "packed", "State", "results")
    yield "memory of a replay by its plan, MiB; last: the arena over what is alive at most"
    yield f"{'':14}" + "".join(f"{part:>10}" for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            found = {
                system: _measured(system, threads, name, Path(folder))
                for system in wanted
                if system != "onnxruntime" or not name.startswith("train")
            }
            plan = found["native"]["plan"]
            told = "".join(f"{_mib(plan[part], 2):>10}" for part in parts)
            share = f"{plan['arena'] / plan['alive']:.2f}x" if plan["alive"] else "-"
            yield f"{name:14}{told}{share:>8}"
            rows.append(f"{name:14}" + _cells(found, wanted))
    yield ""
    yield "growth of a process, MiB: at the peak / anonymous memory kept; first: peak of a trace"
    yield f"{'':14}{'trace':>10}" + "".join(f"{system:>18}" for system in wanted)
    yield from rows


def _cells(found: dict[str, dict[str, Any]], wanted: Sequence[str]) -> str:
    row = f"{_mib(found['native']['making']):>10}"
    for system in wanted:
        text = "-"
        if system in found:
            one = found[system]
            most = one["peak"] if system == "native" else max(one["making"], one["peak"])
            text = f"{_mib(most)} / {_mib(one['kept'])}"
        row += f"{text:>18}"
    return row


def _mib(size: int, digits: int = 1) -> str:
    return f"{size / _MIB:.{digits}f}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
