"""Graphs to JSON data and back: what `graphs/NAME.json` holds.

A graph is `{"name", "files", "nodes", "inputs", "outputs", "writes"}`; a node is
`{"op", "in": [[node, result], ...], "attrs", "types", "loc", "scope", "regions"}` with nodes
numbered by their place. Constants refer to arrays by number: `{"array": 3}`; 0-d ones are inline.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tracegraph.dtypes import BY_CODE, DType
from tracegraph.errors import GraphError
from tracegraph.ir.control import CONTROL, infer
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, SOURCES, STATE, Graph, Loc, Value
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

_TYPE = re.compile(r"([a-z0-9]+)\[((?:\d+(?:,\d+)*)?)\]")
_MAX_DIM = 1 << 48


def type_from_text(text: str) -> TensorType:
    """Return the TensorType written `f32[2,3]`.

    Raises:
        GraphError: not a type, or a size out of bounds.
    """
    match = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] not in BY_CODE:
        raise GraphError(f"{text!r} is no tensor type (as f32[2,3])")
    shape = tuple(int(n) for n in match[2].split(",")) if match[2] else ()
    if any(n > _MAX_DIM for n in shape) or math.prod(shape) > _MAX_DIM or len(shape) > 64:
        raise GraphError(f"type {text} is too large")
    return TensorType(BY_CODE[match[1]], shape)


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
    raise GraphError(f"an attribute cannot hold a {type(value).__name__}: {value!r}")


def decode_value(data: Any) -> Any:
    """Undo `encode_value`."""
    if isinstance(data, list):
        return tuple(decode_value(v) for v in data)
    if isinstance(data, dict):
        if "dtype" in data and data["dtype"] in BY_CODE:
            return BY_CODE[data["dtype"]]
        if data.get("float") in ("inf", "-inf", "nan"):
            return float(data["float"])
        raise GraphError(f"unknown attribute value {data!r}")
    return data


def graph_to_data(graph: Graph, store: Callable[[Any], int]) -> dict[str, Any]:
    """Return a graph as JSON data; `store(array)` keeps a constant's array and numbers it."""
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
        if node.loc is not None:
            file = files.setdefault(node.loc.file, len(files))
            data["loc"] = [file, node.loc.line, node.loc.function]
        if node.scope:
            data["scope"] = node.scope
        if node.regions:
            data["regions"] = {k: graph_to_data(r, store) for k, r in node.regions.items()}
        nodes.append(data)
    return {
        "name": graph.name,
        "files": list(files),
        "inputs": [places[n.out][0] for n in graph.inputs],
        "outputs": [places[v] for v in graph.outputs],
        "writes": {k: places[v] for k, v in graph.writes.items()},
        "nodes": nodes,
    }


def _encode_attr(key: str, value: Any, store: Callable[[Any], int]) -> Any:
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return {"scalar": encode_value(_exact(value))}
        return {"array": store(value)}
    return encode_value(value)


def _exact(array: Any) -> Any:
    """The value of a 0-d array as a Python number (exact: every float here fits in f64)."""
    return array.item() if array.dtype.kind != "V" else float(array)


def graph_from_data(data: Mapping[str, Any], arrays: Sequence[Any]) -> Graph:
    """Rebuild a graph, checking every node against its row.

    Raises:
        GraphError: an unknown op or attribute, a bad reference, or types that do not follow.
    """
    graph = Graph(text(data["name"]))
    made: list[Any] = []
    files = [text(f) for f in data["files"]]
    for number, item in enumerate(data["nodes"]):
        try:
            made.append(_node_from_data(graph, item, made, files, arrays))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            shown = item.get("op") if isinstance(item, dict) else item
            raise GraphError(f"node {number} ({shown}): {error}") from error
    graph.inputs = [made[place(i)] for i in data["inputs"]]
    known = [n for n in made if n.op == INPUT]
    if len(known) != len(graph.inputs) or {*map(id, known)} != {*map(id, graph.inputs)}:
        raise GraphError("the inputs are not the input nodes, each once")
    graph.outputs = [made[place(n)].outs[place(i)] for n, i in data["outputs"]]
    graph.writes = {k: made[place(n)].outs[place(i)] for k, (n, i) in data["writes"].items()}
    _check_writes(graph)
    return graph


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


def _node_from_data(
    graph: Graph, item: Any, made: list[Any], files: list[str], arrays: Sequence[Any]
) -> Any:
    op = item["op"]
    types = [type_from_text(t) for t in item["types"]]
    inputs = [made[place(n)].outs[place(i)] for n, i in item.get("in", ())]
    regions = {text(k): graph_from_data(r, arrays) for k, r in item.get("regions", {}).items()}
    if op in OPS:
        attrs = {k: decode_value(v) for k, v in item.get("attrs", {}).items()}
        _check_attrs(OPS[op], attrs)
        if types != [*OPS[op].infer([v.type for v in inputs], attrs)]:
            raise GraphError(f"types {item['types']} do not follow from the operands")
    elif op in SOURCES:
        if inputs or len(types) != 1:
            raise GraphError(f"{op} takes no operands and has one result")
        attrs = _source_attrs(op, item["attrs"], types[0], arrays)
    elif op in CONTROL:
        attrs = {k: decode_value(v) for k, v in item.get("attrs", {}).items()}
        if types != [*infer(op, [v.type for v in inputs], attrs, regions)]:
            raise GraphError(f"types {item['types']} do not follow from the regions")
    elif op == KERNEL:
        attrs = {k: decode_value(v) for k, v in item.get("attrs", {}).items()}
        _check_kernel(inputs, types, regions)
    else:
        raise GraphError(f"unknown op {op!r}: the file is newer than this tracegraph; update it")
    loc = item.get("loc")
    where = None if loc is None else Loc(files[place(loc[0])], place(loc[1]), text(loc[2]))
    node = graph.add(op, inputs, attrs, types, loc=where, scope=text(item.get("scope", "")),
                     regions=regions)  # fmt: skip
    if op == STATE:
        if attrs["name"] in graph.states:
            raise GraphError(f"two states are named {attrs['name']!r}")
        graph.states[attrs["name"]] = node
    return node


# What an annotation of a type rule's attribute lets a file hold; others are left to the rule.
_ANNOTATED: dict[str, tuple[type, ...]] = {
    "int": (int,), "bool": (bool,), "float": (float, int), "str": (str,), "DType": (DType,),
    "Shape": (tuple,), "tuple[int, ...]": (tuple,), "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
}  # fmt: skip


@cache
def _declared(op: Op) -> list[tuple[str, str, tuple[type, ...]]]:
    """The attributes of an op with an annotation that can be checked."""
    listed = inspect.signature(op.type_rule).parameters.items()
    return [(n, p.annotation, _ANNOTATED[p.annotation]) for n, p in listed
            if p.annotation in _ANNOTATED]  # fmt: skip


def _check_attrs(op: Op, attrs: Mapping[str, Any]) -> None:
    """Refuse attributes that the op does not have, or of another type than its rule declares."""
    unknown = set(attrs) - set(op.attrs)
    if unknown:
        raise GraphError(f"op {op.name!r} has no attribute {sorted(unknown)}; update tracegraph")
    for name, annotation, wanted in _declared(op):
        if name not in attrs:
            continue
        value = attrs[name]
        whole = value if wanted == (tuple,) and isinstance(value, tuple) else ()
        if type(value) not in wanted or not all(type(n) is int for n in whole):
            raise GraphError(f"{op.name}: {name} is {value!r:.60}, not {annotation}")


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
