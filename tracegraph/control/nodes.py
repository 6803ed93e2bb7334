"""What the control flow ops have in common: running and recording a node, and its gradient.

Memory from outside that a function writes (State, the random state) is carried along and committed
after. The gradient runs the function again from its inputs, with that memory put back, and pulls
gradients back through it: as a control flow op, so it can be traced and differentiated itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tracegraph.api.creation import tensor, zeros_like
from tracegraph.autograd.differentiation import grad
from tracegraph.autograd.function import FunctionCtx, attach
from tracegraph.autograd.grad_mode import GradMode
from tracegraph.capture.recording import Recorder
from tracegraph.control.regions import Region, whole_of
from tracegraph.dtypes import BOOL_KIND, FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign, front
from tracegraph.eager.storage import Storage, bare, sized
from tracegraph.eager.tape import make_leaf
from tracegraph.eager.tensors import Tensor, type_of, wrap, xp_of
from tracegraph.errors import OpError, TraceError
from tracegraph.ir.control import infer
from tracegraph.ir.graph import Graph
from tracegraph.ops.memory_order import in_rows
from tracegraph.runtime.interpreter import InterpreterProgram

Flat = Callable[..., list[Tensor]]
Pull = Callable[..., Sequence[Any]]


def is_float_tensor(t: Tensor) -> bool:
    """Whether a tensor can carry a gradient."""
    return type_of(t).dtype.kind >= FLOAT_KIND


def as_predicate(value: Any) -> Tensor:
    """Return one bool as a 0-d bool tensor.

    Raises:
        OpError: it is not one element.
    """
    t = value if isinstance(value, Tensor) else tensor(bool(value))
    if t._data.size != 1:
        raise OpError(f"a predicate is one bool, not {type_of(t)}")
    with GradMode(False):
        t = front.reshape(t, shape=()) if t._data.ndim else t
        return t if type_of(t).dtype.kind == BOOL_KIND else front.ne(t, 0)


# Nodes.


def run_node(
    recorder: Recorder, op: str, operands: Sequence[Tensor], attrs: dict[str, Any],
    regions: Mapping[str, Graph],
) -> list[Tensor]:  # fmt: skip
    """Run a control node on real values and record it."""
    types = [type_of(t) for t in operands]
    graph = Graph(op)
    inputs = [graph.add_input(f"x{i}", t).out for i, t in enumerate(types)]
    results = infer(op, types, attrs, regions)
    node = graph.add(op, inputs, attrs, results, regions=regions)
    graph.outputs = list(node.outs)
    xp = xp_of(operands[0]._data) if operands else np
    arrays, _ = InterpreterProgram(graph, xp).run([bare(t._data) for t in operands], {})
    outs = [wrap(sized(known, in_rows(a))) for known, a in zip(results, arrays, strict=True)]
    recorder.control(op, operands, attrs, regions, outs)
    return outs


def commit(memory: Sequence[Storage], contents: Sequence[Tensor]) -> None:
    """Write contents into memory, without history."""
    with GradMode(False):
        for storage, t in zip(memory, contents, strict=True):
            assign(whole_of(storage), t)


def union(groups: Sequence[Sequence[Any]]) -> list[Any]:
    """Items of all groups, each object once."""
    return list({id(x): x for group in groups for x in group}.values())


def needs_graph(tensors: Sequence[Tensor], outer: Sequence[Tensor]) -> bool:
    """Whether gradients are recorded and any of these needs one."""
    return modes.GRAD.get() and any(t._node is not None for t in (*tensors, *outer))


def refuse_graded_writes(regions: Sequence[Region]) -> None:
    """Refuse regions that write float memory from outside where gradients are recorded.

    Raises:
        TraceError: naming the line.
    """
    for region in regions:
        if region.recorder.graded_write is not None:
            raise TraceError(
                "the function of a control flow op changes a float tensor from outside in place at "
                f"{region.recorder.graded_write}, where gradients are recorded: return the new "
                "value instead, or write under no_grad"
            )


def attached(
    outs: Sequence[Tensor], operands: Sequence[Tensor], kept: Sequence[Tensor], pull: Pull,
    materialize: bool = True,
) -> list[Tensor]:  # fmt: skip
    """Put one node on the tape for some results.

    Its gradient is `pull([*operands, *kept], gradients of outs)`, one for each operand; gradients
    of results that nobody used are zeros, or None.
    """
    ctx = FunctionCtx("ControlFlowBackward")
    ctx.set_materialize_grads(materialize)
    ctx.save_for_backward(*operands, *kept)
    ctx.keep()
    edges = [None if t._node is None else (t._node, t._index) for t in operands]

    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        return pull(ctx.saved_tensors, grads)

    return list(attach(backward, ctx, edges, operands, tuple(outs)))


# Gradients.


@contextmanager
def starting_at(outer: Sequence[Tensor], grads: bool) -> Iterator[None]:
    """Let tensors from outside be where gradients end; with `grads` they go on from there."""
    with history_kept(outer):
        for t in outer:
            if grads and t._node is not None:
                alias = front.copy(t)
                t._node, t._index = alias._node, alias._index
            else:
                make_leaf(t)
        yield


@contextmanager
def history_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put back the history of tensors, and what they share of it with their views."""
    own = [(t, t._node, t._index, t._lineage, t._seen) for t in tensors]
    lineages = {t._lineage for t in tensors if t._lineage is not None}
    shared = [(x, x.node, x.index, x.version) for x in lineages]
    try:
        yield
    finally:
        for lineage, node, index, version in shared:
            lineage.node, lineage.index, lineage.version = node, index, version
        for t, node, index, mine, seen in own:
            t._node, t._index, t._lineage, t._seen = node, index, mine, seen


