"""`tracegraph diff`: entry points, graphs, State and reports of two files compared."""

from __future__ import annotations

import argparse

from tracegraph.cli.arguments import DIFFERENT, SUCCESS
from tracegraph.cli.files import File
from tracegraph.cli.output import progress, write
from tracegraph.files.comparison import differences
from tracegraph.files.nest import tensors_in
from tracegraph.replay.loaded import Loaded
from tracegraph.wording import count_text


def run(args: argparse.Namespace) -> int:
    """Print the differences; the status says whether there are any."""
    first, second = File(args.first), File(args.second)
    count = 0
    with progress("comparing tensors", _elements(first)) as shown:
        for difference in differences(first.content, second.content, shown.advance):
            if count == 0:
                write(f"--- {first.path}\n+++ {second.path}")
            count += 1
            write(str(difference))
    if not count:
        write(f"{first.path} and {second.path} hold the same")
        return SUCCESS
    write(count_text(count, "difference"))
    return DIFFERENT


def _elements(file: File) -> int:
    graphs = isinstance(file.content, Loaded)
    tensors = file.content.state_dict() if graphs else dict(tensors_in(file.content))
    return sum(t._data.size for t in tensors.values())
