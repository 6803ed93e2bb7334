"""`verify_file`: every check there is on a file, and its samples replayed on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tracegraph.compiler import make_program
from tracegraph.devices import parse_device
from tracegraph.errors import DeviceError, TraceGraphError
from tracegraph.files.archive import load, load_decompositions, samples_in
from tracegraph.files.container import Container, read_json
from tracegraph.files.members import read_arrays
from tracegraph.files.nest import tensors_in
from tracegraph.files.sample_check import Check, Replay, SampleCheck
from tracegraph.files.samples import read_sample
from tracegraph.ir.graph import Graph
from tracegraph.ir.verify import verify
from tracegraph.ops.host import permit
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.loaded import Loaded
from tracegraph.wording import count_text, size_text


class Verification(NamedTuple):
    """All checks of a file."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all of them passed."""
        return all(check.passed for check in self.checks)

    @property
    def faults(self) -> list[Check]:
        """Those that did not."""
        return [check for check in self.checks if not check.passed]

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))


def verify_file(
    path: str | os.PathLike[str], *, device: Any = "cpu", runtime: str | None = None,
    level: int | None = None, tolerance: float | None = None, allow_host_calls: Iterable[str] = (),
) -> Verification:  # fmt: skip
    """Check a file through and through, and replay the samples in it; nothing is changed.

    Args:
        path: of a file that `save` wrote, with `samples=` for replays.
        device: where samples are replayed.
        runtime: "native" or "interpreter", beside the interpreter node by node; by default native
            on a CPU if no level is given.
        level: of optimisation.
        tolerance: the difference to allow, in parts of the largest element; by default each node
            has its own, measured when the file was saved.
        allow_host_calls: Python functions that the replays may call, as "module:name".

    Raises:
        OSError: the file cannot be read.
        DeviceError: no such runtime or device here.
    """
    for function in allow_host_calls:
        permit(function)
    replay = Replay(parse_device(device), runtime, level, tolerance)
    return Verification(tuple(checks_of(os.fspath(path), replay)))


def checks_of(
    path: str, replay: Replay, advance: Callable[[int], None] | None = None
) -> Iterator[Check]:
    """Yield checks one by one; `advance(bytes)` is told of checksums that were compared."""
    make_program(Graph(), replay.device, replay.runtime, replay.level)  # is there such a runtime?
    try:
        yield from _structure(path, advance)
        content = load(path, verify=False, allow_host_calls=None)
    except TraceGraphError as error:
        yield Check("file", False, str(error))
        return
    if not isinstance(content, Loaded):
        yield Check("content", True, count_text(len(list(tensors_in(content))), "tensor"))
        return
    yield Check("content", True, "types, State and signatures fit together")
    for name, entry in content.entries.items():
        yield _rules(f"graph {name}", [entry.graph], len(entry.graph), "node")
    yield from _decompositions(path)
    for name, entry in content.entries.items():
        yield from _samples(path, name, entry, replay)


def _structure(path: str, advance: Callable[[int], None] | None) -> Iterator[Check]:
    with Container.open(path) as container:
        names = container.names()
        yield Check("structure", True, count_text(len(names), "member"))
        for name in names:
            container.verify(name)
            if advance is not None:
                advance(container.size_bytes(name))
        total = sum(map(container.size_bytes, names))
    yield Check("checksums", True, f"{size_text(total)} as their SHA-256 says")


def _rules(what: str, graphs: Sequence[Graph], count: int, noun: str) -> Check:
    try:
        for graph in graphs:
            verify(graph)
    except TraceGraphError as error:
        return Check(what, False, str(error))
    verb = "follows" if count == 1 else "follow"
    return Check(what, True, f"{count_text(count, noun)} {verb} the rules")


def _decompositions(path: str) -> Iterator[Check]:
    try:
        bodies = load_decompositions(path)
    except TraceGraphError as error:
        yield Check("decompositions", False, str(error))
        return
    if bodies:
        yield _rules("decompositions", bodies, len(bodies), "graph")


# Samples.


def _samples(path: str, name: str, entry: EntryPoint, replay: Replay) -> Iterator[Check]:
    with Container.open(path) as container:
        arrays = read_arrays(container)
        for number, data in enumerate(samples_in(container, name)):
            what = f"sample {number} of {name}"
            try:
                rows = read_json(container, f"samples/{name}.{number}.json")["digests"]
                sample = read_sample(data, rows, arrays, entry)
                yield from SampleCheck(what, entry, sample, replay).checks()
            except DeviceError:
                raise
            except TraceGraphError as error:
                yield Check(what, False, str(error))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                yield Check(what, False, f"it does not follow the format: {error}")
