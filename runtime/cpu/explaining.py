"""What a native plan does, as a table for people: a row for each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracegraph.dtypes import DType, float32, float64
from tracegraph.ir.graph import KERNEL, Graph, Node
from tracegraph.runtime.cpu.lowering.lowering import PRODUCTS
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch, Pointer
from tracegraph.runtime.cpu.nests.kernel import NestKernel
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, NUMBER

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.profiling import Peak, Profile
    from tracegraph.runtime.cpu.program import Compiled

_HEAD: Final = ["", "what", "result", "chunks", "read", "written", "FLOP", "time"]
_PROFILED: Final = ["GB/s", "GFLOP/s", "of peak"]
_LONGEST: Final = 40
_SCALES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Work(NamedTuple):
    """What a step does: bytes that it reads and writes, operations, and those on which dtype.

    A byte that it reads or writes again counts once. FLOP: multiplications and additions of a
    contraction, though not what is fused behind it; elements times steps of a loop nest.
    """

    read: int
    written: int
    flops: int
    dtype: DType

    def plus(self, other: Work) -> Work:
        """Return what both do."""
        read, written = self.read + other.read, self.written + other.written
        return Work(read, written, self.flops + other.flops, self.dtype)


def explained_plan(
    compiled: Compiled, sizes: Mapping[str, int], profile: Profile | None = None
) -> str:
    """Return the table of a plan; with the measured times of a profile, or about what they are."""
    plan, arena = compiled.plan, compiled.arena
    kernels = {s.kernel.name for s in plan.steps if isinstance(s, Launch)}
    hosts = sum(isinstance(s, HostCall) for s in plan.steps)
    bound = "".join(f" {name}={size}" for name, size in sizes.items())
    head = (
        f"{len(plan.steps)} steps{bound}: {len(kernels)} kernels in {len(plan.steps) - hosts} "
        f"launches, {hosts} host calls\narena {_short(arena.bytes)}B, "
        f"{_short(arena.live_bytes)}B alive at most"
    )
    rows = [[*_HEAD, *(_PROFILED if profile else []), ""]]
    beside = _beside(plan.steps)
    if beside:
        head += f"\n{len(beside)} launches run beside the one above them"
    known: set[Buffer] = set()
    for made, _ in plan.ahead.values():
        rows += [_row("ahead", s, 1, work_of(s, known), 0.0, "", profile) for s in made]
    lines: dict[Any, tuple[Launch | HostCall, int, Work, float]] = {}
    for number, step in enumerate(plan.steps):
        work, took = work_of(step, known), _estimate(step)
        if profile:
            took = profile.seconds[number]
        key = step.loop if isinstance(step, Launch) and step.loop else number
        if key in lines:
            _, count, before, sofar = lines[key]
            lines[key] = (step, count + 1, before.plus(work), sofar + took)
        else:
            lines[key] = (step, 1, work, took)
    whole, seconds = Work(0, 0, 0, float32), 0.0
    for key, (step, count, work, took) in lines.items():
        kind = "beside" if key in beside else "native"
        rows.append(_row(kind, step, count, work, took, _note(step, compiled), profile))
        whole, seconds = whole.plus(work), seconds + took
    told = _time(seconds) if profile else "~" + _time(seconds)
    rates = _rates(whole, seconds, None) if profile else []
    rows.append(["total", "", "", "", *_amounts(whole), told, *rates, ""])
    head += f"\npeak: {profile.peak}" if profile else "\ntimes are estimates"
    return "\n".join((head, "", *_aligned(rows)))


def _beside(steps: Sequence[Launch | HostCall]) -> set[int]:
    """Return the numbers of the steps that are of the same group as the one before."""
    groups = [step.group if isinstance(step, Launch) else 0 for step in steps]
    return {i for i, (a, b) in enumerate(pairwise(groups), 1) if a == b != 0}


def _row(
    kind: str, step: Launch | HostCall, count: int, work: Work, seconds: float, note: str,
    profile: Profile | None,
) -> list[str]:  # fmt: skip
    """Return the line of a step, or of one that a loop takes `count` times; 0 s: not measured."""
    if isinstance(step, HostCall):
        cells, told = ["host", step.node.op, _result(step), ""], ""
    else:
        what = _clipped(step.what) if count == 1 else f"{count} x {_clipped(step.what)}"
        cells = [kind, what, _result(step), str(step.chunks)]
        told = "~" + _time(seconds or _estimate(step))
    rates = [""] * len(_PROFILED) if profile else []
    if profile and seconds:
        told, rates = _time(seconds), _rates(work, seconds, profile.peak)
    return [*cells, *_amounts(work), told, *rates, note]


def _amounts(work: Work) -> list[str]:
    return [_short(n) if n else "" for n in (work.read, work.written, work.flops)]


def _rates(work: Work, seconds: float, peak: Peak | None) -> list[str]:
    """Return bytes and operations a second, and what part of a peak that is."""
    amounts = (work.read + work.written, work.flops)
    rates = [f"{n / seconds / 1e9:.3g}" if n and seconds else "" for n in amounts]
    return [*rates, f"{peak.share(work, seconds):.0%}" if peak else ""]


def _estimate(step: Launch | HostCall) -> float:
    return 0.0 if isinstance(step, HostCall) else step.cost_ns / 1e9


def _result(step: Launch | HostCall) -> str:
    """Return the types of what a step's node gives, or the elements of one without a node."""
    if step.node is not None:
        return " ".join(str(v.type) for v in step.node.outs)
    if isinstance(step, Launch) and isinstance(step.kernel, NestKernel):
        return f"{_Space(step, step.kernel).elements} elements"
    return ""


