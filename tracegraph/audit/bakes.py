"""Which Python values a graph froze: found in the source of what was traced, when asked for.

Three sources are put together: what the functions read from closures, globals and attributes; the
local names and calls in the expressions that ops came from; and the constants of the graph.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from tracegraph.audit.frozen import Findings
from tracegraph.audit.origins import (
    CALL,
    DEFAULT,
    ITEM,
    ITERATION,
    Origin,
    Tracer,
    is_constant_name,
    tracer_of,
    value_at,
)
from tracegraph.audit.report import Bake
from tracegraph.audit.resolving import ATTRIBUTE, CLOSURE, GLOBAL, LOCAL, SHAPE, Resolver
from tracegraph.audit.syntax import Read, is_comprehension, node_at, steps_of
from tracegraph.capture.provenance import Site, is_value, shown
from tracegraph.ir.control import inner_graphs
from tracegraph.ir.graph import CONSTANT, Graph

_MAX_VALUES: Final = 4
_MAX_PLACES: Final = 8
# Origins that make a value computed from them suspicious.
_MOVING: Final = frozenset((CLOSURE, GLOBAL, ATTRIBUTE, CALL, ITEM))


class _Several:
    """Values of one expression."""

    def __init__(self, first: Bake) -> None:
        self.first = first
        self.suspicious = False
        self.lists: tuple[dict[str, None], ...] = ({}, {}, {})

    def add(self, bake: Bake) -> None:
        """Take in one more."""
        self.suspicious |= bake.suspicious
        for mine, theirs in zip(self.lists, (bake.values, bake.places, bake.owners), strict=True):
            mine.update(dict.fromkeys(theirs))

    def bake(self) -> Bake:
        """Return all of them as one."""
        values, places, owners = map(tuple, self.lists)
        return self.first._replace(
            values=values[:_MAX_VALUES] + (("...",) if len(values) > _MAX_VALUES else ()),
            places=places[:_MAX_PLACES], owners=owners[:_MAX_PLACES], owner_count=len(owners),
            place_count=len(places), suspicious=self.suspicious,
        )  # fmt: skip


class BakeList:
    """Every frozen value of a trace; `literals` counts those that the source spells out."""

    def __init__(self, findings: Findings, graph: Graph) -> None:
        self.literals = 0
        self.unread: dict[str, None] = {}
        self._found: dict[tuple[str, str, str], _Several] = {}
        self._resolver = Resolver(findings)
        self._findings = findings
        self._constants = _constants(graph, findings)
        for code in self._resolver.reached():
            self._function(code)
        for baked in findings.baked:
            place = () if baked.loc is None else (str(baked.loc),)
            self._add(Bake(baked.text or baked.how, ITEM, (baked.value,), place, True))
        self._settings()

    @property
    def bakes(self) -> list[Bake]:
        """In order of their place in the source."""
        found = [several.bake() for several in self._found.values()]
        return sorted(found, key=lambda b: (not b.suspicious, *_order(b.places)))

    def with_effects(self, effects: Mapping[str, str]) -> list[Bake]:
        """Return the bakes with what the self-check saw when it changed values."""
        return [b._replace(effect=effects.get(b.expression, "")) for b in self.bakes]

    def _add(self, bake: Bake) -> None:
        """Add a value; the same expression at several places, or of several modules, is one."""
        key = (bake.how, bake.expression, bake.origin)
        self._found.setdefault(key, _Several(bake)).add(bake)

    def _function(self, code: types.CodeType) -> None:
        """List what one function reads."""
        tracer = tracer_of(self._resolver, code)
        if tracer is None:
            self.unread[f"{code.co_filename}:{code.co_firstlineno}"] = None
            return
        if code in self._findings.foreign:
            return
        if not is_comprehension(code):  # its function lists what it reads
            for read in tracer.source.reads:
                if read.role != "call":
                    self._read(tracer, read)
            self._calls_and_loops(tracer)
            self._defaults(tracer)
        for site in self._resolver.sites_of(code):
            self._site(tracer, site)

    def _read(self, tracer: Tracer, read: Read) -> None:
        """List a name or attribute, if it stood for a value that could be frozen."""
        place = f"{tracer.code.co_filename}:{read.line}"
        for held in self._resolver.look_up(tracer.code, read.root, read.steps):
            if held.how == SHAPE:
                if isinstance(held.value, int):
                    self._add(Bake(read.text, SHAPE, (str(held.value),), (place,)))
            elif held.how != LOCAL and is_value(held.value):
                by_name = is_constant_name(held.how, read.text)
                how = "literal" if by_name else held.how
                owners = (held.owner,) if held.owner else ()
                values = (shown(held.value),)
                self._add(Bake(read.text, how, values, (place,), not by_name, owners=owners))

    def _calls_and_loops(self, tracer: Tracer) -> None:
        """List calls that may give something else each time, and loops over Python values."""
        for node in tracer.source.spans.values():
            if isinstance(node, ast.Call) and tracer.is_changing(node):
                text = ast.unparse(node)
                self._add(Bake(text, CALL, (), (self._place(tracer, node),), True))
            elif isinstance(node, ast.For):
                origins = tracer.origins(node.iter)
                tensor = isinstance(node.iter, ast.Name) and tracer.is_tensor(node.iter.id)
                if origins or tensor:
                    place = (self._place(tracer, node),)
                    text = f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}"
                    moving = any(o.how in _MOVING for o in origins)
                    self._add(Bake(text, ITERATION, (), place, moving, _told(origins)))

    def _defaults(self, tracer: Tracer) -> None:
        """List arguments that have defaults, with the value that they had."""
        place = f"{tracer.code.co_filename}:{tracer.code.co_firstlineno}"
        names = [n for n, default in tracer.source.parameters.items() if default is not None]
        for site in self._resolver.sites_of(tracer.code)[:1]:
            for name in names:
                value = value_at(site, name)
                if value is not None:
                    self._add(Bake(name, DEFAULT, (shown(value),), (place,)))

    @staticmethod
    def _place(tracer: Tracer, node: Any) -> str:
        return f"{tracer.code.co_filename}:{node.lineno + tracer.source.shift}"

    def _site(self, tracer: Tracer, site: Site) -> None:
        """List local values and calls in an expression that ops came from."""
        node = node_at(site.code, site.instruction)
        if node is None:
            return
        scalars, arrays = self._constants.get(id(site.loc), ((), ()))
        place = (str(site.loc),)
        for array in arrays:
            self._array(tracer, node, array, place)
        leaves = list(_leaves(node))
        locals_ = {}
        for leaf in leaves:
            if isinstance(leaf, ast.Name) and tracer.source.is_local(leaf.id):
                value = value_at(site, leaf.id)
                if value is not None:
                    locals_[leaf.id] = leaf, value
        literals = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        self.literals += len(literals)
        spelled = {t for v in (*literals, *(v for _, v in locals_.values())) for t in _numbers(v)}
        rest = [s for s in scalars if s not in spelled]
        for leaf, value in locals_.values():
            self._local(tracer, leaf, value, rest if len(locals_) == 1 else [], place)
        calls = [n for n in leaves if isinstance(n, ast.Call) and n is not node]
        for leaf in (n for n in calls if tracer.kind_of(n) == CALL):
            if rest or tracer.is_changing(leaf):
                origin = _told(tracer.origins(leaf)[1:])
                self._add(Bake(ast.unparse(leaf), CALL, tuple(rest), place, True, origin))

    def _local(
        self, tracer: Tracer, leaf: ast.Name, value: Any, rest: list[str], place: tuple[str, ...]
    ) -> None:
        """List a local name whose value an expression used."""
        origins = tracer.origins(leaf)
        hows = {o.how for o in origins}
        how = "literal" if not hows else LOCAL
        for kind in (ITERATION, SHAPE, DEFAULT, "argument"):
            if kind in hows and not hows & _MOVING:
                how = kind
                break
        values = (shown(value), *(rest if ITERATION in hows else ()))
        origin = "" if how in (DEFAULT, "argument") else _told(origins)
        self._add(Bake(leaf.id, how, values, place, bool(hows & _MOVING), origin))

    def _array(self, tracer: Tracer, node: ast.AST, array: str, place: tuple[str, ...]) -> None:
        """List a tensor made from Python data."""
        origins = []
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                for part in (*inner.args, *(k.value for k in inner.keywords)):
                    origins += tracer.origins(part)
                break
        origins = [o for o in origins if o.how != SHAPE]
        text = ast.unparse(node)
        self._add(Bake(text if len(text) <= 60 else text[:57] + "...", "array", (array,), place,
                       bool(origins), _told(origins)))  # fmt: skip

    def _settings(self) -> None:
        """List what modules of tracegraph.nn were set to."""
        for code in self._findings.functions:
            tracer = tracer_of(self._resolver, code)
            if tracer is None or code not in self._findings.foreign:
                continue
            for read in tracer.source.reads:
                mine = read.root == code.co_varnames[0] if code.co_argcount else False
                if not mine or len(read.steps) != 1 or read.steps[0][1] == "training":
                    continue
                for held in self._resolver.look_up(code, read.root, read.steps):
                    if held.place is not None and is_value(held.value) and held.value is not None:
                        kind = code.co_qualname.partition(".")[0]
                        owner = (held.owner,) if held.owner else ()
                        self._add(Bake(f"{kind}.{read.steps[0][1]}", "setting",
                                       (shown(held.value),), owners=owner))  # fmt: skip


def _told(origins: Iterable[Origin]) -> str:
    return ", ".join(dict.fromkeys(o.text for o in origins))


def _order(places: tuple[str, ...]) -> tuple[str, int]:
    file, _, line = (places or (":0",))[0].rpartition(":")
    return file, int(line) if line.isdigit() else 0


def _leaves(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the names and calls in an expression; not the chains that lead to what is called."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Call):
            yield node
            if steps_of(node.func) is None:
                stack.append(node.func)
            stack += [*node.args, *node.keywords]
        elif isinstance(node, ast.Name):
            yield node
        elif not (isinstance(node, ast.Attribute) and steps_of(node) is not None):
            stack += ast.iter_child_nodes(node)


def _constants(graph: Graph, findings: Findings) -> dict[int, tuple[list[str], list[str]]]:
    """Return (numbers, arrays) in the graph by the site that they entered at."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    for inner in inner_graphs(graph):
        for node in inner.nodes:
            if id(node.loc) not in findings.sites:
                continue
            numbers, arrays = found.setdefault(id(node.loc), ([], []))
            if node.op == CONSTANT and node.types[0].shape:
                _note(arrays, f"{node.types[0]}")
            operands = (v.node for v in node.inputs if v.node.op == CONSTANT)
            for constant in operands if node.op != CONSTANT else (node,):
                if not constant.types[0].shape and len(numbers) <= _MAX_VALUES:
                    _note(numbers, _numbers(np.asarray(constant.attrs["value"]).item())[0])
    return found


def _numbers(value: Any) -> tuple[str, ...]:
    """A number as constants of the graph may show it: as it is, and rounded to float32."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return (repr(value),)
    with np.errstate(over="ignore"):
        return repr(float(value)), repr(float(np.float32(value)))


def _note(values: list[str], text: str) -> None:
    if text not in values:
        values.append(text)
