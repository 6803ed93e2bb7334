"""Finding State: the tensors that a function can reach before it runs, and their names.

The walk follows the function's `__self__`, closure, defaults and the globals that its code names,
in that order, into modules, optimizers and plain containers. The first path names a tensor.
Mutable containers that are met are noted, so that tracing can be undone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any, Final

from tracegraph.capture.places import Child, Place, cell_contents, parts_of
from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor, storage_of
from tracegraph.random import known_generators

_ATOMS = (int, float, str, bytes, bool, type(None), complex, type, types.ModuleType)
_MAX_ITEMS = 100_000
_OURS = ("capture.recording", "capture.tracing", "devices", "dtypes", "ir", "ops", "random",
         "replay.entry", "replay.loaded", "runtime")  # fmt: skip
_OPAQUE = ("builtins", "numpy", "cupy", "networkx", "threading",
           *(f"tracegraph.{name}" for name in _OURS))  # fmt: skip


@dataclasses.dataclass
class Walk:
    """What a walk found.

    `names`: Storage -> first path of its whole; `tensors`: path -> tensor; `places`: path ->
    where it is held; `modules`: path -> nn module; `optimizers`: path -> optimizer;
    `containers`: what can be rebound (lists, dicts, attributes, closure cells, globals) with a
    copy of what it held.
    """

    names: dict[Storage, str] = dataclasses.field(default_factory=dict)
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    places: dict[str, Place | None] = dataclasses.field(default_factory=dict)
    modules: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizers: dict[str, Any] = dataclasses.field(default_factory=dict)
    containers: list[tuple[Any, Any]] = dataclasses.field(default_factory=list)
    seen: dict[int, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def leaves(self) -> list[Tensor]:
        """Every tensor that was found, each once."""
        return list({id(t): t for t in self.tensors.values()}.values())

    def moved(self) -> list[tuple[Any, Any]]:
        """Return the containers that hold other things now, with what they held."""
        return [item for item in self.containers if not _is_as_before(*item)]

    def name(self, path: str, t: Tensor, place: Place | None = None) -> None:
        """Note a tensor; its Storage keeps the first path, one of a whole before those of views."""
        storage = storage_of(t)
        self.tensors.setdefault(path, t)
        self.places.setdefault(path, place)
        known = self.names.get(storage)
        if known is None or (self.tensors[known]._chain and not t._chain):
            self.names[storage] = path


class Globals:
    """The names of its globals that a function uses."""

    def __init__(self, namespace: dict[str, Any], code: types.CodeType) -> None:
        self.namespace = namespace
        self.names = names_of(code)

    def contents(self) -> dict[str, Any]:
        """What they stand for now."""
        return {n: self.namespace[n] for n in self.names if n in self.namespace}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


_NAMES: Final[dict[int, tuple[types.CodeType, tuple[str, ...]]]] = {}
_MAX_CODES: Final = 4096


def names_of(code: types.CodeType) -> tuple[str, ...]:
    """Return the global names and attributes in a code object and those inside."""
    known = _NAMES.get(id(code))  # by identity: the hash of code is that of all its content
    if known is None:
        if len(_NAMES) >= _MAX_CODES:
            _NAMES.clear()
        known = _NAMES[id(code)] = (code, tuple(dict.fromkeys(_code_names(code))))
    return known[1]


def _code_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_names(constant)


def roots_of(function: Callable[..., Any]) -> Iterator[Child]:
    """Yield what a function refers to, in a fixed order."""
    while isinstance(function, functools.partial):
        yield from ((f"arg{i}", a, None) for i, a in enumerate(function.args))
        yield from _held(function.keywords)
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        yield "self", owner, None
    function = getattr(function, "__func__", function)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield from roots_of(wrapped)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        for value in cell_contents(cell).values():
            yield name, value, Place(cell, None)
    for i, value in enumerate(function.__defaults__ or ()):
        yield f"default{i}", value, None
    yield from _held(function.__kwdefaults__ or {})
    for name in names_of(code):
        if name in function.__globals__:
            yield name, function.__globals__[name], Place(function.__globals__, name)


def _held(container: dict[Any, Any]) -> list[Child]:
    """The values of a dict."""
    return [(str(key), value, Place(container, key)) for key, value in container.items()]


def walk(function: Any) -> Walk:
    """Return every tensor, module, optimizer and container that `function` can reach."""
    found = Walk()
    later: list[tuple[str, Any]] = []
    if hasattr(function, "__tracegraph_state__"):
        _visit(found, "", function, later)
    else:
        _keep_names(found, function)
        for name, value, place in roots_of(function):
            path = "" if name == "self" and hasattr(value, "__tracegraph_state__") else name
            _visit(found, path, value, later, place)
    for path, generator in known_generators().items():
        found.name(path, generator._state)
    for path, optimizer in later:
        _visit_optimizer(found, path, optimizer)
    for path, t in list(found.tensors.items()):
        if t._grad is not None:
            found.name(f"{path}.grad", t._grad, Place(t, None))
    return found


def _visit(
    found: Walk, path: str, value: Any, later: list[tuple[str, Any]], place: Place | None = None
) -> None:
    """Visit with an explicit stack, children in order."""
    stack: list[Child] = [(path, value, place)]
    while stack and len(found.seen) < _MAX_ITEMS:
        path, value, place = stack.pop()
        if isinstance(value, Tensor):
            if value.is_sparse:
                parts = parts_of(value, place)
                stack.extend((_join(path, name), t, at) for name, t, at in reversed(parts))
            else:
                found.name(path or "tensor", value, place)
            continue
        if isinstance(value, _ATOMS) or id(value) in found.seen:
            continue
        found.seen[id(value)] = value
        children = _children(found, path, value, later)
        stack.extend((_join(path, name), child, at) for name, child, at in reversed(children))


def _children(found: Walk, path: str, value: Any, later: list[tuple[str, Any]]) -> list[Child]:
    kind = type(value)
    if hasattr(kind, "__tracegraph_materialize__"):
        later.append((path or "optimizer", value))
        return []
    if hasattr(kind, "__tracegraph_state__"):
        found.modules[path] = value
        containers = list(value.__tracegraph_containers__())
        found.containers += [(container, dict(container)) for container in containers]
        children = [
            (name, child, _place_among(containers, name, child))
            for name, child in value.__tracegraph_state__()
        ]
        rebound = hasattr(kind, "__tracegraph_rebound__")
        return [*_rebound(found, value), *children] if rebound else children
    if isinstance(value, dict):
        found.containers.append((value, _contents(value)))
        return _held(value)
    if isinstance(value, list):
        found.containers.append((value, _contents(value)))
        return [(str(i), v, Place(value, i)) for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return [(str(i), v, None) for i, v in enumerate(value)]
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        if getattr(value, "__module__", "").split(".")[0] == "tracegraph":
            return []
        _keep_names(found, value)
        return [("" if n == "self" else n, v, at) for n, v, at in roots_of(value)]
    if is_plain(value):
        attributes = vars(value)
        found.containers.append((attributes, dict(attributes)))
        return _held(attributes)
    return []


def _rebound(found: Walk, value: Any) -> Iterator[Child]:
    """Yield State whose places are given other tensors by calls of what holds it."""
    for name, places in value.__tracegraph_rebound__().items():
        for number, place in enumerate(places):
            if not isinstance(place.container, Tensor):
                found.containers.append((place.container, _contents(place.container)))
            yield (f"{name}.{number}" if number else name), place.read(), place


def _place_among(containers: list[Any], name: str, child: Any) -> Place | None:
    for container in containers:
        if container.get(name) is child:
            return Place(container, name)
    return None


def _keep_names(found: Walk, function: Any) -> None:
    """Note the closure cells and globals that a function can rebind."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for cell in (*(function.__closure__ or ()), Globals(function.__globals__, code)):
        found.containers.append((cell, _contents(cell)))


