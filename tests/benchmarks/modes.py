"""The ways a program can run: one function a mode, each returning a step and how to wait for it."""

from __future__ import annotations

import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from tests import workloads
from tests.benchmarks import models


class Made(NamedTuple):
    """A program ready to be timed; `wait` waits for a result of an asynchronous library."""

    step: Callable[[], Any]
    wait: Callable[[Any], Any] = id


def build(torch: Any, name: str) -> workloads.Workload:
    """Return a program or a model made with a library."""
    return (models if name in models.NAMES else workloads).build(torch, name)


def _ours(name: str, threads: int) -> tuple[Any, workloads.Workload]:
    import tracegraph

    tracegraph.set_num_threads(threads)
    return tracegraph, build(tracegraph, name)


def tracegraph_eager(name: str, threads: int) -> Made | None:
    """Our eager calls."""
    return Made(_ours(name, threads)[1].step)


def _replayed(name: str, threads: int, **options: Any) -> Made | None:
    if name in workloads.EAGER_ONLY:
        return None
    torch, made = _ours(name, threads)
    arguments = (made.step, ()) if made.trains else (made.module, made.inputs)
    program = torch.trace(*arguments).program(**options)
    return Made(program if made.trains else made.calling(program))


def tracegraph_native(name: str, threads: int) -> Made | None:
    """Our replay as native code."""
    return _replayed(name, threads, runtime="native")


def tracegraph_interpreter(name: str, threads: int) -> Made | None:
    """Our replay on the interpreter."""
    return _replayed(name, threads, runtime="interpreter")


def _torch(name: str, threads: int) -> tuple[Any, workloads.Workload]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    return torch, build(torch, name)


def torch_eager(name: str, threads: int) -> Made | None:
    """PyTorch's eager calls."""
    return Made(_torch(name, threads)[1].step)


def torch_jit(name: str, threads: int) -> Made | None:
    """TorchScript: traced, frozen, optimised for inference."""
    torch, made = _torch(name, threads)
    if made.trains or name in workloads.EAGER_ONLY:
        return None
    with torch.no_grad():
        scripted = torch.jit.trace(made.module, made.inputs)
        if any(True for _ in made.parameters()):
            scripted = torch.jit.optimize_for_inference(torch.jit.freeze(scripted))

    def call(*inputs: Any) -> Any:
        with torch.no_grad():
            return scripted(*inputs)

    return Made(made.calling(call))


def torch_compile(name: str, threads: int) -> Made | None:
    """torch.compile: needs a C++ compiler."""
    torch, made = _torch(name, threads)
    if name in workloads.EAGER_ONLY:
        return None
    if made.trains:
        return Made(torch.compile(made.step))
    compiled = torch.compile(made.module)

    def call(*inputs: Any) -> Any:
        with torch.no_grad():
            return compiled(*inputs)

    return Made(made.calling(call))


def onnxruntime(name: str, threads: int) -> Made | None:
    """ONNX Runtime on what PyTorch exports."""
    torch, made = _torch(name, threads)
    if made.trains or name in workloads.EAGER_ONLY:
        return None
    runtime = importlib.import_module("onnxruntime")
    names = [f"x{i}" for i in range(len(made.inputs))]
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(made.module, made.inputs, file, input_names=names, dynamo=False)
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = runtime.InferenceSession(file.getvalue(), settings, ["CPUExecutionProvider"])
    return Made(
        made.calling(
            lambda *inputs: session.run(
                None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}
            )
        )
    )


def jax_jit(name: str, threads: int) -> Made | None:
    """JAX: the pointwise and dense programs, written for it."""
    from tests.benchmarks import jax_programs

    return jax_programs.build(name)


MODES: dict[str, tuple[Callable[[str, int], Made | None], tuple[str, ...]]] = {
    "native": (tracegraph_native, ()),
    "interpreter": (tracegraph_interpreter, ()),
    "eager": (tracegraph_eager, ()),
    "torch": (torch_eager, ("torch",)),
    "torch.jit": (torch_jit, ("torch",)),
    "torch.compile": (torch_compile, ("torch",)),
    "onnxruntime": (onnxruntime, ("torch", "onnx", "onnxruntime")),
    "jax": (jax_jit, ("jax",)),
}
"""mode -> (how to make a program run so, what must be installed)."""
OURS = ("native", "interpreter", "eager")
SLOW_TO_START = ("torch.compile",)


def missing(mode: str) -> list[str]:
    """Return what a mode needs and this machine lacks."""
    return [name for name in MODES[mode][1] if importlib.util.find_spec(name) is None]


def make(mode: str, name: str, threads: int) -> Made | None:
    """Return a program ready to be timed in a mode, or None where the mode does not apply."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODES[mode][0](name, threads)
