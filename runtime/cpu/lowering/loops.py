"""`scan` as launches: those of one step, lowered once, at other addresses for each.

Slices of what is scanned and of what is stacked are places in it, so nothing is copied. What a step
computes from the same memory each time runs once, before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tracegraph.ir.graph import INPUT, Node, Value
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch, moved_step

# A loop of more launches is left to the host: a plan holds each of them.
_MOST_LAUNCHES: Final = 1 << 14

# By the number of a step, in the order they run: where a buffer of the lowered step lies in it, as
# another buffer and the byte from which on.
Home = Callable[[int], tuple[Buffer, int]]


def lower_loop(low: Lowering, node: Node, delayed: Mapping[Value, Node]) -> None:
    """Lower a scan; `delayed` are the Values of its region that their readers may take in."""
    length = node.attrs["length"]
    if not length:
        raise UnsupportedError("no step is taken")
    loop = _Loop(low, node)
    loop.place_inputs()
    first, checks, around = len(low.steps), len(low.checks), low.graph
    low.graph = node.regions["body"]
    low.delayed.update(delayed)
    try:
        low.lower_all(n for n in low.graph.order() if n.op != INPUT)
        loop.place_outputs()
    finally:
        low.graph = around
        for value in delayed:
            low.delayed.pop(value, None)
    steps = _launches(low.steps[first:])
    if len(low.checks) > checks:
        raise UnsupportedError("operands are checked in its steps")
    each = _changing(steps, set(loop.homes))
    if len(each) * length > _MOST_LAUNCHES:
        raise UnsupportedError(f"its steps are {len(each) * length} launches")
    low.steps[first:] = [step for i, step in enumerate(steps) if i not in each]
    for turn in range(length):
        homes = {buffer: home(turn) for buffer, home in loop.homes.items()}
        low.steps += [moved_step(steps[i], homes)._replace(loop=(node, i)) for i in each]


def _launches(steps: Sequence[Launch | HostCall]) -> list[Launch]:
    launches = []
    for step in steps:
        if isinstance(step, HostCall):
            raise UnsupportedError(f"{step.node.op} in its steps: {step.why}")
        launches.append(step)
    return launches


def _changing(steps: Sequence[Launch], moving: set[Buffer]) -> dict[int, None]:
    """Return the numbers of the launches that do not do the same each time.

    They touch a buffer that moves, or that such a launch writes.
    """
    while True:
        each = {i: None for i, step in enumerate(steps)
                if not moving.isdisjoint((*step.use.reads, *step.use.writes))}  # fmt: skip
        written = {b for i in each for b in steps[i].use.writes}
        if written <= moving:
            return each
        moving = moving | written


class _Loop:
    """Where what a step is given, and gives, lies in each step.

    `homes` has the buffers that stand for these when the step is lowered.
    """

    def __init__(self, low: Lowering, node: Node) -> None:
        self.low, self.node, self.body = low, node, node.regions["body"]
        self.count, self.scanned = node.attrs["carried"], node.attrs["scanned"]
        self.homes: dict[Buffer, Home] = {}
        self._starts: dict[int, Place] = {}  # what is carried, by number

    def _slice(self, turn: int) -> int:
        return self.node.attrs["length"] - 1 - turn if self.node.attrs["reverse"] else turn

    def _window(self, whole: Place) -> Home:
        """Return where the slices of a place lie."""
        size = whole.dtype.itemsize
        return lambda turn: (
            whole.buffer, size * (whole.offset + self._slice(turn) * whole.strides[0])
        )  # fmt: skip

    def place_inputs(self) -> None:
        """Give the inputs of the region their places."""
        low = self.low
        for k, (operand, given) in enumerate(zip(self.node.inputs, self.body.inputs, strict=True)):
            x, value = low.place(operand), given.out
            if k >= self.count + self.scanned or (k < self.count and self._stays(k)):
                low.places[value] = x
            elif k < self.count:
                self._starts[k] = low.dense(x)
                low.places[value] = low.fresh(value.type)
            else:
                reach = 1 + sum(
                    (n - 1) * s for n, s in zip(x.shape[1:], x.strides[1:], strict=True)
                )
                size = reach * x.dtype.itemsize if math.prod(x.shape[1:]) else 0
                slice_ = Place(low.scratch(size), x.dtype, x.shape[1:], x.strides[1:])
                low.places[value] = slice_
                self.homes[slice_.buffer] = self._window(x)

    def _stays(self, k: int) -> bool:
        """Whether what is carried never changes."""
        return self.body.outputs[k] is self.body.inputs[k].out

    def place_outputs(self) -> None:
        """Say where the results of the region lie, and with that those of the scan."""
        low, outs = self.low, self.node.outs
        given = {low.places[x.out].buffer for x in self.body.inputs}
        for value, out in zip(self.body.outputs[self.count :], outs[self.count :], strict=True):
            self.homes[self._own(value, given).buffer] = self._window(low.new(out))
        for k, value in enumerate(self.body.outputs[: self.count]):
            if self._stays(k):
                low.places[outs[k]] = low.place(self.node.inputs[k])
                continue
            x = low.place(value)
            if not x.is_whole or x.buffer not in self.homes or x.buffer in given:
                x = self._own(value, given)
                self.homes[x.buffer] = _in_turn(
                    low.scratch(x.buffer.bytes), low.scratch(x.buffer.bytes)
                )
            self._carry(k, self.homes[x.buffer])

    def _own(self, value: Value, given: set[Buffer]) -> Place:
        """Return a place that is all of a buffer which holds a result of the region alone."""
        x = self.low.place(value)
        is_own = x.is_whole and x.buffer.origin == "arena"
        if is_own and x.buffer not in given and x.buffer not in self.homes:
            return x
        own = self.low.fresh(value.type)
        self.low.copy(x, own)
        return own

    def _carry(self, k: int, out: Home) -> None:
        """Let a step find what the one before has carried."""
        start, size = self._starts[k], self._starts[k].dtype.itemsize

        def home(turn: int) -> tuple[Buffer, int]:
            return out(turn - 1) if turn else (start.buffer, start.offset * size)

        self.homes[self.low.places[self.body.inputs[k].out].buffer] = home
        buffer, offset = out(self.node.attrs["length"] - 1)
        last = places.whole(buffer, self.node.outs[k].type)
        self.low.places[self.node.outs[k]] = last._replace(offset=offset // size)


def _in_turn(a: Buffer, b: Buffer) -> Home:
    return lambda turn: ((a, b)[turn % 2], 0)
