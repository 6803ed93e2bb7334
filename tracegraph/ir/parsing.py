"""The text form of graphs, parsing side. The grammar is in `docs/ir.md`."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

import numpy as np

from tracegraph.dims.expressions import Symbol
from tracegraph.dims.facts import by_form
from tracegraph.dims.reading import parse
from tracegraph.dims.relations import parse_relation
from tracegraph.dims.symint import size_of
from tracegraph.dtypes import BOOL_KIND, BY_CODE, FLOAT_KIND, INT_KIND, from_pairs
from tracegraph.errors import GraphError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.control import CONTROL
from tracegraph.ir.dims import make_symbol
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, SOURCES, STATE, Graph, Loc, Value
from tracegraph.ir.lexing import Cursor, Token
from tracegraph.ir.serial import type_from_text
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PLACE: Final = re.compile(
    rf"""\#[ ]*
    (?: (?P<file>{_QUOTED}|[^\s"\#@]+):(?P<line>[0-9]+)
        (?: [ ]in[ ](?P<function>{_QUOTED}|[^\s"\#@]+) )? )?
    [ ]* (?: @(?P<scope>{_QUOTED}|[^\s"\#@]+) )? [ ]* """,
    re.VERBOSE,
)
# What the elements of a constant may be, by the kind of its dtype.
_ELEMENTS: Final = {BOOL_KIND: (bool,), INT_KIND: (int,), FLOAT_KIND: (float, int)}
_WORDS: Final = {"true": True, "false": False, "none": None}


@collector_paused()
def parse_graph(text: str) -> Graph:
    """Return the graph that `print_graph` wrote as `text`.

    Types are taken as written: `verify` checks that they follow.

    Raises:
        ParseError: naming line, column and what was expected there.
    """
    parser = _Parser(text)
    with by_form():
        graph = parser.graph()
    parser.skip_comment()
    parser.expect("end", "the end of the text")
    return graph


class _Parser(Cursor):
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.types: dict[str, TensorType] = {}
        self.dims: dict[str, Symbol] = {}
        self.places: dict[str, tuple[Loc | None, str]] = {}

    def tensor_type(self) -> TensorType:
        """A type such as f32[2,3]."""
        token = self.expect("type", "a type such as f32[2,3]")
        known = self.types.get(token.text)
        if known is None:
            try:
                known = self.types[token.text] = type_from_text(token.text, self.dims)
            except GraphError as error:
                self.fail(str(error), token)
        return known

    def literal(self) -> Any:
        """An attribute value."""
        token = self.tokens[self.place]
        self.place += 1
        if token.kind == "number":
            if token.text.lstrip("-").isdigit():
                return int(token.text)
            return float(token.text)
        if token.kind == "string":
            self.place -= 1
            return self.string("a string")
        if token.kind == "dim":
            return self.expression(token)
        if token.kind == "name" and token.text in _WORDS:
            return _WORDS[token.text]
        if token.kind == "name" and token.text in BY_CODE:
            return BY_CODE[token.text]
        if token.text == "(" and token.kind == "mark":
            return tuple(self.nested(lambda: self.several(self.literal, ")")))
        if token.kind == "mark" and token.text == "<":
            self.fail("a summarised constant: print the graph with full=True", token)
        self.place -= 1
        self.refuse("an attribute value")

    def expression(self, token: Token) -> Any:
        """A size or a relation between sizes, in backquotes."""
        text = token.text.strip("`")
        try:
            if any(sign in text for sign in "<>=!"):
                return parse_relation(text, self.dims)
            return size_of(parse(text, self.dims))
        except GraphError as error:
            self.fail(str(error), token)

    def array(self, known: TensorType) -> Any:
        """The value of a constant of a known type."""
        token = self.tokens[self.place]
        if token.kind == "bytes":
            self.place += 1
            return self.decoded(token, known)
        if known.dtype.is_complex:
            pairs = self.array(TensorType(known.dtype.to_real(), (*known.shape, 2)))
            return from_pairs(pairs, known.dtype)
        value = self.numbers(_ELEMENTS[known.dtype.kind])
        try:
            with np.errstate(over="ignore"):
                array = np.array(value, dtype=known.dtype.np)
        except (ValueError, OverflowError) as error:
            self.fail(f"no {known}: {error}", token)
        if array.shape != known.shape and not array.size == known.size == 0:
            self.fail(f"expected a value of type {known}, found shape {array.shape}", token)
        return array.reshape(known.shape)

    def numbers(self, kinds: tuple[type, ...]) -> Any:
        """A number of one of some kinds, or nested lists of them."""
        if self.take("["):
            return self.nested(lambda: self.several(lambda: self.numbers(kinds), "]"))
        token = self.tokens[self.place]
        value = self.literal()
        if type(value) not in kinds:
            self.fail(f"expected a number of type {kinds[0].__name__}, found {token.text!r}", token)
        return value

    def decoded(self, token: Token, known: TensorType) -> Any:
        """The bytes of a large constant as an array."""
        try:
            data = base64.b64decode(token.text[7:-1], validate=True)
        except binascii.Error as error:
            self.fail(f"bad base64: {error}", token)
        if len(data) != known.size_bytes:
            self.fail(f"{known} has {known.size_bytes} bytes, found {len(data)}", token)
        little = np.frombuffer(data, known.dtype.np.newbyteorder("<"))
        return little.astype(known.dtype.np).reshape(known.shape)

    def comment(self) -> tuple[Loc | None, str]:
        """Source place and scope, if a comment is next."""
        token = self.tokens[self.place]
        if token.kind != "comment":
            return None, ""
        self.place += 1
        known = self.places.get(token.text)
        if known is None:
            match = _PLACE.fullmatch(token.text)
            if match is None:
                self.fail("expected a comment `# FILE:LINE in FUNCTION @SCOPE`; other comments "
                          "stand on lines of their own", token)  # fmt: skip
            file, line, function, scope = map(_unquoted, match.groups())
            loc = Loc(file, int(line), function) if line else None
            known = self.places[token.text] = (loc, scope)
        return known

    def skip_comment(self) -> None:
        """Pass a comment that says nothing about an op."""
        self.place += self.tokens[self.place].kind == "comment"

    # Graphs.

    def graph(self) -> Graph:
        """A whole graph."""
        self.word("graph")
        self.mark("@")
        graph = Graph(self.name("the name of the graph"))
        outer = self.dims, self.types
        if self.take("["):
            self.dims, self.types = dict(self.dims), {}
            self.several(self.dim, "]")
        try:
            self.body(graph)
        finally:
            self.dims, self.types = outer
        return graph

    def dim(self) -> None:
        """One dim of the header: `batch(min=1, hint=3)`."""
        token = self.expect("name", "the name of a dim")
        attrs: dict[str, Any] = {}
        if self.take("("):
            self.attributes(attrs)
        try:
            made = make_symbol(token.text, **attrs)
        except (GraphError, TypeError) as error:
            self.fail(f"no dim: {error}", token)
        if made.name in self.dims:
            self.fail(f"the dim {made.name!r} is defined twice", token)
        self.dims[made.name] = made

    def body(self, graph: Graph) -> None:
        """What follows the name of a graph."""
        names: dict[str, Value] = {}
        self.mark("(")
        while not self.at(")"):
            self.parameter(graph, names)
        for mark in (")", "->", "("):
            self.mark(mark)
        types_at = self.tokens[self.place]
        types = self.several(self.tensor_type, ")")
        self.mark("{")
        while not (self.at("write") or self.at("return")):
            self.line(graph, names)
        while self.take("write"):
            token = self.tokens[self.place]
            name = self.string("the name of a State or input")
            self.mark("=")
            if name in graph.writes:
                self.fail(f"{name!r} is written twice", token)
            graph.writes[name] = self.value(names)
        self.word("return")
        graph.outputs = self.several(lambda: self.value(names), "}")
        found = [v.type for v in graph.outputs]
        if found != types:
            shown = ", ".join(map(str, found))
            self.fail(f"the header must give the types of what is returned: ({shown})", types_at)

    def parameter(self, graph: Graph, names: dict[str, Value]) -> None:
        """One input or State of the header."""
        token = self.expect("value", "an input such as %x")
        self.mark(":")
        known = self.tensor_type()
        attrs: dict[str, Any] = {"name": token.text[1:]}
        op = INPUT
        if self.take("="):
            if self.take("default"):
                attrs["default"] = self.literal()
            else:
                op = STATE if self.at("state") else INPUT
                self.word(op)
                attrs["name"] = self.string(f"the name of the {op}")
                if self.take("("):
                    self.attributes(attrs)
        last = not self.take(",")
        loc, scope = self.comment()
        if last and not self.at(")"):
            self.mark(",", ")")
        node = graph.add(op, attrs=attrs, types=(known,), loc=loc, scope=scope)
        if op == INPUT:
            graph.inputs.append(node)
        elif attrs["name"] in graph.states:
            self.fail(f"two states are named {attrs['name']!r}", token)
        else:
            graph.states[attrs["name"]] = node
        self.define(names, token, node.out)

    def define(self, names: dict[str, Value], token: Token, value: Value) -> None:
        """Give a Value its name."""
        if token.text in names:
            self.fail(f"{token.text} is defined twice", token)
        names[token.text] = value

    def value(self, names: dict[str, Value]) -> Value:
        """The Value of a name used."""
        token = self.expect("value", "a value such as %0")
        value = names.get(token.text)
        if value is None:
            self.fail(f"{token.text} is not defined before it is used", token)
        return value

    def attributes(self, attrs: dict[str, Any], array: TensorType | None = None) -> None:
        """Add `name=value, ...` up to a closing parenthesis; `array` is the type of `value`."""
        while not self.take(")"):
            token = self.expect("name", "an attribute `name=value`")
            self.mark("=")
            if token.text in attrs:
                self.fail(f"attribute {token.text!r} is given twice", token)
            if array is not None and token.text == "value":
                attrs[token.text] = self.array(array)
            else:
                attrs[token.text] = self.literal()
            if not self.at(")"):
                self.mark(",")

    def line(self, graph: Graph, names: dict[str, Value]) -> None:
        """One op: results, types, operands, attributes, regions, place."""
        results, types = ([], []) if self.at_guard() else self.results()
        token = self.expect("name", "an op")
        if not (token.text in OPS or token.text in CONTROL or token.text in (CONSTANT, KERNEL)):
            hint = "is written in the header" if token.text in SOURCES else "is no op"
            self.fail(f"{token.text!r} {hint}", token)
        self.mark("(")
        inputs = self.operands(names)
        attrs: dict[str, Any] = {}
        self.attributes(attrs, types[0] if token.text == CONSTANT else None)
        regions: dict[str, Graph] = {}
        opened = self.take("{")
        loc, scope = self.comment()
        while opened and not self.take("}"):
            name = self.expect("name", "the name of a region").text
            self.mark("=")
            regions[name] = self.nested(self.graph)
        node = graph.add(
            token.text, inputs, attrs, types, loc=loc, scope=scope, regions=regions
        )  # fmt: skip
        for result, value in zip(results, node.outs, strict=True):
            self.define(names, result, value)

    def at_guard(self) -> bool:
        """Whether an op without results is next."""
        token = self.tokens[self.place]
        return token.kind == "name" and token.text in CONTROL

    def results(self) -> tuple[list[Token], list[TensorType]]:
        """The results of an op with their types: `%0, %1: f32[2], i64[] =`."""
        results = [self.expect("value", "a result such as %0, `write` or `return`")]
        while self.take(","):
            results.append(self.expect("value", "a result such as %0"))
        self.mark(":")
        types = [self.tensor_type()]
        while self.take(","):
            types.append(self.tensor_type())
        if len(types) != len(results):
            self.fail(f"{len(results)} results need as many types, found {len(types)}")
        self.mark("=")
        return results, types

    def operands(self, names: dict[str, Value]) -> list[Value]:
        """Operands up to the attributes or the closing parenthesis."""
        inputs: list[Value] = []
        while self.tokens[self.place].kind == "value":
            inputs.append(self.value(names))
            if not self.take(","):
                break
        if inputs and not self.at(")"):
            self.mark(";")
        return inputs


def _unquoted(text: str | None) -> str:
    if text is None:
        return ""
    return str(json.loads(text)) if text.startswith('"') else text
