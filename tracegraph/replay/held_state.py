"""State that an entry point holds: what its places hold now, what calls write, what is trained."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tracegraph.devices import device_of
from tracegraph.eager.conversion import to
from tracegraph.eager.dispatch import assign, put
from tracegraph.eager.engine import clone
from tracegraph.eager.leaves import requires_grad_
from tracegraph.eager.storage import bare
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap, xp_of
from tracegraph.errors import GuardError, StateError
from tracegraph.ir.graph import Value
from tracegraph.ops.memory_order import copy_as
from tracegraph.replay.layouts import Layout
from tracegraph.tensor_type import TensorType

if TYPE_CHECKING:
    from tracegraph.capture.places import Place


_Known = TypeVar("_Known")


class HeldState:
    """The State of an entry point, by name.

    `tensors` hold it. Those of a live trace are held in Python too: in `places`, in the places of
    `shared` if several share their memory, which must not move, and a call puts another tensor into
    those of `rebound`. `layouts` say how State lies where the trace relied on it.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], places: Mapping[str, Place] | None = None,
        shared: Mapping[str, list[tuple[Place, Tensor]]] | None = None,
        rebound: Mapping[str, list[Place]] | None = None,
        layouts: Mapping[str, Layout] | None = None,
    ) -> None:  # fmt: skip
        self.tensors = dict(tensors)
        self.places = dict(places or {})
        self.shared = dict(shared or {})
        self.rebound = dict(rebound or {})
        self.layouts = dict(layouts or {})

    def part(self, names: Container[str]) -> HeldState:
        """Return what is held of some State."""
        return HeldState(
            _named(self.tensors, names), _named(self.places, names), _named(self.shared, names),
            _named(self.rebound, names), _named(self.layouts, names),
        )  # fmt: skip

    def present(self) -> dict[str, Tensor]:
        """Return the tensors that the places hold now (a place may have been rebound).

        Raises:
            GuardError: a place does not hold what a replay could take for what was traced.
        """
        held = self.tensors
        for name, place in self.places.items():
            now = _present(place)
            if now is not held[name]:
                held[name] = _moved(name, place, held[name], now)
        for name, places in self.shared.items():
            if not all(_is_there(place, t, held[name]) for place, t in places):
                raise GuardError(
                    f"{name} was memory that several places share when it was traced, and one of "
                    "them holds another tensor now; trace again, or write in place (copy_)"
                )
        for name, layout in self.layouts.items():
            why = layout.refusal(held[name]._data)
            if why is not None:
                raise GuardError(
                    f"{name} lies {why}; trace again, or write into what it was (copy_)"
                )
        return held

    def commit(self, writes: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Write arrays into State, and into inputs that were given."""
        for name, array in writes.items():
            target = self.tensors.get(name)
            if target is None:
                target = given[name]
                if not isinstance(target, Tensor):
                    target[...] = array
                    continue
            data = target._data
            plain = array.__class__ is data.__class__ is np.ndarray
            if not plain and device_of(array) != device_of(data):
                array = device_of(data).place(array)
            if name in self.rebound:
                laid = name in self.layouts and plain
                self._rebind(name, wrap(copy_as(array, data) if laid else array))
                continue
            if array is not data:
                put(data, array)
            storage_of(target).version += 1
            self._fill_place(name, target)

    def commit_tensors(self, writes: Mapping[str, Tensor]) -> None:
        """Write Tensors into State, so that a running trace sees it."""
        for name, t in writes.items():
            target = self.tensors[name]
            if name in self.rebound:
                self._rebind(name, t)
            else:
                assign(target, to(t, device_of(target._data)))
                self._fill_place(name, target)

    def _fill_place(self, name: str, target: Tensor) -> None:
        """Hold State where nothing is held: a gradient that was None."""
        place = self.places.get(name)
        if place is not None and _present(place) is None:
            place.write(target)

    def _rebind(self, name: str, made: Tensor) -> None:
        """Hold another tensor in the places of a State, that can be written as any."""
        data = made._data
        if data.__class__ is np.ndarray and (not data.flags.writeable or 0 in data.strides):
            made = clone(made)  # expanded memory
        self.tensors[name] = made
        places = self.rebound[name]
        for place in places:
            place.write(made)
        if name in self.shared:
            self.shared[name] = [(place, made) for place in places]


def _named(known: Mapping[str, _Known], names: Container[str]) -> dict[str, _Known]:
    return {name: x for name, x in known.items() if name in names}


def _present(place: Place) -> Any:
    """What a place holds now; None if nothing."""
    container = place.container
    return container.get(place.key) if container.__class__ is dict else place.read()


def _is_there(place: Place, t: Tensor, held: Tensor) -> bool:
    """Whether a place holds a tensor, and that the memory of what is held."""
    return place.read() is t and (t is held or t._storage is held._storage)


class Trainable:
    """The State of a file that required gradients when it was saved.

    It requires them again from the moment that somebody asks for the parameters: a service, which
    never does, runs compiled programs and keeps nothing for a backward pass.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._tensors = {id(t): t for t in tensors}
        self._asleep = True

    def __contains__(self, t: Tensor) -> bool:
        return id(t) in self._tensors

    def wake(self) -> None:
        """Let all of it require gradients, in memory that can be written."""
        if not self._asleep:
            return
        self._asleep = False
        for t in self._tensors.values():
            make_writable(t)
            requires_grad_(t)


def make_writable(t: Tensor) -> None:
    """Give State that lies in a file's pages memory of its own."""
    if not getattr(t._data.flags, "writeable", True):
        t._data = t._data.copy()
        storage_of(t).array = t._data


def _moved(name: str, place: Place, held: Tensor, now: Any) -> Tensor:
    """What a place holds that no longer holds what it did: a gradient that is None is zero."""
    if now is None and isinstance(place.container, Tensor):
        data = held._data
        return wrap(xp_of(data).zeros(data.shape, data.dtype))
    if isinstance(now, Tensor) and not now._chain and type_of(now) == type_of(held):
        return now
    kind = f"a {type(now).__name__}"
    if isinstance(now, Tensor):
        kind = f"a view, {type_of(now)}," if now._chain else f"{type_of(now)}"
    raise GuardError(
        f"{name} was {type_of(held)} when it was traced and is {kind} now; trace again, or put "
        "back a tensor of that type with memory of its own"
    )


def check_type(name: str, t: Tensor, known: TensorType) -> None:
    """Refuse State of another type than it had when it was traced.

    Raises:
        GuardError: naming State and both types.
    """
    if type_of(t) != known:
        raise GuardError(
            f"{name} was {known} when it was traced and is {type_of(t)} now; trace again, or put "
            "back a tensor of that type"
        )


def check_apart(
    writes: Mapping[str, Value], held: Mapping[str, Tensor], given: Mapping[str, Any]
) -> None:
    """Refuse inputs that share memory with State, or another input, that a call writes.

    Raises:
        GuardError: naming both.
    """
    written = {name: held.get(name, given.get(name)) for name in writes}
    for name, other in overlapping(given, written):
        loc = writes[other].node.loc
        raise GuardError(
            f"input {name!r} shares memory with {other!r}, which the call writes"
            f"{f' at {loc}' if loc else ''}: a replay could not know when it is read; clone() it"
        )


def overlapping(given: Mapping[str, Any], written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of what is given, each with that of something else in `written` it overlaps.

    Both are Tensors or arrays. Where Storages tell all, they are what is compared.
    """
    storages = {id(storage_of(t)): name for name, t in written.items() if isinstance(t, Tensor)}
    for name, x in given.items():
        known = None
        if isinstance(x, Tensor) and x._storage is not None:
            known = storages.get(id(x._storage), name)
        if known not in (None, name):
            yield name, str(known)
        elif _is_of_others(x):
            others = (n for n, y in written.items() if n != name and _overlap(x, y))
            yield from ((name, other) for other in others)


def _is_of_others(x: Any) -> bool:
    """Whether memory may be shared in ways that no Storage tells."""
    if not isinstance(x, Tensor):
        return True
    unseen = None if x._storage is None else x._storage.unseen
    return unseen is not None and (unseen.borrowed or bool(unseen.loans))


def _overlap(x: Any, y: Any) -> bool:
    x, y = (bare(t._data if isinstance(t, Tensor) else t) for t in (x, y))
    return x is y or (type(x) is type(y) and bool(xp_of(x).may_share_memory(x, y)))


def load_state(into: Mapping[str, Tensor], state: Mapping[str, Any], strict: bool) -> None:
    """Copy `state` into tensors by name, after checking all of it."""
    missing = [n for n in into if n not in state]
    unknown = [n for n in state if n not in into]
    if strict and (missing or unknown):
        raise StateError(f"state does not fit: missing {missing}, unexpected {unknown}")
    arrays = {}
    for name, value in state.items():
        if name not in into:
            continue
        source = value if isinstance(value, Tensor) else wrap(np.asarray(value))
        if type_of(source) != type_of(into[name]):
            raise StateError(f"{name}: expected {type_of(into[name])}, got {type_of(source)}")
        arrays[name] = source._data
    for name, array in arrays.items():
        target = into[name]
        if device_of(array) != device_of(target._data):
            array = device_of(target._data).place(array)
        make_writable(target)
        put(target._data, array)
        storage_of(target).version += 1
