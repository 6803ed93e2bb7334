"""`tracegraph report`: what a trace froze, and what its graph relies on."""

from __future__ import annotations

import argparse
import json

from tracegraph.cli.arguments import SUCCESS
from tracegraph.cli.files import File
from tracegraph.cli.output import write
from tracegraph.files.saving import encode_report


def run(args: argparse.Namespace) -> int:
    """Print the reports on one entry point or on all."""
    file = File(args.file)
    entries = file.graphs.entries if args.entry is None else dict([file.entry(args.entry)])
    reports = {name: entry.report() for name, entry in entries.items()}
    if args.json:
        data = {name: encode_report(report.to_data()) for name, report in reports.items()}
        write(json.dumps(data, indent=1))
        return SUCCESS
    for number, (name, report) in enumerate(reports.items()):
        if len(reports) > 1:
            write(f"{chr(10) if number else ''}# entry point {name}")
        write(str(report))
    return SUCCESS
