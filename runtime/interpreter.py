"""The interpreter: the meaning of the IR. Runs a graph node by node over NumPy or CuPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tracegraph.errors import GraphError, OpError, TraceGraphError, UnseenPathError
from tracegraph.ir.control import CONTROL, FACT
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, SOURCES, STATE, Graph, Node, Value
from tracegraph.ops.core import VIEW
from tracegraph.ops.table import OPS, runner
from tracegraph.runtime.binding import (
    bare_dims,
    facts_early,
    ready_for_sizes,
    sizes_first,
    sizes_read,
)
from tracegraph.runtime.control import HANDLERS


class Step(NamedTuple):
    """One node made ready: what to call, where operands and results lie, what dies after it."""

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    node: Node


class InterpreterProgram:
    """A graph as a list of steps over numbered slots. Immutable: any thread may run it."""

    def __init__(self, graph: Graph, xp: Any = np) -> None:
        self.xp = xp
        self.graph = graph
        self._slots: dict[Value, int] = {}
        order = graph.order()
        for node in order:
            for value in node.outs:
                self._slots[value] = len(self._slots)
        self._start: list[Any] = [None] * len(self._slots)
        self._inputs = [self._slots[n.out] for n in graph.inputs]
        self._states = [(name, self._slots[n.out]) for name, n in graph.states.items()]
        self._outputs = [self._slots[v] for v in graph.outputs]
        self._writes = [(name, self._slots[v]) for name, v in graph.writes.items()]
        self._steps = self._make_steps(order)
        self._copies = self._must_copy()

    def _make_steps(self, order: Sequence[Node]) -> list[Step]:
        for node in order:
            if node.op == CONSTANT:
                self._start[self._slots[node.out]] = self.constant(node.attrs["value"])
        last: dict[int, int] = {}
        steps: list[Step] = []
        wanted = {name for node in order for name in sizes_read(node)}
        sizes: dict[str, int] = {}  # where symbolic sizes lie
        for node in (*self.graph.inputs, *facts_early(sizes_first(order))):
            if node.op not in SOURCES:
                steps.append(self._step(node, sizes))
            for name, value, axis in bare_dims(node.outs) if wanted else ():
                if name in wanted and name not in sizes:
                    sizes[name] = len(self._start)
                    self._start.append(None)
                    read, held = partial(_size, axis), self._slots[value]
                    steps.append(Step(read, (held,), (sizes[name],), (), node))
        for place, step in enumerate(steps):
            for slot in (*step.inputs, *step.outputs):
                last[slot] = place
        keep = {*self._outputs, *(s for _, s in self._writes)}
        keep |= {i for i, x in enumerate(self._start) if x is not None}
        dead: dict[int, list[int]] = {}
        for slot, place in last.items():
            if slot not in keep:
                dead.setdefault(place, []).append(slot)
        return [s._replace(dead=tuple(dead.get(i, ()))) for i, s in enumerate(steps)]

    def _step(self, node: Node, sizes: Mapping[str, int]) -> Step:
        inputs = tuple(self._slots[v] for v in node.inputs)
        outputs = tuple(self._slots[v] for v in node.outs)
        read = sizes_read(node)
        if not read:
            return Step(self.caller(node), inputs, outputs, (), node)
        names = sorted(read.keys() & sizes.keys())
        own = {name for name, _, _ in bare_dims(node.outs)}
        for name in sorted(read.keys() - sizes.keys() - own):
            raise GraphError(f"{node.op} at {node.loc} needs the size {name} before it is known")
        call = ready_for_sizes(node, names, self.caller)
        return Step(call, (*(sizes[name] for name in names), *inputs), outputs, (), node)

    def _must_copy(self) -> list[bool]:
        """For each result: whether it may share memory with a source or another result."""
        roots: dict[Value, Value] = {}
        seen: set[Value] = set()
        copies = []
        for value in self.graph.results():
            root = value
            while root.node.op in OPS and VIEW in root.node.row.traits:
                root = roots.get(root.node.inputs[0], root.node.inputs[0])
            roots[value] = root
            shares = root.node.op in (INPUT, STATE, CONSTANT, KERNEL) or root.node.op in CONTROL
            copies.append(shares or root in seen)
            seen.add(root)
        return copies

    def run(
        self, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: Any = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the outputs and the new contents of what the graph writes.

        Neither shares memory with the inputs, the states, or one another. `stamp_of` is for
        programs that keep something of State.

        Raises:
            OpError: an op failed; the sentence names op, operands and the user's line.
        """
        slots = self._start.copy()
        for name, slot in self._states:
            slots[slot] = states[name]
        return self._collect(self._filled(slots, inputs))

    def values(self, *inputs: Any) -> tuple[Any, ...]:
        """Return the outputs of a region; they may share memory with its inputs."""
        slots = self._filled(self._start.copy(), inputs)
        return tuple([slots[slot] for slot in self._outputs])

    def _filled(self, slots: list[Any], inputs: Sequence[Any]) -> list[Any]:
        for slot, array in zip(self._inputs, inputs, strict=True):
            slots[slot] = array
        with np.errstate(all="ignore"):
            for call, operands, outputs, dead, node in self._steps:
                try:
                    result = call(*[slots[i] for i in operands])
                except Exception as error:
                    raise explained(error, node) from error
                if len(outputs) == 1 and result.__class__ is not tuple:
                    slots[outputs[0]] = result
                else:
                    for slot, array in zip(outputs, result, strict=True):
                        slots[slot] = array
                for slot in dead:
                    slots[slot] = None
        return slots

    def explain(self) -> str:
        """Return what runs, for people: a line for each step."""
        return "\n".join(f"{s.node.op} at {s.node.loc}" for s in self._steps)

    # What a program of something else than arrays does in another way (see replay/on_tensors.py).

    def constant(self, array: Any) -> Any:
        """Return what the operands of a constant are."""
        return self.xp.asarray(array)

    def inner(self, region: Graph) -> InterpreterProgram:
        """Return a region made ready."""
        return InterpreterProgram(region, self.xp)

    def caller(self, node: Node) -> Callable[..., Any]:
        """Return what runs a node on its operands."""
        if node.op == KERNEL:
            return self.inner(node.regions["body"]).values
        if node.op in HANDLERS:
            return HANDLERS[node.op](node, self.inner)
        return partial(runner(node.row, self.xp), **node.attrs)

    def result(self, value: Any, copy: bool) -> Any:
        """Return a result, in memory of its own where it must be copied."""
        array = self.xp.asarray(value)
        copy = copy or (not array.flags.c_contiguous and 0 in array.strides)  # expanded memory
        return array.copy() if copy else array

    def _collect(self, slots: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        places = [*self._outputs, *(s for _, s in self._writes)]
        results = [self.result(slots[s], c) for s, c in zip(places, self._copies, strict=True)]
        count = len(self._outputs)
        names = [name for name, _ in self._writes]
        return results[:count], dict(zip(names, results[count:], strict=True))


def _size(axis: int, array: Any) -> Any:
    return array.shape[axis]


def explained(error: Exception, node: Node) -> Exception:
    """The error with op, operands and the user's line."""
    operands = ", ".join(str(v.type) for v in node.inputs)
    place = f" at {node.loc}" if node.loc is not None else ""
    text = f"{error} (in {node.op} of {operands}{place})"
    if isinstance(error, UnseenPathError) or node.op == FACT:
        return error
    if isinstance(error, (TraceGraphError, IndexError, ZeroDivisionError, MemoryError)):
        return type(error)(text)
    return OpError(text)
