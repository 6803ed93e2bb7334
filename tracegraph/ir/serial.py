"""Graphs to JSON data and back: what `graphs/NAME.json` holds.

A graph is `{"name", "files", "nodes", "inputs", "outputs", "writes"}`; a node is
`{"op", "in": [[node, result], ...], "attrs", "types", "loc", "scope", "regions"}` with nodes
numbered by their place. Constants refer to arrays by number: `{"array": 3}`; 0-d ones are inline.
A composite has the number of its "decomposition" as well (see `vocabulary`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from tracegraph.dims.facts import Facts, assuming
from tracegraph.dims.reading import parse
from tracegraph.dims.relations import Relation, parse_relation
from tracegraph.dims.symint import SymInt, size_of
from tracegraph.dtypes import BY_CODE, DType
from tracegraph.errors import GraphError, UnknownOpError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.control import CONTROL, FACT, infer
from tracegraph.ir.dims import Symbols, check_dims, dims_from_data, dims_of, dims_to_data
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, SOURCES, STATE, Graph, Loc, Node, Value
from tracegraph.ir.vocabulary import Vocabulary
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

_TYPE = re.compile(r"([a-z0-9]+)\[([^\[\]]*)\]")
_MAX_DIM = 1 << 48


def type_from_text(text: str, dims: Symbols = MappingProxyType({})) -> TensorType:
    """Return the TensorType written `f32[2,3]`, or over symbolic dims `f32[batch,time*2+1]`.

    Raises:
        GraphError: not a type over these dims, or a size out of bounds.
    """
    match = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] not in BY_CODE:
        raise GraphError(f"{text!r} is no tensor type (as f32[2,3])")
    parts = _between_commas(match[2])
    if len(parts) > 64:
        raise GraphError(f"type {text} is too large")
    shape = tuple(_size_from_text(part, dims) for part in parts)
    fixed = [n for n in shape if n.__class__ is int]
    if any(n < 0 for n in fixed):
        raise GraphError(f"{text!r} is no tensor type: a dim is negative")
    if any(n > _MAX_DIM for n in fixed) or math.prod(fixed) > _MAX_DIM:
        raise GraphError(f"type {text} is too large")
    return TensorType(BY_CODE[match[1]], shape)


def _size_from_text(text: str, dims: Symbols) -> Any:
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return size_of(parse(text, dims))


def _between_commas(text: str) -> list[str]:
    """Split at commas, but not at those between the operands of min or max."""
    parts: list[str] = []
    depth = 0
    for piece in text.split(",") if text else ():
        if depth:
            parts[-1] += "," + piece
        else:
            parts.append(piece)
        depth += piece.count("(") - piece.count(")")
    return parts


def encode_value(value: Any) -> Any:
    """Return an attribute value as JSON data: tuples are lists, dtypes and odd floats objects."""
    if isinstance(value, DType):
        return {"dtype": value.code}
    if isinstance(value, (tuple, list)):
        return [encode_value(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, np.generic):
        return encode_value(value.item())
    if isinstance(value, (SymInt, Relation)):
        return {"dim" if isinstance(value, SymInt) else "relation": shown(value)}
    raise GraphError(f"an attribute cannot hold a {type(value).__name__}: {value!r}")


def decode_value(data: Any, dims: Symbols = MappingProxyType({})) -> Any:
    """Undo `encode_value`."""
    if isinstance(data, list):
        return tuple(decode_value(v, dims) for v in data)
    if isinstance(data, dict):
        if "dim" in data:
            return size_of(parse(text(data["dim"]), dims))
        if "relation" in data:
            return parse_relation(text(data["relation"]), dims)
        if "dtype" in data and data["dtype"] in BY_CODE:
            return BY_CODE[data["dtype"]]
        if data.get("float") in ("inf", "-inf", "nan"):
            return float(data["float"])
        raise GraphError(f"unknown attribute value {data!r}")
    return data


def shown(value: SymInt | Relation) -> str:
    """Return the text of an expression or relation."""
    return repr(value) if isinstance(value, SymInt) else str(value)


def graph_to_data(
    graph: Graph, store: Callable[[Any], int], note: Callable[[Node], int | None]
) -> dict[str, Any]:
    """Return a graph as JSON data.

    `store(array)` keeps a constant's array and numbers it; `note(node)` keeps the op of a node and
    numbers its decomposition, if it has one.
    """
    files: dict[str, int] = {}
    places: dict[Value, list[int]] = {}
    nodes: list[dict[str, Any]] = []
    for number, node in enumerate(graph.order()):
        for value in node.outs:
            places[value] = [number, value.index]
        data: dict[str, Any] = {"op": node.op}
        if node.inputs:
            data["in"] = [places[v] for v in node.inputs]
        attrs = {k: _encode_attr(k, v, store) for k, v in node.attrs.items()}
        if attrs:
            data["attrs"] = attrs
        data["types"] = [str(t) for t in node.types]
        if node.op in OPS:
            decomposition = note(node)
            if decomposition is not None:
                data["decomposition"] = decomposition
        if node.loc is not None:
            file = files.setdefault(node.loc.file, len(files))
            data["loc"] = [file, node.loc.line, node.loc.function]
        if node.scope:
            data["scope"] = node.scope
        if node.regions:
            data["regions"] = {k: graph_to_data(r, store, note) for k, r in node.regions.items()}
        nodes.append(data)
    dims = dims_of(graph)
    return {
        "name": graph.name,
        **({"dims": dims_to_data(dims.values())} if dims else {}),
        "files": list(files),
        "inputs": [places[n.out][0] for n in graph.inputs],
        "outputs": [places[v] for v in graph.outputs],
        "writes": {k: places[v] for k, v in graph.writes.items()},
        "nodes": nodes,
    }


def _encode_attr(key: str, value: Any, store: Callable[[Any], int]) -> Any:
    if isinstance(value, np.ndarray):
        if value.ndim == 0 and value.dtype.kind != "c":
            return {"scalar": encode_value(_exact(value))}
        return {"array": store(value)}
    return encode_value(value)


def _exact(array: Any) -> Any:
    """The value of a 0-d array as a Python number (exact: every float here fits in f64)."""
    return array.item() if array.dtype.kind != "V" else float(array)


def graph_from_data(
    data: Mapping[str, Any], arrays: Sequence[Any], vocabulary: Vocabulary
) -> Graph:
    """Rebuild a graph, checking every node against its row.

    Raises:
        UnknownOpError: an op that is not known here, or is of another version.
        GraphError: an unknown attribute, a bad reference, or types that do not follow.
    """
    with collector_paused():
        return _Reader(data, arrays, vocabulary, {}, Facts()).read(data)


class _Reader:
    """One graph on its way out of a file; `made` has the results of each of its nodes so far."""

    def __init__(
        self, data: Mapping[str, Any], arrays: Sequence[Any], vocabulary: Vocabulary,
        dims: Symbols, facts: Facts,
    ) -> None:  # fmt: skip
        self.outer = dims
        self.dims = dims_from_data(data.get("dims", ()), dims)
        self.facts = Facts(facts.relations)
        self.graph = Graph(text(data["name"]))
        self.files = [text(f) for f in data["files"]]
        self.arrays = arrays
        self.vocabulary = vocabulary
        self.made: list[Sequence[Value]] = []
        self.inputs: list[Node] = []

    def read(self, data: Mapping[str, Any]) -> Graph:
        """Add all nodes, inputs, outputs and writes."""
        with assuming(self.facts):
            return self.read_nodes(data)

    def read_nodes(self, data: Mapping[str, Any]) -> Graph:
        """As `read`, where facts are known as they come."""
        graph = self.graph
        for number, item in enumerate(data["nodes"]):
            try:
                self.made.append(self.node(item))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError,
                    RuntimeError) as error:  # fmt: skip
                shown = item.get("op") if isinstance(item, dict) else item
                kind = UnknownOpError if isinstance(error, UnknownOpError) else GraphError
                raise kind(f"node {number} ({shown!s:.60}): {error}") from error
        graph.inputs = [self.made[place(i)][0].node for i in data["inputs"]]
        known = {*map(id, self.inputs)}
        if len(known) != len(graph.inputs) or known != {*map(id, graph.inputs)}:
            raise GraphError("the inputs are not the input nodes, each once")
        graph.outputs = self.values(data["outputs"])
        graph.writes = dict(zip(data["writes"], self.values(data["writes"].values()), strict=True))
        _check_writes(graph)
        if self.dims:
            check_dims(graph, self.outer)
        return graph

    def values(self, pairs: Iterable[Any]) -> list[Value]:
        """The Values that `[node, result]` pairs name."""
        made = self.made
        return [made[place(n)][place(i)] for n, i in pairs]

    def node(self, item: Any) -> Sequence[Value]:
        """Add one node, or what it stands for; returns its results."""
        op = item["op"]
        types = [type_from_text(t, self.dims) for t in item["types"]]
        node = Node()
        node.op, node.seq = op, len(self.made)
        node.inputs = tuple(self.values(item.get("in", ())))
        node.loc, node.scope = self.loc(item.get("loc")), text(item.get("scope", ""))
        regions = item.get("regions", {})
        node.regions = {
            text(k): _Reader(r, self.arrays, self.vocabulary, self.dims, self.facts).read(r)
            for k, r in regions.items()
        }
        row = self.vocabulary.row(op)
        if row is None and op not in SOURCES and op not in CONTROL and op != KERNEL:
            number = item.get("decomposition")
            return self.vocabulary.written_out(self.graph, node, number, types)
        if op in SOURCES:
            if node.inputs or len(types) != 1:
                raise GraphError(f"{op} takes no operands and has one result")
            node.attrs = _source_attrs(op, item["attrs"], types[0], self.arrays)
        else:
            attrs = item.get("attrs", {})
            node.attrs = {k: decode_value(v, self.dims) for k, v in attrs.items()}
            _check_types(node, row, types)
        made = self.graph.add(op, node.inputs, node.attrs, types, like=node, regions=node.regions)
        self.declare(made)
        return made.outs

    def loc(self, data: Any) -> Loc | None:
        """A place in the user's source."""
        if data is None:
            return None
        return Loc(self.files[place(data[0])], place(data[1]), text(data[2]))

    def declare(self, node: Node) -> None:
        """Note an input or State."""
        if node.op == INPUT:
            self.inputs.append(node)
        elif node.op == FACT:
            self.facts.add(node.attrs["relation"])
        elif node.op == STATE:
            if node.attrs["name"] in self.graph.states:
                raise GraphError(f"two states are named {node.attrs['name']!r}")
            self.graph.states[node.attrs["name"]] = node


