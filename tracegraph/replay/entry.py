"""EntryPoint: a graph with a signature and State, ready to be called.

`Traced` (live, in the process that traced) and the entry points of a loaded file are EntryPoints.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegraph import pytree
from tracegraph.audit.report import Report, report_on
from tracegraph.capture.variants import Variant, check_value, choose
from tracegraph.devices import device_of, parse_device
from tracegraph.eager.tensors import Tensor, wrap
from tracegraph.ir.graph import Graph
from tracegraph.replay.choosing import graded_sources, wants_tensors
from tracegraph.replay.held_state import HeldState, Trainable, check_apart, check_type, load_state
from tracegraph.replay.layouts import Layout, check_layouts
from tracegraph.replay.program import Program
from tracegraph.replay.signature import (
    Hyper,
    Signature,
    bind,
    checked,
    hyper_arrays,
    is_leaf,
    plainly,
)

if TYPE_CHECKING:
    from tracegraph.audit.watching import Watch
    from tracegraph.capture.places import Place


def _result(described: dict[str, Any], given: list[Tensor]) -> Any:
    """One leaf of the outputs: a tensor, a Python number that follows from sizes, a constant."""
    if "value" not in described:
        return described["constant"]
    t = given[described["value"]]
    return t.item() if "number" in described else t


class EntryPoint:
    """A callable graph. See `Traced` and `tracegraph.load`."""

    def __init__(
        self, graph: Graph, signature: Signature, state: Mapping[str, Tensor],
        hypers: Sequence[Hyper],
    ) -> None:  # fmt: skip
        self.graph = graph
        self.signature = signature
        self.held = HeldState(state)
        self.hypers = list(hypers)
        self.classes: dict[str, type] = {}
        self.layouts: dict[str, Layout] = {}  # how inputs lie where the trace relied on it
        self.variants = [Variant({}, {})]
        self.mode: bool | None = None  # of a loaded file: train or eval
        self.watch: Watch | None = None  # of live traces: the Python values that are frozen
        self.told: dict[str, Any] = {}  # of a loaded file: what its report says of the trace
        self.trainable = Trainable()  # of a loaded file
        self.examples: list[Any] = []  # arguments of calls: those of the trace
        self.tensor_programs: dict[str, Any] = {}
        self.lock = threading.RLock()
        self._programs: dict[tuple[str, str | None], Program] = {}
        self._graded: tuple[Graph | None, set[str], tuple[str, ...]] = (None, set(), ())

    @functools.cached_property
    def graph(self) -> Graph:
        """The graph; that of one run is made when it is first asked for."""
        with self.lock:
            if "graph" not in self.__dict__:  # another thread may have made it
                self.__dict__["graph"] = self._make_graph()
            made: Graph = self.__dict__["graph"]
            return made

    def graph_later(self, make: Callable[[], Graph]) -> None:
        """Have another graph, which `make` makes when it is first asked for."""
        with self.lock:
            self._make_graph = make
            self.__dict__.pop("graph", None)

    @property
    def modes(self) -> list[bool]:
        """The modes in which it was traced: True is train, False eval; none without modules."""
        return [m for m in dict.fromkeys(v.mode for v in self.variants) if m is not None]

    @property
    def training(self) -> bool | None:
        """The mode of a loaded file that a larger trace relies on."""
        return self.mode

    @property
    def graded(self) -> set[str]:
        """Names of the inputs and State that gradients of the results can reach."""
        return self.reached()[0]

    def reached(self) -> tuple[set[str], tuple[str, ...]]:
        """Return `graded`, and the State in it."""
        graph, names, states = self._graded
        if graph is not self.graph:
            graph = self.graph
            names = graded_sources(graph)
            states = tuple(n for n in graph.states if n in names)
            self._graded = (graph, names, states)
        return names, states

    def hold(self, held: HeldState) -> None:
        """Replay from this State from now on; programs are made again."""
        self.held = held
        self._programs.clear()

    @property
    def state(self) -> dict[str, Tensor]:
        """State by name: the tensors that its places hold now (a place may have been rebound).

        Raises:
            GuardError: a place holds nothing of the type that it held when it was traced.
        """
        return self.held.present()

    def checked_state(self) -> dict[str, Tensor]:
        """Return State by name, which has the types that it had when it was traced.

        Raises:
            GuardError: it has not.
        """
        state = self.state
        for name, node in self.graph.states.items():
            check_type(name, state[name], node.types[0])
        return state

    def program(
        self, device: Any = "cpu", runtime: str | None = None, level: int | None = None
    ) -> Program:
        """Return this entry compiled for a device.

        Args:
            device: where it runs.
            runtime: "native" (machine code for this CPU) or "interpreter" (op by op over NumPy or
                CuPy, with `level` 0 and 1 bit for bit what eager calls give). By default native on
                a CPU if no level is given.
            level: of optimisation, 0 to 2.
        """
        return Program(self, device, runtime, level)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay on the interpreter, on the device where State (or the first input) is.

        `program()` compiles. Where an input or State requires a gradient, the outputs can be
        differentiated.
        """
        device = self._home(args)
        if wants_tensors(self, args, kwargs):
            from tracegraph.replay.on_tensors import replay_on_tensors

            return replay_on_tensors(self, device, args, kwargs)
        key = (str(device), None)
        program = self._programs.get(key)
        if program is None:
            with self.lock:
                program = self._programs.setdefault(key, self.program(device, "interpreter"))
        return program(*args, **kwargs)

    def _home(self, args: Sequence[Any]) -> Any:
        for t in self.held.tensors.values():
            return device_of(t._data)
        for a in args:
            if isinstance(a, Tensor):
                return a.device if a.is_sparse else device_of(a._data)
        return parse_device("cpu")

    def replay(self, program: Any, device: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a compiled program of this entry and commit what it writes."""
        arrays, given, hypers = self._arguments(device, args, kwargs)
        if not self.graph.writes:
            outputs, _ = program.run([*arrays, *hypers], self.state)
            return self.results(map(wrap, outputs))
        with self.lock:
            outputs, writes = program.run([*arrays, *hypers], self.state)
            self.held.commit(writes, given)
        return self.results(map(wrap, outputs))

    def _arguments(
        self, device: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any], list[Any]]:
        """Check a call against the signature; returns arrays, given leaves by name, hypers."""
        given, values, variant = self.match(args, kwargs)
        arrays = [_array_of(leaf, device) for leaf in given.values()]
        hypers = hyper_arrays(self.hypers, values)
        if len(self.variants) > 1:
            hypers.append(np.asarray(variant, np.int64))
        if device.type != "cpu":
            hypers = [device.place(h) for h in hypers]
        return arrays, given, hypers

    def match(
        self, args: Any, kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Check a call against the signature.

        Returns the tensors and arrays that it gives by name, in order; the hyper-parameters that
        it sets (None where it does not); and the number of the variant that it belongs to.

        Raises:
            SignatureError: inputs differ from the signature.
            GuardError: an input shares memory with what is written, or lies otherwise than traced.
        """
        found = self._matched(args, kwargs)
        check_layouts(self.layouts, found[0])
        if self.graph.writes:
            check_apart(self.graph.writes, self.held.tensors, found[0])
        return found

    def _matched(
        self, args: Any, kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], int]:
        if self.watch is not None:
            self.watch.check()
        values = {h.name: kwargs.pop(h.name, None) for h in self.hypers}
        plain = None if kwargs else plainly(self.signature, args)
        if plain is not None:
            return plain, values, choose(self.variants, {}, self.mode)
        leaves = pytree.match(
            self.signature.inputs,
            bind(self.graph.name, self.signature, self.hypers, args, kwargs), is_leaf, "input",
        )  # fmt: skip
        given: dict[str, Any] = {}
        scalars: dict[str, Any] = {}
        sizes: dict[str, tuple[Any, str]] = {}
        for leaf, spec in zip(leaves, self.signature.specs, strict=True):
            if spec.type is not None:
                given[spec.name] = checked(leaf, spec, sizes)
            elif spec.name in self.variants[0].scalars:
                scalars[spec.name] = leaf
            else:
                check_value(spec.name, spec.value, leaf)
        return given, values, choose(self.variants, scalars, self.mode)

    def results(self, outputs: Iterable[Tensor]) -> Any:
        """Return the outputs as the function nested them."""
        given = list(outputs)
        ways = self.signature.ways
        way = ways[0] if len(ways) == 1 else ways[int(given[0]._data.item())]
        leaves = [_result(r, given) for r in way.results]
        return pytree.unflatten(way.outputs, leaves, self.classes)

    def subgraph(self, to: Any, from_: Any = None) -> EntryPoint:
        """Return the part that gives `to` as an entry point; see `Graph.subgraph`.

        Raises:
            GraphError: no such place; or the part depends on inputs before `from_`.
        """
        from tracegraph.replay.parts import part_of

        return part_of(self, from_, to)

    def report(self) -> Report:
        """Return what the graph froze and relies on: print it, or read it as a mapping."""
        return report_on(self, self.found())

    def found(self) -> dict[str, Any]:
        """Return what the trace found out besides the graph; see `report_on`."""
        return self.told

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Return State that is trained, by name; see `Loaded.named_parameters`."""
        self.trainable.wake()
        return ((n, t) for n, t in self.state.items() if t in self.trainable or t.requires_grad)

    def parameters(self) -> Iterator[Tensor]:
        """Return State that is trained."""
        return (t for _, t in self.named_parameters())

    @property
    def __signature__(self) -> inspect.Signature:
        """What `inspect.signature` says of a call."""
        names = self.signature.names
        first = self.signature.positional
        kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        found = [inspect.Parameter(n, kinds[i < first]) for i, n in enumerate(names)]
        return inspect.Signature(found)

    def __tracegraph_state__(self) -> Iterator[tuple[str, Any]]:
        """What a trace that calls this takes for State."""
        return iter(self.state.items())

    def __tracegraph_rebound__(self) -> dict[str, list[Place]]:
        """Where a call puts other tensors, by the name of State."""
        return self.held.rebound

    def __tracegraph_containers__(self) -> Iterator[Any]:
        """What a call may rebind."""
        return iter((self.held.tensors, self.held.shared))

    def save(self, f: Any) -> None:
        """Write this entry point to a file; the same as `tracegraph.save(self, f)`."""
        from tracegraph.files.saving import save

        save(self, f)

    def state_dict(self) -> dict[str, Tensor]:
        """Return State by name: parameters, buffers, optimizer slots, random state."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays into State by name; nothing changes unless all of it fits.

        Raises:
            StateError: a name is missing or unknown (`strict`), or a type differs.
        """
        load_state(self.state, state, strict)


def _array_of(leaf: Any, device: Any) -> Any:
    """Return the array of an input leaf on a device."""
    array = leaf._data if isinstance(leaf, Tensor) else leaf
    if array.__class__ is np.ndarray and device.type == "cpu":
        return array
    return array if device_of(array) == device else device.place(array)
