"""Program: an entry point made executable on one device by one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracegraph.compiler import CompiledGraph, make_program
from tracegraph.devices import parse_device
from tracegraph.eager import modes
from tracegraph.replay.choosing import tracing
from tracegraph.replay.short_way import MISSED, ShortWay

if TYPE_CHECKING:
    from tracegraph.replay.entry import EntryPoint


class Program:
    """An entry point made executable on one device by one runtime. Call it like the entry.

    It computes values without gradients, whatever requires one.
    """

    def __init__(
        self, entry: EntryPoint, device: Any, runtime: str | None, level: int | None
    ) -> None:
        self.entry = entry
        self.device = parse_device(device)
        self._how = (runtime, level)
        self._make()

    def _make(self) -> None:
        graph = self.entry.graph
        in_place = [name for name in graph.states if name not in self.entry.held.rebound]
        self._program = make_program(graph, self.device, *self._how, in_place)
        self._short_way = ShortWay(self.entry, graph, self._program)
        self._graph = graph  # last: whose graph it is has a program

    def explain(self, *args: Any, profile: bool = False, **kwargs: Any) -> str:
        """Return what runs, a line a step: kernels with what was fused in them, host calls.

        With the arguments of a call: for their sizes; `profile` runs each step alone some times,
        commits nothing, and tells times and rates. See docs/native.md.
        """
        program = self._current()
        if not (args or kwargs or profile):
            return program.explain()
        return program.explain_call(self._inputs(args, kwargs), self.entry.state, profile)

    def prepare(self, *args: Any, **kwargs: Any) -> Program:
        """Compile now what a call with such arguments needs; nothing runs."""
        self._current().prepare(self._inputs(args, kwargs))
        return self

    def _inputs(self, args: Any, kwargs: dict[str, Any]) -> list[Any]:
        arrays, _, hypers = self.entry._arguments(self.device, args, kwargs)
        return [*arrays, *hypers]

    def _current(self) -> CompiledGraph:
        if self._graph is not self.entry.graph:  # an example was added
            self._make()
        return self._program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay: check inputs, run, commit State, return outputs on this device.

        Raises:
            SignatureError: inputs differ from the signature.
            GuardError: something that the trace relied on has changed.
        """
        if not modes.recording:
            results = self._short_way.call(args, kwargs)
            if results is not MISSED:
                return results
        if tracing():
            return self.entry(*args, **kwargs)
        short_way = self._short_way
        results = self.entry.replay(self._current(), self.device, args, kwargs)
        if not kwargs:
            short_way.remember(args)
        return results
