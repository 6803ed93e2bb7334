"""`python -m tests.benchmarks.elementary [NAME...] [--level avx2]`: elementary functions.

Nanoseconds an element, on one thread, for 16384 numbers in cache: our native code, NumPy, and
PyTorch where it is installed. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.clock import per_item
from tests.native_scalars import Expression, compiled
from tracegraph.dtypes import DType, float32, float64
from tracegraph.runtime.cpu.code import llvm

COUNT = 1 << 14


class Case(NamedTuple):
    """One function: native expression, NumPy, and its name in PyTorch."""

    native: Callable[[Any, Any], Any]
    numpy: Callable[[Any], Any] | None
    torch: str


def _gelu(m: Any, x: Any) -> Any:
    return 0.5 * x * (1 + m.erf(x * math.sqrt(0.5)))


def _named(native: str, numpy: bool = True, torch: str | None = None) -> Case:
    function = getattr(np, native) if numpy else None
    return Case(lambda m, x: getattr(m, native)(x), function, torch or native)


CASES = {
    "exp": _named("exp"),
    "log": Case(lambda m, x: m.log(m.abs(x)), lambda x: np.log(np.abs(x)), "log"),
    "tanh": _named("tanh"),
    "sigmoid": Case(lambda m, x: m.sigmoid(x), lambda x: 1 / (1 + np.exp(-x)), "sigmoid"),
    "erf": _named("erf", numpy=False),
    "gelu": Case(_gelu, None, "gelu"),
    "sin": _named("sin"),
    "cos": _named("cos"),
    "pow": Case(lambda m, x: m.power(m.abs(x), x), lambda x: np.power(np.abs(x), x), "pow"),
    "expm1": _named("expm1"),
    "log1p": Case(lambda m, x: m.log1p(m.abs(x)), lambda x: np.log1p(np.abs(x)), "log1p"),
    "tan": _named("tan"),
    "atan": _named("arctan", torch="atan"),
    "erfc": _named("erfc", numpy=False),
    "relu": Case(lambda m, x: m.maximum(x, 0.0), lambda x: np.maximum(x, 0), "relu"),
}


def native_time(case: Case, dtype: DType, x: Any, target: llvm.Target) -> float:
    """Return our seconds an element, with vectors as wide as the registers."""
    expression = Expression("kernel", case.native, (dtype,), dtype)
    function = compiled([expression], target.vector_bytes // dtype.itemsize, target)["kernel"]
    out = np.empty_like(x)
    raw, target_place, place = function.raw, out.ctypes.data, x.ctypes.data

    def run(count: int) -> None:
        for _ in range(count // COUNT):
            raw(target_place, place, COUNT)

    return per_item(run, 16 * COUNT)


def numpy_time(case: Case, x: Any) -> float:
    """Return NumPy's seconds an element."""
    function = case.numpy
    if function is None:
        return math.nan

    def run(count: int) -> None:
        for _ in range(count // COUNT):
            function(x)

    return per_item(run, 8 * COUNT)


def torch_time(case: Case, x: Any) -> float:
    """Return PyTorch's seconds an element; operands are not negative where ours are made so."""
    if importlib.util.find_spec("torch") is None:
        return math.nan
    import torch

    torch.set_num_threads(1)
    function = getattr(torch, case.torch, None) or getattr(torch.nn.functional, case.torch)
    t = torch.from_numpy(np.abs(x) if case.torch in ("log", "log1p", "pow") else x)
    operands = (t, torch.from_numpy(x)) if case.torch == "pow" else (t,)

    def run(count: int) -> None:
        for _ in range(count // COUNT):
            function(*operands)

    return per_item(run, 8 * COUNT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--level", help="an instruction set instead of the processor's own")
    options = parser.parse_args(arguments)
    target = llvm.level_target(options.level) if options.level else llvm.host_target()
    rng = np.random.default_rng(0)
    heads = "".join(f"{kind + ': ours':>12}{'NumPy':>8}{'torch':>8}" for kind in ("f32", "f64"))
    print(f"{'ns an element':16}{heads}")
    for name in options.names:
        case, cells = CASES[name], f"{name:16}"
        for dtype in (float32, float64):
            x = (rng.standard_normal(COUNT) * 2).astype(dtype.np)
            with np.errstate(all="ignore"):
                ours, numpy = native_time(case, dtype, x, target), numpy_time(case, x)
            cells += f"{1e9 * ours:12.2f}{1e9 * numpy:8.2f}{1e9 * torch_time(case, x):8.2f}"
        print(cells)


if __name__ == "__main__":
    main()
