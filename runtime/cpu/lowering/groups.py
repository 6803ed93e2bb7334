"""Launches that do not depend on each other are brought together, and run as one.

Threads take the chunks of a group without waiting between its launches. So a training step whose
optimizer updates a hundred small parameters meets once for many of them, not for each; launches of
one chunk run side by side; and a launch that more memory dies with than it takes runs as soon as
it may. That is what an update of a weight does: it ends the life of a gradient.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Final

from tracegraph.runtime.cpu.code.chunks import CHUNK_NS
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Buffer
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch, Plan

# Launches of less than _SHORT_NS one thread does as soon as two, for memory moves between
# cores (80 of 0.3 us and 240 of 0.05 us took 2% longer in groups). So it does less than _LEAST_NS.
_SHORT_NS: Final = 1000
_LEAST_NS: Final = CHUNK_NS
# A launch joins another one if it takes no more than a part of the memory that is alive at most,
# and is fewer steps behind it than _WINDOW or leaves hardly more alive than it found. (In training
# steps of ResNet-18, a GPT and a small CNN larger values take more memory, and with smaller ones
# threads meet more often.)
_WINDOW: Final = 4
_PART: Final = 8
_LITTLE_BYTES: Final = 1 << 14

_Step = Launch | HostCall


def grouped(plan: Plan) -> Plan:
    """Return a plan with its launches in groups, and in the order that this takes."""
    failing = {code - 1 for code in plan.checks}
    failing |= {i for i, step in enumerate(plan.steps) if isinstance(step, HostCall)}
    part = _most_alive(plan.steps) // _PART
    needed = _needed(plan.steps, failing)
    return plan._replace(steps=_Schedule(plan.steps, needed, max(part, _LITTLE_BYTES)).run())


def joint_uses(steps: Sequence[_Step]) -> list[Use]:
    """Return what steps do with buffers, each group as one: its buffers are alive together."""
    found: list[Use] = []
    for group, members in groupby(steps, lambda s: s.group if isinstance(s, Launch) else 0):
        uses = [step.use for step in members]
        found += [_joined(uses)] if group else uses
    return found


def _joined(uses: Sequence[Use]) -> Use:
    users: dict[Buffer, int] = {}
    for use in uses:
        for buffer in {*use.reads, *use.writes}:
            users[buffer] = users.get(buffer, 0) + 1
    return Use(
        [b for use in uses for b in use.reads],
        [b for use in uses for b in use.writes],
        [(y, x) for use in uses for y, x in use.may_share if users.get(x) == 1],
    )


def _most_alive(steps: Sequence[_Step]) -> int:
    """Return the bytes that are alive at a time, at most, in the order that is given."""
    last = {b: number for number, step in enumerate(steps) for b in _arena_buffers(step)}
    known: set[Buffer] = set()
    alive = most = 0
    for number, step in enumerate(steps):
        buffers = _arena_buffers(step)
        alive += sum(b.bytes for b in buffers - known)
        known |= buffers
        most = max(most, alive)
        alive -= sum(b.bytes for b in buffers if last[b] == number)
    return most


def _needed(steps: Sequence[_Step], failing: Collection[int]) -> list[set[int]]:
    """Return the steps that must be done before each.

    What may fail keeps its order, and comes before State is written. What reads indices follows the
    step that checked them.
    """
    needed: list[set[int]] = []
    given: dict[Buffer, int] = {}  # who wrote or checked it last
    readers: dict[Buffer, list[int]] = {}  # since it was written
    last_failing = -1
    for number, step in enumerate(steps):
        reads, writes, fails = step.use.reads, step.use.writes, number in failing
        before = {given.get(b, -1) for b in (*reads, *writes)}
        for buffer in writes:
            before.update(readers.get(buffer, ()))
        if fails or any(b.origin == "state" for b in writes):
            before.add(last_failing)
        for buffer in reads:
            readers.setdefault(buffer, []).append(number)
        for buffer in writes:
            readers[buffer] = []
        given.update(dict.fromkeys((*reads, *writes) if fails else writes, number))
        last_failing = number if fails else last_failing
        needed.append(before - {-1, number})
    return needed


class _Schedule:
    """Steps in the order that they are given in, but for launches that join an earlier one."""

    def __init__(self, steps: Sequence[_Step], needed: Sequence[set[int]], most_bytes: int) -> None:
        self.steps, self.most_bytes = steps, most_bytes
        self.buffers = [_arena_buffers(step) for step in steps]
        self.users: dict[Buffer, set[int]] = {}  # that are not done
        for number, buffers in enumerate(self.buffers):
            for buffer in buffers:
                self.users.setdefault(buffer, set()).add(number)
        self.alive: set[Buffer] = set()
        self.waits = [len(before) for before in needed]
        self.followers: list[list[int]] = [[] for _ in steps]
        for number, before in enumerate(needed):
            for other in before:
                self.followers[other].append(number)
        self.ready: list[int] = []  # in order
        self.light: set[int] = set()  # those of them that may join any launch
        self.light_ns = 0
        for number, count in enumerate(self.waits):
            if not count:
                self._may_run(number)

    def run(self) -> list[_Step]:
        """Return the steps in order, with their groups."""
        made: list[_Step] = []
        group = 0
        while self.ready:
            members = self._next()
            group += 1
            for number in members:
                step = self.steps[number]
                if isinstance(step, Launch) and len(members) > 1:
                    step = step._replace(group=group)
                made.append(step)
                self._done(number)
        return made

    def _next(self) -> list[int]:
        """Return the launches of the next group, or one step; those of long chunks come first."""
        first = self.ready[0]
        near = [n for n in self.ready[:_WINDOW] if n < first + _WINDOW and self._joins(n)]
        work = self.light_ns + sum(self._ns(n) for n in {first, *near} - self.light)
        is_group = _is_work(self.steps[first]) and work >= _LEAST_NS
        members = sorted({first, *near, *self.light}) if is_group else [first]
        self.light_ns -= sum(map(self._ns, self.light.intersection(members)))
        self.light.difference_update(members)
        for number in members:
            del self.ready[bisect.bisect_left(self.ready, number)]
        return sorted(members, key=self._chunk_ns, reverse=True)

    def _may_run(self, number: int) -> None:
        bisect.insort(self.ready, number)
        self._weigh(number)

    def _weigh(self, number: int) -> None:
        place = bisect.bisect_left(self.ready, number)
        if self.ready[place : place + 1] == [number] and self._joins(number):
            ends = sum(b.bytes for b in self.buffers[number] if len(self.users[b]) == 1)
            if number not in self.light and self._takes(number) - ends <= _LITTLE_BYTES:
                self.light.add(number)
                self.light_ns += self._ns(number)

    def _done(self, number: int) -> None:
        for buffer in self.buffers[number]:
            self.alive.add(buffer)
            users = self.users[buffer]
            users.remove(number)
            if len(users) == 1:  # it dies with its last user
                self._weigh(*users)
        for other in self.followers[number]:
            self.waits[other] -= 1
            if not self.waits[other]:
                self._may_run(other)

    def _joins(self, number: int) -> bool:
        """Whether a launch may run with another one."""
        return _is_work(self.steps[number]) and self._takes(number) <= self.most_bytes

    def _ns(self, number: int) -> int:
        """Return what a launch takes, of what is worth sharing."""
        step = self.steps[number]
        return step.cost_ns if isinstance(step, Launch) and step.cost_ns >= _SHORT_NS else 0

    def _chunk_ns(self, number: int) -> float:
        step = self.steps[number]
        return step.cost_ns / step.chunks if isinstance(step, Launch) and step.chunks else 0.0

    def _takes(self, number: int) -> int:
        """Return how many bytes a launch is the first to use."""
        return sum(b.bytes for b in self.buffers[number] if b not in self.alive)


def _is_work(step: _Step) -> bool:
    return isinstance(step, Launch) and step.chunks > 0


def _arena_buffers(step: _Step) -> set[Buffer]:
    return {b for b in (*step.use.reads, *step.use.writes) if b.origin == "arena"}
