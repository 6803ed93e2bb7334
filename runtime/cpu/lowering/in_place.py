"""Results that lie where operands lay: buffers of the arena, and State that is written at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch


def sharing(
    operands: Sequence[Place], results: Sequence[Place], apart: Sequence[Place] = ()
) -> list[tuple[Buffer, Buffer]]:
    """Return which result may lie where which operand lay: both are walked alike.

    What lies in the buffer of one of `apart` is read in another order.
    """
    walks: dict[Buffer, set[Place]] = {p.buffer: set() for p in apart}  # in no one order
    for x in operands:
        walks.setdefault(x.buffer, {x} if x.offset == 0 else set())
        if x not in walks[x.buffer]:
            walks[x.buffer] = set()
    alike: dict[Any, list[Buffer]] = {}
    for buffer, places in walks.items():
        for x in places:
            alike.setdefault((x.strides, x.dtype.itemsize, buffer.bytes), []).append(buffer)
    return [
        (y.buffer, buffer)
        for y in results
        if y.offset == 0
        for buffer in alike.get((y.strides, y.dtype.itemsize, y.buffer.bytes), ())
    ]


def written_at_once(
    steps: Sequence[Launch | HostCall], checks: Iterable[int], wanted: Mapping[Buffer, Buffer]
) -> dict[Buffer, Buffer]:
    """Return those of `wanted` (new content: State) that may be written to State's memory.

    From the first write on, no step may fail (`checks` are the codes of kernels that may), and none
    may read the old content, but for the writing one if it reads each element before it writes it.
    """
    failing = [i for i, step in enumerate(steps) if isinstance(step, HostCall)]
    last_failing = max((*failing, *(code - 1 for code in checks)), default=-1)
    readers: dict[Buffer, list[int]] = {}
    writers: dict[Buffer, list[int]] = {}
    for number, step in enumerate(steps):
        for buffer in step.use.reads:
            readers.setdefault(buffer, []).append(number)
        for buffer in step.use.writes:
            writers.setdefault(buffer, []).append(number)
    found = {}
    for held, state in wanted.items():
        first = min(writers.get(held, [-1]))
        shares = first >= 0 and (held, state) in steps[first].use.may_share
        allowed = first if shares else first - 1
        if first > last_failing and all(i <= allowed for i in readers.get(state, ())):
            found[held] = state
    return found
