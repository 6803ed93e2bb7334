"""Replays on Tensors: what an entry point does where autograd or a trace has to see each op.

The interpreter runs the graph, with `dispatch` in place of kernels. So the tape gets ordinary
nodes (and the results can be differentiated, twice if need be), and a trace ordinary rows. All
other replays run a compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegraph.api.creation import tensor
from tracegraph.autograd.grad_mode import GradMode
from tracegraph.capture.variants import VARIANT
from tracegraph.compiler import optimize
from tracegraph.control.looping import repeat
from tracegraph.control.sweeping import sweep
from tracegraph.devices import device_of, module_of
from tracegraph.dtypes import float64
from tracegraph.eager import modes
from tracegraph.eager.conversion import to
from tracegraph.eager.dispatch import assign, dispatch
from tracegraph.eager.engine import clone
from tracegraph.eager.tensors import Tensor, wrap
from tracegraph.ir.control import COND, GUARD, SCAN, WHILE_LOOP
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.ops.table import OPS
from tracegraph.replay.choosing import tracing
from tracegraph.runtime.interpreter import InterpreterProgram

if TYPE_CHECKING:
    from tracegraph.replay.entry import EntryPoint


class TensorProgram(InterpreterProgram):
    """A graph as steps over Tensors."""

    def constant(self, array: Any) -> Any:
        """Return a Tensor over a constant's array."""
        return wrap(self.xp.asarray(array))

    def inner(self, region: Graph) -> TensorProgram:
        """Return a region made ready."""
        return TensorProgram(region, self.xp)

    def caller(self, node: Node) -> Callable[..., Any]:
        """Return what runs a node on Tensors, in the name of the node's line and module."""
        if node.op in (GUARD, COND):
            return _deciding(node, super().caller(node))
        if node.op == SCAN:
            return _scanning(node, self.inner(node.regions["body"]))
        if node.op == WHILE_LOOP:
            return _looping(node, super().caller(node), self.inner)
        if node.op not in OPS:
            return super().caller(node)
        row, attrs, loc, scope = node.row, node.attrs, node.loc, node.scope

        def call(*operands: Any) -> Any:
            recorder = modes.RECORDER.get() if modes.recording else None
            if recorder is None:
                return dispatch(row, operands, attrs)
            recorder.enter(loc)
            recorder.scopes.append(".".join(filter(None, (recorder.scopes[-1], scope))))
            try:
                return dispatch(row, operands, attrs)
            finally:
                recorder.scopes.pop()
                recorder.leave(loc)

        return call

    def result(self, value: Any, copy: bool) -> Any:
        """Return a result, in memory of its own where it must be copied."""
        return clone(value) if copy else value

    def _filled(self, slots: list[Any], inputs: Sequence[Any]) -> list[Any]:
        recorder = modes.RECORDER.get() if modes.recording else None
        if recorder is not None:
            for slot, t in enumerate(self._start):
                if t is not None:
                    slots[slot] = fresh = wrap(t._data)
                    recorder.constant(fresh)
        token = modes.XP.set(self.xp)
        try:
            return super()._filled(slots, inputs)
        finally:
            modes.XP.reset(token)


def _deciding(node: Node, choose: Callable[..., Any]) -> Callable[..., Any]:
    """Return `choose(array, *operands)` of a guard or cond, for Tensors; a trace notes the path."""
    text = node.attrs["text"]

    def decide(selector: Tensor, *operands: Any) -> Any:
        recorder = modes.RECORDER.get() if modes.recording else None
        if recorder is not None:
            recorder.enter(node.loc)
            recorder.decide(selector, selector._data.item(), text)
            recorder.leave(node.loc)
        return choose(selector._data, *operands)

    return decide


