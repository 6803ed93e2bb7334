"""NativeProgram: a graph as native code, run by one call between host calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import INPUT, KERNEL, Graph, Node
from tracegraph.ops.table import run_op
from tracegraph.runtime.binding import (
    bare_dims,
    facts_early,
    sizes_first,
    sizes_read,
    specialised,
)
from tracegraph.runtime.control import HANDLERS
from tracegraph.runtime.cpu.arrays import MAX_CONTEXTS, NOTHING, Arenas, Arrays, Blocks, give_back
from tracegraph.runtime.cpu.code.llvm import host_target
from tracegraph.runtime.cpu.context import Context
from tracegraph.runtime.cpu.driver.driver import host_driver
from tracegraph.runtime.cpu.kept import Kept, Store, ahead_of
from tracegraph.runtime.cpu.kernels import addresses
from tracegraph.runtime.cpu.lowering.groups import grouped, joint_uses
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import plan_memory
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch, Plan
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES, delays
from tracegraph.runtime.interpreter import InterpreterProgram

# Sizes of dynamic dims for which a plan is kept.
_MAX_PLANS: Final = 64

# A program that holds so much has memory given back that was free before.
_MANY_BYTES: Final = 1 << 20
_NO_STATE: Final[Mapping[str, Any]] = {}

StampOf = Callable[[Sequence[str]], Any]


def unknown(names: Sequence[str]) -> None:
    """Say that State may have changed."""


def program_for(graph: Graph, in_place: Iterable[str] = ()) -> NativeProgram | InterpreterProgram:
    """Return a graph made native; one with sizes that follow from data is interpreted.

    The new content of State that `in_place` names may be written into its memory by a run that does
    not raise; it then comes back as the array that was given.
    """
    if any(size.data for node in graph.nodes for size in sizes_read(node).values()) or _finds(
        graph
    ):
        return InterpreterProgram(graph)
    lasting = [name for name in graph.states if name not in graph.writes]
    return NativeProgram(graph, lasting, in_place)


def _finds(graph: Graph) -> bool:
    """Whether a node's result has a size that is known when it has run."""
    own = {name for name, _, _ in bare_dims(v for node in graph.inputs for v in node.outs)}
    return any(
        name not in own for name, _, _ in bare_dims(v for node in graph.nodes for v in node.outs)
    )


