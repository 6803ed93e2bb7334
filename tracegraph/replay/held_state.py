"""State that an entry point holds: what its places hold now, what is loaded, what is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegraph.devices import device_of
from tracegraph.eager.dispatch import put
from tracegraph.eager.leaves import requires_grad_
from tracegraph.eager.storage import bare
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap, xp_of
from tracegraph.errors import GuardError, StateError
from tracegraph.ir.graph import Value
from tracegraph.tensor_type import TensorType

if TYPE_CHECKING:
    from tracegraph.capture.state import Place


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


def moved(name: str, place: Place, held: Tensor, now: Any) -> Tensor:
    """What a place holds that no longer holds what it did: a gradient that is None is zero."""
    if now is None and isinstance(place.container, Tensor):
        data = held._data
        return wrap(xp_of(data).zeros(data.shape, data.dtype))
    if isinstance(now, Tensor) and not now._chain and type_of(now) == type_of(held):
        return now
    kind = f"{type_of(now)}" if isinstance(now, Tensor) else f"a {type(now).__name__}"
    raise GuardError(
        f"{name} was {type_of(held)} when it was traced and is {kind} now; trace again, or put "
        "back a tensor of that type"
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
