"""The Python values that a trace relied on: closure variables, globals, attributes, settings.

While a trace runs, all that is noted is which instructions of the user's code ops came from. At
the end the values that the code could have read are kept: numbers, strings, flags and small arrays
under names that the code mentions, in places that the walk met. That is more than was read, and
costs no look at the source. A live replay compares them; where one has changed, the syntax says
whether the code reads it.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.audit.syntax import Read, source_of
from tracegraph.capture.provenance import (
    Baked,
    Recording,
    Shape,
    Site,
    is_foreign_name,
    is_value,
    recording_of,
)
from tracegraph.capture.state import Globals, Walk, is_plain

_QUICK: Final = frozenset((bool, int, float, str, type(None)))
# Bytes of an array that a replay compares by content; of a larger one only that it is the same.
_MAX_BYTES: Final = 4096


def differs(now: Any, before: Any) -> bool:
    """Whether a frozen value has changed."""
    if now is before:
        return False
    if type(now) is not type(before):
        return True
    if isinstance(now, np.ndarray):
        same = now.dtype == before.dtype and now.shape == before.shape
        return now.nbytes > _MAX_BYTES or not same or now.tobytes() != before.tobytes()
    return bool(now != before and (now == now or before == before))


class Frozen(NamedTuple):
    """A value in a place: `read(key)` gives what is there now.

    `place` identifies it, `name` is what the code calls it (the attribute, the variable), `owner`
    the path of the module that holds it, `before` a copy of a list or small array, whose content
    is compared.
    """

    place: tuple[int, Any]
    read: Callable[[Any], Any]
    key: Any
    value: Any
    name: str
    owner: str
    before: Any

    def now(self) -> Any:
        """What the place holds now; None if it is gone."""
        try:
            return self.read(self.key)
        except (LookupError, ValueError):
            return None


class Findings:
    """What is known of the code that was traced, and the values that it could read.

    `ran` are functions that ran, `met` further ones that the walk met; `sites`, by the identity of
    their line, tell of code that ran as well.
    """

    def __init__(self) -> None:
        self.recording = Recording((), {})
        self.sites: dict[int, Site] = {}
        self.modules: dict[int, tuple[str, Any]] = {}
        self.values: dict[tuple[int, Any], Frozen] = {}
        self.baked: list[Baked] = []
        self.ran: list[types.FunctionType] = []
        self.met: list[types.FunctionType] = []

    def forget(self) -> None:
        """Give up the arrays that Python read; their values are kept as text."""
        self.baked = [baked._replace(array=None) for baked in self.baked]

    def merge(self, other: Findings) -> None:
        """Add what another run of the same function met."""
        for name in ("functions", "roots", "foreign", "reads"):
            self.__dict__.pop(name, None)
        self.sites.update(other.sites)
        self.modules.update(other.modules)
        self.baked += other.baked
        self.ran += other.ran
        self.met += other.met
        for place, item in other.values.items():
            known = self.values.setdefault(place, item)
            if differs(item.value, known.value):
                self.values[place] = item

    @functools.cached_property
    def functions(self) -> dict[types.CodeType, list[Any]]:
        """The functions by their code; code that ops came from may have none at hand."""
        found: dict[types.CodeType, list[Any]] = {}
        for function in {id(f): f for f in (*self.ran, *self.met)}.values():
            found.setdefault(function.__code__, []).append(function)
        for site in self.sites.values():
            found.setdefault(site.code, [])
        return found

    @functools.cached_property
    def roots(self) -> set[types.CodeType]:
        """Code that ran."""
        return {f.__code__ for f in self.ran} | {site.code for site in self.sites.values()}

    @functools.cached_property
    def foreign(self) -> set[types.CodeType]:
        """Code of tracegraph, NumPy and Python's library."""
        known = {f.__code__ for f in (*self.ran, *self.met) if is_foreign(f)}
        return known | {s.code for s in self.sites.values() if s.is_foreign}

    @functools.cached_property
    def reads(self) -> dict[Any, list[tuple[Read, types.CodeType]]]:
        """What the source reads, by each name in the expression."""
        found: dict[Any, list[tuple[Read, types.CodeType]]] = {}
        for code in self.functions:
            source = source_of(code)
            for read in source.reads if source is not None else ():
                if read.role != "call":
                    for name in {read.root, *(key for _, key in read.steps)}:
                        found.setdefault(name, []).append((read, code))
        return found


