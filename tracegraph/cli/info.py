"""`tracegraph info`: entry points, inputs, hyper-parameters, State and sizes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from tracegraph.cli.files import File
from tracegraph.cli.output import write, write_table
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.files.nest import tensors_in
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.loaded import Loaded
from tracegraph.wording import count_text, size_text


def run(args: argparse.Namespace) -> int:
    """Print what the file holds."""
    file = File(args.file)
    version = ".".join(map(str, file.head["format"]))
    producer = file.head.get("producer", "an unknown program")
    write(f"{file.path}: {size_text(file.size_bytes)}, format {version}, by {producer}")
    if isinstance(file.content, Loaded):
        for name, entry in file.content.entries.items():
            _write_entry(name, entry)
        _write_state(file.content)
    else:
        _write_tensors(dict(tensors_in(file.content)), {}, "tensor")
    return 0


def _write_entry(name: str, entry: EntryPoint) -> None:
    graph = entry.graph
    results = ", ".join(str(v.type) for v in graph.outputs)
    modes = {True: "train", False: "eval"}
    facts = [count_text(len(graph), "node")]
    facts += [f"{modes[mode]} mode" for mode in entry.modes]
    if graph.writes:
        facts.append(f"writes {count_text(len(graph.writes), 'tensor')}")
    if entry.examples:
        facts.append(count_text(len(entry.examples), "sample"))
    write(f"\nentry point {name}: {', '.join(facts)}")
    for spec in entry.signature.specs:
        fixed = f"= {spec.value!r} (fixed by the trace)"
        write(f"  input {spec.name}: {spec.type or fixed}")
    for hyper in entry.hypers:
        write(f"  hyper-parameter {hyper.name} = {hyper.default!r}")
    write(f"  gives {results or 'no tensor'}")


def _write_state(loaded: Loaded) -> None:
    tensors = loaded.state_dict()
    names = {id(t): name for name, t in tensors.items()}
    roles: dict[str, list[str]] = {name: [] for name in tensors}
    for entry_name, entry in loaded.entries.items():
        for local, t in entry.state.items():
            role = "written by" if local in entry.graph.writes else "read by"
            roles[names[id(t)]].append(f"{role} {entry_name}")
    _write_tensors(tensors, {name: ", ".join(found) for name, found in roles.items()},
                   "State tensor")  # fmt: skip
    parameters = sum(t._data.size for t in model_tensors(loaded).values())
    write(f"model parameters and buffers: {parameters:,} numbers")


def _write_tensors(tensors: Mapping[str, Tensor], roles: Mapping[str, str], noun: str) -> None:
    total = sum(type_of(t).size_bytes for t in tensors.values())
    write(f"\n{count_text(len(tensors), noun)}, {size_text(total)}")
    rows = [
        [name, str(type_of(t)), size_text(type_of(t).size_bytes), roles.get(name, "")]
        for name, t in tensors.items()
    ]
    if rows:
        write_table(rows, "<<><", indent="  ")


def model_tensors(loaded: Loaded) -> dict[str, Tensor]:
    """Return the float State that is no optimizer slot or gradient."""
    others = {id(t) for entry in loaded.entries.values() for t in _slots_and_gradients(entry)}
    return {
        name: t
        for name, t in loaded.state_dict().items()
        if type_of(t).dtype.kind >= FLOAT_KIND and id(t) not in others
    }


def _slots_and_gradients(entry: EntryPoint) -> Iterator[Tensor]:
    """Yield State named `OPTIMIZER.SLOT.PARAMETER` or `PARAMETER.grad`."""
    optimizers = {h.name.rpartition(".")[0].split(".param_groups.")[0] for h in entry.hypers}
    for name, t in entry.state.items():
        parts = name.split(".")
        ends = {".".join(parts[i:]) for i in range(1, len(parts))}
        slot = any(name.startswith(f"{o}.") for o in optimizers) and ends & entry.state.keys()
        if slot or (parts[-1] == "grad" and ".".join(parts[:-1]) in entry.state):
            yield t
