"""What a native program makes of lasting State ahead of calls, and keeps until State changes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tracegraph.runtime.cpu.arrays import Arrays, Blocks, lasting, lines
from tracegraph.runtime.cpu.driver.pool import Call
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import Launch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ahead(NamedTuple):
    """Launches that fill kept buffers. Equal keys make the same of the same State."""

    key: Hashable
    blocks: Blocks
    buffers: list[Buffer]


def ahead_of(
    made: Mapping[Any, tuple[list[Launch], list[Buffer]]], addresses: Mapping[str, int]
) -> list[Ahead]:
    """Return what a plan makes ahead, its kernels compiled."""
    return [
        Ahead(key, Blocks(launches, addresses), buffers)
        for key, (launches, buffers) in made.items()
    ]


class Kept:
    """Where the kept buffers of a plan lie."""

    def __init__(self, memory: Sequence[NDArray[Any]], addresses: dict[Buffer, int]) -> None:
        self.memory, self.addresses = memory, addresses


class Store:
    """The memory of kept buffers that the plans of one program share, by key."""

    def __init__(self) -> None:
        # The stamp of State and what was made of it; replaced as one, so that threads need no lock.
        self._made: dict[Hashable, tuple[Any, list[NDArray[Any]]]] = {}

    @property
    def bytes(self) -> int:
        """The bytes of all that is kept."""
        return sum(piece.nbytes for _, made in list(self._made.values()) for piece in made)

    def kept(
        self, ahead: Sequence[Ahead], stamp: Any, arrays: Arrays, read: Collection[str] = ()
    ) -> Kept:
        """Return the kept buffers of a plan, made anew where State may have changed.

        Other State than is `read` by calls too is let go.
        """
        memory: list[NDArray[Any]] = []
        addresses: dict[Buffer, int] = {}
        found = {each.key: self._made.get(each.key, (None, [])) for each in ahead}
        stale = [each for each in ahead if stamp is None or found[each.key][0] != stamp]
        sizes = [buffer.bytes for each in stale for buffer in each.buffers]
        # What no later call finds is not worth pages of its own.
        pieces = iter(map(lines, sizes) if stamp is None else lasting(sizes))
        for each in stale:
            made = [next(pieces) for _ in each.buffers]
            _fill(each, made, arrays)
            for buffer in each.blocks.pointers:
                if buffer.origin == "state" and buffer.key not in read:
                    arrays.let_go(buffer)
            found[each.key] = self._made[each.key] = (stamp, made)
        for each in ahead:
            made = found[each.key][1]
            memory += made
            for buffer, piece in zip(each.buffers, made, strict=True):
                addresses[buffer] = int(piece.ctypes.data)
        return Kept(memory, addresses)


def _fill(ahead: Ahead, made: Sequence[NDArray[Any]], arrays: Arrays) -> None:
    """Make the kept buffers."""
    own = {b: int(m.ctypes.data) for b, m in zip(ahead.buffers, made, strict=True)}
    between = {b: lines(b.bytes) for b in ahead.blocks.pointers if b.origin == "arena"}
    own |= {b: int(m.ctypes.data) for b, m in between.items()}
    words = ahead.blocks.words.copy()
    for buffer, found in ahead.blocks.pointers.items():
        start = own[buffer] if buffer in own else int(arrays.of(buffer).ctypes.data)
        for word, more in found:
            words[word] = start + more
    records = ahead.blocks.records(words)
    Call(records, np.zeros(1, np.int64), ahead.blocks.cost_ns).run()


def identity(place: Place) -> tuple[Any, ...]:
    """Return what tells a lasting place from others in any plan of the same program."""
    buffer = place.buffer
    held = buffer.key if buffer.origin == "state" else _Same(buffer.array)
    return (buffer.origin, held, place.dtype.name, place.shape, place.strides, place.offset)


class _Same:
    """An array as a key: equal to itself alone."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)
