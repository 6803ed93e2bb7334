"""Where a Python value came from: what an expression in a traced function was computed from."""

from __future__ import annotations

import ast
import builtins
import math
import types
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tracegraph.audit.resolving import GLOBAL, SHAPE, Resolver
from tracegraph.audit.syntax import Source, source_of, steps_of
from tracegraph.capture.provenance import Opaque, Shape, Site, is_value
from tracegraph.eager.tensors import Tensor

CALL: Final = "call"
DEFAULT: Final = "default"
ITEM: Final = "item"
ITERATION: Final = "iteration"

_PURE: Final = frozenset((
    abs, bool, divmod, enumerate, float, int, len, list, max, min, pow, range, reversed, round, set,
    sorted, str, sum, tuple, zip, dict, isinstance, getattr, hasattr, any, all, map, filter,
))  # fmt: skip
# Modules of which two calls may give two values.
_CHANGING: Final = frozenset((
    "random", "_random", "time", "datetime", "secrets", "uuid", "numpy.random",
    "numpy.random.mtrand", "numpy.random._generator", "socket", "getpass", "platform",
))  # fmt: skip
_OF_PROCESS: Final = frozenset(("environ", "getenv", "urandom", "getpid", "times", "getcwd"))
_READS: Final = frozenset((float, int, bool))
_OF_SHAPE: Final = frozenset(("size", "dim", "numel", "nelement", "ndimension", "stride"))
_ESCAPES: Final = frozenset(("item", "tolist", "numpy"))


class Origin(NamedTuple):
    """One thing that a value was computed from."""

    how: str
    text: str

    def __str__(self) -> str:
        return self.text


