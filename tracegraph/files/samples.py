"""Samples in a file: inputs, outputs and a digest of every node, to check it on another machine.

How much a node may differ is measured when the file is saved: the graph runs again with operands
and results that are off by a few units in the last place, as other kernels' are (Monte Carlo
arithmetic: D. S. Parker, UCLA CSD-970002, 1997). What moves is allowed to move by a multiple of
that. Whole numbers are left alone, since every machine computes them exactly; what comes out
otherwise all the same (a comparison of two floats that are nearly equal) is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tracegraph import pytree
from tracegraph.capture.arguments import as_arguments
from tracegraph.devices import Device, device_of
from tracegraph.dtypes import BY_NUMPY, FLOAT_KIND, as_pairs, from_pairs
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import FileFormatError
from tracegraph.files.digests import (
    Digest,
    check_digest,
    digest_of,
    exact_digest,
    gap_between,
    noise_like,
    scale_of,
)
from tracegraph.ir.graph import CONSTANT, SOURCES, Graph, Node
from tracegraph.ir.serial import place
from tracegraph.ops.core import MARK, VIEW
from tracegraph.ops.table import OPS
from tracegraph.replay.signature import checked
from tracegraph.runtime.interpreter import InterpreterProgram

if TYPE_CHECKING:
    from tracegraph.replay.entry import EntryPoint

_CPU: Final = Device("cpu")
_NOISE: Final = 4.0  # units in the last place
_RUNS: Final = 2
_SAFETY: Final = 16.0
_FLOOR: Final = 64.0  # units in the last place of the largest element


class Sample(NamedTuple):
    """One sample of an entry point, as a file has it.

    `inputs` are arrays for the graph's tensor arguments, `variant` the number of the variant;
    `outputs` are arrays with what they may differ by. `digests` has a list for each node by its
    number in the file: a digest with what it may differ by for each result, None for what is not
    compared.
    """

    inputs: list[Any]
    variant: int
    outputs: list[tuple[Any, float]]
    digests: list[list[tuple[Digest, float] | None]]


class Watched(InterpreterProgram):
    """A graph that shows what its nodes compute: `watch(node, call, operands)` gives the result."""

    def __init__(self, graph: Graph, xp: Any, watch: Callable[..., Any]) -> None:
        self._watch = watch
        super().__init__(graph, xp)

    def caller(self, node: Node) -> Callable[..., Any]:
        """Return what runs a node, watched."""
        call = super().caller(node)
        own = node.outs[0].node if node.outs else node
        return lambda *operands: self._watch(own, call, operands)


def results_of(node: Node, result: Any) -> Sequence[Any]:
    """Return the results of a node, each for itself."""
    return result if isinstance(result, (tuple, list)) or not node.outs else (result,)


# Making.


def examples_for(entries: Mapping[str, EntryPoint], samples: Any) -> dict[str, list[Any]]:
    """Return arguments for each entry point that is saved with samples.

    Raises:
        TypeError: samples that say neither of which entry point they are, nor are the only one's.
    """
    if samples is None or samples is False:
        return {}
    if samples is True:
        samples = dict.fromkeys(entries, True)
    if not isinstance(samples, Mapping):
        if len(entries) != 1:
            raise TypeError(f"samples of several entry points come as a dict of: {list(entries)}")
        samples = dict.fromkeys(entries, samples)
    found = {}
    for name, given in samples.items():
        if name not in entries:
            raise TypeError(f"samples for {name!r}, but the entry points are {list(entries)}")
        chosen = entries[name].examples if given is True else given
        if not isinstance(chosen, (list, tuple)) or not len(chosen):
            raise TypeError(f"the samples of {name!r} must be a list of example inputs")
        found[name] = list(chosen)
    return found


def sample_data(
    entry: EntryPoint, example: Any, keep: Callable[[Any], int]
) -> tuple[dict[str, Any], list[Any]]:
    """Run an entry point on an example; returns what a file has: the sample, and its digests."""
    given, _, variant = entry.match(as_arguments(example), {})
    arrays, _, hypers = entry._arguments(_CPU, as_arguments(example), {})
    states = {n: _on_cpu(t) for n, t in entry.state.items()}
    runs = [_run(entry.graph, [*arrays, *hypers], states, noise) for noise in range(_RUNS + 1)]
    digests, outputs = runs[0]
    data = {
        "inputs": [keep(_on_cpu(leaf)) for leaf in given.values()],
        "variant": variant,
        "outputs": [
            {"tensor": keep(array), "tolerance": _tolerance_of_array(array, others)}
            for array, *others in zip(*(outs for _, outs in runs), strict=True)
        ],
    }
    assert outputs is not None
    rows = [
        [_compared(digest, [found[node][i] for found, _ in runs[1:]], value.type.dtype.np)
         for i, (value, digest) in enumerate(zip(node.outs, digests[node], strict=True))]
        for node in entry.graph.order()
    ]  # fmt: skip
    return data, rows


def _on_cpu(leaf: Any) -> Any:
    array = leaf._data if isinstance(leaf, Tensor) else leaf
    return array if device_of(array).type == "cpu" else array.get()


def _run(
    graph: Graph, inputs: Sequence[Any], states: Mapping[str, Any], noise: int
) -> tuple[dict[Node, list[Digest]], list[Any]]:
    """Return the digests of all nodes and the outputs; with `noise` above 0, off by rounding."""
    found: dict[Node, list[Digest]] = {}

    def watch(node: Node, call: Callable[..., Any], operands: Sequence[Any]) -> Any:
        shaken = noise and not (node.op in OPS and {MARK, VIEW} & node.row.traits)
        salt = noise * 7919 + len(found) * 31
        if shaken:
            operands = [_shaken(x, salt + i) for i, x in enumerate(operands)]
        result = call(*operands)
        if shaken:
            many = [_shaken(x, salt - i) for i, x in enumerate(results_of(node, result), 1)]
            result = tuple(many) if isinstance(result, (tuple, list)) else many[0]
        found[node] = [digest_of(r) for r in results_of(node, result)]
        return result

    program = Watched(graph, np, watch)
    for node, array in sources_of(graph, inputs, states):
        found[node] = [exact_digest(array)]
    outputs, _ = program.run(inputs, states)
    return found, outputs


def sources_of(
    graph: Graph, inputs: Sequence[Any], states: Mapping[str, Any]
) -> list[tuple[Node, Any]]:
    """Return inputs, State and constants with their arrays."""
    found = list(zip(graph.inputs, inputs, strict=True))
    found += [(node, states[name]) for name, node in graph.states.items()]
    found += [(n, n.attrs["value"]) for n in graph.order() if n.op == CONSTANT]
    return found


def _shaken(x: Any, salt: int) -> Any:
    """Return floats that are off by some units in the last place; whole numbers stay."""
    if not isinstance(x, (np.ndarray, np.generic)) or BY_NUMPY[x.dtype].kind < FLOAT_KIND:
        return x
    if x.dtype.kind == "c":
        return from_pairs(_shaken(as_pairs(x), salt), BY_NUMPY[x.dtype])
    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        off = np.where(np.isfinite(wide) & (wide != np.rint(wide)), wide, 0.0)
        off *= noise_like(off, salt) * (_NOISE * _epsilon(x.dtype))
        return (wide + off).astype(x.dtype)


def _epsilon(dtype: Any) -> float:
    return {"float64": 2.2e-16, "float32": 1.2e-7, "float16": 9.8e-4}.get(dtype.name, 7.8e-3)


def _compared(clean: Digest, others: Sequence[Digest], dtype: Any) -> list[Any] | None:
    """Return a digest with what it may differ by; None where rounding changes it altogether."""
    moved = max((gap_between(clean, other) for other in others), default=0.0)
    if moved == np.inf:
        return None
    if "sha256" in clean:
        return [clean, 0.0]
    return [clean, _allowed(moved, scale_of(clean), dtype)]


def _tolerance_of_array(array: Any, others: Sequence[Any]) -> float:
    array, *others = map(as_pairs, (array, *others))
    if BY_NUMPY[array.dtype].kind != FLOAT_KIND:
        return 0.0
    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        moved = [np.abs(wide - other.astype(np.float64)) for other in others]
        finite = [m[np.isfinite(m)].max(initial=0.0) for m in moved]
        scale = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    return _allowed(max(finite), scale, array.dtype)


def _allowed(moved: float, scale: float, dtype: Any) -> float:
    return float(f"{_SAFETY * moved + _FLOOR * _epsilon(dtype) * scale:.3g}")


# Reading.


def example_from_data(data: Any, arrays: Sequence[Any], entry: EntryPoint) -> tuple[Any, ...]:
    """Return the arguments of a sample in a file, by place."""
    signature = entry.signature
    scalars = entry.variants[place(data["variant"])].scalars
    tensors = iter(map(wrap, _inputs(data, arrays, entry)))
    leaves = [
        scalars.get(s.name, s.value) if s.type is None else next(tensors) for s in signature.specs
    ]
    classes = pytree.dataclasses_in(signature.inputs)
    values: tuple[Any, ...] = pytree.unflatten(signature.inputs, leaves, classes)
    return values


def _inputs(data: Any, arrays: Sequence[Any], entry: EntryPoint) -> list[Any]:
    """The arrays of a sample's inputs, which have the types that the signature wants."""
    wanted = [spec for spec in entry.signature.specs if spec.type is not None]
    sizes: dict[str, tuple[Any, str]] = {}
    if not isinstance(data["inputs"], list) or len(data["inputs"]) != len(wanted):
        raise FileFormatError("a sample has other inputs than the signature; save the file again")
    return [
        checked(arrays[place(n)], spec, sizes)
        for n, spec in zip(data["inputs"], wanted, strict=True)
    ]


def read_sample(data: Any, rows: Any, arrays: Sequence[Any], entry: EntryPoint) -> Sample:
    """Return a sample that a file has.

    Raises:
        FileFormatError: it does not follow the format, or does not fit the graph.
    """
    outputs = [(arrays[place(o["tensor"])], _number(o["tolerance"])) for o in data["outputs"]]
    types = [type_of(wrap(array)) for array, _ in outputs]
    if len(types) != len(entry.graph.outputs):
        raise FileFormatError("a sample has other outputs than the graph; save the file again")
    digests = [
        [None if item is None else (check_digest(item[0]), _number(item[1])) for item in row]
        for row in rows
    ]
    inputs = _inputs(data, arrays, entry)
    return Sample(inputs, place(data["variant"]), outputs, digests)


def _number(data: Any) -> float:
    if not isinstance(data, (int, float)) or isinstance(data, bool) or not data >= 0:
        raise FileFormatError(f"{data!r:.60} is no tolerance; save the file again")
    return float(data)


def is_source(node: Node) -> bool:
    """Whether a node is an input, State or a constant."""
    return node.op in SOURCES