def _note(step: Launch | HostCall, compiled: Compiled) -> str:
    """Return why the host computes a step, why a product is alone, and the user's line."""
    node, told = step.node, ""
    if isinstance(step, HostCall):
        told = f"host: {step.why}; "
    elif step.loop is None and node is not None and _is_product(step, node):
        told = f"alone: {_apart(node, compiled.graph, compiled.plan.apart)}; "
    place = f"at {node.loc}" if node is not None and node.loc is not None else ""
    return (told + place).removesuffix("; ")


def _is_product(step: Launch, node: Node) -> bool:
    return node.op in PRODUCTS and step.what.startswith(node.op)


def _apart(node: Node, graph: Graph, refused: Mapping[Node, str]) -> str:
    """Return why what follows a product is not computed with it."""
    if node in refused:
        return refused[node]
    if node.out in graph.results():
        return "it is a result"
    readers = graph.successors(node)
    if len(readers) != 1:
        return f"{len(readers)} nodes read it"
    name = readers[0].attrs["kind"] if readers[0].op == KERNEL else readers[0].op
    return f"its reader ({name}) is not elementwise over it"


# What a step reads, writes and computes.


def work_of(step: Launch | HostCall, known: set[Buffer]) -> Work:
    """Return what a step does; `known` are the buffers that earlier ones wrote, and grows."""
    dtype = float32
    if step.node is not None and step.node.outs and step.node.outs[0].type.dtype is float64:
        dtype = float64
    if isinstance(step, HostCall):
        read, written = (sum(map(_size, x)) for x in (step.operands, step.results))
        known.update(p.buffer for p in step.results)
        return Work(read, written, 0, dtype)
    if isinstance(step.kernel, NestKernel):
        known.update(step.use.writes)
        return _Space(step, step.kernel).work(dtype)
    buffers: dict[Buffer, int] = {}
    for word in step.words:
        if isinstance(word, Pointer):
            size = buffers.get(word.buffer, 0) + word.reach
            buffers[word.buffer] = min(size, word.buffer.bytes)
    made = [b for b in buffers if b in set(step.use.writes) - known or b.origin == "kept"]
    if step.flops:  # panels that were packed ahead are read
        made = [b for b in made if b.origin != "kept"]
    known.update(made)
    written = sum(buffers[b] for b in made)
    return Work(sum(buffers.values()) - written, written, step.flops, dtype)


def _size(place: Place) -> int:
    return math.prod(place.shape) * place.dtype.itemsize


class _Space:
    """The extents of a launch of a loop nest."""

    def __init__(self, step: Launch, kernel: NestKernel) -> None:
        self.nest = nest = kernel.nest
        self.words: dict[str, Any] = dict(zip(kernel.slots, step.words, strict=True))
        names = [f"kept{d}" for d in range(nest.kept)]
        folded = [f"folded{d}" for d in range(nest.folded)]
        self.kept = math.prod(self.words[name] for name in names)
        self.elements = self.kept * math.prod(self.words[name] for name in folded)
        lanes = self.words["lanes"]
        self.elements *= lanes
        self.kept *= lanes if nest.lanes == "kept" else 1
        self.loops = [*names, *folded]

    def work(self, dtype: DType) -> Work:
        """Return what the launch does."""
        read = written = 0
        for name, array in self.nest.arrays.items():
            walked = [n for n in self.loops if self.words.get(f"{name}_{n}")]
            count = math.prod(self.words[n] for n in walked)
            count *= 1 if array.lane == "one" else self.words["lanes"]
            if array.value < 0:
                read += count * array.dtype.itemsize
            else:
                written += count * array.dtype.itemsize
        return Work(read, written, self.flops(), dtype)

    def flops(self) -> int:
        """Return the operations: a fold has one for each element that it folds."""
        full: list[bool] = []
        found = 0
        for step in self.nest.steps:
            if step.op in (LOAD, NUMBER):
                full.append(step.op == LOAD and not self.nest.operands[step.inputs[0]].is_row)
                continue
            takes = any(full[i] for i in step.inputs)
            full.append(takes and step.op not in FOLDS)
            found += self.elements if takes else self.kept
        return found


# Text.


def _clipped(what: str) -> str:
    if len(what) <= _LONGEST:
        return what
    names = what.split("+")
    return f"{'+'.join(names[:3])}+...+{names[-1]} ({len(names)} ops)"


def _short(number: float) -> str:
    """Return a number with three digits: `123`, `4.56k`, `7.89M`."""
    for scale, unit in _SCALES:
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


def _time(seconds: float) -> str:
    scaled, unit = (seconds * 1e3, "ms") if seconds >= 1e-3 else (seconds * 1e6, "us")
    return f"{scaled:.{2 if scaled < 10 else 1}f} {unit}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {0, 1, 2, len(widths) - 1}
    for row in rows:
        cells = (
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