def find(recorder: Any, found: Walk, function: Any) -> Findings:
    """Return what a recorded run of a function met; to be called before the run is undone."""
    findings = Findings()
    findings.recording, findings.baked = recording_of(recorder), list(recorder.baked)
    findings.sites = {id(site.loc): site for site in recorder.sites}
    findings.modules = {i: (path, m) for i, (path, m, _) in recorder.training_flags.items()}
    kinds = dict.fromkeys(type(m) for _, m in findings.modules.values())
    findings.ran = [*_functions([function]), *(f for kind in kinds for f in methods_of(kind))]
    findings.met = list(_functions(v for v in found.seen.values() if callable(v)))
    for item in _Search(findings, found).found():
        findings.values.setdefault(item.place, item)
    return findings


def reads_of(findings: Findings, item: Frozen) -> list[tuple[Read, types.CodeType]]:
    """Return what in the source may read a value, or something inside of it."""
    return findings.reads.get(item.name, [])


# What the code could have read.


_NAMES: Final[dict[int, tuple[types.CodeType, frozenset[str]]]] = {}
_MAX_CODES: Final = 4096


def names_in(code: types.CodeType) -> frozenset[str]:
    """Return names, and strings that may be keys, in a code object and those inside."""
    known = _NAMES.get(id(code))  # by identity: the hash of code is that of all its content
    if known is not None:
        return known[1]
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            names.add(constant)
    if len(_NAMES) >= _MAX_CODES:
        _NAMES.clear()
    _NAMES[id(code)] = (code, frozenset(names))
    return _NAMES[id(code)][1]


