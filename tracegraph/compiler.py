"""Graph to Program: the one module that joins passes and runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from tracegraph.capture.compiling import (  # noqa: F401
    allow_in_graph,
    assume_constant_result,
    compile,
    cudagraph_mark_step_begin,
    disable,
    is_compiling,
    is_dynamo_compiling,
    is_exporting,
    list_backends,
    reset,
    set_stance,
    substitute_in_graph,
)
from tracegraph.devices import Device, device_of, module_of, parse_device
from tracegraph.eager.storage import stamp
from tracegraph.eager.tensors import Tensor, storage_of, type_of
from tracegraph.errors import DeviceError, GuardError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import SOURCES, Graph, Node
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.runtime.states import Early, States

RUNTIMES = ("interpreter", "native")


def optimize(
    graph: Graph, level: int | Sequence[str] = 1, *, report: Any = None, check: bool = False,
    accept: Callable[[Node], bool] | None = None,
) -> Graph:  # fmt: skip
    """Return an optimised copy of a graph.

    Level 0 changes nothing, 1 runs exact passes (bit-identical results), 2 also decomposes and
    fuses; names of passes run just these. `report` collects a row per pass: name, seconds, nodes
    before and after, changes. `accept` says which nodes may be fused; by default all that can be.
    """
    from tracegraph.passes.pipeline import run_passes

    with collector_paused():
        made = graph.copy()
        run_passes(made, level, report=report, check=check, accept=accept)
    return made


# What runs a call on row-major arrays; it returns None where `run` raises.
Again = Callable[[Sequence[Any]], list[Any] | None]


class CompiledGraph:
    """A graph made executable on one device, what depends on State only computed ahead.

    That part, the prologue, runs when State that it reads was written or replaced since the last
    call; and for each call where memory may change unseen (see `storage.stamp`). What native code
    packs of its results and reads no more is let go at once: of the weights of a convolution that
    takes in a batch norm there would be three copies.
    """

    def __init__(
        self, graph: Graph, device: Device, level: int, runtime: str, in_place: Iterable[str]
    ) -> None:
        from tracegraph.passes.prologue import split_prologue

        xp = module_of(device)
        make: Callable[[Graph], Any] = partial(InterpreterProgram, xp=xp)
        accept = None
        if runtime == "native":
            from tracegraph.runtime.cpu.lowering.fused import is_native
            from tracegraph.runtime.cpu.program import program_for

            make, accept = partial(program_for, in_place=in_place), is_native
        main = optimize(graph, level, accept=accept)
        early = split_prologue(main) if level else Graph()
        self._device = device
        self._main = make(main)
        self._wants_native = runtime == "native"
        self._types = {name: node.types[0] for name, node in graph.states.items()}
        self._sources = tuple(early.states)
        self.read = tuple(name for name in main.states if name in graph.states)
        self._made = tuple(name for name in main.states if name not in graph.states)
        self._early = _Prologue(early, self._made, xp)
        # Stamps of the sources and what was computed from them; replaced as one, never changed,
        # so that threads need no lock: two that find it stale both compute.
        self._kept: tuple[Any, Early | None] = (None, None)
        # Likewise the arrays of State that were found to fit, and what they are on this device.
        self._seen: tuple[list[tuple[str, Any]], dict[str, Any]] = ([], {})
        self._both: tuple[Any, Any, dict[str, Any]] = (None, None, {})
        self._has_grown = True  # by what the next call need not hold

    def run(
        self, inputs: Sequence[Any], state: Mapping[str, Tensor]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the outputs and the new contents of what the graph writes, as fresh arrays.

        Raises:
            OpError: an op failed; the sentence names op, operands and the user's line.
            GuardError: State has another type than it had when it was traced.
        """
        arrays, stamp_of = self._ready(state)
        outputs, writes = self._main.run(inputs, arrays, stamp_of)
        if self._has_grown:
            self._has_grown = False
            if self.is_native:
                self._main.give_back()
        return outputs, writes

    def _ready(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], Callable[..., Any]]:
        """Return the arrays that the main graph reads, and what says whether State stays."""
        arrays = self._arrays(state)
        early: Any = ()
        if self._made:
            early, made = self._prologue(state)
            arrays = self._joined(arrays, made)

        def stamp_of(names: Sequence[str]) -> Any:
            stamps = _stamps([state[name] for name in names if name in state])
            return None if stamps is None or early is None else (early, stamps)

        return arrays, stamp_of

    def explain(self) -> str:
        """Return what runs, for people: kernels and host calls of a native program."""
        return self._head() + str(self._main.explain())

    def explain_call(
        self, inputs: Sequence[Any], state: Mapping[str, Tensor], profile: bool
    ) -> str:
        """Return what runs for such inputs; `profile` runs it, commits nothing, and adds times.

        Raises:
            DeviceError: only a native program measures its steps.
        """
        if not self.is_native:
            if profile:
                raise DeviceError("only a native program measures its steps; leave profile out")
            return self.explain()
        arrays, stamp_of = self._ready(state)
        told = self._main.explain_call(inputs, arrays, stamp_of, profile)
        return self._head() + str(told)

    def prepare(self, inputs: Sequence[Any]) -> None:
        """Compile what a call with such inputs needs."""
        if self.is_native:
            self._main.prepare(inputs)

    @property
    def is_native(self) -> bool:
        """Whether native code runs it, host calls included."""
        return not isinstance(self._main, InterpreterProgram)

    def counted(self, inputs: Sequence[Any]) -> set[str] | None:
        """Return the State that something is made of ahead of a call with such inputs, and kept.

        None if such a call is more than one native call.
        """
        plan = self._main.plan_of(inputs) if self.is_native else None
        if plan is None or not plan.is_one_call:
            return None
        return {name for name in (*self._sources, *plan.keeps) if name in self._types}

    def again(self, inputs: Sequence[Any], state: Mapping[str, Tensor]) -> Again | None:
        """Return what runs calls with such inputs, which are one native call, while State stays.

        That is while its arrays are the same, and what is `counted` has the same content. None if
        it is not known whether it has.
        """
        made: Again | None = self._main.plan_of(inputs).again(*self._ready(state))
        return made

    def apart(self, inputs: Sequence[Any]) -> list[str]:
        """Return the State whose new content a call with such inputs does not write where it lies.

        What `again` returns gives it after the results.
        """
        placed = self._main.plan_of(inputs).plan.results[len(self._main.graph.outputs) :]
        written = zip(self._main.graph.writes, placed, strict=True)
        return [name for name, place in written if place.buffer.origin != "state"]

    def _head(self) -> str:
        """Return what is to be said before the steps."""
        head = ""
        if self._made:
            head += f"{self._early.size} nodes of State alone: computed ahead, by the interpreter\n"
        if self._wants_native and not self.is_native:
            head += "the interpreter runs it: a size in it follows from data\n"
        return head

    def _prologue(self, state: Mapping[str, Tensor]) -> tuple[Any, Early]:
        """Return the stamps of what was computed ahead (None: it may change), and the arrays."""
        tensors = [state[name] for name in self._sources]
        stamps = _stamps(tensors)
        known, made = self._kept
        if made is not None and stamps is not None and known == stamps:
            return stamps, made
        sources = {name: self._array(name, state[name]) for name in self._sources}
        made, self._has_grown = Early(lambda name: self._early.run(sources, name)), True
        unchanged = stamps is not None and stamps == _stamps(tensors)
        self._kept = (stamps, made) if unchanged else (None, None)
        return stamps if unchanged else None, made

    def _joined(self, arrays: dict[str, Any], early: Early) -> dict[str, Any]:
        """Return both, as the same dict as long as they are the same."""
        known, other, both = self._both
        if known is not arrays or other is not early:
            both = States(arrays, early)
            self._both = (arrays, early, both)
        return both

    def _arrays(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the arrays of State that the main graph reads, on this device."""
        seen, arrays = self._seen
        for name, data in seen:
            if state[name]._data is not data:
                break
        else:
            if len(seen) == len(self.read):
                return arrays
        arrays = {name: self._array(name, state[name]) for name in self.read}
        if self._device.type == "cpu":  # a copy on another device would miss what is written
            self._seen = ([(name, state[name]._data) for name in self.read], arrays)
        return arrays

    def _array(self, name: str, t: Tensor) -> Any:
        data, known = t._data, self._types[name]
        if data.shape != known.shape or data.dtype != known.dtype.np:
            raise GuardError(
                f"{name} was {known} when it was traced and is {type_of(t)} now; trace again, or "
                "put back a tensor of that type"
            )
        return data if device_of(data) == self._device else self._device.place(data)


class _Prologue:
    """A prologue in parts that share no node: each runs when what it makes is read."""

    def __init__(self, graph: Graph, names: Sequence[str], xp: Any) -> None:
        from tracegraph.passes.prologue import parts_of

        self.size = sum(node.op not in SOURCES for node in graph.nodes)
        self._parts: dict[str, tuple[list[str], InterpreterProgram]] = {}
        for numbers, part in parts_of(graph):
            made = [names[i] for i in numbers]
            self._parts |= dict.fromkeys(made, (made, InterpreterProgram(part, xp)))

    def run(self, sources: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return an array, and those that are made with it."""
        names, part = self._parts[name]
        return dict(zip(names, part.run((), sources)[0], strict=True))


def _stamps(tensors: Sequence[Tensor]) -> list[Any] | None:
    """What stays equal while all tensors hold what they do; None where that cannot be known."""
    stamps: list[Any] = []
    for t in tensors:
        known = stamp(storage_of(t))
        if known is None:
            return None
        stamps += known, t._chain
    return stamps


def make_program(
    graph: Graph, device: Any = "cpu", runtime: str | None = None, level: int | None = None,
    in_place: Iterable[str] = (),
) -> CompiledGraph:  # fmt: skip
    """Return a graph made executable on a device.

    `level` is that of `optimize`; by default 1 for the interpreter and 2 for the native runtime.
    `in_place` names State whose new content a run that does not raise may write to its memory.

    Raises:
        DeviceError: no such runtime or device here.
    """
    wanted: Device = parse_device(device)
    if runtime not in (None, *RUNTIMES):
        raise DeviceError(f"no runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
    if runtime is None:
        runtime = "native" if level is None and wanted.type == "cpu" else "interpreter"
    if runtime == "native" and wanted.type != "cpu":
        raise DeviceError(f"the native runtime is for the CPU, not for {wanted}; leave runtime out")
    if level is None:
        level = 2 if runtime == "native" else 1
    with collector_paused():
        return CompiledGraph(graph, wanted, level, runtime, in_place)
