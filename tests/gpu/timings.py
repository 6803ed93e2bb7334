"""A short table of times on a GPU: `python -m tests.gpu.timings`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tracegraph as torch
from tests import workloads
from tests.gpu import missing


def clock(step: Callable[[], Any], budget_s: float = 1.0) -> tuple[float, float]:
    """Return the median and the minimum of a synchronised step, in seconds."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 300):
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def on_gpu(made: workloads.Workload) -> Callable[[], Any]:
    """Return the eager step of a forward program, with its module and inputs on the GPU."""
    made.module.cuda()
    variants = tuple(tuple(x.cuda() for x in inputs) for inputs in made.variants)
    place = [0]

    def step() -> Any:
        place[0] += 1
        with torch.no_grad():
            return made.module(*variants[place[0] % len(variants)])

    return step


def training(name: str) -> Callable[[], Any]:
    """Return an eager training step on the GPU."""
    made = workloads.build(torch, name)
    module, labels = made.module.cuda(), made.target.cuda()
    x = made.inputs[0].cuda()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        out = module(x)
        loss = torch.nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def rows() -> list[tuple[str, Callable[[], Any]]]:
    """Return what is timed."""
    small = torch.ones(8, device="cuda")
    table: list[tuple[str, Callable[[], Any]]] = [("add of 8 floats", lambda: small + small)]
    square = torch.rand(4096, 4096, device="cuda")
    table.append(("matmul 4096² f32", lambda: square @ square))
    half = square.bfloat16()
    table.append(("matmul 4096² bf16 (computed in f32)", lambda: half @ half))
    for name in ("pointwise_4m", "ln_softmax", "mlp_b64", "resnet18", "gpt"):
        made = workloads.build(torch, name)
        replayed = torch.trace(made.module, made.inputs)
        step = on_gpu(made)
        program = replayed.program(device="cuda")
        inputs = tuple(x.cuda() for x in made.inputs)
        table.append((f"{name} eager", step))
        table.append((f"{name} replay", lambda program=program, inputs=inputs: program(*inputs)))
    for name in ("train_mlp", "train_cnn", "train_gpt"):
        step = training(name)
        table.append((f"{name} eager", step))
        traced = torch.trace(training(name), ())
        table.append((f"{name} replay", traced))
    return table


def main() -> int:
    """Print the table."""
    if reason := missing():
        print(reason)
        return 0
    import cupy

    print(f"{torch.cuda.get_device_name()}, CuPy {cupy.__version__}, NumPy {np.__version__}")
    print(f"{'':38}{'median':>12}{'minimum':>12}   (synchronised)")
    for name, step in rows():
        try:
            median, best = clock(step)
        except Exception as error:  # one program that fails must not hide the others
            print(f"{name:38}{type(error).__name__}: {str(error)[:90]}")
            continue
        rate = f"   {2 * 4096**3 / best / 1e12:.1f} TFLOP/s" if name.startswith("matmul") else ""
        print(f"{name:38}{median * 1e6:>9.1f} us{best * 1e6:>9.1f} us{rate}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
