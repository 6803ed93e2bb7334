"""`load`: traced graphs with their State, or a nest of plain tensors, from one file.

The file holds no pickle and no code; see docs/file_format.md. `saving.py` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tracegraph import pytree
from tracegraph.audit.report import told_from_data
from tracegraph.capture.variants import VARIANT, Variant
from tracegraph.devices import parse_device
from tracegraph.dims.facts import by_form
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import FileFormatError, GraphError, UnknownOpError
from tracegraph.files.container import Container, read_json
from tracegraph.files.members import read_arrays
from tracegraph.files.nest import nest_from_data
from tracegraph.host_calls import check_host_calls
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.dims import Symbols, dims_of
from tracegraph.ir.graph import Graph
from tracegraph.ir.serial import (
    decode_value,
    graph_from_data,
    place,
    text,
    type_from_text,
)
from tracegraph.ir.vocabulary import Vocabulary
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.held_state import Trainable
from tracegraph.replay.layouts import Layout
from tracegraph.replay.loaded import Loaded
from tracegraph.replay.signature import Hyper, LeafSpec, Signature, Way
from tracegraph.tensor_type import TensorType
from tracegraph.version import PACKAGE

FORMAT_VERSION: Final = (1, 0)
PRODUCER: Final = f"tracegraph {PACKAGE}"


def load(
    f: Any, device: Any = None, *, map_location: Any = None, weights_only: bool = True,
    verify: bool = True, allow_host_calls: Iterable[str] | None = (),
) -> Any:  # fmt: skip
    """Read a file that `save` wrote.

    Args:
        f: a path or a readable, seekable binary file.
        device: where State (or tensors) shall live.
        map_location: PyTorch's name for `device`.
        weights_only: accepted for PyTorch's sake; nothing is ever executed.
        verify: check every member's SHA-256 first.
        allow_host_calls: Python functions that the graphs may call, as "module:name"; a file that
            calls others is refused. None: read it to look at, its calls refuse when they run.

    Returns:
        A `Loaded` for graphs, else the nest of tensors that was saved.

    Raises:
        FileFormatError: the file is damaged, hostile, not ours, or newer than this tracegraph.
    """
    where = parse_device(device if device is not None else _location(map_location))
    container = Container.open(f if hasattr(f, "read") else os.fspath(f))
    if verify:
        container.verify()
    with _content_of(container) as head:
        arrays = read_arrays(container)
        if head["kind"] == "nest":
            return _load_nest(container, arrays, where)
        loaded = _load_entries(container, head, arrays, where)
        if allow_host_calls is not None:
            check_host_calls([e.graph for e in loaded.entries.values()], allow_host_calls)
        return loaded


@contextmanager
def _content_of(container: Container) -> Iterator[dict[str, Any]]:
    """Give `format.json` to code that reads a file; what is wrong becomes a FileFormatError."""
    producer = "an unknown program"
    try:
        head = read_json(container, "format.json")
        producer = text(head["producer"])
        major = place(head["format"][0])
        if major != FORMAT_VERSION[0]:
            newer = major > FORMAT_VERSION[0]
            raise FileFormatError(
                f"{container.label}: format version {head['format']} is not known to this "
                f"tracegraph (format {FORMAT_VERSION[0]}); "
                + ("update tracegraph" if newer else f"load it with {producer:.60}")
            )
        with collector_paused():
            yield head
    except FileFormatError:
        raise
    except UnknownOpError as error:
        raise FileFormatError(f"{container.label}, by {producer:.60}: {error}") from error
    except (
        LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"{container.label}: the content does not follow the format: {error}; save it again"
        ) from error


def _location(map_location: Any) -> Any:
    return None if callable(map_location) or isinstance(map_location, dict) else map_location


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
    vocabulary = _vocabulary(container, arrays)
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
    trained = [state[n] for n, item in head["state"].items() if item.get("requires_grad", False)]
    if any(type_of(t).dtype.kind < FLOAT_KIND for t in trained):
        raise GraphError("State that is not of floats requires a gradient")
    entries: dict[str, EntryPoint] = {}
    for name, data in read.items():
        entry = entries[name] = _entry_from_data(data, state, arrays, vocabulary)
        samples = samples_in(container, name)
        if samples:
            from tracegraph.files.samples import example_from_data

            entry.examples = [example_from_data(s, arrays, entry) for s in samples]
    for name, told in read_json(container, "report.json")["entries"].items():
        entries[name].told = told_from_data(told)
    return Loaded(entries, state, container.label, Trainable(trained))


def samples_in(container: Container, name: str) -> list[Any]:
    """Return what a file has of the samples of an entry point, without the digests."""
    member = f"samples/{name}.json"
    if member not in container.names():
        return []
    return list(read_json(container, member)["samples"])


def load_decompositions(f: Any) -> list[Graph]:
    """Read the decompositions of the composites that a file of graphs uses.

    Raises:
        FileFormatError: as `load`.
    """
    container = Container.open(f if hasattr(f, "read") else os.fspath(f))
    with _content_of(container):
        return _vocabulary(container, read_arrays(container)).bodies()


def _vocabulary(container: Container, arrays: Sequence[Any]) -> Vocabulary:
    """What a file of graphs says of the ops that it uses."""

    def decode(data: Any, vocabulary: Vocabulary) -> Graph:
        return graph_from_data(data, arrays, vocabulary)

    return Vocabulary(read_json(container, "ops.json"), decode)


def _entry_from_data(
    data: dict[str, Any], state: dict[str, Tensor], arrays: list[Any], vocabulary: Vocabulary
) -> EntryPoint:
    graph = graph_from_data(data["graph"], arrays, vocabulary)
    signature = _signature_from_data(data["signature"], dims_of(graph))
    local = {name: state[shared] for name, shared in data["state"].items()}
    with by_form():
        _check_entry(graph, signature, local, data)
    hypers = [Hyper(h["name"], float(decode_value(h["default"]))) for h in data["hypers"]]
    entry = EntryPoint(graph, signature, local, hypers)
    values = {s.name for s in signature.specs if s.type is None}
    entry.variants = [_variant_from_data(v, values) for v in data["variants"]]
    if len({frozenset(v.scalars) for v in entry.variants}) != 1:
        raise GraphError("the variants are none, or of different arguments")
    entry.mode = entry.variants[0].mode
    entry.layouts = _layouts_from_data(data.get("layouts", {}), signature)
    return entry


def _layouts_from_data(data: dict[str, Any], signature: Signature) -> dict[str, Layout]:
    ndims = {s.name: s.type.ndim for s in signature.specs if s.type is not None}
    found = {}
    for name, known in data.items():
        orders = tuple(map(text, known["orders"]))
        dims = [item.removesuffix("|") for order in orders for item in order.split(",") if order]
        if name not in ndims or not {*dims} <= {str(d) for d in range(ndims[name])}:
            raise GraphError(f"the layouts {known!r:.60} are of no input {name!r:.60}")
        found[name] = Layout(orders, known["exact"] is True, text(known["place"]))
    return found


def _variant_from_data(data: dict[str, Any], values: set[str]) -> Variant:
    modes = data["modes"].items()
    if not values.issuperset(data["scalars"]) or any(type(flag) is not bool for _, flag in modes):
        raise GraphError("the variants are of other arguments than the signature has, or no modes")
    scalars = {n: decode_value(v) for n, v in data["scalars"].items()}
    return Variant(scalars, {text(path): (None, flag) for path, flag in modes})


def _check_entry(
    graph: Any, signature: Signature, local: dict[str, Tensor], data: dict[str, Any]
) -> None:
    """Check that signature, State and graph fit together."""
    wanted: list[tuple[str, TensorType]] = [
        (s.name, s.type) for s in signature.specs if s.type is not None
    ]
    wanted += [(h["name"], type_from_text("f64[]")) for h in data["hypers"]]
    if len(data["variants"]) > 1:
        wanted.append((VARIANT, type_from_text("i64[]")))
    got = [(n.attrs["name"], n.types[0]) for n in graph.inputs]
    if wanted != got:
        raise GraphError(f"the graph's inputs {got} are not the signature's {wanted}")
    for size in (n for spec in signature.specs if spec.type for n in spec.type.shape):
        symbol = None if isinstance(size, int) else size.expr.symbol
        if not isinstance(size, int) and (symbol is None or symbol.data):
            raise GraphError(f"the dim {size!r} of an input is no name")
    for name, node in graph.states.items():
        if name not in local or type_of(local[name]) != node.types[0]:
            raise GraphError(f"state {name!r} of the graph has no tensor of type {node.types[0]}")
    if signature.others and [str(v.type) for v in graph.outputs[:1]] != ["i64[]"]:
        raise GraphError("the first output is not the number of the way")
    for result in (r for way in signature.ways for r in way.results):
        if "value" in result and not 0 <= result["value"] < len(graph.outputs):
            raise GraphError(f"result {result} names no output of the graph")


def _signature_from_data(data: dict[str, Any], dims: Symbols) -> Signature:
    specs = tuple(
        LeafSpec(text(s["name"]), type_from_text(s["type"], dims), None) if "type" in s
        else LeafSpec(text(s["name"]), None, decode_value(s["value"]))
        for s in data["specs"]
    )  # fmt: skip
    first, *others = map(_way_from_data, data["ways"])
    names = tuple(map(text, data["names"]))
    pytree.check_tree(data["inputs"], len(specs))
    if len(data["inputs"]["tuple"]) != len(names) or place(data["positional"]) > len(names):
        raise GraphError(f"the signature names {len(names)} arguments and nests others")
    return Signature(names, data["positional"], data["inputs"], specs, first.outputs, first.results,
                     tuple(others))  # fmt: skip


def _way_from_data(data: dict[str, Any]) -> Way:
    results = tuple(
        {"value": place(r["value"]), **({"number": True} if r.get("number") is True else {})}
        if "value" in r else {"constant": decode_value(r["constant"])}
        for r in data["results"]
    )  # fmt: skip
    pytree.check_tree(data["outputs"], len(results))
    return Way(data["outputs"], results)
