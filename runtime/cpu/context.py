"""What one call of a native program uses: memory, and argument blocks with addresses in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegraph.errors import GraphError
from tracegraph.runtime.cpu.addresses import address_of
from tracegraph.runtime.cpu.arrays import Arrays, Found, Memory, lines
from tracegraph.runtime.cpu.driver.pool import Call
from tracegraph.runtime.cpu.kept import Kept
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import HostCall
from tracegraph.runtime.interpreter import explained

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.program import Compiled


class Context:
    """An arena and the words of all launches, with the addresses that the last call had."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        blocks = compiled.blocks
        self._arena_words: list[tuple[Buffer, Found]] = []
        self.words = blocks.words.copy()
        self._fast = memoryview(self.words.data)
        self._kept: Kept | None = None
        self._views: dict[Place, Any] = {}
        self._inputs: list[tuple[Buffer, Found]] = []
        self._states: list[tuple[str, Buffer, Found]] = []
        self._kept_words: list[tuple[Buffer, Found]] = []
        for buffer, found in blocks.pointers.items():
            if buffer.origin == "arena":
                self._arena_words.append((buffer, found))
            elif buffer.origin == "constant":
                self._write(found, buffer.array)
            elif buffer.origin == "input":
                self._inputs.append((buffer, found))
            elif buffer.origin == "state":
                self._states.append((buffer.key, buffer, found))
            elif buffer.origin == "kept":
                self._kept_words.append((buffer, found))
        self._base = 0
        if compiled.arenas is None:
            array = lines(compiled.arena.bytes)
            self.lie_in(Memory(int(array.ctypes.data), array))
        self._pointed: list[Any] = [None] * len(self._states)  # their addresses are in the words
        self._seen: Any = None
        self._outputs = [
            (p.buffer, p.shape, p.dtype.np, blocks.pointers.get(p.buffer, []))
            for p in compiled.plan.results
        ]
        self._fresh = [x[1:] for x in self._outputs if x[0].origin != "state"]
        records = blocks.records(self.words)
        frame = np.zeros(1, np.int64)
        self._parts: list[Call | HostCall] = [
            p.host or Call(records[p.begin : p.end], frame, p.cost_ns) for p in compiled.parts
        ]

    def lie_in(self, memory: Memory) -> None:
        """Have the arena in some memory."""
        self.memory = memory
        if memory.address != self._base:
            self._base = memory.address
            self._views.clear()
            for buffer, found in self._arena_words:
                self._write_address(found, self._base + buffer.offset)

    def run(self, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: Any) -> list[Any]:
        """Return the results of one call."""
        arrays = Arrays(inputs, states)
        results = self._results(arrays)
        for buffer, found in self._inputs:
            self._write(found, arrays.of(buffer))
        if self._kept_words:
            self._keep(self.compiled.kept(stamp_of, arrays))
        if states is not self._seen:
            self._seen = states if self._point(arrays) else None
        for part in self._parts:
            if isinstance(part, HostCall):
                self.host(part, arrays)
            elif code := part.run():
                self.host(self.compiled.plan.checks[code], arrays)  # raises
                raise GraphError("a native kernel refused what the interpreter takes")
        return results

    def run_again(
        self, inputs: Sequence[Any], states: Mapping[str, Any], kept: Kept
    ) -> list[Any] | None:
        """Return the results of a call that is one native call, with `kept` what it is to be.

        The inputs are row-major. Results that are written to State's memory are not among those
        returned. None if a kernel refuses; then nothing has happened.
        """
        if states is not self._seen:
            self._seen = states if self._point(Arrays(inputs, states)) else None
        if kept is not self._kept:
            self._keep(kept)
        words = self._fast
        for buffer, found in self._inputs:
            address = address_of(inputs[buffer.key])
            for word, more in found:
                words[word] = address + more
        results = []
        for shape, dtype, found in self._fresh:
            array = np.empty(shape, dtype)
            address = address_of(array)
            for word, more in found:
                words[word] = address + more
            results.append(array)
        (part,) = self._parts
        return None if part.run() else results  # type: ignore[union-attr]

    def _keep(self, kept: Kept) -> None:
        """Write the addresses of what is kept, if it is not what it was."""
        if kept is not self._kept:
            self._kept = kept
            for buffer, found in self._kept_words:
                self._write_address(found, kept.addresses[buffer])

    def forget(self) -> None:
        """Hold on to nothing that is kept."""
        self._kept = None

    def _point(self, arrays: Arrays) -> bool:
        """Write the addresses of State that is not what it was; whether none of it is a copy."""
        pointed, lasts = self._pointed, True
        for number, (name, buffer, found) in enumerate(self._states):
            if arrays.states[name] is not pointed[number]:
                array = pointed[number] = arrays.of(buffer)
                lasts = lasts and array is arrays.states[name]
                self._write(found, array)
        return lasts

    def _results(self, arrays: Arrays) -> list[Any]:
        """Return the arrays that results are written to."""
        results = []
        for buffer, shape, dtype, found in self._outputs:
            if buffer.origin == "state":
                array = arrays.of(buffer)
                if array is not arrays.states[buffer.key] or not array.flags.writeable:
                    array = array.copy()  # what cannot be written in place is left to the caller
            else:
                array = np.empty(shape, dtype)
            arrays.held[buffer] = array
            results.append(array)
            self._write(found, array)
        return results

    def _write(self, found: Found, array: Any) -> None:
        self._write_address(found, address_of(array))

    def _write_address(self, found: Found, address: int) -> None:
        for word, more in found:
            self._fast[word] = address + more

    def _view(self, place: Place, arrays: Arrays) -> Any:
        """Return an array over a place."""
        known = self._views.get(place)
        if known is not None:
            return known
        buffer, size = place.buffer, place.dtype.itemsize
        if buffer.origin == "arena":
            memory = self.memory.array[buffer.offset : buffer.offset + buffer.bytes]
        else:
            memory = arrays.of(buffer).reshape(-1).view(np.uint8)
        made: Any = np.ndarray(
            place.shape, place.dtype.np, memory, place.offset * size if 0 not in place.shape else 0,
            tuple(s * size for s in place.strides),
        )  # fmt: skip
        if buffer.origin in ("arena", "constant"):
            self._views[place] = made
        return made

    def host(self, step: HostCall, arrays: Arrays) -> None:
        """Run a host call on the memory of a call."""
        operands = [self._view(p, arrays) for p in step.operands]
        try:
            with np.errstate(all="ignore"):
                made = self.compiled.calls[id(step)](*operands)
        except Exception as error:
            raise explained(error, step.node) from error
        several = made if isinstance(made, tuple) else (made,)
        for place, array in zip(step.results, several, strict=bool(step.results)):
            if array.shape != place.shape:
                raise GraphError(f"{step.node.op} gave {array.shape}, not {place.shape}")
            np.copyto(self._view(place, arrays), array)
