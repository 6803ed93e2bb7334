"""Graphs to JSON data and back: what `graphs/NAME.json` holds.

A graph is `{"name", "files", "nodes", "inputs", "outputs", "writes"}`; a node is
`{"op", "in": [[node, result], ...], "attrs", "types", "loc", "scope", "regions"}` with nodes
numbered by their place. Constants refer to arrays by number: `{"array": 3}`; 0-d ones are inline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tracegraph.dtypes import BY_CODE, DType
from tracegraph.errors import GraphError
from tracegraph.ir.graph import INPUT, KERNEL, SOURCES, STATE, Graph, Loc, Value
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
    graph = Graph(str(data["name"]))
    made: list[Any] = []
    files = data["files"]
    for number, item in enumerate(data["nodes"]):
        try:
            made.append(_node_from_data(graph, item, made, files, arrays))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            shown = item.get("op") if isinstance(item, dict) else item
            raise GraphError(f"node {number} ({shown}): {error}") from error
    graph.inputs = [made[i] for i in data["inputs"]]
    if any(n.op != INPUT for n in graph.inputs):
        raise GraphError("an input is no input node")
    graph.outputs = [made[n].outs[i] for n, i in data["outputs"]]
    graph.writes = {k: made[n].outs[i] for k, (n, i) in data["writes"].items()}
    _check_writes(graph)
    return graph


def _check_writes(graph: Graph) -> None:
    types = {n.attrs["name"]: n.types[0] for n in (*graph.inputs, *graph.states.values())}
    for name, value in graph.writes.items():
        if types.get(name) != value.type:
            raise GraphError(f"write of {value.type} to {name!r}, which is {types.get(name)}")


def _node_from_data(
    graph: Graph, item: Any, made: list[Any], files: list[str], arrays: Sequence[Any]
) -> Any:
    op = item["op"]
    types = [type_from_text(t) for t in item["types"]]
    attrs = {k: _decode_attr(v, types, arrays) for k, v in item.get("attrs", {}).items()}
    inputs = []
    for n, i in item.get("in", ()):
        if not (0 <= n < len(made) and i >= 0):
            raise GraphError(f"operand {[n, i]} does not come before it")
        inputs.append(made[n].outs[i])
    regions = {k: graph_from_data(r, arrays) for k, r in item.get("regions", {}).items()}
    if op in OPS:
        unknown = set(attrs) - set(OPS[op].attrs)
        if unknown:
            raise GraphError(f"op {op!r} has no attribute {sorted(unknown)}; update tracegraph")
        if types != [*OPS[op].infer([v.type for v in inputs], attrs)]:
            raise GraphError(f"types {item['types']} do not follow from the operands")
    elif op == KERNEL:
        _check_kernel(inputs, types, regions)
    elif op not in SOURCES:
        raise GraphError(f"unknown op {op!r}: the file is newer than this tracegraph; update it")
    loc = item.get("loc")
    place = None if loc is None else Loc(str(files[loc[0]]), int(loc[1]), str(loc[2]))
    node = graph.add(op, inputs, attrs, types, loc=place, scope=str(item.get("scope", "")),
                     regions=regions)  # fmt: skip
    if op == STATE:
        if attrs["name"] in graph.states:
            raise GraphError(f"two states are named {attrs['name']!r}")
        graph.states[attrs["name"]] = node
    return node


def _check_kernel(inputs: list[Value], types: list[TensorType], regions: dict[str, Graph]) -> None:
    body = regions["body"]
    if [n.types[0] for n in body.inputs] != [v.type for v in inputs]:
        raise GraphError("a kernel's body takes other types than its operands")
    if [v.type for v in body.outputs] != types or body.states:
        raise GraphError("a kernel's body gives other types than it declares")


def _decode_attr(data: Any, types: list[TensorType], arrays: Sequence[Any]) -> Any:
    if isinstance(data, dict) and "array" in data:
        return _constant(arrays[data["array"]], types[0])
    if isinstance(data, dict) and "scalar" in data:
        return _constant(np.asarray(decode_value(data["scalar"])).astype(types[0].dtype.np),
                         types[0])  # fmt: skip
    return decode_value(data)


def _constant(array: Any, known: TensorType) -> Any:
    if array.shape != known.shape or array.dtype != known.dtype.np:
        raise GraphError(f"a constant's data is not {known}")
    return array
