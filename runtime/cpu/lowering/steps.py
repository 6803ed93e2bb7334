"""What a native plan is made of: launches of kernels, calls of the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.kernels import Kernel
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Buffer, Place


class Pointer(NamedTuple):
    """A word that is the address of a place in a buffer, `size` bytes of it if that is known."""

    buffer: Buffer
    offset_bytes: int = 0
    size: int | None = None

    @property
    def reach(self) -> int:
        """The bytes that are read or written there, at most."""
        return self.buffer.bytes if self.size is None else min(self.size, self.buffer.bytes)


class Launch(NamedTuple):
    """A kernel to run. `flops` are the multiplications and additions of a contraction.

    Launches that follow each other with one number of a group other than 0 may run in any order,
    and at the same time. `loop` says of which launch of which node's step it is one turn.
    """

    kernel: Kernel
    words: tuple[int | Pointer, ...]
    chunks: int
    cost_ns: int
    use: Use
    node: Node | None
    what: str
    flops: int = 0
    group: int = 0
    loop: tuple[Node, int] | None = None


class HostCall(NamedTuple):
    """A node that the host computes: operands and results are arrays over the program's memory."""

    node: Node
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    use: Use
    why: str


class Plan(NamedTuple):
    """What runs, in order, and where the results lie.

    `ahead`: launches that fill kept buffers from what lasts, by key. `checks`: what the host is to
    call where a kernel reports a code, because it will raise the error. `apart`: why the reader of
    a product was not computed with it.
    """

    steps: list[Launch | HostCall]
    results: list[Place]
    ahead: dict[Any, tuple[list[Launch], list[Buffer]]]
    checks: dict[int, HostCall]
    apart: dict[Node, str]


def pointer(place: Place) -> Pointer:
    """Return the address of a place's first element."""
    moved = (n for n, s in zip(place.shape, place.strides, strict=True) if s)
    size = math.prod(moved) * place.dtype.itemsize
    return Pointer(place.buffer, place.offset * place.dtype.itemsize, size)


_Step = TypeVar("_Step", Launch, HostCall, Launch | HostCall)


def moved_step(step: _Step, homes: Mapping[Buffer, tuple[Buffer, int]]) -> _Step:
    """Return a step with some buffers in others, each from a byte on."""

    def home(buffer: Buffer) -> Buffer:
        return homes[buffer][0] if buffer in homes else buffer

    def word(x: int | Pointer) -> int | Pointer:
        if not isinstance(x, Pointer) or x.buffer not in homes:
            return x
        buffer, more = homes[x.buffer]
        return x._replace(buffer=buffer, offset_bytes=x.offset_bytes + more)

    def place(p: Place) -> Place:
        return moved_place(p, homes)

    use = Use(
        [*map(home, step.use.reads)], [*map(home, step.use.writes)],
        [(home(x), home(y)) for x, y in step.use.may_share],
    )  # fmt: skip
    if isinstance(step, Launch):
        return step._replace(words=tuple(map(word, step.words)), use=use)
    operands, results = tuple(map(place, step.operands)), tuple(map(place, step.results))
    return step._replace(operands=operands, results=results, use=use)


def moved_place(p: Place, homes: Mapping[Buffer, tuple[Buffer, int]]) -> Place:
    """Return a place in the buffer that its own one lies in."""
    buffer, more = homes.get(p.buffer, (p.buffer, 0))
    return p._replace(buffer=buffer, offset=p.offset + more // p.dtype.itemsize)