def _contents(container: Any) -> dict[Any, Any]:
    """What a container holds, by key, index or name."""
    if isinstance(container, list):
        return dict(enumerate(container))
    if isinstance(container, types.CellType):
        return cell_contents(container)
    return container.contents() if isinstance(container, Globals) else dict(container)


def is_plain(value: Any) -> bool:
    """Whether attributes of this may be State: not of libraries in C, nor of our machinery."""
    origin = type(value).__module__ or ""
    return hasattr(value, "__dict__") and not origin.startswith(_OPAQUE)


def _visit_optimizer(found: Walk, path: str, optimizer: Any) -> None:
    found.optimizers[path] = optimizer
    optimizer._trace_name = path
    optimizer.__tracegraph_materialize__()
    for container in optimizer.__tracegraph_containers__():
        found.containers.append((container, _contents(container)))
    places: dict[int, str] = {}
    for name, t in found.tensors.items():
        places.setdefault(id(t), name)
    for number, group in enumerate(optimizer.param_groups):
        for i, p in enumerate(group["params"]):
            if id(p) not in places:
                places[id(p)] = f"{path}.param_groups.{number}.params.{i}"
                found.name(places[id(p)], p)
    for slot, p, t in optimizer.__tracegraph_state__():
        found.name(f"{path}.{slot}.{places[id(p)]}", t, Place(optimizer.state[p], slot))


