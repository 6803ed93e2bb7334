"""The short way of a call of a native program, where nothing has changed since the last one.

A service calls with tensors of known shapes, and weights stay what they are. All that such a call
has to find out is that this is so. It touches as little as it can: after some milliseconds of
silence it is memory that takes time, and each object is 0.1 us away.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tracegraph.eager.storage import stamp
from tracegraph.eager.tensors import Tensor, storage_of, wrap
from tracegraph.replay.signature import hyper_arrays

if TYPE_CHECKING:
    from tracegraph.capture.places import Place
    from tracegraph.compiler import Again, CompiledGraph
    from tracegraph.ir.graph import Graph
    from tracegraph.replay.entry import EntryPoint

# What a call gives that has to go the long way.
MISSED: Final = object()
# Shapes of arguments for which a program remembers what runs.
_MAX_SHAPES: Final = 64
# While what was found serves no call, it is sought at each call, then after twice as many as the
# last time, at most so many.
_FREE: Final = 8
_MOST_PATIENCE: Final = 1024 * _FREE


class Run(NamedTuple):
    """What runs for arguments of some shapes.

    `call` takes arrays; `apart` are the arrays of State whose new content it gives after the
    results, in their order. Other State that is written is written where it lies.
    """

    call: Again
    apart: tuple[Any, ...]


class ShortWay:
    """The short way of a program: what runs, by the shapes of arguments, while State is the same.

    For graphs that take Python values, have several paths, put other tensors in the place of State
    or write inputs, and for those that rely on how inputs lie, there is none.
    """

    def __init__(self, entry: EntryPoint, graph: Graph, program: CompiledGraph) -> None:
        self._entry, self._graph, self._program = entry, graph, program
        one = len(entry.variants) == 1 and not entry.variants[0].scalars
        held = not entry.held.rebound and graph.writes.keys() <= graph.states.keys()
        free = not entry.layouts and one and held
        self._exists = free and program.is_native and entry.signature.flat
        self._types = [spec.type.dtype.np for spec in entry.signature.specs if spec.type]
        way = entry.signature.ways[0]
        self._is_tensor = way.outputs == {"leaf": 0} and way.results == ({"value": 0},)
        self._hypers = frozenset(hyper.name for hyper in entry.hypers)
        self._count = len(graph.outputs)
        self._found: _Found | None = None
        self._long_calls, self._patience = 0, 1

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what a call gives; MISSED if it has to go the long way.

        Keywords are hyper-parameters.

        Raises:
            GuardError: something that the trace relied on has changed.
        """
        found = self._found
        if found is None or (kwargs and not self._hypers.issuperset(kwargs)):
            return MISSED
        try:
            run = found.runs[tuple([x._data.shape for x in args])]
        except (AttributeError, KeyError):
            return MISSED
        if run is None:
            return MISSED
        if found.written:
            with self._entry.lock:
                results = self._results(found, run, args, kwargs)
                if results is not None:
                    found.commit(run, results[self._count :])
                    del results[self._count :]
        else:
            results = self._results(found, run, args, kwargs)
        if results is None:
            return MISSED
        self._patience = 1
        return wrap(results[0]) if self._is_tensor else self._entry.results(map(wrap, results))

    def _results(
        self, found: _Found, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[Any] | None:
        """Return arrays: what a call gives, and what is to be written into State."""
        entry = self._entry
        if not found.is_same():
            self._found = None
            return None
        if entry.watch is not None:
            entry.watch.check()
        arrays = []
        for x, dtype in zip(args, self._types, strict=True):
            data = x._data
            if x.__class__ is not Tensor or data.__class__ is not np.ndarray:
                return None
            if data.dtype is not dtype or not data.flags.c_contiguous:
                return None
            arrays.append(data)
        if found.written and not found.is_free(args):
            return None
        if entry.hypers:
            arrays += hyper_arrays(entry.hypers, kwargs)
        return run.call(arrays)

    def remember(self, args: Sequence[Any]) -> None:
        """Note what runs for such arguments, which were found to fit.

        Where State is another one at each call, that is tried ever more seldom.
        """
        if not self._exists or len(args) != len(self._types):
            return
        if any(x.__class__ is not Tensor or x._data.__class__ is not np.ndarray for x in args):
            return
        arrays = [x._data for x in args]
        shapes = tuple([array.shape for array in arrays])
        found = self._found
        if found is not None and shapes in found.runs:
            return
        if found is None:
            self._long_calls += 1
            if self._long_calls < self._patience // _FREE:
                return
            self._long_calls, self._patience = 0, min(2 * self._patience, _MOST_PATIENCE)
        with self._entry.lock if self._graph.writes else nullcontext():
            self._remember(found, shapes, arrays)

    def _remember(self, found: _Found | None, shapes: Any, arrays: list[Any]) -> None:
        entry, program = self._entry, self._program
        arrays += hyper_arrays(entry.hypers, {})
        counted = program.counted(arrays)
        if counted is not None and not counted.isdisjoint(self._graph.writes):
            counted = None  # made anew at each call
        needed = counted or set()
        if found is None:
            found = _Found(entry, self._graph, program.read, needed)
        elif not needed <= found.counted:
            found = _Found(entry, self._graph, program.read, needed | found.counted)
        run = None
        if counted is not None and found.can_be_written:
            call = program.again(arrays, entry.state) if found.is_same() else None
            if call is None or not found.is_same():
                return
            apart = program.apart(arrays) if found.written else ()
            run = Run(call, tuple(entry.state[name]._data for name in apart))
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

    Arrays of State in `read`, or that is written, or whose layout is relied on, must stay the same
    ones, that of State in `counted` also unwritten. Where `runs` has None there is no short way.
    """

    def __init__(
        self, entry: EntryPoint, graph: Graph, read: Sequence[str], counted: set[str]
    ) -> None:
        state = entry.state
        self._entry, self._graph, self._held, self._mode = entry, graph, entry.held, entry.mode
        self._modules = [(m, flag) for m, flag in entry.variants[0].modes.values() if m is not None]
        items = {name: _item(place) for name, place in entry.held.places.items()}
        used = {*read, *graph.writes, *entry.held.layouts}
        held = [(items.get(n, (state, n)), t, n in used) for n, t in state.items()]
        held += [(_item(p), t, True) for places in entry.held.shared.values() for p, t in places]
        self._places = [(*item, t, t._data if is_used else None) for item, t, is_used in held]
        stored = [(t, storage_of(t)) for name, t in state.items() if name in counted]
        self._stamps = [(t, t._chain, weakref.ref(s), s.version, stamp(s)) for t, s in stored]
        self.written = [(state[name], storage_of(state[name])) for name in graph.writes]
        self._storages = {storage for _, storage in self.written}
        borrowed = [s.array for s in self._storages if s.unseen is not None and s.unseen.borrowed]
        self._borrowed = borrowed  # the owner may forbid to write to it
        self.can_be_written = all(_can_be_written(t._data) for t, _ in self.written)
        self.counted = counted
        self.runs: dict[tuple[tuple[int, ...], ...], Run | None] = {}

    def is_same(self) -> bool:
        """Whether the graph, its State and modes are what they were."""
        entry = self._entry
        if entry.graph is not self._graph or entry.held is not self._held:
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

    def is_free(self, args: Sequence[Any]) -> bool:
        """Whether State that is written lies where it did, can be written, and is no argument."""
        for t, stored in self.written:
            if t._storage is not stored:
                return False
        for array in self._borrowed:
            if not array.flags.writeable:
                return False
        for x in args:
            storage = x._storage
            if storage is None:
                continue
            if storage in self._storages:
                return False
            if storage.unseen is not None and self._overlaps(x._data):
                return False
        return True

    def _overlaps(self, array: Any) -> bool:
        """Whether an array may reach into the memory of State that is written."""
        low, high = byte_bounds(array)
        return any(low < end and begin < high for begin, end in self._bounds)

    @cached_property
    def _bounds(self) -> list[tuple[int, int]]:
        return [byte_bounds(t._data) for t, _ in self.written]

    def commit(self, run: Run, arrays: Sequence[Any]) -> None:
        """Write into State what a call gave for it, and count the writes."""
        for target, array in zip(run.apart, arrays, strict=True):
            np.copyto(target, array)
        for _, storage in self.written:
            storage.version += 1


def _can_be_written(array: Any) -> bool:
    """Whether State is a writable array whose elements lie apart."""
    return array.__class__ is np.ndarray and array.flags.writeable and 0 not in array.strides
