"""`tracegraph compile`: make the native code of a file ahead, and explain what runs."""

from __future__ import annotations

import argparse
import time

from tracegraph.cli.arguments import SUCCESS
from tracegraph.cli.files import File
from tracegraph.cli.inputs import make_call
from tracegraph.cli.output import time_text, write
from tracegraph.runtime.cpu import kernels, object_cache
from tracegraph.wording import count_text


def run(args: argparse.Namespace) -> int:
    """Compile entry points into the object cache; print a plan for each."""
    file = File(args.file, "cpu", args.allow_host_call)
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    started = time.perf_counter()
    for name, entry in entries.items():
        values, named = make_call(entry, {}, 0, dict(args.size))
        program = entry.program("cpu", "native").prepare(*values, **named)
        write(f"# entry point {name}\n{program.explain()}\n")
    took = time_text(time.perf_counter() - started)
    folder = object_cache.directory()
    where = f"kept in {folder}" if folder else "kept nowhere: there is no cache directory to trust"
    write(f"{count_text(kernels.kernel_count(), 'kernel')} in {took}, {where}")
    return SUCCESS
