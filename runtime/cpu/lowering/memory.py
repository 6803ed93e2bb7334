"""The memory plan: where the buffers of an arena lie, known before anything runs.

Buffers that share memory one after the other are one block. Blocks are placed by falling size, each
in the smallest gap among those that are alive at the same time (greedy by size, as in Pisarchyk and
Lee 2020, arXiv:2001.03288): that is within 1.2 of what is alive at most, and mostly equal to it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
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


class _Block:
    """Memory of some size from its first step to its last, for one buffer after the other."""

    def __init__(self, buffer: Buffer, first: int, last: int) -> None:
        self.size, self.first, self.last = _room(buffer), first, last
        self.buffers = [buffer]


def plan_memory(uses: Sequence[Use]) -> Arena:
    """Give each arena buffer of the steps its offset."""
    last: dict[Buffer, int] = {}
    for number, use in enumerate(uses):
        for buffer in (*use.reads, *use.writes):
            last[buffer] = number
    blocks = _blocks(uses, last)
    return Arena(_placed(blocks), _alive(blocks, len(uses)))


def _blocks(uses: Sequence[Use], last: dict[Buffer, int]) -> list[_Block]:
    """Return the blocks of the arena, in the order of their first steps."""
    blocks: list[_Block] = []
    found: dict[Buffer, _Block] = {}
    for number, use in enumerate(uses):
        taken: set[Buffer] = set()
        for result, operand in use.may_share:
            block = found.get(operand)
            if block is None or operand in taken or result in found or result.origin != "arena":
                continue
            if last[operand] == number and block.size == _room(result):
                taken.add(operand)
                found[result] = block
                block.buffers.append(result)
                block.last = last[result]
        for buffer in use.writes:
            if buffer.origin == "arena" and buffer not in found:
                found[buffer] = _Block(buffer, number, last[buffer])
                blocks.append(found[buffer])
    return blocks


def _placed(blocks: Sequence[_Block]) -> int:
    """Give the buffers of blocks their offsets; return the bytes that they take."""
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first and last step; by begin
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.size, b.first)):
        free, place, gap = 0, -1, 0
        for begin, end, first, last in placed:
            if first <= block.last and block.first <= last:
                if block.size <= begin - free and (place < 0 or begin - free < gap):
                    place, gap = free, begin - free
                free = max(free, end)
        place = free if place < 0 else place
        bisect.insort(placed, (place, place + block.size, block.first, block.last))
        total = max(total, place + block.size)
        for buffer in block.buffers:
            buffer.offset = place
    return total


def _alive(blocks: Sequence[_Block], steps: int) -> int:
    """Return the most bytes that are alive at a time."""
    change = [0] * (steps + 2)
    for block in blocks:
        change[block.first] += block.size
        change[block.last + 1] -= block.size
    alive = most = 0
    for more in change:
        alive += more
        most = max(most, alive)
    return most


def _room(buffer: Buffer) -> int:
    """Bytes in whole lines. Kernels read no further than what they are told to."""
    return -(-max(buffer.bytes, 1) // LINE_BYTES) * LINE_BYTES