class Tracer:
    """Follows expressions of one function back to where their values came from."""

    def __init__(self, resolver: Resolver, code: types.CodeType) -> None:
        source = source_of(code)
        assert source is not None
        self.resolver = resolver
        self.code = code
        self.source: Source = source

    def origins(self, node: ast.AST, known: frozenset[str] = frozenset()) -> list[Origin]:
        """Return what an expression was computed from; nothing for literals and tensors."""
        return list(dict.fromkeys(self._origins(node, known)))

    def _origins(self, node: ast.AST, known: frozenset[str]) -> Iterator[Origin]:
        chain = steps_of(node) if isinstance(node, ast.expr) else None
        if chain is not None:
            yield from self._chain(node, *chain, known)
        elif isinstance(node, ast.Call):
            yield from self._call(node, known)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._origins(child, known)

    def _chain(
        self, node: ast.AST, root: str, steps: tuple[tuple[str, Any], ...], known: frozenset[str]
    ) -> Iterator[Origin]:
        if not steps and self.source.is_local(root):
            yield from self._name(root, known)
            return
        for held in self.resolver.look_up(self.code, root, steps):
            text = ast.unparse(node)
            if held.how == SHAPE or is_value(held.value):
                if not is_constant_name(held.how, text):
                    yield Origin(held.how, text)
                return

    def _name(self, name: str, known: frozenset[str]) -> Iterator[Origin]:
        if name in known:
            return
        known |= {name}
        for how, value in self.source.assigned.get(name, ()):
            found = list(self._origins(value, known))
            if how == "loop":
                tensor = isinstance(value, ast.Name) and self.is_tensor(value.id)
                yield Origin(ITERATION, ast.unparse(value))
                if tensor:
                    yield Origin(SHAPE, f"len({ast.unparse(value)})")
            yield from found
        if name in self.source.parameters:
            default = self.source.parameters[name]
            yield Origin(DEFAULT if default is not None else "argument", name)

    def _call(self, node: ast.Call, known: frozenset[str]) -> Iterator[Origin]:
        inside = [o for a in (*node.args, *(k.value for k in node.keywords))
                  for o in self._origins(a, known)]  # fmt: skip
        kind = self.kind_of(node)
        if kind == SHAPE:
            yield Origin(SHAPE, ast.unparse(node))
        elif kind == ITEM:
            yield Origin(ITEM, ast.unparse(node))
        elif kind == CALL:
            yield Origin(CALL, ast.unparse(node))
            yield from inside
        elif kind == "pure":
            yield from inside

    def kind_of(self, node: ast.Call) -> str:
        """Tell what a call gives: SHAPE, ITEM, CALL (a Python value), "pure", or "tensor"."""
        chain = steps_of(node.func)
        if chain is None:
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            known = {**dict.fromkeys(_OF_SHAPE, SHAPE), **dict.fromkeys(_ESCAPES, ITEM)}
            return known.get(method, "tensor")
        root, steps = chain
        if steps and self.is_tensor(root):
            name = steps[-1][1]
            return SHAPE if name in _OF_SHAPE else ITEM if name in _ESCAPES else "tensor"
        function = self.callee(node)
        if _hashable_in(function, _READS) and any(map(self._is_tensor_expression, node.args)):
            return ITEM
        if function is len and node.args and isinstance(node.args[0], ast.Name):
            return SHAPE if self.is_tensor(node.args[0].id) else "pure"
        if _hashable_in(function, _PURE) or getattr(function, "__module__", None) == math.__name__:
            return "pure"
        return CALL if self.is_changing(node) else self._unknown(function)

    def _is_tensor_expression(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call):
            return self.kind_of(node) == "tensor"
        return isinstance(node, ast.Name) and self.is_tensor(node.id)

    def _unknown(self, function: Any) -> str:
        """A call of something else: tensors from ours and from traced functions."""
        function = getattr(function, "__func__", function)
        home = (getattr(function, "__module__", "") or "").partition(".")[0]
        if home in ("tracegraph", "numpy") or function is None:
            return "pure" if home == "numpy" else "tensor"
        code = getattr(function, "__code__", None)
        if code in self.resolver.findings.functions and self.resolver.sites_of(code):
            return "tensor"
        if isinstance(function, type) or hasattr(type(function), "__tracegraph_state__"):
            return "tensor"
        return CALL

    def callee(self, node: ast.Call) -> Any:
        """Return what is called, None if that is not known."""
        chain = steps_of(node.func)
        if chain is None:
            return None
        held = next(self.resolver.look_up(self.code, *chain), None)
        if held is not None:
            return held.value
        return None if chain[1] else getattr(builtins, chain[0], None)

    def is_changing(self, node: ast.Call) -> bool:
        """Whether a call may give something else each time: clocks, random numbers, settings."""
        root, steps = steps_of(node.func) or ("", ())
        for held in self.resolver.look_up(self.code, root) if steps else ():
            if isinstance(held.value, Opaque):
                return held.value.kind.__module__ in _CHANGING
            if isinstance(held.value, types.ModuleType) and held.value.__name__ == "os":
                return steps[0][1] in _OF_PROCESS
        return _is_changing(self.callee(node))

    def is_tensor(self, name: str) -> bool:
        """Whether a local or global name stood for a tensor."""
        kinds = [held.value for held in self.resolver.look_up(self.code, name)]
        return any(isinstance(v, (Shape, Tensor)) for v in kinds)


def _is_changing(function: Any) -> bool:
    if isinstance(function, type):
        return function.__module__ in ("datetime", "uuid")
    owner = getattr(function, "__self__", None)
    home = getattr(function, "__module__", None) or type(owner).__module__
    if isinstance(owner, (types.ModuleType, type)):
        home = getattr(owner, "__module__", None) or owner.__name__
    return home in _CHANGING


def is_constant_name(how: str, text: str) -> bool:
    """Whether a global is written as constants are."""
    return how == GLOBAL and text.rpartition(".")[2].isupper()


def _hashable_in(value: Any, known: frozenset[Any]) -> bool:
    try:
        return value in known
    except TypeError:
        return False


def tracer_of(resolver: Resolver, code: types.CodeType) -> Tracer | None:
    """Return a Tracer of a function, None without its source."""
    return None if source_of(code) is None else Tracer(resolver, code)


def value_at(site: Site, name: str) -> Any:
    """Return a local value at a site; None if it could not be frozen."""
    value = site.local(name)
    return value if value is not None and is_value(value) else None