class NativeProgram:
    """A graph made native.

    A plan is made for sizes of dynamic dims when a call first has them. Kernels do not depend on
    sizes, so that compiles nothing or little. Any thread may run it: what a call changes is in a
    context that no other call has. Plans for several sizes share arenas, with other programs too
    where they are given.
    """

    def __init__(
        self, graph: Graph, lasting: Sequence[str] = (), in_place: Iterable[str] = (),
        arenas: Arenas | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self._lasting, self._in_place = tuple(lasting), tuple(in_place)
        self._dims = [
            (name, number, axis)
            for number, node in enumerate(graph.inputs)
            for name, _, axis in bare_dims(node.outs)
        ]
        self.xp = np
        self._store = Store()
        self._arenas = arenas or (Arenas() if self._dims else None)
        self._plans: OrderedDict[tuple[int, ...], Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: StampOf = unknown
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the outputs and the new contents of what the graph writes, as fresh arrays.

        `stamp_of(names)` gives what is equal as long as State of these names is what it was; None
        where that is not known.

        Raises:
            OpError: an op failed; the sentence names op, operands and the user's line.
        """
        sizes = self._sizes(inputs)
        plan = self._plans.get(sizes)
        if plan is None:
            plan = self._made(sizes)
        results = plan.run(inputs, states, stamp_of)
        count = len(self.graph.outputs)
        if len(results) == count:
            return results, {}
        return results[:count], dict(zip(self.graph.writes, results[count:], strict=True))

    def _made(self, sizes: tuple[int, ...]) -> Compiled:
        with self._lock:
            plan = self._plans.get(sizes)
            if plan is None:
                bound = dict(zip(self.dims, sizes, strict=True))
                with collector_paused():
                    graph = specialised(self.graph, bound) if bound else self.graph
                    plan = Compiled(graph, self._lasting, self._in_place, self._store, self._arenas)
                self._plans[sizes] = plan
                while len(self._plans) > _MAX_PLANS:
                    self._plans.popitem(last=False)
            return plan

    def values(self, *inputs: Any) -> tuple[Any, ...]:
        """Return the outputs of a region, in memory of their own."""
        return tuple(self.run(inputs, {})[0])

    def explain(self) -> str:
        """Return the steps of the plans made so far: what was fused, and what the host computes."""
        from tracegraph.runtime.cpu.explaining import explained_plan

        if not self._plans:
            if self._dims:
                return "nothing is compiled yet: it will be for the sizes of the first call"
            self._made(())
        names = self.dims
        return "\n\n".join(
            explained_plan(plan, dict(zip(names, sizes, strict=True)))
            for sizes, plan in self._plans.items()
        )

    def explain_call(
        self, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: StampOf, profile: bool
    ) -> str:
        """Return the steps of a call with such inputs; `profile` runs it and measures each."""
        from tracegraph.runtime.cpu.explaining import explained_plan
        from tracegraph.runtime.cpu.profiling import profiled

        sizes = self._sizes(inputs)
        plan = self.plan(*sizes)
        found = profiled(plan, inputs, states, stamp_of) if profile else None
        return explained_plan(plan, dict(zip(self.dims, sizes, strict=True)), found)

    def give_back(self) -> None:
        """Have the system get memory that is free now, if this holds much: making it took some."""
        arenas = sum(plan.arena.bytes for plan in list(self._plans.values()))
        if arenas + self._store.bytes >= _MANY_BYTES:
            give_back()

    @property
    def dims(self) -> list[str]:
        """The names of the dynamic dims whose sizes a plan is made for."""
        return [name for name, _, _ in self._dims]

    def prepare(self, inputs: Sequence[Any]) -> None:
        """Compile what a call with such inputs needs, and what calls it."""
        self.plan_of(inputs)
        host_driver()

    def plan_of(self, inputs: Sequence[Any]) -> Compiled:
        """Return what runs for such inputs."""
        return self.plan(*self._sizes(inputs))

    def _sizes(self, inputs: Sequence[Any]) -> tuple[int, ...]:
        if not self._dims:
            return ()
        return tuple([inputs[number].shape[axis] for _, number, axis in self._dims])

    def plan(self, *sizes: int) -> Compiled:
        """Return what runs for sizes of the dynamic dims."""
        return self._plans.get(sizes) or self._made(sizes)


class _Part(NamedTuple):
    """Launches from `begin` to `end` that one native call runs, or one host call."""

    begin: int
    end: int
    cost_ns: int
    host: HostCall | None


class Compiled:
    """A plan for given sizes, compiled: the table of launches and the words they need."""

    def __init__(
        self, graph: Graph, lasting: Sequence[str], in_place: Sequence[str], store: Store,
        arenas: Arenas | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        order = facts_early(sizes_first(graph.order()))
        order = [*graph.inputs, *(n for n in order if n.op != INPUT)]
        delayed = delays(graph, order)
        lowering = Lowering(graph, host_target(), lasting, TEMPLATES, delayed, in_place)
        self.plan: Plan = grouped(lowering.run(order))
        steps = self.plan.steps
        launches = [s for s in steps if isinstance(s, Launch)]
        ahead = [s for made, _ in self.plan.ahead.values() for s in made]
        self.arena = plan_memory(joint_uses(steps))
        self.arenas = arenas if self.arena.bytes else None
        found = addresses(s.kernel for s in (*launches, *ahead))
        self.blocks = Blocks(launches, found)
        self._ahead, self._store = ahead_of(self.plan.ahead, found), store
        # The State that what is kept is made of.
        self.keeps = [b.key for s in ahead for b in s.use.reads if b.origin == "state"]
        self.parts = _parts(steps)
        hosts = [s for s in (*steps, *self.plan.checks.values()) if isinstance(s, HostCall)]
        given = {p.buffer for s in hosts for p in s.operands} | {*self.blocks.pointers}
        self._reads = {b.key for b in given if b.origin == "state"}
        self.calls = {id(s): _caller(s.node) for s in hosts}
        self._free: list[Context] = []
        # What is kept and the stamp it is of; replaced as one, so that threads need no lock.
        self._kept: tuple[Any, Kept | None] = (None, None)

    def run(self, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: StampOf) -> list[Any]:
        """Return the results."""
        context = self._taken()
        try:
            return context.run(inputs, states, stamp_of)
        finally:
            self._give(context)

    def _taken(self) -> Context:
        """Return a context that no other call has."""
        try:
            context = self._free.pop()
        except IndexError:
            context = Context(self)
        if self.arenas is not None:
            context.lie_in(self.arenas.take(self.arena.bytes))
        return context

    def _give(self, context: Context) -> None:
        if self.arenas is not None:
            self.arenas.give(context.memory)
            context.memory = NOTHING
        if len(self._free) < MAX_CONTEXTS:
            self._free.append(context)

    @property
    def is_one_call(self) -> bool:
        """Whether all of it is one native call."""
        return len(self.parts) == 1 and self.parts[0].host is None

    def again(
        self, states: Mapping[str, Any], stamp_of: StampOf
    ) -> Callable[[Sequence[Any]], list[Any] | None] | None:
        """Return what runs calls, of a plan that is one, as long as State is what it is now.

        It takes row-major inputs, writes State that `run` writes where it lies, gives the other
        results, and returns None where `run` raises. None if it cannot be known whether State
        stays, or if some that it is to write lies in another order.
        """
        written = [states[p.buffer.key] for p in self.plan.results if p.buffer.origin == "state"]
        if stamp_of(self.keeps) is None or not all(map(_is_writable, written)):
            return None
        return partial(self._run_again, states, self.kept(stamp_of, Arrays((), states)))

    def _run_again(
        self, states: Mapping[str, Any], kept: Kept, inputs: Sequence[Any], forget: bool = False
    ) -> list[Any] | None:
        context = self._taken()
        try:
            return context.run_again(inputs, states, kept)
        finally:
            if forget:
                context.forget()
            self._give(context)

    def again_from(
        self, store: Store, stamp: Any, states: Mapping[str, Any], inputs: Sequence[Any]
    ) -> list[Any] | None:
        """Return what `again` does, of a plan that `packs_state`, with what is kept in a store.

        It is made anew unless the store has it by this stamp of State, and by None at all times.
        """
        kept = store.kept(self._ahead, stamp, Arrays((), states))
        return self._run_again(_NO_STATE, kept, inputs, forget=True)

    @property
    def packs_state(self) -> bool:
        """Whether State is read by what is made ahead of calls alone."""
        return bool(self._ahead) and not self._reads

    def kept(self, stamp_of: StampOf, arrays: Arrays) -> Kept:
        """Return what is made of lasting State, made anew if it may have changed."""
        stamp = stamp_of(self.keeps)
        known, kept = self._kept
        if kept is None or stamp is None or known != stamp:
            kept = self._store.kept(self._ahead, stamp, arrays, self._reads)
            unchanged = stamp is not None and stamp_of(self.keeps) == stamp
            self._kept = (stamp if unchanged else None, kept)
        return kept


def _is_writable(array: Any) -> bool:
    """Whether results can be written to an array where it lies."""
    flags = array.flags
    return array.__class__ is np.ndarray and bool(flags.c_contiguous and flags.writeable)


def _parts(steps: Sequence[Launch | HostCall]) -> list[_Part]:
    parts: list[_Part] = []
    begin = end = cost = 0
    for step in steps:
        if isinstance(step, Launch):
            end, cost = end + 1, cost + step.cost_ns
            continue
        if end > begin:
            parts.append(_Part(begin, end, cost, None))
            begin, cost = end, 0
        parts.append(_Part(end, end, 0, step))
    if end > begin:
        parts.append(_Part(begin, end, cost, None))
    return parts


def _caller(node: Node) -> Callable[..., Any]:
    """Return what computes a node on arrays."""
    if node.op == KERNEL:
        return InterpreterProgram(node.regions["body"]).values
    if node.op in HANDLERS:
        return HANDLERS[node.op](node, program_for)
    if node.row.kernel is not None:
        return partial(node.row.kernel, np, **node.attrs)
    return partial(run_op, node.row, np, **node.attrs)
