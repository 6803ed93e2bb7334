"""The memory plan: where the buffers of an arena lie, known before anything runs."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tracegraph.runtime.cpu.lowering.places import LINE_BYTES, Buffer


class Use(NamedTuple):
    """What a step does with buffers. A result may lie where an operand lay that dies here."""

    reads: Sequence[Buffer]
    writes: Sequence[Buffer]
    may_share: Sequence[tuple[Buffer, Buffer]] = ()  # (result, operand)


class Arena(NamedTuple):
    """Bytes in all, and the most that are alive at a time."""

    bytes: int
    live_bytes: int


def plan_memory(uses: Sequence[Use], lasting: Iterable[Buffer] = ()) -> Arena:
    """Give each arena buffer of the steps its offset; `lasting` ones are alive until the end."""
    last: dict[Buffer, int] = {}
    for number, use in enumerate(uses):
        for buffer in (*use.reads, *use.writes):
            last[buffer] = number
    last.update((buffer, len(uses)) for buffer in lasting)
    free = _Free()
    placed: dict[Buffer, int] = {}
    ending: dict[int, list[Buffer]] = {}
    for buffer, number in last.items():
        if buffer.origin == "arena":
            ending.setdefault(number, []).append(buffer)
    live = most = 0
    for number, use in enumerate(uses):
        taken: set[Buffer] = set()
        for result, operand in use.may_share:
            if _can_share(result, operand, last, number, placed) and operand not in taken:
                taken.add(operand)
                placed[result] = result.offset = operand.offset
                live += _room(result)
        for buffer in use.writes:
            if buffer.origin == "arena" and buffer not in placed:
                placed[buffer] = buffer.offset = free.take(_room(buffer))
                live += _room(buffer)
        most = max(most, live - sum(_room(b) for b in taken))
        for buffer in ending.get(number, ()):
            live -= _room(buffer)
            if buffer in placed and buffer not in taken:
                free.give(placed[buffer], _room(buffer))
    return Arena(free.end, most)


def _can_share(
    result: Buffer, operand: Buffer, last: dict[Buffer, int], number: int, placed: dict[Buffer, int]
) -> bool:
    return (
        result.origin == operand.origin == "arena"
        and result not in placed
        and operand in placed
        and last[operand] == number
        and _room(result) == _room(operand)
    )


def _room(buffer: Buffer) -> int:
    """Bytes in whole lines. Kernels read no further than what they are told to."""
    return -(-max(buffer.bytes, 1) // LINE_BYTES) * LINE_BYTES


class _Free:
    """Free pieces by offset and by size: the smallest that fits is taken."""

    def __init__(self) -> None:
        self.end = 0
        self._starts: dict[int, int] = {}  # offset -> size
        self._ends: dict[int, int] = {}  # end -> offset
        self._sizes: list[tuple[int, int]] = []  # (size, offset), sorted

    def take(self, size: int) -> int:
        place = bisect.bisect_left(self._sizes, (size, -1))
        if place < len(self._sizes):
            found, offset = self._sizes[place]
            self._remove(offset, found)
            if found > size:
                self._insert(offset + size, found - size)
            return offset
        if self.end in self._ends:  # the last piece is free, and grows
            offset = self._ends[self.end]
            self._remove(offset, self._starts[offset])
        else:
            offset = self.end
        self.end = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        if offset in self._ends:
            before = self._ends[offset]
            size += self._starts[before]
            self._remove(before, self._starts[before])
            offset = before
        if offset + size in self._starts:
            following = self._starts[offset + size]
            self._remove(offset + size, following)
            size += following
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        self._starts[offset] = size
        self._ends[offset + size] = offset
        bisect.insort(self._sizes, (size, offset))

    def _remove(self, offset: int, size: int) -> None:
        del self._starts[offset], self._ends[offset + size]
        del self._sizes[bisect.bisect_left(self._sizes, (size, offset))]