def _check_types(node: Node, row: Op | None, types: list[TensorType]) -> None:
    """Check that the results of a node follow from its operands, attributes and regions."""
    operands = [v.type for v in node.inputs]
    if row is not None:
        _check_attrs(row, node.attrs)
        if node.regions:
            raise GraphError(f"op {row.name!r} has no regions")
        if types != [*row.infer(operands, node.attrs)]:
            shown = ", ".join(map(str, types))
            raise GraphError(f"types {shown} do not follow from the operands")
    elif node.op in CONTROL:
        if types != [*infer(node.op, operands, node.attrs, node.regions)]:
            raise GraphError("the types do not follow from the regions")
    else:
        _check_kernel(list(node.inputs), types, node.regions)


def _check_writes(graph: Graph) -> None:
    types = {n.attrs["name"]: n.types[0] for n in (*graph.inputs, *graph.states.values())}
    for name, value in graph.writes.items():
        if types.get(name) != value.type:
            raise GraphError(f"write of {value.type} to {name!r}, which is {types.get(name)}")


def text(data: Any) -> str:
    """Return data that must be a string."""
    if not isinstance(data, str):
        raise GraphError(f"expected a string, got {data!r:.60}")
    return data


def place(data: Any) -> int:
    """Return data that must be a whole number from 0."""
    if type(data) is not int or data < 0:
        raise GraphError(f"expected a number from 0, got {data!r:.60}")
    return data