def pull_back(
    function: Flat, args: Sequence[Tensor], memory: Sequence[Storage],
    contents: Sequence[Tensor], outer: Sequence[Tensor], grads: Sequence[Tensor | None],
) -> list[Tensor]:  # fmt: skip
    """Run a function again and return the gradients of its float arguments and of `outer`.

    `memory` holds `contents` while it runs, and afterwards what it held before.
    """
    again = modes.GRAD.get()
    with GradMode(False):
        before = [front.copy(whole_of(s)) for s in memory]
    commit(memory, contents)
    with GradMode(True), starting_at(outer, again):
        inner = []
        for t in args:
            alias = front.copy(t)
            if is_float_tensor(alias) and not (again and alias._node is not None):
                make_leaf(alias)
            inner.append(alias)
        outs = function(*inner)
        wanted = [*(t for t in inner if is_float_tensor(t)), *outer]
        found = gradients(outs, grads, wanted, again)
    commit(memory, before)
    return found


def gradients(
    outs: Sequence[Tensor], grads: Sequence[Tensor | None], wanted: Sequence[Tensor], again: bool
) -> list[Tensor]:
    """Pull gradients of results, None for none, back to `wanted`; `again` makes them graded."""
    pairs = [(o, g) for o, g in zip(outs, grads, strict=True)
             if g is not None and o._node is not None]  # fmt: skip
    if not pairs:
        return list(map(zeros_like, wanted))
    return list(grad(
        [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=again,
        allow_unused=True, materialize_grads=True,
    ))  # fmt: skip


def spread(found: Sequence[Any], operands: Sequence[Tensor]) -> list[Any]:
    """Gradients of the float operands as gradients of all, None for the others."""
    given = iter(found)
    return [next(given) if is_float_tensor(t) else None for t in operands]


def cut(items: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """Cut a sequence into parts of some sizes and the rest."""
    parts, start = [], 0
    for size in sizes:
        parts.append(list(items[start : start + size]))
        start += size
    return [*parts, list(items[start:])]
