"""`tracegraph verify`: every check there is on a file, each with its outcome."""

from __future__ import annotations

import argparse
from typing import Any

from tracegraph.archive import load
from tracegraph.cli.arguments import DIFFERENT, SUCCESS
from tracegraph.cli.files import tensors_in
from tracegraph.cli.output import count_text, progress, size_text, write
from tracegraph.container import Container
from tracegraph.errors import TraceGraphError
from tracegraph.ir.verify import verify
from tracegraph.loaded import Loaded


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; the status says whether all of them passed."""
    failed = 0
    try:
        content = _check_file(args.file)
    except TraceGraphError as error:
        write(f"FAIL  file: {error}")
        return DIFFERENT
    if not isinstance(content, Loaded):
        write(f"ok    content: {count_text(len(list(tensors_in(content))), 'tensor')}")
        return SUCCESS
    for name, entry in content.entries.items():
        try:
            verify(entry.graph)
        except TraceGraphError as error:
            failed += 1
            write(f"FAIL  graph {name}: {error}")
        else:
            write(f"ok    graph {name}: {count_text(len(entry.graph), 'node')} follow the rules")
    return DIFFERENT if failed else SUCCESS


def _check_file(path: str) -> Any:
    """Check structure, checksums and content; returns what the file holds."""
    with Container.open(path) as container:
        names = container.names()
        write(f"ok    structure: {count_text(len(names), 'member')}")
        total = sum(map(container.size_bytes, names))
        with progress("checksums", total) as shown:
            for name in names:
                container.verify(name)
                shown.advance(container.size_bytes(name))
        write(f"ok    checksums: {size_text(total)} as their SHA-256 says")
    content = load(path, verify=False)
    write("ok    content: types, State and signatures fit together")
    return content
