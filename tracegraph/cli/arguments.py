"""The arguments of every command, and `main`, which runs one and turns errors into sentences."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from tracegraph.errors import TraceGraphError

SUCCESS: Final = 0
DIFFERENT: Final = 1  # `verify` found a fault, `diff` a difference
FAILURE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
BROKEN_PIPE: Final = 128 + signal.SIGPIPE


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILURE, f"tracegraph: error: {message} (see {self.prog} --help)\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"expected NAME=N, got {text!r}")
    return name, int(size)


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return number


def _add_file(command: argparse.ArgumentParser, entry: str | None = None) -> None:
    command.add_argument("file", metavar="FILE", help="a file that tracegraph.save wrote")
    if entry:
        command.add_argument("entry", metavar="ENTRY", nargs="?", help=entry)


def _info(command: argparse.ArgumentParser) -> None:
    _add_file(command)


def _show(command: argparse.ArgumentParser) -> None:
    _add_file(command, "the entry point to show; all of them by default")
    command.add_argument("--full", action="store_true", help="with all values and source lines")
    drawing = command.add_mutually_exclusive_group()
    drawing.add_argument("--svg", metavar="OUT", help="draw the graph to an SVG file")
    drawing.add_argument("--dot", metavar="OUT", help="write the graph for Graphviz; - is stdout")


def _add_running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    command.add_argument("--seed", type=int, default=0, help="of random inputs (default: 0)")
    _add_sizes(command)
    _add_host_calls(command)


def _add_runtime(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runtime", help="native or interpreter (default: native on a CPU)")
    command.add_argument(
        "--level", type=int, choices=(0, 1, 2),
        help="of optimisation; without --runtime, on the interpreter (default: 2 native, else 1)",
    )  # fmt: skip


def _add_sizes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size", metavar="NAME=N", type=_size, action="append", default=[],
        help="the size of a dynamic dim for random inputs; may be repeated",
    )  # fmt: skip


def _add_host_calls(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-host-call", metavar="MODULE:NAME", action="append", default=[],
        help="a Python function that the graphs may call; may be repeated",
    )  # fmt: skip


def _run(command: argparse.ArgumentParser) -> None:
    _add_file(command)
    command.add_argument("--entry", help="the entry point to run (default: forward, or the only)")
    command.add_argument(
        "--input", metavar="NAME=X.npy", action="append", default=[],
        help="an input from a .npy file, or a hyper-parameter as a number; may be repeated",
    )  # fmt: skip
    command.add_argument("--npz", metavar="IN.npz", help="inputs by name from a .npz file")
    command.add_argument("--output", metavar="OUT.npz", help="write the outputs here")
    command.add_argument("--repeat", type=_positive, default=1, metavar="N", help="time N calls")
    _add_runtime(command)
    _add_running(command)


def _verify(command: argparse.ArgumentParser) -> None:
    _add_file(command)
    _add_host_calls(command)
    command.add_argument("--device", default="cpu", help="where samples are replayed: cpu, cuda")
    _add_runtime(command)
    command.add_argument(
        "--tolerance", type=_fraction, metavar="R",
        help="allow differences up to R times the largest element (default: what each node may "
        "differ by was measured when the file was saved)",
    )  # fmt: skip


def _report(command: argparse.ArgumentParser) -> None:
    _add_file(command, "the entry point to report on; all of them by default")
    command.add_argument("--json", action="store_true", help="as data, with full paths")


def _diff(command: argparse.ArgumentParser) -> None:
    command.add_argument("first", metavar="A", help="a file")
    command.add_argument("second", metavar="B", help="another")


def _bench(command: argparse.ArgumentParser) -> None:
    _add_file(command, "the entry point to time; all of them by default")
    command.add_argument(
        "--repeat", type=_positive, metavar="N", help="calls a row (default: about a second)"
    )
    command.add_argument("--runtime", help="native or interpreter (default: both)")
    _add_running(command)


def _compile(command: argparse.ArgumentParser) -> None:
    _add_file(command)
    command.add_argument("--entry", help="the entry point to compile (default: all)")
    _add_sizes(command)
    _add_host_calls(command)


def _optimize(command: argparse.ArgumentParser) -> None:
    _add_file(command, "the entry point to optimise; all of them by default")
    command.add_argument(
        "--level", type=int, choices=(0, 1, 2), default=1, help="0 nothing, 1 exact, 2 all"
    )
    command.add_argument("--passes", metavar="A,B", help="run just these passes, in this order")
    command.add_argument(
        "--table", action="store_true", help="a row for each pass instead of the graphs"
    )


_Commands = dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]
COMMANDS: Final[_Commands] = {
    "info": ("what is in a file: entry points, State, sizes", _info),
    "show": ("print or draw the graphs", _show),
    "run": ("replay an entry point on given or random inputs", _run),
    "verify": ("check a file through and through, replay its samples (exit 1: it fails)", _verify),
    "report": ("tell what a trace froze and what its graph relies on", _report),
    "diff": ("compare two files (exit 1: they differ)", _diff),
    "bench": ("time replays on the interpreter, at each level, and as native code", _bench),
    "compile": ("compile the kernels ahead, and explain what runs", _compile),
    "optimize": ("run passes and show the graphs, or what each pass did", _optimize),
}
"""Each command's help and arguments; the module of its name in this package has `run(args)`."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    shared = _Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="tracegraph", description="Works on files of traced graphs.")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (text, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, parents=[shared])
        add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (verify, diff), 2 (error), 130 (Ctrl-C)."""
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        status = _perform(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except Exception as error:
        if args.command and args.debug:
            raise
        _drop_output()
        print(f"tracegraph: error: {_sentence(error)}", file=sys.stderr)
        return FAILURE


def _perform(args: argparse.Namespace) -> int:
    if args.version:
        from tracegraph.files.archive import PRODUCER

        print(PRODUCER)
        return SUCCESS
    if args.command is None:
        make_parser().print_help()
        return SUCCESS
    status: int = importlib.import_module(f"tracegraph.cli.{args.command}").run(args)
    return status


def _sentence(error: Exception) -> str:
    """What an error says, on one line; one that no command foresaw says so."""
    from tracegraph.cli.output import printable

    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = f"out of memory: {text}" if text else "out of memory"
    elif not isinstance(error, (TraceGraphError, OSError)):
        text = f"{type(error).__name__}: {text}; --debug shows the traceback"
    return printable(text)


def _drop_output() -> None:
    """Send what stdout still holds nowhere, so that the end of the process does not fail on it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        null: Any = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
