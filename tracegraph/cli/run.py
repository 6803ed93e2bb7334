"""`tracegraph run`: replay an entry point on given or random inputs, and time it."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from tracegraph.cli.files import File
from tracegraph.cli.inputs import make_call, read_inputs
from tracegraph.cli.output import (
    TIMING_HEAD,
    measure,
    time_text,
    write,
    write_table,
)
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.files.nest import tensors_in


def run(args: argparse.Namespace) -> int:
    """Replay, print the outputs and a table of times, write the outputs to a file."""
    started = time.perf_counter()
    file = File(args.file, args.device, args.allow_host_call)
    name, entry = file.entry(args.entry)
    read_s = time.perf_counter() - started
    given = read_inputs(entry, args.input, args.npz)
    values, named = make_call(entry, given, args.seed, dict(args.size))
    started = time.perf_counter()
    program = entry.program(args.device, args.runtime, args.level).prepare(*values, **named)
    compile_s = time.perf_counter() - started
    results: list[Any] = [None]

    def call() -> None:
        results[0] = program(*values, **dict(named))
        wait(args.device)

    first = measure(call, 1, f"first call of {name}")
    outputs = results[0]
    again = measure(call, args.repeat, f"calls of {name}") if args.repeat > 1 else None
    if not given and any(s.type for s in entry.signature.specs):
        write(f"inputs: random, seed {args.seed}")
    for path, t in tensors_in(outputs):
        write(f"{_output_name(path)}: {type_of(t)} {_summary(t)}")
    if args.output:
        np.savez(args.output, **{_output_name(p): _host(t) for p, t in tensors_in(outputs)})
    rows = [["", *TIMING_HEAD]]
    rows += [
        [what, "", time_text(s), "", ""] for what, s in (("read", read_s), ("compile", compile_s))
    ]
    rows.append(["first call", *first.cells])
    if again is not None:
        rows.append(["later calls", *again.cells])
    write()
    write_table(rows, "<>>>>")
    return 0


def _output_name(path: str) -> str:
    return "output" if path == "tensor" else f"output.{path}"


def _host(t: Tensor) -> Any:
    return t._data.get() if hasattr(t._data, "get") else t._data


def _summary(t: Tensor) -> str:
    """The first values of a tensor on one line."""
    flat = _host(t).reshape(-1)
    shown = ", ".join(str(v) for v in flat[:4].tolist())
    return f"[{shown}, ...]" if flat.size > 4 else f"[{shown}]"


def wait(device: str) -> None:
    """Wait until a GPU has done its work."""
    if device != "cpu":
        import cupy

        cupy.cuda.get_current_stream().synchronize()
