"""`tracegraph optimize`: run passes on the graphs of a file; print the results, or a pass table."""

from __future__ import annotations

import argparse
from typing import Any

from tracegraph.cli.files import File
from tracegraph.cli.output import time_text, write, write_table
from tracegraph.ir.text import print_graph
from tracegraph.passes.pipeline import PASSES, run_passes


def run(args: argparse.Namespace) -> int:
    """Optimise copies of the graphs, with the verifier after each pass."""
    file = File(args.file)
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    passes = args.level if args.passes is None else args.passes.split(",")
    for name, entry in entries.items():
        graph = entry.graph.copy()
        reports: list[Any] = []
        run_passes(graph, passes, report=reports, check=True)
        if args.table:
            write(f"{name}: {len(entry.graph)} nodes -> {len(graph)}")
            _write_pass_table(reports)
        else:
            write(f"# entry point {name}\n{print_graph(graph, full=False)}")
    return 0


def _write_pass_table(reports: list[Any]) -> None:
    """Print a row for each pass that ran: its runs, changes, effect on the node count and time."""
    rows = [["pass", "exact", "runs", "changes", "nodes", "time"]]
    exact = {row.name: "yes" if row.exact else "no" for row in PASSES}
    for name in dict.fromkeys(r.name for r in reports):
        runs = [r for r in reports if r.name == name]
        rows.append(
            [
                name,
                exact[name],
                str(len(runs)),
                str(sum(r.changes for r in runs)),
                f"{sum(r.after - r.before for r in runs):+d}",
                time_text(sum(r.seconds for r in runs)),
            ]
        )
    write_table(rows, "<<>>>>", indent="  ")
    write()
