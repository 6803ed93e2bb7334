"""What names in the source stood for when it was traced: values, their places and owners."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tracegraph.audit.frozen import Findings, methods_of
from tracegraph.audit.syntax import is_comprehension, source_of
from tracegraph.capture.provenance import Shape

CLOSURE: Final = "closure"
GLOBAL: Final = "global"
ATTRIBUTE: Final = "attribute"
LOCAL: Final = "local"
SHAPE: Final = "shape"


class Held(NamedTuple):
    """What a name or an attribute stood for: `how` it is reached, `owner` the module's path.

    `place` identifies where it is held; None for local names.
    """

    value: Any
    how: str
    owner: str = ""
    place: tuple[int, Any] | None = None


class Resolver:
    """Looks names up as the code of a trace would."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._owners: dict[types.CodeType, list[tuple[str, Any]]] = {}
        methods: dict[type, list[types.CodeType]] = {}
        for path, module in findings.modules.values():
            kind = type(module)
            if kind not in methods:
                methods[kind] = [f.__code__ for f in methods_of(kind)]
            for code in methods[kind]:
                self._owners.setdefault(code, []).append((path, module))
        self._reached: list[types.CodeType] | None = None
        self._sites: dict[types.CodeType, list[Any]] = {}
        for site in findings.sites.values():
            self._sites.setdefault(site.code, []).append(site)

    def sites_of(self, code: types.CodeType) -> list[Any]:
        """Return the sites in a code object."""
        return self._sites.get(code, [])

    def reached(self) -> list[types.CodeType]:
        """Return the code that ran, and the functions that it names, and so on."""
        if self._reached is None:
            waiting = [c for c in self.findings.functions if c in self.findings.roots]
            self._reached = list(waiting)
            known = set(waiting)
            while waiting:
                for code in self._named(waiting.pop()):
                    if code in self.findings.functions and code not in known:
                        known.add(code)
                        self._reached.append(code)
                        waiting.append(code)
        return self._reached

    def _named(self, code: types.CodeType) -> Iterator[types.CodeType]:
        """Yield the code of the functions that a function names."""
        source = None if code in self.findings.foreign else source_of(code)
        for read in source.reads if source is not None else ():
            for held in self.look_up(code, read.root, read.steps):
                function = getattr(held.value, "__func__", getattr(held.value, "fget", held.value))
                function = getattr(function, "func", function)
                if isinstance(function, types.FunctionType):
                    yield function.__code__

    def look_up(
        self, code: types.CodeType, root: str, steps: Iterable[tuple[str, Any]] = ()
    ) -> Iterator[Held]:
        """Yield what `root.step.step` stood for in a function; nothing if that is not known."""
        for start in self._roots(self._home(code, root), root):
            held: Held | None = start
            for kind, key in steps:
                held = None if held is None else self._step(held, kind, key)
            if held is not None:
                yield self._then(held)

    def _home(self, code: types.CodeType, root: str) -> types.CodeType:
        """Return the function that a name belongs to: for comprehensions the one around them."""
        if not is_comprehension(code) or any(root in s.names for s in self.sites_of(code)):
            return code
        around = [c for c in self.findings.functions if c.co_filename == code.co_filename
                  and c.co_firstlineno <= code.co_firstlineno and not is_comprehension(c)
                  and root in (*c.co_varnames, *c.co_freevars)]  # fmt: skip
        return max(around, key=lambda c: c.co_firstlineno, default=code)

    def _then(self, held: Held) -> Held:
        """Return what a place held when it was traced, if that was kept."""
        known = None if held.place is None else self.findings.values.get(held.place)
        return held if known is None else held._replace(
            value=known.value if known.before is None else known.before)  # fmt: skip

    def _roots(self, code: types.CodeType, root: str) -> Iterator[Held]:
        source = source_of(code)
        functions = self.findings.functions.get(code, ())
        sites = self.sites_of(code)
        if root in code.co_freevars:
            cells = [f.__closure__[code.co_freevars.index(root)] for f in functions]
            for cell in cells:
                if _is_set(cell):
                    place = (id(cell), "cell_contents")
                    yield Held(cell.cell_contents, CLOSURE, place=place)
            if not cells:
                yield from self._locals(sites, root, CLOSURE)
        elif root in code.co_varnames or (source is not None and source.is_local(root)):
            first = code.co_varnames[: code.co_argcount][:1] == (root,)
            owners = self._owners.get(code, ()) if first else ()
            yield from (Held(module, LOCAL, path) for path, module in owners)
            if not owners:
                yield from self._locals(sites, root, LOCAL)
        else:
            spaces = {id(s.namespace): s.namespace for s in sites}
            spaces.update((id(f.__globals__), f.__globals__) for f in functions)
            for space in spaces.values():
                if root in space:
                    yield Held(space[root], GLOBAL, place=(id(space), root))

    @staticmethod
    def _locals(sites: Iterable[Any], root: str, how: str) -> Iterator[Held]:
        values = [site.local(root) for site in sites if root in site.names]
        yield from (Held(v, how) for v in {id(v): v for v in values}.values())

    @staticmethod
    def _step(held: Held, kind: str, key: Any) -> Held | None:
        value = held.value
        if isinstance(value, Shape):
            sizes: dict[str, Any] = {"shape": value.sizes, "ndim": len(value.sizes)}
            return Held(sizes[key], SHAPE) if key in sizes else None
        if kind == "item":
            if held.how == SHAPE and isinstance(value, tuple) and isinstance(key, int):
                return Held(value[key], SHAPE) if -len(value) <= key < len(value) else None
            if not isinstance(value, (dict, list, tuple)):
                return None
            try:
                return Held(value[key], ATTRIBUTE, held.owner, (id(value), key))
            except (LookupError, TypeError):
                return None
        return _attribute(value, key, held.owner)


def _attribute(value: Any, key: str, owner: str) -> Held | None:
    """Return an attribute without running code; None for what is computed or not there."""
    if isinstance(getattr(value, "_modules", None), dict):
        for children in (value._modules, value._parameters, value._buffers):
            if key in children:
                path = f"{owner}.{key}" if owner else key
                return Held(children[key], ATTRIBUTE, path if children is value._modules else owner)
    own = getattr(value, "__dict__", {})
    if key in own:
        how = GLOBAL if isinstance(value, types.ModuleType) else ATTRIBUTE
        return Held(own[key], how, owner, (id(own), key))
    if isinstance(value, tuple) and key in getattr(value, "_fields", ()):
        return Held(getattr(value, key), ATTRIBUTE, owner)
    for base in (value if isinstance(value, type) else type(value)).__mro__:
        if key in vars(base):
            found = vars(base)[key]
            return Held(found, ATTRIBUTE, owner, (id(base), key))
    return None


def _is_set(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None or True
    except ValueError:
        return False