def _scanning(node: Node, body: TensorProgram) -> Callable[..., Any]:
    """Return what runs a scan on Tensors; in a trace it stays one."""
    count, end = node.attrs["carried"], node.attrs["carried"] + node.attrs["scanned"]

    def scan(*operands: Any) -> tuple[Any, ...]:
        xs, others = operands[count:end], operands[end:]

        def step(*given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            outs = body.values(*given, *others)
            return list(outs[:count]), list(outs[count:])

        length = xs[0]._data.shape[0] if xs else node.attrs["length"]
        last, stacked = sweep(step, operands[:count], xs, length, node.attrs["reverse"], False)
        return (*last, *stacked)

    return scan


def _looping(
    node: Node, loop: Callable[..., Any], inner: Callable[[Graph], TensorProgram]
) -> Callable[..., Any]:
    """Return what runs a while_loop on Tensors: `loop` in eager code; in a trace it stays one."""
    condition, body = (inner(node.regions[name]) for name in ("condition", "body"))
    count = node.attrs["carried"]

    def run(*operands: Any) -> Any:
        if not tracing():
            return loop(*operands)
        others = operands[count:]
        return tuple(
            repeat(
                lambda *now: condition.values(*now, *others)[0],
                lambda *now: list(body.values(*now, *others)),
                operands[:count], None,
            )
        )  # fmt: skip

    return run


def replay_on_tensors(entry: EntryPoint, device: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check a call, run the graph on Tensors, commit what it writes, return its outputs.

    Raises:
        SignatureError: inputs differ from the signature.
        GuardError: something that the trace relied on has changed.
    """
    given, hypers, variant = entry.match(args, dict(kwargs))
    recorder = modes.RECORDER.get() if modes.recording else None
    if recorder is not None:
        _note_modes(recorder, entry, variant)
        for name in entry.layouts:
            if isinstance(given[name], Tensor):
                recorder.layouts.relied(given[name])
        for name in entry.held.layouts:
            recorder.layouts.relied(entry.held.tensors[name])
    values: dict[str, Any] = {n: _as_tensor(leaf, device) for n, leaf in given.items()}
    values |= {n: _hyper(recorder, entry, n, v, device) for n, v in hypers.items()}
    values[VARIANT] = _as_tensor(np.asarray(variant, np.int64), device)
    program = _program(entry, device)
    graded, written = bool(entry.graded), entry.graph.writes

    def given_to_graph(name: str, t: Tensor) -> Tensor:
        """What is written afterwards comes as a copy, for the tape keeps what it read."""
        return clone(t) if graded and name in written else t

    names = [n.attrs["name"] for n in entry.graph.inputs]
    lock = entry.lock if written else nullcontext()
    with GradMode(modes.GRAD.get() and graded), lock, _scope_of(recorder, entry):
        inputs = [given_to_graph(n, values[n]) for n in names]
        states = {n: given_to_graph(n, to(t, device)) for n, t in entry.checked_state().items()}
        outputs, writes = program.run(inputs, states)
        _commit(entry, writes, given)
    return entry.results(outputs)


@contextmanager
def _scope_of(recorder: Any, entry: EntryPoint) -> Iterator[None]:
    """Let what runs belong to the entry's place in the function that is traced."""
    if recorder is None:
        yield
        return
    recorder.scopes.append(recorder.module_paths.get(id(entry), recorder.scopes[-1]))
    try:
        yield
    finally:
        recorder.scopes.pop()


def _program(entry: EntryPoint, device: Any) -> TensorProgram:
    """The entry's graph on a device, made ready at the first call."""
    known: tuple[Graph, TensorProgram] | None = entry.tensor_programs.get(str(device))
    if known is None or known[0] is not entry.graph:
        program = TensorProgram(optimize(entry.graph, ("dead_code",)), module_of(device))
        known = entry.tensor_programs[str(device)] = (entry.graph, program)
    return known[1]


def _as_tensor(leaf: Any, device: Any) -> Tensor:
    """Return an input on a device; an array becomes a constant of a trace."""
    t = leaf if isinstance(leaf, Tensor) else tensor(leaf)
    return t if device_of(t._data) == device else to(t, device)


def _hyper(recorder: Any, entry: EntryPoint, name: str, value: Any, device: Any) -> Tensor:
    """Return a hyper-parameter: in a trace one of the larger graph, unless the call sets it."""
    if value is not None or recorder is None:
        known = next(h for h in entry.hypers if h.name == name)
        value = known.value() if value is None else value
        return value if isinstance(value, Tensor) else tensor(value, dtype=float64, device=device)
    known = next(h for h in entry.hypers if h.name == name)
    path = recorder.module_paths.get(id(entry), "") if known.read is None else ""
    made: Tensor = recorder.hyper(".".join(filter(None, (path, name))), known.value)
    return made


def _note_modes(recorder: Any, entry: EntryPoint, variant: int) -> None:
    """Let the larger graph rely on the modes that this call relies on."""
    for path, (module, flag) in entry.variants[variant].modes.items():
        keeper = entry if module is None else module
        if keeper.training is not None:
            recorder.training_flags.setdefault(id(keeper), (path, keeper, flag))


def _commit(entry: EntryPoint, writes: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
    """Write what the graph writes: inputs with their gradients, State without."""
    states = {n: t for n, t in writes.items() if n in entry.state}
    for name, t in writes.items():
        if name not in states and isinstance(given[name], Tensor):
            with GradMode(modes.GRAD.get() and not _keeps_history(entry.graph, name)):
                assign(given[name], to(t, device_of(given[name]._data)))
        elif name not in states:
            given[name][...] = t._data
    with GradMode(False):
        if tracing():
            entry.held.commit_tensors(states)
        else:
            entry.held.commit({n: t._data for n, t in states.items()}, given)


def _keeps_history(graph: Graph, name: str) -> bool:
    """Whether an input was only written under no_grad, which leaves its history as it is."""
    origin = _origin(graph, graph.writes[name])
    return origin is not None and origin.node.attrs["name"] == name


def _origin(graph: Graph, value: Value) -> Value | None:
    """Return the input whose gradient history a Value has; None if it has another."""
    while True:
        node = value.node
        if node in graph.inputs:
            return value
        if node.op == "pass_gradient":
            value = node.inputs[1]
        elif node.op == COND:
            found = set()
            for arm in node.regions.values():
                inner = _origin(arm, arm.outputs[value.index])
                found.add(inner and node.inputs[1 + arm.inputs.index(inner.node)])
            outer = found.pop()
            if found or outer is None:
                return None
            value = outer
        else:
            return None
