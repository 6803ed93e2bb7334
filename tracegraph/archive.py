"""`save` and `load`: one file for traced graphs with their State, or for nested plain tensors.

The file holds no pickle and no code; see docs/file_format.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tracegraph import pytree
from tracegraph.container import Container, read_json, write_container
from tracegraph.devices import parse_device
from tracegraph.entry import EntryPoint, Hyper, LeafSpec, Signature
from tracegraph.errors import FileFormatError, GraphError
from tracegraph.ir.serial import (
    decode_value,
    encode_value,
    graph_from_data,
    graph_to_data,
    place,
    text,
    type_from_text,
)
from tracegraph.loaded import Loaded
from tracegraph.nest import nest_from_data, nest_to_data
from tracegraph.storage import Storage
from tracegraph.tensor_type import TensorType
from tracegraph.tensors import Tensor, storage_of, type_of, wrap
from tracegraph.version import PACKAGE

FORMAT_VERSION: Final = (1, 0)
PRODUCER: Final = f"tracegraph {PACKAGE}"


class TensorStore:
    """Arrays on their way into a file: each memory once, numbered in order."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self._by_storage: dict[tuple[int, int, tuple[int, ...], Any], int] = {}
        self._kept: list[Storage] = []

    def add(self, array: Any) -> int:
        """Keep an array; returns its number."""
        host = array.get() if hasattr(array, "get") else array
        self.arrays.append(np.ascontiguousarray(host).reshape(host.shape))
        return len(self.arrays) - 1

    def add_tensor(self, t: Tensor) -> int:
        """Keep a tensor; two that are the same memory share a number."""
        storage = storage_of(t)
        key = (id(storage), len(t._chain), tuple(t.shape), t._chain)
        number = self._by_storage.get(key)
        if number is None:
            self._kept.append(storage)
            number = self._by_storage[key] = self.add(t._data)
        return number

    def members(self) -> dict[str, Any]:
        """Return the file members `tensors/...`."""
        index = []
        members: dict[str, Any] = {}
        for number, array in enumerate(self.arrays):
            member = f"tensors/{number:06d}.bin"
            known = type_of(wrap(array))
            index.append({"type": str(known), "member": member})
            members[member] = _bytes_of(array)
        members["tensors/index.json"] = _json({"tensors": index})
        return members