def _is_as_before(container: Any, before: dict[Any, Any]) -> bool:
    """Whether a container holds the very things that it held, in the same order."""
    now = container if isinstance(container, dict) else _contents(container)
    if not now or not before:
        return len(now) == len(before)
    return now.keys() == before.keys() and all(map(is_, now.values(), before.values()))


def tensors_after(found: Walk, function: Any, is_moved: bool) -> dict[str, Tensor]:
    """Return the tensors that `function` can reach now, by path, after a walk and a run of it.

    `is_moved` says whether containers hold other things than in the walk.
    """
    if is_moved:
        return walk(function).tensors
    now = {
        path: t for path, t in found.tensors.items()
        if (place := found.places[path]) is None or not isinstance(place.container, Tensor)
    }  # fmt: skip
    grads = {f"{path}.grad": t._grad for path, t in now.items() if t._grad is not None}
    return {**grads, **now}


def changes(moved: Iterable[tuple[Any, Any]]) -> list[str]:
    """Say what Python places hold now that is neither what they held nor a tensor for a tensor."""
    told = []
    for container, before in moved:
        now = _contents(container)
        for key in {**before, **now}:
            old, new = before.get(key), now.get(key)
            tensors = isinstance(old, Tensor) and isinstance(new, Tensor)
            if old is new or (tensors and _are_dense(old, new)):
                continue
            if type(old) is type(new) and isinstance(old, _ATOMS) and old == new:
                continue
            told.append(f"{key} ({_shown(old)} before, {_shown(new)} after)")
    return told


def _are_dense(*values: Any) -> bool:
    return not any(isinstance(t, Tensor) and t.is_sparse for t in values)


def new_tensors(found: Walk) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that Python places hold now where they held none, with what names them."""
    for container, before in found.containers:
        for key, now in _contents(container).items():
            old = before.get(key)
            if now is not old and not (isinstance(old, Tensor) and _are_dense(old, now)):
                yield from ((str(key), t) for t in _tensors_in(now, before.values()))


def _tensors_in(value: Any, known: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not any(value is other for other in known):
            yield from (t for _, t, _ in parts_of(value, None)) if value.is_sparse else (value,)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors_in(item, known)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_in(item, known)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, _ATOMS) else f"a {type(value).__name__}"


def restore(moved: Iterable[tuple[Any, Any]]) -> None:
    """Put back the contents of containers that a walk met."""
    for container, before in moved:
        if isinstance(container, list):
            container[:] = before.values()
        elif isinstance(container, types.CellType):
            for value in before.values():
                container.cell_contents = value
        elif isinstance(container, Globals):
            for name in set(container.contents()) - set(before):
                del container.namespace[name]
            container.namespace.update(before)
        else:
            container.clear()
            container.update(before)