@cache
def _declared(op: Op) -> dict[str, Any]:
    """The types that the rule of an op declares its attributes to be of."""
    hints = get_type_hints(op.type_rule)
    return {name: hints[name] for name in op.attrs if name in hints}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared type: a class, union or tuple; a size may be symbolic."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if type(value) is tuple and parts[-1] is Ellipsis:
            parts = parts[:1] * len(value)
        return type(value) is tuple and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind in (int, float):
        return type(value) in (kind, int, SymInt)
    return kind is Any or type(value) is kind


def _check_attrs(op: Op, attrs: Mapping[str, Any]) -> None:
    """Refuse attributes that the op does not have, or of another type than its rule declares."""
    unknown = set(attrs) - set(op.attrs)
    if unknown:
        raise GraphError(f"op {op.name!r} has no attribute {sorted(unknown)}; update tracegraph")
    declared = _declared(op)
    for name, value in attrs.items():
        if name in declared and not _fits(value, declared[name]):
            kind = getattr(declared[name], "__name__", declared[name])
            raise GraphError(f"{op.name}: {name} is {value!r:.60}, not {kind}")


def _source_attrs(op: str, data: Any, known: TensorType, arrays: Sequence[Any]) -> dict[str, Any]:
    """Return the attributes of an input, state or constant."""
    if op == CONSTANT:
        value = data["value"]
        if "scalar" in value:
            with np.errstate(all="ignore"):
                array = np.asarray(decode_value(value["scalar"])).astype(known.dtype.np)
        else:
            array = arrays[place(value["array"])]
        if array.shape != known.shape or array.dtype != known.dtype.np:
            raise GraphError(f"a constant's data is not {known}")
        return {"value": array}
    attrs = {k: decode_value(v) for k, v in data.items()}
    text(attrs["name"])
    if set(attrs) - {"name", "default"} or type(attrs.get("default", 0.0)) is not float:
        raise GraphError(f"{op} has unknown attributes {attrs!r:.60}")
    return attrs


def _check_kernel(inputs: list[Value], types: list[TensorType], regions: dict[str, Graph]) -> None:
    body = regions["body"]
    if [n.types[0] for n in body.inputs] != [v.type for v in inputs]:
        raise GraphError("a kernel's body takes other types than its operands")
    if [v.type for v in body.outputs] != types or body.states:
        raise GraphError("a kernel's body gives other types than it declares")