_METHODS: Final[weakref.WeakKeyDictionary[type, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


def methods_of(kind: type) -> tuple[Any, ...]:
    """Return `forward` or `__call__`, and the methods and properties that it names."""
    known = _METHODS.get(kind)
    if known is None:
        known = _METHODS[kind] = tuple(_methods(kind))
    return known


def _methods(kind: type) -> Iterator[Any]:
    waiting = ["forward" if hasattr(kind, "forward") else "__call__"]
    known = set(waiting)
    while waiting:
        member = inspect.getattr_static(kind, waiting.pop(), None)
        member = getattr(member, "fget", getattr(member, "__func__", member))
        code = getattr(member, "__code__", None)
        if code is not None:
            yield member
            waiting += [n for n in code.co_names if n not in known]
            known.update(code.co_names)


def is_foreign(value: Any) -> bool:
    """Whether a class, function or module belongs to tracegraph, NumPy or Python itself."""
    return is_foreign_name(
        value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    )


_OF_KIND: Final[weakref.WeakKeyDictionary[type, set[str]]] = weakref.WeakKeyDictionary()


def _names_of_kind(kind: type) -> set[str]:
    """Return the names in the methods of a class of modules."""
    known = _OF_KIND.get(kind)
    if known is None:
        codes = (f.__code__ for f in methods_of(kind))
        known = _OF_KIND[kind] = set().union(*map(names_in, codes)) - {"training"}
    return known


class _Search:
    """Finds values in the places that the walk met, under names that the code mentions."""

    def __init__(self, findings: Findings, found: Walk) -> None:
        self.walk = found
        self.modules = findings.modules
        self.sites = [s for s in findings.sites.values() if not s.is_foreign]
        self.functions = [f for f in (*findings.ran, *findings.met) if not is_foreign(f)]
        codes = {id(f.__code__): f.__code__ for f in self.functions}
        codes.update((id(site.code), site.code) for site in self.sites)
        self.names: set[str] = set().union(*map(names_in, codes.values())) - {"training"}
        self.of_kind: dict[type, set[str]] = {}
        self.in_classes: set[int] = set()

    def found(self) -> Iterator[Frozen]:
        """Yield the values."""
        owners = {id(vars(m)): m for m in self._owners()}
        before = {}
        inner: set[int] = set()  # what a module holds tensors and other modules in
        for container, held in self.walk.containers:
            if id(container) in inner:
                continue
            if isinstance(container, Globals):
                yield from _items(id(container.namespace), container.namespace, held, self.names)
            elif isinstance(container, types.CellType):
                before[id(container)] = held
            elif isinstance(container, dict):
                owner = owners.get(id(container))
                is_module = "_modules" in held
                if is_module:
                    inner = {id(held.get(n)) for n in ("_modules", "_parameters", "_buffers")}
                if owner is not None:
                    yield from self._attributes(owner, held)
                elif not is_module:
                    yield from _items(id(container), container, held, self.names)
        yield from self._cells(before)
        yield from self._namespaces()

    def _owners(self) -> Iterator[Any]:
        """Yield the modules whose attributes count: of the user's classes, or that were called."""
        for _, module in self.modules.values():
            yield module
        for module in self.walk.modules.values():
            known = id(module) in self.modules or not hasattr(module, "__dict__")
            if not known and not is_foreign(type(module)):
                yield module

    def _cells(self, before: dict[int, dict[str, Any]]) -> Iterator[Frozen]:
        for function in self.functions:
            names = function.__code__.co_freevars
            for name, cell in zip(names, function.__closure__ or (), strict=False):
                for value in before.get(id(cell), {}).values():
                    if is_value(value):
                        read = cell.__getattribute__
                        found = _frozen(id(cell), read, "cell_contents", value, name)
                        if found is not None:
                            yield found

    def _attributes(self, owner: Any, before: dict[Any, Any]) -> Iterator[Frozen]:
        kind = type(owner)
        path = self.modules[id(owner)][0] if id(owner) in self.modules else ""
        names = self.of_kind.get(kind)
        if names is None:
            own = _names_of_kind(kind)
            names = self.of_kind[kind] = own if is_foreign(kind) else own | self.names
            for base in kind.__mro__[:-1]:
                if id(base) not in self.in_classes and not is_foreign(base):
                    self.in_classes.add(id(base))
                    yield from _items(id(base), vars(base), vars(base), names, path)
        held = vars(owner)
        yield from _items(id(held), held, before, names, path)

    def _namespaces(self) -> Iterator[Frozen]:
        """Yield what functions see in globals, and in what these and local names hold."""
        spaces = {id(site.namespace): site.namespace for site in self.sites}
        objects = {}
        for site in self.sites:
            for name, held in site.names.items():
                if held.__class__ is not Shape and held.__class__ not in _QUICK:
                    value = site.local(name)
                    objects[id(value)] = value
        for space in spaces.values():
            yield from _items(id(space), space, space, self.names)
            objects.update((id(space[n]), space[n]) for n in self.names.intersection(space))
        for value in objects.values():
            content = None if id(value) in self.walk.seen else _content(value)
            if content is not None:
                yield from _items(id(content), content, content, self.names)


def _content(value: Any) -> dict[Any, Any] | None:
    """Return the mapping in which something holds values: a dict, a module, a plain object."""
    if isinstance(value, dict):
        return value
    kinds = (type, types.FunctionType, types.MethodType, Shape)
    if isinstance(value, kinds) or hasattr(value, "__tracegraph_state__"):
        return None
    known = is_plain(value) or isinstance(value, types.ModuleType)
    return vars(value) if known and not is_foreign(_home(value)) else None


def _home(value: Any) -> Any:
    return value if isinstance(value, types.ModuleType) else type(value)


def _functions(values: Iterable[Any]) -> Iterator[types.FunctionType]:
    """Yield the Python functions among some values, those that others wrap included."""
    for value in values:
        while isinstance(value, functools.partial):
            value = value.func
        if isinstance(value, types.MethodType):
            value = value.__func__
        while isinstance(value, types.FunctionType):
            yield value
            value = getattr(value, "__wrapped__", None)


def _items(
    home: int, container: Any, before: Any, names: set[str], owner: str = ""
) -> Iterator[Frozen]:
    """Yield the values that a mapping held before the run under any of the names, and holds now."""
    for key in sorted(names.intersection(before)):
        value = before[key]
        if value.__class__ in _QUICK or is_value(value):
            found = _frozen(home, container.get, key, value, key, owner)
            if found is not None:
                yield found


def _frozen(
    home: int, read: Callable[[Any], Any], key: Any, value: Any, name: str, owner: str = ""
) -> Frozen | None:
    """Return a value as frozen if its place still holds it after the run."""
    try:
        if differs(read(key), value):
            return None
    except (LookupError, ValueError):
        return None
    mutable = isinstance(value, list) or (
        isinstance(value, np.ndarray) and value.nbytes <= _MAX_BYTES
    )
    before = value.copy() if mutable else None
    return Frozen((home, key), read, key, value, name, owner, before)
