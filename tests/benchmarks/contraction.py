"""Speed of native contractions and convolutions: `python -m tests.benchmarks.contraction`.

Beside ours: NumPy (OpenBLAS), and PyTorch where it is installed, its convolutions traced and
optimised for inference. Runs are interleaved, the least time counts: the CPU time of the thread
where there is one thread, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.native_contraction import convolve, input_gradient, product_run, weight_gradient
from tracegraph.runtime.cpu.driver.pool import Pool
from tracegraph.runtime.cpu.products.convolution import Geometry

try:
    import torch
except ImportError:
    torch = None

# Batch, m, n, k: of a perceptron; of a transformer; of a recurrent layer; square; long and thin.
SHAPES = (
    ((), 64, 512, 784), ((), 64, 256, 512), ((), 64, 10, 256), ((), 1, 512, 784),
    ((), 4, 512, 784), ((), 8, 512, 784), ((), 16, 512, 784), ((), 128, 768, 256),
    ((), 128, 1024, 256), ((12,), 128, 128, 64), ((12,), 128, 64, 128), ((), 8, 512, 128),
    ((), 560, 512, 640), ((), 512, 512, 512), ((), 1024, 1024, 1024), ((), 3136, 64, 576),
    ((), 49, 512, 4608), ((), 1, 4096, 1024),
)  # fmt: skip
# The layers of ResNet-18 at 224²: size, channels in and out, window, stride, how many.
LAYERS = (
    (224, 3, 64, 7, 2, 1), (56, 64, 64, 3, 1, 4), (56, 64, 128, 3, 2, 1), (56, 64, 128, 1, 2, 1),
    (28, 128, 128, 3, 1, 3), (28, 128, 256, 3, 2, 1), (28, 128, 256, 1, 2, 1),
    (14, 256, 256, 3, 1, 3), (14, 256, 512, 3, 2, 1), (14, 256, 512, 1, 2, 1),
    (7, 512, 512, 3, 1, 3),
)  # fmt: skip
# Depthwise layers of MobileNets: size, channels, window, stride.
DEPTHWISE = (
    (112, 32, 3, 1), (112, 64, 3, 2), (56, 128, 3, 1), (28, 256, 3, 1), (28, 120, 5, 1),
    (14, 512, 3, 1), (7, 1024, 3, 1),
)  # fmt: skip
_STRETCH_S = 0.05
PARTS = ("products", "convolutions", "depthwise", "gradients", "depthwise gradients")


class Bench(NamedTuple):
    """How runs are timed."""

    pool: Pool
    threads: int
    budget_s: float

    def least(self, steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Return the least seconds of each step, run in turns."""
        now = time.thread_time if self.threads == 1 else time.perf_counter
        found = dict.fromkeys(steps, float("inf"))
        for step in steps.values():
            step()
        end, rounds = time.perf_counter() + self.budget_s * len(steps), 0
        while rounds < 5 or time.perf_counter() < end:
            rounds += 1
            for name, step in steps.items():
                # Threads of other libraries go on polling: each step gets a stretch of its own.
                stretch_s = _STRETCH_S if self.threads > 1 else 0.0
                found[name] = min(found[name], least_of(step, now, stretch_s))
        return found


def least_of(step: Callable[[], Any], now: Callable[[], float], stretch_s: float) -> float:
    """Return the least seconds of a step that is run for a while, at least once."""
    least, end = float("inf"), time.perf_counter() + stretch_s
    while least == float("inf") or time.perf_counter() < end:
        start = now()
        step()
        least = min(least, now() - start)
    return least


def shown(title: str, found: dict[str, float], operations: float) -> str:
    """Return a line: microseconds and GFLOP/s of each."""
    parts = [f"{name} {s * 1e6:8.0f} us {operations / s / 1e9:6.1f}" for name, s in found.items()]
    return f"{title:<24}{'  |  '.join(parts)}"


def products(bench: Bench) -> Iterator[str]:
    """Yield the speed of matrix products: b known ahead, not known, transposed; a transposed."""
    random = np.random.default_rng(0)
    for batch, m, n, k in SHAPES:
        a = random.standard_normal((*batch, m, k), np.float32)
        b = random.standard_normal((*batch, k, n), np.float32)
        c = np.empty((*batch, m, n), np.float32)
        steps: dict[str, Callable[[], Any]] = {"numpy": lambda a=a, b=b, c=c: np.matmul(a, b, c)}
        if torch is not None:
            x, y, z = (torch.from_numpy(v) for v in (a, b, c))
            steps["torch"] = lambda x=x, y=y, z=z: torch.matmul(x, y, out=z)
        runs = {
            "ahead": product_run(a, b, ahead=True), "a b": product_run(a, b),
            "a bT": product_run(a, in_columns(b)), "aT b": product_run(in_columns(a), b),
        }  # fmt: skip
        for name, run in runs.items():
            steps[name] = lambda run=run: run(bench.pool)
        title = " x ".join(map(str, (*batch, m, n, k)))
        yield shown(title, bench.least(steps), 2.0 * m * n * k * math.prod(batch))


