"""`save`: traced graphs with their State, or a nest of plain tensors, to one file.

See docs/file_format.md; `archive.py` reads what this writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracegraph.files.archive import FORMAT_VERSION, PRODUCER
from tracegraph.files.container import write_container
from tracegraph.files.members import TensorStore, json_bytes, json_lines
from tracegraph.files.nest import nest_to_data
from tracegraph.files.samples import examples_for, sample_data
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import Graph
from tracegraph.ir.serial import encode_value, graph_to_data
from tracegraph.ir.vocabulary import Definitions
from tracegraph.passes.decompose import written_out
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.loaded import Loaded


def _graph_json(data: dict[str, Any]) -> bytes:
    head = json_bytes({k: v for k, v in data.items() if k != "graph"})[:-1]
    return head + b',\n"graph":' + json_lines(data["graph"], "nodes") + b"}\n"


def save(obj: Any, f: Any, *_: Any, samples: Any = None, **__: Any) -> None:
    """Write to a path or binary file object, atomically.

    Args:
        obj: a `Traced`, a loaded file, a dict of entry points by name (they share State), or a
            nest of tensors, arrays, numbers and strings (a state dict, a checkpoint).
        f: a path or a writable binary file.
        samples: calls to keep with the graphs, for `verify_file`: a list of example inputs, as
            `trace` takes them; True for those of the trace itself; or a dict of these by entry
            point. Inputs and outputs are stored whole, and a small digest of every node.

    Raises:
        TypeError: an object that cannot be stored; the place is named.
    """
    if isinstance(obj, EntryPoint):
        obj = {"forward": obj}
    if isinstance(obj, Loaded):
        obj = obj.entries
    if isinstance(obj, Mapping) and obj and all(isinstance(v, EntryPoint) for v in obj.values()):
        with collector_paused():
            members = _entry_members(obj, examples_for(obj, samples))
        write_container(_target(f), members)
        return
    store = TensorStore()
    members = {"tree.json": json_bytes(nest_to_data(obj, store.add_tensor))}
    head = {"format": list(FORMAT_VERSION), "kind": "nest", "producer": PRODUCER}
    write_container(_target(f), {**members, **store.members(), "format.json": json_bytes(head)})


def _target(f: Any) -> Any:
    return f if hasattr(f, "write") else os.fspath(f)


def _entry_members(
    entries: Mapping[str, EntryPoint], examples: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    store = TensorStore()
    state: dict[str, dict[str, Any]] = {}
    names: dict[int, str] = {}
    members: dict[str, Any] = {}
    listed: dict[str, Any] = {}

    def encode(graph: Graph) -> dict[str, Any]:
        return graph_to_data(graph, store.add, definitions.note)

    definitions = Definitions(written_out, encode)
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
            if t in entry.trainable or (t.requires_grad and t.is_leaf):
                state[shared]["requires_grad"] = True
        member = f"graphs/{entry_name}.json"
        members[member] = _graph_json(_entry_data(entry, local, encode))
        listed[entry_name] = {"graph": member}
        if entry_name in examples:
            members |= _sample_members(entry_name, entry, examples[entry_name], store)
    head = {
        "format": list(FORMAT_VERSION), "kind": "graphs", "producer": PRODUCER,
        "entries": listed, "state": state,
    }  # fmt: skip
    reports = {name: entry.report().to_data() for name, entry in entries.items()}
    return {
        **members, **store.members(), "format.json": json_bytes(head),
        "ops.json": json_lines(definitions.data(), "decompositions"),
        "report.json": json_bytes({"entries": encode_report(reports)}),
    }  # fmt: skip


def _sample_members(
    name: str, entry: EntryPoint, examples: Sequence[Any], store: TensorStore
) -> dict[str, Any]:
    found = [sample_data(entry, example, store.add) for example in examples]
    members = {f"samples/{name}.json": json_bytes({"samples": [data for data, _ in found]})}
    for number, (_, rows) in enumerate(found):
        members[f"samples/{name}.{number}.json"] = json_lines({"digests": rows}, "digests")
    return members


def encode_report(data: Any) -> Any:
    """Return report data with odd floats made storable."""
    if isinstance(data, dict):
        return {str(k): encode_report(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [encode_report(v) for v in data]
    return encode_value(data)


def _entry_data(
    entry: EntryPoint, local: dict[str, str], encode: Callable[[Graph], dict[str, Any]]
) -> dict[str, Any]:
    signature = entry.signature
    layouts = {
        name: {"orders": list(known.orders), "exact": known.exact, "place": known.place}
        for name, known in entry.layouts.items()
    }
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
            "ways": [
                {"outputs": way.outputs, "results": [
                    r if "value" in r else {"constant": encode_value(r["constant"])}
                    for r in way.results
                ]}
                for way in signature.ways
            ],
        },
        "hypers": [
            {"name": h.name, "default": encode_value(h.default if h.read is None else h.read())}
            for h in entry.hypers
        ],
        "variants": [
            {"scalars": {n: encode_value(v) for n, v in variant.scalars.items()},
             "modes": {path: flag for path, (_, flag) in variant.modes.items()}}
            for variant in entry.variants
        ],
        **({"layouts": layouts} if layouts else {}),
        "state": local,
        "graph": encode(entry.graph),
    }  # fmt: skip
