"""The argument blocks of launches, and the arrays of a call that they point to."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tracegraph.runtime.cpu.lowering.places import LINE_BYTES, Buffer
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer
from tracegraph.runtime.states import States

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a page can hold at most, and from which size on one asks for such pages.
_PAGE_BYTES: Final = 1 << 21
_MANY_BYTES: Final = 1 << 20
# Contexts of a plan that are kept for other calls.
MAX_CONTEXTS: Final = 8
# Where the address of a buffer stands in the words: (word, bytes to add).
Found = list[tuple[int, int]]


class Blocks:
    """The argument blocks of some launches as one table, and the words in it that are addresses."""

    def __init__(self, launches: Sequence[Launch], addresses: Mapping[str, int]) -> None:
        words: list[int] = []
        starts: list[int] = []
        self.pointers: dict[Buffer, Found] = {}
        for launch in launches:
            starts.append(len(words))
            for word in launch.words:
                if isinstance(word, Pointer):
                    known = self.pointers.setdefault(word.buffer, [])
                    known.append((len(words), word.offset_bytes))
                    words.append(0)
                else:
                    words.append(word)
        self.words = np.array(words, np.int64)
        self.starts = np.array(starts, np.int64)
        self.kernels = np.array([addresses[s.kernel.name] for s in launches], np.int64)
        self.chunks = np.array([s.chunks for s in launches], np.int64)
        self.after = np.array(_chunks_after(launches), np.int64)
        self.cost_ns = sum(s.cost_ns for s in launches)

    def records(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the driver's records for a copy of the words."""
        base = words.ctypes.data
        columns = (self.kernels, base + 8 * self.starts, self.chunks, self.after)
        return np.ascontiguousarray(np.stack(columns, axis=1))


def _chunks_after(launches: Sequence[Launch]) -> list[int]:
    """Return how many chunks each launch's group has behind it."""
    found, after, group = [], 0, 0
    for launch in reversed(launches):
        if not launch.group or launch.group != group:
            after, group = 0, launch.group
        found.append(after)
        after += launch.chunks
    return found[::-1]


class Arrays:
    """The arrays of one call by their buffers."""

    __slots__ = ("held", "inputs", "states")

    def __init__(self, inputs: Sequence[Any], states: Mapping[str, Any]) -> None:
        self.inputs, self.states = inputs, states
        self.held: dict[Buffer, Any] = {}

    def of(self, buffer: Buffer) -> Any:
        """Return the array that an input, State, constant or output is, in row-major order."""
        found = self.held.get(buffer)
        if found is None:
            if buffer.origin == "constant":
                found = buffer.array
            elif buffer.origin == "input":
                found = self.inputs[buffer.key]
            else:
                found = self.states[buffer.key]
            if found.__class__ is not np.ndarray or not found.flags.c_contiguous:
                found = np.ascontiguousarray(found)
            self.held[buffer] = found
        return found

    def let_go(self, buffer: Buffer) -> None:
        """Hold State no longer that a prologue made of other State."""
        if isinstance(self.states, States):
            self.held.pop(buffer, None)
            self.states.let_go(buffer.key)


class Memory(NamedTuple):
    """Memory and its address."""

    address: int
    array: NDArray[np.uint8]


NOTHING: Final = Memory(0, np.empty(0, np.uint8))


class Arenas:
    """Memory that calls of several plans take one after the other, each for as long as it runs.

    Any thread may take some. No more is kept than calls ran at a time, no more than MAX_CONTEXTS
    pieces, and none beyond `most` bytes.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self._free: list[Memory] = []
        self._most = most

    def take(self, size: int) -> Memory:
        """Return memory of some bytes or more, on a cache line."""
        try:
            found = self._free.pop()
            if found.array.nbytes >= size:
                return found
        except IndexError:
            pass
        array = lines(size)
        return Memory(int(array.ctypes.data), array)

    def give(self, memory: Memory) -> None:
        """Have memory back."""
        if memory.array.nbytes <= self._most and len(self._free) < MAX_CONTEXTS:
            self._free.append(memory)


def give_back() -> None:
    """Have the C library give the system free memory that it keeps for later, where it can."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # GNU's has such a function
        ctypes.CDLL(None).malloc_trim(0)


def lines(size: int) -> NDArray[np.uint8]:
    """Return memory that begins on a cache line."""
    raw = np.empty(size + LINE_BYTES, np.uint8)
    skip = -int(raw.ctypes.data) % LINE_BYTES
    return raw[skip : skip + size]


def lasting(sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return pieces of one memory that is read again and again, each on a cache line.

    Much of it lies in large pages where the system has them: weights that no cache holds come 15
    to 25 % faster, for to find a small page takes reading tables.
    """
    rooms = [-(-size // LINE_BYTES) * LINE_BYTES for size in sizes]
    memory = lines(sum(rooms)) if sum(rooms) < _MANY_BYTES else _large(sum(rooms))
    ends = np.cumsum(rooms).tolist()
    return [memory[end - room :][:size] for end, room, size in zip(ends, rooms, sizes, strict=True)]


def _large(size: int) -> NDArray[np.uint8]:
    if sys.platform != "linux":
        return lines(size)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, size + 2 * _PAGE_BYTES, flags=private)
    raw = np.frombuffer(memory, np.uint8)
    begin = -int(raw.ctypes.data) % _PAGE_BYTES
    # A page that would be less than half full is left to small ones.
    filled = (size + _PAGE_BYTES // 2) // _PAGE_BYTES * _PAGE_BYTES
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE, begin, filled)
    return raw[begin:][:size]
