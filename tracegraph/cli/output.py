"""What commands print: lines, tables, sizes and times on stdout, progress on stderr."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple


def printable(text: str) -> str:
    """Return text with control characters escaped: names in a file must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write(text: str = "") -> None:
    """Print text to stdout, line by line, escaped."""
    for line in text.split("\n"):
        print(printable(line))


def write_table(rows: Sequence[Sequence[str]], align: str, indent: str = "") -> None:
    """Print rows in columns; `align` has `<` or `>` for each column."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True))
        print((indent + "  ".join(cells)).rstrip())


def time_text(seconds: float) -> str:
    """Return a duration with three digits: `12.3 us`, `4.56 ms`, `7.89 s`."""
    for scale, unit in ((1e6, "us"), (1e3, "ms"), (1.0, "s")):
        number = seconds * scale
        if number < 999.5 or unit == "s":
            break
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f} {unit}"


class Timing(NamedTuple):
    """Durations of repeated calls in seconds, in order of time."""

    seconds: list[float]

    @property
    def cells(self) -> list[str]:
        """Number of calls, min, median and 99th percentile (nearest rank), as text."""
        ranked = sorted(self.seconds)
        places = (0, (len(ranked) - 1) // 2, math.ceil(0.99 * len(ranked)) - 1)
        return [str(len(ranked)), *(time_text(ranked[i]) for i in places)]


TIMING_HEAD = ["calls", "min", "median", "p99"]


class Progress:
    """One line on stderr that tells how far a long piece of work is; only on a terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = max(total, 1)
        self._done = 0
        self._next = time.monotonic() + 0.5
        self._shown = False
        self._terminal = (
            sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"
        )

    def advance(self, amount: int = 1) -> None:
        """Count work as done; the line is drawn at most ten times a second."""
        self._done += amount
        if self._terminal and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            percent = 100 * self._done // self._total
            sys.stderr.write(f"\r\x1b[K{printable(self._label)}: {percent}%")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """Show progress during the block."""
    shown = Progress(label, total)
    try:
        yield shown
    finally:
        shown.clear()


def measure(call: Callable[[], Any], repeat: int, label: str) -> Timing:
    """Time calls one by one."""
    seconds = []
    with progress(label, repeat) as shown:
        for _ in range(repeat):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
            shown.advance()
    return Timing(seconds)