def in_columns(x: np.ndarray) -> np.ndarray:
    """Return the same values, each matrix stored column after column."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def torch_layer(g: Geometry, weight: np.ndarray, x: np.ndarray) -> Callable[[], Any]:
    """Return PyTorch's convolution, in the layout that it chooses."""
    layer = torch.nn.Conv2d(
        g.channels, g.out_channels, g.window, g.stride, (g.padding[0][0], g.padding[1][0]),
        groups=g.groups, bias=False,
    ).eval()  # fmt: skip
    layer.weight.data = torch.from_numpy(weight)
    image = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    traced = torch.jit.freeze(torch.jit.trace(layer, (image,)))
    made = torch.jit.optimize_for_inference(traced)
    return lambda: made(image)


def layers(bench: Bench, depthwise: bool) -> Iterator[str]:
    """Yield the speed of convolutions of one image, and their sum."""
    random, total = np.random.default_rng(0), {"ours": 0.0}
    cases = [(s, c, c, w, step, 1) for s, c, w, step in DEPTHWISE] if depthwise else LAYERS
    for size, inner, outer, window, stride, count in cases:
        around = ((window // 2, window // 2),) * 2
        g = Geometry(
            1, (size, size), inner, outer, (window, window), (stride, stride), around, (1, 1),
            inner if depthwise else 1,
        )  # fmt: skip
        x = random.standard_normal((1, size, size, inner), np.float32)
        weight = random.standard_normal((outer, g.inner, window, window), np.float32)
        run = convolve(x, weight, g)
        steps: dict[str, Callable[[], Any]] = {"ours": lambda run=run: run(bench.pool)}
        if torch is not None:
            steps["torch"] = torch_layer(g, weight, x)
        found = bench.least(steps)
        for name, seconds in found.items():
            total[name] = total.get(name, 0.0) + count * seconds
        title = f"{size}² {inner}->{outer} {window}² /{stride} ×{count}"
        yield shown(title, found, 2.0 * g.places * outer * g.inner * window**2)
    yield "sum: " + ", ".join(f"{name} {s * 1e3:.2f} ms" for name, s in total.items())


def gradients(bench: Bench, depthwise: bool, images: int = 8) -> Iterator[str]:
    """Yield the speed of both gradients of the same layers, and of the convolution beside them."""
    random = np.random.default_rng(0)
    cases = [(s, c, c, w, step, 1) for s, c, w, step in DEPTHWISE] if depthwise else LAYERS
    for size, inner, outer, window, stride, _ in cases:
        around = ((window // 2, window // 2),) * 2
        g = Geometry(
            images, (size, size), inner, outer, (window, window), (stride, stride), around, (1, 1),
            inner if depthwise else 1,
        )  # fmt: skip
        x = random.standard_normal((images, *g.size, inner), np.float32)
        dy = random.standard_normal((images, *g.out_size, outer), np.float32)
        weight = random.standard_normal((outer, g.inner, window, window), np.float32)
        runs = {
            "y": convolve(x, weight, g, ahead=False), "dx": input_gradient(dy, weight, g),
            "dw": weight_gradient(x, dy, g),
        }  # fmt: skip
        steps: dict[str, Callable[[], Any]] = {
            name: lambda run=run: run(bench.pool) for name, run in runs.items()
        }
        if torch is not None:
            steps |= torch_gradients(g, weight, x, dy)
        title = f"{images} × {size}² {inner}->{outer} {window}² /{stride}"
        yield shown(title, bench.least(steps), 2.0 * g.places * outer * g.inner * window**2)


def torch_gradients(
    g: Geometry, weight: np.ndarray, x: np.ndarray, dy: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Return PyTorch's convolution and gradients."""
    image, out = (torch.from_numpy(np.ascontiguousarray(v.transpose(0, 3, 1, 2))) for v in (x, dy))
    w, padding = torch.from_numpy(weight), (g.padding[0][0], g.padding[1][0])
    how = (None, g.stride, padding, g.dilation, False, (0, 0), g.groups)

    def backward(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(out, image, w, *how, mask)

    return {
        "torch y": lambda: torch.conv2d(image, w, None, g.stride, padding, g.dilation, g.groups),
        "torch dx": lambda: backward([True, False, False]),
        "torch dw": lambda: backward([False, True, False]),
    }


def main() -> None:
    """Print tables; a process for each number of threads, which OpenBLAS is told at its start."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.contraction")
    parser.add_argument("--threads", type=int, help="one number, in this process")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--budget-s", type=float, default=0.5, help="for each figure")
    found = parser.parse_args()
    if found.threads is None:
        for threads in (1, 2):
            environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
            command = [sys.executable, "-m", "tests.benchmarks.contraction", *sys.argv[1:]]
            subprocess.run([*command, "--threads", str(threads)], env=environment, check=True)
        return
    warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit's
    bench = Bench(Pool(found.threads - 1), found.threads, found.budget_s)
    parts: dict[str, Callable[[], Any]] = {
        "products": lambda: products(bench),
        "convolutions": lambda: layers(bench, depthwise=False),
        "depthwise": lambda: layers(bench, depthwise=True),
        "gradients": lambda: gradients(bench, depthwise=False),
        "depthwise gradients": lambda: gradients(bench, depthwise=True),
    }
    if torch is not None:
        torch.set_num_threads(found.threads)
        torch.set_grad_enabled(False)
    for name, part in parts.items():
        if found.only in (None, name):
            print(f"\n{name}, {found.threads} threads: microseconds and GFLOP/s", flush=True)
            for text in part():
                print(text, flush=True)


if __name__ == "__main__":
    main()
