"""`tracegraph verify`: every check there is on a file, each with its outcome."""

from __future__ import annotations

import argparse
import os

from tracegraph.cli.arguments import DIFFERENT, SUCCESS
from tracegraph.cli.output import progress, write
from tracegraph.devices import parse_device
from tracegraph.files.sample_check import Replay
from tracegraph.files.verification import checks_of
from tracegraph.ops.host import permit


def run(args: argparse.Namespace) -> int:
    """Print a line or more for each check; the status says whether all of them passed."""
    for function in args.allow_host_call:
        permit(function)
    replay = Replay(parse_device(args.device), args.runtime, args.level, args.tolerance)
    passed = True
    with progress("checksums", os.path.getsize(args.file)) as shown:
        for check in checks_of(args.file, replay, shown.advance):
            passed &= check.passed
            write(str(check))
    return SUCCESS if passed else DIFFERENT
