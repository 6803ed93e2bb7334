"""The short way of a call of a native program, where nothing has changed since the last one.

A service calls with tensors of known shapes, and weights stay what they are. All that such a call
has to find out is that this is so. It touches as little as it can: after some milliseconds of
silence it is memory that takes time, and each object is 0.1 us away.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracegraph.eager.storage import stamp
from tracegraph.eager.tensors import Tensor, storage_of, wrap

if TYPE_CHECKING:
    from tracegraph.capture.state import Place
    from tracegraph.compiler import Again, CompiledGraph
    from tracegraph.ir.graph import Graph
    from tracegraph.replay.entry import EntryPoint

# What a call gives that has to go the long way.
MISSED: Final = object()
# Shapes of arguments for which a program remembers what runs.
_MAX_SHAPES: Final = 64


class ShortWay:
    """The short way of a program: what runs, by the shapes of arguments, while State is the same.

    For graphs that write State, take numbers or have several paths there is none.
    """

    def __init__(self, entry: EntryPoint, graph: Graph, program: CompiledGraph) -> None:
        self._entry, self._graph, self._program = entry, graph, program
        one = len(entry.variants) == 1 and not entry.variants[0].scalars
        numbers = entry.hypers or not entry.signature.flat
        self._exists = one and program.is_native and not (numbers or graph.writes)
        self._types = [spec.type.dtype.np for spec in entry.signature.specs if spec.type]
        way = entry.signature.ways[0]
        self._is_tensor = way.outputs == {"leaf": 0} and way.results == ({"value": 0},)
        self._found: _Found | None = None

    def call(self, args: Sequence[Any]) -> Any:
        """Return what a call gives; MISSED if it has to go the long way.

        Raises:
            GuardError: something that the trace relied on has changed.
        """
        found = self._found
        if found is None:
            return MISSED
        try:
            run = found.runs[tuple([x._data.shape for x in args])]
        except (AttributeError, KeyError):
            return MISSED
        if run is None:
            return MISSED
        if not found.is_same():
            self._found = None
            return MISSED
        watch = self._entry.watch
        if watch is not None:
            watch.check()
        arrays = []
        for x, dtype in zip(args, self._types, strict=True):
            data = x._data
            if x.__class__ is not Tensor or data.__class__ is not np.ndarray:
                return MISSED
            if data.dtype is not dtype or not data.flags.c_contiguous:
                return MISSED
            arrays.append(data)
        results = run(arrays)
        if results is None:
            return MISSED
        return wrap(results[0]) if self._is_tensor else self._entry.results(map(wrap, results))

    def remember(self, args: Sequence[Any]) -> None:
        """Note what runs for such arguments, which were found to fit."""
        entry, program = self._entry, self._program
        if not self._exists or len(args) != len(self._types):
            return
        if any(x.__class__ is not Tensor or x._data.__class__ is not np.ndarray for x in args):
            return
        arrays = [x._data for x in args]
        shapes = tuple([array.shape for array in arrays])
        found = self._found
        if found is not None and shapes in found.runs:
            return
        counted = program.counted(arrays)
        needed = counted or set()
        if found is None:
            found = _Found(entry, self._graph, program.read, needed)
        elif not needed <= found.counted:
            found = _Found(entry, self._graph, program.read, needed | found.counted)
        run = None
        if counted is not None:
            run = program.again(arrays, entry.state) if found.is_same() else None
            if run is None or not found.is_same():
                return
        if len(found.runs) >= _MAX_SHAPES:
            found.runs.clear()
        found.runs[shapes] = run
        self._found = found


class _Elsewhere:
    """A place that is no item of a dict or list, read as one."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def __getitem__(self, key: Any) -> Any:
        return self._place.read()


def _item(place: Place) -> tuple[Any, Any]:
    """Return a place as a container and a key."""
    plain = place.container.__class__ in (dict, list)
    return place.container if plain else _Elsewhere(place), place.key


class _Found:
    """What State was found to be, and what runs as long as it is the same.

    Arrays of State in `read` must stay the same ones, that of State in `counted` also unwritten.
    Where `runs` has None there is no short way.
    """

    def __init__(
        self, entry: EntryPoint, graph: Graph, read: Sequence[str], counted: set[str]
    ) -> None:
        state = entry.state
        self._entry, self._graph, self._state, self._mode = entry, graph, state, entry.mode
        self._modules = [(m, flag) for m, flag in entry.variants[0].modes.values() if m is not None]
        items = {name: _item(place) for name, place in entry.places.items()}
        held = [(items.get(n, (state, n)), t, n in read) for n, t in state.items()]
        held += [(_item(p), t, False) for places in entry.shared.values() for p, t in places]
        self._places = [(*item, t, t._data if is_read else None) for item, t, is_read in held]
        stored = [(t, storage_of(t)) for name, t in state.items() if name in counted]
        self._stamps = [(t, t._chain, weakref.ref(s), s.version, stamp(s)) for t, s in stored]
        self.counted = counted
        self.runs: dict[tuple[tuple[int, ...], ...], Again | None] = {}

    def is_same(self) -> bool:
        """Whether the graph, its State and modes are what they were."""
        entry = self._entry
        if entry.graph is not self._graph or entry._held is not self._state:
            return False
        if entry.mode is not self._mode:
            return False
        for module, flag in self._modules:
            if module.training is not flag:
                return False
        try:
            for container, key, t, data in self._places:
                if container[key] is not t or (t._data is not data and data is not None):
                    return False
        except LookupError:
            return False
        for t, chain, ref, version, known in self._stamps:
            storage = t._storage
            if storage is None or storage is not ref() or t._chain is not chain:
                return False
            if storage.version != version:
                return False
            if storage.unseen is not None and (known is None or stamp(storage) != known):
                return False
        return True
