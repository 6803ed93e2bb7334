"""The text form of graphs, printing side. The grammar is in `docs/ir.md`; see also `parsing.py`.

Typed, one op a line, deterministic. What `print_graph` writes, `parse_graph` reads back exactly.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from tracegraph.dims.expressions import Symbol
from tracegraph.dims.relations import Relation
from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import DType, as_pairs
from tracegraph.errors import GraphError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.control import CONTROL, inner_graphs
from tracegraph.ir.dims import Symbols, dims_of
from tracegraph.ir.graph import CONSTANT, INPUT, STATE, Graph, Loc, Node, Value
from tracegraph.ir.parsing import parse_graph
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

__all__ = ["excerpt", "parse_graph", "print_graph"]

_INDENT: Final = "  "
_COMMENT_COLUMN: Final = 44
_MAX_LINE: Final = 100
# Constants of up to so many elements are written as numbers, larger ones as base64.
_MAX_ELEMENTS: Final = 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]+")
_BARE_PLACE = re.compile(r"[^\s\"#@]+")


@collector_paused()
def print_graph(graph: Graph, full: bool = True) -> str:
    """Return the text form of a graph.

    Args:
        graph: what to print.
        full: whether large constants are written out; otherwise they are summarised and files
            appear without their folders, to be read by people only.
    """
    return "\n".join(_Printer(graph, graph.order(), full, dims_of(graph)).lines()) + "\n"


def same_text(a: Graph, b: Graph) -> bool:
    """Whether two graphs of one trace are written alike; its dims have other hints in each run."""
    texts = []
    for graph in (a, b):
        known = {n: s for inner in inner_graphs(graph) for n, s in dims_of(inner).items()}
        texts.append(_Printer(graph, graph.order(), True, {}, known).lines())
    return texts[0] == texts[1]


def excerpt(graph: Graph, node: Node, context: int = 3) -> str:
    """Return the lines around a node, that of the node marked; works on broken graphs too."""
    try:
        order = graph.order()
    except GraphError:
        order = list(graph.nodes)
    if node not in order:
        order.append(node)
    place = order.index(node)
    first = max(0, place - context)
    printer = _Printer(graph, order, False)
    lines = []
    for number, near in enumerate(order[first : place + context + 1], first):
        shown = printer.node_lines(near)
        lines += [("> " if number == place else "  ") + line for line in shown]
    return "\n".join(lines)


def value_names(graph: Graph) -> dict[str, Value]:
    """Return the Values of a graph by the names that they have in print: `%x`, `%12`."""
    return {name: value for value, name in _Printer(graph, graph.order(), False).names.items()}


def source_text(node: Node) -> str:
    """How readers name State, a hyper-parameter or a constant; "" for other nodes."""
    if node.op == STATE or (node.op == INPUT and "default" in node.attrs):
        return str(node.attrs["name"])
    if node.op == CONSTANT:
        array: Any = np.asarray(node.attrs["value"])
        return str(array[()]) if array.size == 1 else f"constant {node.types[0]}"
    return ""


def quoted(text: str, bare: re.Pattern[str] = _NAME) -> str:
    """Return a name as it is written: plain where `bare` matches all of it, else in quotes."""
    return text if bare.fullmatch(text) else json.dumps(text)


def literal(value: Any) -> str:
    """Return the text of an attribute value.

    Raises:
        GraphError: attributes cannot hold such a value.
    """
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, (int, np.integer)):
        return int.__repr__(int(value))
    if isinstance(value, (float, np.floating)):
        return float.__repr__(float(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.code
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, (SymInt, Relation)):
        return f"`{value!r}`" if isinstance(value, SymInt) else f"`{value}`"
    raise GraphError(f"an attribute cannot hold a {type(value).__name__}: {value!r}")


def _number(value: Any) -> str:
    """The shortest text that reads back as exactly this element."""
    exact = value.item()
    if isinstance(exact, (bool, int)):
        return literal(exact)
    short = literal(float(str(value)))
    same = np.asarray(float(short)).astype(value.dtype)
    return short if same.tobytes() == value.tobytes() else literal(float(exact))


def _nested(array: Any) -> str:
    if array.ndim == 0:
        return _number(array[()])
    return "[" + ", ".join(map(_nested, array)) + "]"


def _has_odd_nan(array: Any) -> bool:
    """Whether a NaN has a sign or payload, which numbers in text do not keep."""
    if array.dtype.kind not in "fV":
        return False
    nans = array[np.isnan(array)]
    return bool(nans.size) and nans.tobytes() != np.full_like(nans, np.nan).tobytes()


def _array(array: Any, full: bool) -> str:
    """The value of a constant; complex numbers are pairs."""
    array = np.asarray(array)
    if array.size == 0:
        return "[]"
    pairs = as_pairs(array)
    if array.size <= _MAX_ELEMENTS and not _has_odd_nan(pairs):
        return _nested(pairs)
    if not full:
        return f"<{array.size} elements>"
    little = array.astype(array.dtype.newbyteorder("<"), order="C")
    return 'base64"' + base64.b64encode(little.tobytes()).decode("ascii") + '"'


def _dim(symbol: Symbol) -> str:
    """A dim in the header, with what it is not by itself: `batch(min=1, hint=3)`."""
    said = {"min": (symbol.min, 0), "max": (symbol.max, None), "hint": (symbol.hint, 0),
            "data": (symbol.data, False)}  # fmt: skip
    shown = ", ".join(f"{n}={literal(v)}" for n, (v, usual) in said.items() if v != usual)
    return f"{symbol.name}({shown})" if shown else symbol.name


def _types(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))


class _Printer:
    """One graph being printed: the names of its Values, and its lines."""

    def __init__(
        self, graph: Graph, order: Sequence[Node], full: bool, dims: Symbols = MappingProxyType({}),
        outer: Symbols = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.graph = graph
        self.dims = dims  # those that stand in the header
        self.known_dims = {**outer, **dims}
        self.order = order
        self.full = full
        self.names: dict[Value, str] = {}
        self.places: dict[Loc | None, str] = {}
        taken: set[str] = set()
        self.parameters = [*graph.inputs, *graph.states.values()]
        for node in self.parameters:
            self.names[node.out] = "%" + _unique(str(node.attrs.get("name", "")), taken)
        count = 0
        for node in order:
            for value in node.outs:
                if value not in self.names:
                    self.names[value] = f"%{count}"
                    count += 1

    def lines(self) -> list[str]:
        """The graph's lines."""
        lines = self._header()
        hidden = set(self.parameters)
        for node in self.order:
            if node not in hidden:
                lines += [_INDENT + line for line in self.node_lines(node)]
        for name, value in self.graph.writes.items():
            lines.append(f"{_INDENT}write {json.dumps(name)} = {self._name(value)}")
        returned = ", ".join(map(self._name, self.graph.outputs))
        lines += [f"{_INDENT}return {returned}".rstrip(), "}"]
        return lines

    def _header(self) -> list[str]:
        dims = ", ".join(map(_dim, self.dims.values()))
        start = f"graph @{quoted(self.graph.name)}{f'[{dims}]' if dims else ''}("
        end = f") -> ({_types(v.type for v in self.graph.outputs)}) {{"
        shown = [(self._parameter(n), self._comment(n)) for n in self.parameters]
        line = start + ", ".join(text for text, _ in shown) + end
        if len(line) <= _MAX_LINE and not any(comment for _, comment in shown):
            return [line]
        lines = [start]
        for number, (text, comment) in enumerate(shown, 1):
            comma = "," if number < len(shown) else ""
            lines.append(_with_comment(f"{_INDENT}{text}{comma}", comment))
        return [*lines, end]

    def _parameter(self, node: Node) -> str:
        """An input as `%x: f32[2]`, with what it is where the name does not say it."""
        text = f"{self._name(node.out)}: {node.out.type}"
        attrs = dict(node.attrs)
        name = str(attrs.pop("name", ""))
        extras = f"({self._attributes(node, attrs)})" if attrs else ""
        if node.op == STATE:
            return f"{text} = state {json.dumps(name)}{extras}"
        if self._name(node.out) != f"%{name}":
            return f"{text} = input {json.dumps(name)}{extras}"
        if list(attrs) == ["default"]:
            return f"{text} = default {literal(attrs['default'])}"
        return f"{text} = input {json.dumps(name)}{extras}" if attrs else text

    def node_lines(self, node: Node) -> list[str]:
        """The lines of one node; several if it has regions."""
        if node.op in (INPUT, STATE) and node in self.parameters:
            return [_with_comment(self._parameter(node), self._comment(node))]
        left = ", ".join(map(self._name, node.outs))
        operands = ", ".join(map(self._name, node.inputs))
        attributes = self._attributes(node, node.attrs)
        between = "; " if operands and attributes else ""
        line = f"{node.op}({operands}{between}{attributes})"
        if node.outs:
            line = f"{left}: {_types(node.types)} = {line}"
        if not node.regions:
            return [_with_comment(line, self._comment(node))]
        lines = [_with_comment(f"{line} {{", self._comment(node))]
        for name, region in node.regions.items():
            new = {n: s for n, s in dims_of(region).items() if n not in self.known_dims}
            inner = _Printer(region, region.order(), self.full, new, self.known_dims).lines()
            inner[0] = f"{name} = {inner[0]}"
            lines += [_INDENT + text for text in inner]
        return [*lines, "}"]

    def _attributes(self, node: Node, attrs: Mapping[str, Any]) -> str:
        row: Any = OPS.get(node.op) or CONTROL.get(node.op)
        names = [] if row is None else [n for n in row.attrs if n in attrs]
        names += sorted(n for n in attrs if n not in names)
        return ", ".join(f"{n}={self._attribute(node, n, attrs[n])}" for n in names)

    def _attribute(self, node: Node, name: str, value: Any) -> str:
        if node.op == CONSTANT and name == "value":
            return _array(value, self.full)
        return literal(value)

    def _comment(self, node: Node) -> str:
        """Where the node comes from: `model.py:12 in forward @encoder.fc1`."""
        place = self.places.get(node.loc)
        if place is None:
            place = self.places[node.loc] = self._place(node.loc)
        if node.scope:
            scope = "@" + quoted(node.scope, _BARE_PLACE)
            return f"{place} {scope}" if place else scope
        return place

    def _place(self, loc: Loc | None) -> str:
        if loc is None:
            return ""
        file = loc.file if self.full else os.path.basename(loc.file)
        inside = f" in {quoted(loc.function, _BARE_PLACE)}" if loc.function else ""
        return f"{quoted(file, _BARE_PLACE)}:{loc.line}{inside}"

    def _name(self, value: Value) -> str:
        return self.names.get(value, "%?")


def _unique(name: str, taken: set[str]) -> str:
    """A name for a Value near `name` that is not taken yet."""
    base = _NOT_IN_NAMES.sub("_", name) or "_"
    if not _NAME.fullmatch(base):
        base = f"_{base}"
    found, count = base, 1
    while found in taken:
        count += 1
        found = f"{base}_{count}"
    taken.add(found)
    return found


def _with_comment(line: str, comment: str) -> str:
    return f"{line.ljust(_COMMENT_COLUMN)}  # {comment}" if comment else line
