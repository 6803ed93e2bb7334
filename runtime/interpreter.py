"""The interpreter: the meaning of the IR. Runs a graph node by node over NumPy or CuPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tracegraph.errors import OpError, TraceGraphError, UnseenPathError
from tracegraph.ir.control import COND, CONTROL, GUARD, case_name
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, STATE, Graph, Node, Value
from tracegraph.ops.core import VIEW
from tracegraph.ops.table import OPS, run_op


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
                self._start[self._slots[node.out]] = self.xp.asarray(node.attrs["value"])
        last: dict[int, int] = {}
        steps: list[Step] = []
        for node in order:
            if node.op in (INPUT, STATE, CONSTANT):
                continue
            inputs = tuple(self._slots[v] for v in node.inputs)
            outputs = tuple(self._slots[v] for v in node.outs)
            for slot in (*inputs, *outputs):
                last[slot] = len(steps)
            steps.append(Step(_caller(node, self.xp), inputs, outputs, (), node))
        keep = {*self._outputs, *(s for _, s in self._writes)}
        keep |= {i for i, x in enumerate(self._start) if x is not None}
        dead: dict[int, list[int]] = {}
        for slot, place in last.items():
            if slot not in keep:
                dead.setdefault(place, []).append(slot)
        return [s._replace(dead=tuple(dead.get(i, ()))) for i, s in enumerate(steps)]

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
        self, inputs: Sequence[Any], states: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the outputs and the new contents of what the graph writes.

        Neither shares memory with the inputs, the states, or one another.

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
                    raise _explained(error, node) from error
                if len(outputs) == 1 and result.__class__ is not tuple:
                    slots[outputs[0]] = result
                else:
                    for slot, array in zip(outputs, result, strict=True):
                        slots[slot] = array
                for slot in dead:
                    slots[slot] = None
        return slots

    def _collect(self, slots: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        asarray = self.xp.asarray
        places = [*self._outputs, *(s for _, s in self._writes)]
        results = []
        for slot, copy in zip(places, self._copies, strict=True):
            array = asarray(slots[slot])
            results.append(array.copy() if copy else array)
        count = len(self._outputs)
        names = [name for name, _ in self._writes]
        return results[:count], dict(zip(names, results[count:], strict=True))


def _caller(node: Node, xp: Any) -> Callable[..., Any]:
    if node.op == KERNEL:
        return InterpreterProgram(node.regions["body"], xp).values
    if node.op == GUARD:
        return _guard(node)
    if node.op == COND:
        return _cond(node, xp)
    if node.row.kernel is not None:
        return partial(node.row.kernel, xp, **node.attrs)
    return partial(run_op, node.row, xp, **node.attrs)


def _guard(node: Node) -> Callable[..., Any]:
    expected = node.attrs["expected"]

    def check(value: Any) -> tuple[Any, ...]:
        if value.item() != expected:
            raise unseen(node, value.item(), (expected,))
        return ()

    return check


def _cond(node: Node, xp: Any) -> Callable[..., Any]:
    cases = node.attrs["cases"]
    arms = {case: InterpreterProgram(node.regions[case_name(i)], xp).values
            for i, case in enumerate(cases)}  # fmt: skip

    def choose(selector: Any, *arrays: Any) -> tuple[Any, ...]:
        arm = arms.get(selector.item())
        if arm is None:
            raise unseen(node, selector.item(), cases)
        return arm(*arrays)

    return choose


def unseen(node: Node, value: Any, seen: Sequence[Any]) -> UnseenPathError:
    """The error of a replay whose predicate has a value that no example of the trace had."""
    place = f" at {node.loc}" if node.loc is not None else ""
    known = " or ".join(map(repr, seen))
    return UnseenPathError(
        f"{node.attrs['text'] or 'a predicate'}{place} is {value!r} for these inputs, but {known} "
        "in every example that was traced: nothing was computed or written. Trace this path too: "
        "traced.add_example(*inputs), or trace(..., more_examples=[inputs])"
    )


def _explained(error: Exception, node: Node) -> Exception:
    """The error with op, operands and the user's line."""
    operands = ", ".join(str(v.type) for v in node.inputs)
    place = f" at {node.loc}" if node.loc is not None else ""
    text = f"{error} (in {node.op} of {operands}{place})"
    if isinstance(error, UnseenPathError):
        return error
    if isinstance(error, (TraceGraphError, IndexError, ZeroDivisionError, MemoryError)):
        return type(error)(text)
    return OpError(text)
