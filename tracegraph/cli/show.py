"""`tracegraph show`: graphs as text, as an SVG drawing, or for Graphviz."""

from __future__ import annotations

import argparse
import sys

from tracegraph.cli.drawing import to_dot, to_svg
from tracegraph.cli.files import File
from tracegraph.cli.output import write
from tracegraph.ir.text import print_graph


def run(args: argparse.Namespace) -> int:
    """Print or draw one entry point, or print all."""
    file = File(args.file)
    if args.svg or args.dot:
        name, entry = file.entry(args.entry)
        drawn = to_svg(entry.graph) if args.svg else to_dot(entry.graph)
        if "-" in (args.svg, args.dot):
            sys.stdout.write(drawn)
            return 0
        with open(args.svg or args.dot, "w", encoding="utf-8") as out:
            out.write(drawn)
        write(f"{args.svg or args.dot}: {name}, {len(entry.graph)} nodes")
        return 0
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    for name, entry in entries.items():
        if len(entries) > 1:
            write(f"# entry point {name}")
        write(print_graph(entry.graph, full=args.full))
    return 0