def _bytes_of(array: Any) -> Any:
    """Little-endian bytes of a C-ordered array."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8) if array.size else b""


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _graph_json(data: dict[str, Any]) -> list[bytes]:
    """One node a line, so that files can be compared by line."""
    head = {k: v for k, v in data.items() if k != "graph"}
    graph = {k: v for k, v in data["graph"].items() if k != "nodes"}
    lines = [_json(head)[:-1] + b',\n"graph":' + _json(graph)[:-1] + b',"nodes":[\n']
    nodes = [_json(n) for n in data["graph"]["nodes"]]
    lines.append(b",\n".join(nodes) + b"\n]}}\n")
    return lines


def save(obj: Any, f: Any, *_: Any, **__: Any) -> None:
    """Write to a path or binary file object, atomically.

    Args:
        obj: a `Traced`, a loaded file, a dict of entry points by name (they share State), or a
            nest of tensors, arrays, numbers and strings (a state dict, a checkpoint).
        f: a path or a writable binary file.

    Raises:
        TypeError: an object that cannot be stored; the place is named.
    """
    if isinstance(obj, EntryPoint):
        obj = {"forward": obj}
    if isinstance(obj, Loaded):
        obj = obj.entries
    if isinstance(obj, Mapping) and obj and all(isinstance(v, EntryPoint) for v in obj.values()):
        write_container(_target(f), _entry_members(obj))
        return
    store = TensorStore()
    members = {"tree.json": _json(nest_to_data(obj, store.add_tensor))}
    head = {"format": list(FORMAT_VERSION), "kind": "nest", "producer": PRODUCER}
    write_container(_target(f), {**members, **store.members(), "format.json": _json(head)})


def _target(f: Any) -> Any:
    return f if hasattr(f, "write") else os.fspath(f)


def _entry_members(entries: Mapping[str, EntryPoint]) -> dict[str, Any]:
    store = TensorStore()
    state: dict[str, dict[str, Any]] = {}
    names: dict[int, str] = {}
    members: dict[str, Any] = {}
    listed: dict[str, Any] = {}
    for entry_name, entry in entries.items():
        if not entry_name.isidentifier() or hasattr(Loaded, entry_name):
            raise TypeError(
                f"an entry point cannot be named {entry_name!r}: use a Python identifier that is "
                "no attribute of a loaded file"
            )
        local: dict[str, str] = {}
        for name, t in entry.state.items():
            number = store.add_tensor(t)
            shared = names.get(number)
            if shared is None:
                shared = name if name not in state else f"{entry_name}.{name}"
                names[number] = shared
                state[shared] = {"tensor": number}
            local[name] = shared
        member = f"graphs/{entry_name}.json"
        members[member] = _graph_json(_entry_data(entry, local, store))
        listed[entry_name] = {"graph": member}
    head = {
        "format": list(FORMAT_VERSION), "kind": "graphs", "producer": PRODUCER,
        "entries": listed, "state": state,
    }  # fmt: skip
    reports = {name: entry.report() for name, entry in entries.items()}
    return {
        **members, **store.members(), "format.json": _json(head),
        "report.json": _json({"entries": encode_report(reports)}),
    }  # fmt: skip


def encode_report(data: Any) -> Any:
    """Return report data with odd floats made storable."""
    if isinstance(data, dict):
        return {str(k): encode_report(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [encode_report(v) for v in data]
    return encode_value(data)


def _entry_data(entry: EntryPoint, local: dict[str, str], store: TensorStore) -> dict[str, Any]:
    signature = entry.signature
    modes = sorted({flag for _, _, flag in entry.training_flags})
    return {
        "signature": {
            "names": list(signature.names),
            "positional": signature.positional,
            "inputs": signature.inputs,
            "specs": [
                {"name": s.name, "type": str(s.type)} if s.type is not None
                else {"name": s.name, "value": encode_value(s.value)}
                for s in signature.specs
            ],
            "outputs": signature.outputs,
            "results": [
                r if "value" in r else {"constant": encode_value(r["constant"])}
                for r in signature.results
            ],
        },
        "hypers": [
            {"name": h.name, "default": encode_value(h.default if h.read is None else h.read())}
            for h in entry.hypers
        ],
        "training": modes if entry.training_flags else entry.traced_modes,
        "state": local,
        "graph": graph_to_data(entry.graph, store.add),
    }  # fmt: skip


def load(f: Any, device: Any = None, *, map_location: Any = None, weights_only: bool = True,
         verify: bool = True) -> Any:  # fmt: skip
    """Read a file that `save` wrote.

    Args:
        f: a path or a readable, seekable binary file.
        device: where State (or tensors) shall live.
        map_location: PyTorch's name for `device`.
        weights_only: accepted for PyTorch's sake; nothing is ever executed.
        verify: check every member's SHA-256 first.

    Returns:
        A `Loaded` for graphs, else the nest of tensors that was saved.

    Raises:
        FileFormatError: the file is damaged, hostile, not ours, or newer than this tracegraph.
    """
    where = parse_device(device if device is not None else _location(map_location))
    container = Container.open(f if hasattr(f, "read") else os.fspath(f))
    if verify:
        container.verify()
    try:
        head = read_json(container, "format.json")
        if head["format"][0] != FORMAT_VERSION[0]:
            raise FileFormatError(
                f"{container.label}: format version {head['format']} is not known to this "
                f"tracegraph (format {FORMAT_VERSION[0]}); update tracegraph"
            )
        arrays = _read_arrays(container)
        if head["kind"] == "nest":
            return _load_nest(container, arrays, where)
        return _load_entries(container, head, arrays, where)
    except FileFormatError:
        raise
    except (
        LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"{container.label}: the content does not follow the format: {error}; save it again"
        ) from error


def _location(map_location: Any) -> Any:
    return None if callable(map_location) or isinstance(map_location, dict) else map_location


def _read_arrays(container: Container) -> list[Any]:
    arrays = []
    for item in read_json(container, "tensors/index.json")["tensors"]:
        known = type_from_text(item["type"])
        data = container.read(text(item["member"]))
        if len(data) != known.size_bytes:
            raise FileFormatError(
                f"{container.label}: member {item['member']} has {len(data)} bytes, {known} needs "
                f"{known.size_bytes}; save it again"
            )
        arrays.append(np.frombuffer(data, known.dtype.np).reshape(known.shape))
    return arrays


def _load_nest(container: Container, arrays: list[Any], where: Any) -> Any:
    tensors: dict[int, Tensor] = {}

    def fetch(number: int) -> Tensor:
        if number not in tensors:
            tensors[number] = wrap(where.place(arrays[number]))
        return tensors[number]

    return nest_from_data(read_json(container, "tree.json"), fetch)


def _load_entries(
    container: Container, head: dict[str, Any], arrays: list[Any], where: Any
) -> Loaded:
    read = {n: read_json(container, item["graph"]) for n, item in head["entries"].items()}
    written = {
        data["state"][name]
        for data in read.values() for name in data["graph"]["writes"] if name in data["state"]
    }  # fmt: skip
    state: dict[str, Tensor] = {}
    for name, item in head["state"].items():
        array = arrays[place(item["tensor"])]
        shared = where.type == "cpu" and name not in written
        state[name] = wrap(array if shared else where.place(array))
    entries: dict[str, EntryPoint] = {}
    for name, data in read.items():
        entries[name] = _entry_from_data(data, state, arrays)
    reports = read_json(container, "report.json")["entries"]
    return Loaded(entries, state, reports, container.label)


def _entry_from_data(
    data: dict[str, Any], state: dict[str, Tensor], arrays: list[Any]
) -> EntryPoint:
    graph = graph_from_data(data["graph"], arrays)
    signature = _signature_from_data(data["signature"])
    local = {name: state[shared] for name, shared in data["state"].items()}
    _check_entry(graph, signature, local, data)
    hypers = [Hyper(h["name"], float(decode_value(h["default"]))) for h in data["hypers"]]
    entry = EntryPoint(graph, signature, local, hypers)
    entry.traced_modes = [bool(m) for m in data["training"]]
    return entry


def _check_entry(
    graph: Any, signature: Signature, local: dict[str, Tensor], data: dict[str, Any]
) -> None:
    """Check that signature, State and graph fit together."""
    wanted: list[tuple[str, TensorType]] = [
        (s.name, s.type) for s in signature.specs if s.type is not None
    ]
    wanted += [(h["name"], type_from_text("f64[]")) for h in data["hypers"]]
    got = [(n.attrs["name"], n.types[0]) for n in graph.inputs]
    if wanted != got:
        raise GraphError(f"the graph's inputs {got} are not the signature's {wanted}")
    for name, node in graph.states.items():
        if name not in local or type_of(local[name]) != node.types[0]:
            raise GraphError(f"state {name!r} of the graph has no tensor of type {node.types[0]}")
    for result in signature.results:
        if "value" in result and not 0 <= result["value"] < len(graph.outputs):
            raise GraphError(f"result {result} names no output of the graph")


def _signature_from_data(data: dict[str, Any]) -> Signature:
    specs = tuple(
        LeafSpec(text(s["name"]), type_from_text(s["type"]), None) if "type" in s
        else LeafSpec(text(s["name"]), None, decode_value(s["value"]))
        for s in data["specs"]
    )  # fmt: skip
    results = tuple(
        {"value": place(r["value"])} if "value" in r else {"constant": decode_value(r["constant"])}
        for r in data["results"]
    )
    names = tuple(map(text, data["names"]))
    pytree.check_tree(data["inputs"], len(specs))
    pytree.check_tree(data["outputs"], len(results))
    if len(data["inputs"]["tuple"]) != len(names) or place(data["positional"]) > len(names):
        raise GraphError(f"the signature names {len(names)} arguments and nests others")
    return Signature(names, data["positional"], data["inputs"], specs, data["outputs"], results)
