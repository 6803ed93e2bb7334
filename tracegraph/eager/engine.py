"""The backward pass: gradients flow through the tape, latest node first, without recursion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from tracegraph.devices import Device, device_of, module_of
from tracegraph.dims.shapes import alike, was_broadcast
from tracegraph.eager import modes
from tracegraph.eager.bare_gradients import (
    FLOAT32,
    FLOAT64,
    added,
    are_floats,
    bare_of,
    is_sole,
    lie_alike,
    wrapped,
)
from tracegraph.eager.dispatch import assign, front, refresh
from tracegraph.eager.storage import ROWS, AbstractArray, fresh
from tracegraph.eager.tape import AccumulateGrad, MoveNode, Node, attach_move, record_node
from tracegraph.eager.tensors import Tensor, type_of, wrap, xp_of
from tracegraph.errors import AutogradError
from tracegraph.ops.shape import copy_ as _COPY
from tracegraph.ops.table import array_ops

Root = tuple[Node, int, Tensor]

_ndarray: Final = np.ndarray


def needed_for(roots: Sequence[Root], targets: set[int]) -> set[int]:
    """Return ids of the nodes on a path from a root to a node in `targets` (ids)."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [node for node, _, _ in roots]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        order.append(node)
        stack.extend(e[0] for e in node.edges if e is not None)
    needed: set[int] = set()
    for node in sorted(order, key=lambda n: -n.order):
        if id(node) in targets or any(e is not None and id(e[0]) in needed for e in node.edges):
            needed.add(id(node))
    return needed


class _Backward:
    """One backward pass: gradients that wait at nodes, and the nodes in order of time.

    In a `plain` pass nobody records gradients, so they are bare arrays and rules run on these: an
    op on small Tensors costs three times what it costs NumPy. `sums` are the nodes where an array
    waits that only this pass knows.
    """

    __slots__ = (
        "captured", "create_graph", "crossing", "heap", "needed", "pending", "plain",
        "retain_graph", "sums", "wanted",
    )  # fmt: skip

    def __init__(
        self, plain: bool, retain_graph: bool, create_graph: bool,
        wanted: dict[tuple[int, int], int] | None,
    ) -> None:  # fmt: skip
        self.pending: dict[Node, Any] = {}
        self.heap: list[tuple[int, Node]] = []
        self.sums: set[Node] = set()
        self.plain = plain
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.wanted = wanted
        self.needed: set[int] | None = None
        self.crossing = False
        self.captured: dict[int, Any] = {}

    def arrive(self, node: Node, index: int, grad: Any) -> None:
        """Add a gradient to what waits at a node."""
        have = self.pending.get(node)
        if have is None:
            heappush(self.heap, (node.order, node))
        if node.shape is not None:
            self.pending[node] = grad if have is None else self._sum(node, have, grad)
            return
        if have is None:
            have = self.pending[node] = [None] * len(node.types)
        have[index] = grad if have[index] is None else added(have[index], grad)

    def _sum(self, node: Node, have: Any, grad: Any) -> Any:
        """Return what waits at a node with more added to it."""
        if node in self.sums:
            return np.add(have, grad, have)
        total = added(have, grad)
        if total.__class__ is np.ndarray:
            self.sums.add(node)
        return total

    def drain(self, recorder: Any) -> None:  # noqa: C901, PLR0912 (the hot loop, unrolled)
        """Visit nodes, latest first, until no gradient waits."""
        heap, pending, needed, wanted = self.heap, self.pending, self.needed, self.wanted
        plain, retain_graph, ops = self.plain, self.retain_graph, array_ops(np)
        while heap:
            node = heappop(heap)[1]
            if node.hooks is not None or wanted is not None:
                self._show(node)
            if node.__class__ is AccumulateGrad:
                grad = grads = have = None
                if wanted is None:
                    self._accumulate(node)
                continue
            grad = pending.pop(node)
            if recorder is not None:
                recorder.enter(node.loc)
            if (
                plain
                and node.__class__ is Node
                and node.saved is not None
                and grad.__class__ is _ndarray
                and (grad.dtype is FLOAT32 or grad.dtype is FLOAT64)
            ):
                grads = node.plan.run_arrays(node, ops, grad, False)
            else:
                grads = self._apply(node, grad)
            if node.hooks is not None and node.hooks.after:
                grads = self._run_hooks_after(node, grads, grad)
            edges = node.edges
            for place, grad in enumerate(grads):  # zip(strict=) takes four times as long
                edge = edges[place]
                if edge is None or grad is None:
                    continue
                target, index = edge
                if needed is not None or (
                    grad.shape != target.shape if plain else not _fits(grad, target)
                ):
                    self._route(node, target, index, grad)
                    continue
                have = pending.get(target)
                if have is None:
                    pending[target] = grad
                    heappush(heap, (target.order, target))
                else:
                    pending[target] = self._sum(target, have, grad)
            if recorder is not None:
                recorder.leave(node.loc)
            if not retain_graph:
                node.release()

    def _apply(self, node: Node, grad: Any) -> Sequence[Any]:
        """Run a node on Tensors; constants of rules are made where its gradient is.

        Only copies between devices change that, and gradients of two devices may then alternate.
        """
        if node.__class__ is MoveNode:
            self.crossing = True
        if self.crossing:
            modes.XP.set(_module_of(grad))
        if not self.plain:
            return node.apply(front, grad, self.create_graph)
        if isinstance(grad, np.generic):
            grad = np.asarray(grad)
        if node.__class__ is Node and node.saved is not None and are_floats(grad):
            ops = array_ops(np)
            grads: Sequence[Any] = node.plan.run_arrays(node, ops, node.completed(ops, grad), False)
            return grads
        return bare_of(node.apply(front, wrapped(grad), False))

    def _route(self, node: Node, target: Node, index: int, grad: Any) -> None:
        """Deliver one gradient: not where it is not needed, summed where it was broadcast."""
        if self.needed is not None and id(target) not in self.needed:
            return
        shape = target.types[index].shape if target.shape is None else target.shape
        if grad.shape != shape if self.plain else not alike(grad.shape, shape):
            grad = _sum_to(array_ops(xp_of(grad)) if self.plain else front, grad, shape, node)
        self.arrive(target, index, grad)

    def _show(self, node: Node) -> None:
        """Show what waits at a node, as Tensors, to its hooks; note it if it is wanted."""
        if node.hooks is not None:
            grad = self.pending[node]
            shown = _run_hooks(node, wrapped(grad) if self.plain else grad)
            self.pending[node] = bare_of(shown) if self.plain else shown
        if self.wanted is not None:
            grad = self.pending[node]
            for index, g in enumerate([grad] if node.shape is not None else grad):
                place = self.wanted.get((id(node), index))
                if place is not None and g is not None:
                    self.captured[place] = g

    def _run_hooks_after(self, node: Node, found: Sequence[Any], grad: Any) -> Sequence[Any]:
        """Run the hooks after the rules; returns the gradients of the operands to go on with."""
        assert node.hooks is not None
        if self.plain:
            found, grad = wrapped(list(found)), wrapped(grad)
        grads = tuple(grad) if node.shape is None else (grad,)
        for hook in list(node.hooks.after):
            changed = hook(tuple(found), grads)
            found = found if changed is None else _as_tuple(changed)
        return bare_of(list(found)) if self.plain else found

    def _accumulate(self, node: AccumulateGrad) -> None:
        """Add what waits at a leaf to its `.grad`; an array that nobody else holds becomes it."""
        grad = self.pending.pop(node)
        leaf = node.leaf()
        if leaf is None:
            return
        if modes.recording:
            recorder = modes.RECORDER.get()
            if recorder is not None:
                recorder.note_grad_read(leaf)
        count = sys.getrefcount(grad)
        sole = self.plain and is_sole(grad, count)
        if self.plain:
            grad = wrapped(grad)
        if grad._data.__class__ is not leaf._data.__class__:
            grad = _at_home(grad, device_of(leaf._data))
        have = leaf._grad
        if have is None:
            leaf._grad = grad if sole and lie_alike(grad, leaf) else clone(grad, leaf._data)
        elif self.create_graph:
            leaf._grad = have + grad
        else:
            assign(have, have + grad)
        if node.after:
            for hook in list(node.after):
                hook(leaf)

    def found(self) -> dict[int, Tensor]:
        """Return the wanted gradients by place; those of a plain pass in memory of their own."""
        if self.plain:
            for place in list(self.captured):
                grad = self.captured.pop(place)
                count = sys.getrefcount(grad)
                owned = wrapped(grad)
                self.captured[place] = owned if is_sole(grad, count) else clone(owned, ROWS)
        return self.captured


def run(
    roots: Sequence[Root],
    *,
    retain_graph: bool,
    create_graph: bool,
    wanted: dict[tuple[int, int], int] | None = None,
) -> dict[int, Tensor]:
    """Propagate from `roots` (node, result index, gradient).

    Without `wanted` gradients accumulate in leaves. With `wanted`, a map from (id of node, result
    index) to a place, they are returned by place and leaves are left alone.
    """
    recorder = modes.RECORDER.get() if modes.recording else None
    plain = not create_graph and recorder is None
    plain = plain and all(root[2]._data.__class__ is np.ndarray for root in roots)
    work = _Backward(plain, retain_graph, create_graph, wanted)
    if wanted is not None:
        work.needed = needed_for(roots, {key[0] for key in wanted})
    grad_token = modes.GRAD.set(create_graph)
    xp_token = modes.XP.set(xp_of(roots[0][2]._data) if roots else np)
    try:
        with np.errstate(all="ignore"):
            for node, index, grad in roots:
                work.arrive(node, index, grad._data if plain else grad)
            work.drain(recorder)
    finally:
        modes.XP.reset(xp_token)
        modes.GRAD.reset(grad_token)
    return work.found()


def _module_of(grad: Any) -> Any:
    """NumPy or CuPy, for one gradient or those of several results."""
    grads = grad if isinstance(grad, list) else [grad]
    return next(module_of(device_of(getattr(g, "_data", g))) for g in grads if g is not None)


def _run_hooks(node: Node, grad: Any) -> Any:
    """Run what hangs on the results and before the rules; returns the gradients to go on with."""
    hooks = node.hooks
    assert hooks is not None
    grads = list(grad) if node.shape is None else [grad]
    for index, listed in hooks.results.items():
        for hook in list(listed):
            if grads[index] is not None:
                changed = hook(grads[index])
                grads[index] = grads[index] if changed is None else changed
    for hook in list(hooks.before):
        changed = hook(tuple(grads))
        grads = grads if changed is None else list(_as_tuple(changed))
    for index, keep in hooks.retained.items():
        if grads[index] is not None:
            keep(grads[index])
    return grads if node.shape is None else grads[0]


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, Tensor) else tuple(x)


def _sum_to(m: Any, grad: Any, shape: tuple[int, ...], node: Node) -> Any:
    """Sum a gradient over the axes that broadcasting added to the operand."""
    have = grad.shape
    extra = len(have) - len(shape)
    dims = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if was_broadcast(n, have[i + extra])
    )
    if extra < 0 or any(
        i + extra not in dims and n != have[i + extra] for i, n in enumerate(shape)
    ):
        raise AutogradError(
            f"{node.name()} returned an invalid gradient: got {list(have)} but expected shape "
            f"compatible with {list(shape)}"
        )
    if dims:
        grad = m.sum(grad, dim=dims, keepdim=True)
    return grad if alike(grad.shape, shape) else m.reshape(grad, shape=shape)


def _fits(grad: Tensor, target: Node) -> bool:
    """Whether a gradient has the shape of the only result of a node."""
    return target.shape is not None and alike(grad.shape, target.shape)


def _at_home(grad: Tensor, device: Device) -> Tensor:
    """A gradient on the device of its leaf: a 0-d leaf of the CPU may meet a GPU's tensors."""
    return grad if device_of(grad._data) == device else move(grad, device)


def clone(t: Tensor, like: Any = None) -> Tensor:
    """Return a copy in fresh memory, on the tape as `t` itself and in a trace as the same Value.

    It lies as `t` does, or as `like` says (see `fresh`).
    """
    if t._lineage is not None:
        refresh(t)
    data = t._data
    plain = like is None and data.__class__ is _ndarray and data.flags.c_contiguous
    out = wrap(data.copy() if plain else fresh(data, like))
    if t._node is not None and modes.GRAD.get():
        record_node(_COPY, (t,), {}, (out,))
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.same_value(out, t)
    return out


def in_rows(t: Tensor) -> Tensor:
    """Return the tensor itself if its memory is in row-major order, else a copy that is."""
    data = t._data
    in_order = data.__class__ is AbstractArray or data.flags.c_contiguous
    return t if in_order else clone(t, ROWS)


def move(t: Tensor, device: Device) -> Tensor:
    """Return a copy on another device; its gradient comes back to where `t` is."""
    out = wrap(device.place(t._data))
    refresh(t)
    if t._node is not None and modes.GRAD.get():
        home = device_of(t._data)
        attach_move(_COPY, t, out, lambda grad: move(grad, home))
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.same_value(out, t)
    return out


def root_of(t: Tensor, grad: Tensor | None) -> Root:
    """Return where backward starts for a Tensor.

    Raises:
        AutogradError: `t` has no history, or is no scalar and has no gradient, or shapes differ.
    """
    refresh(t)
    if t._node is None:
        raise AutogradError(
            "element 0 of tensors does not require grad and does not have a grad_fn"
        )
    known = type_of(t)
    if grad is None:
        if known.size != 1:
            raise AutogradError("grad can be implicitly created only for scalar outputs")
        token = modes.XP.set(xp_of(t._data))
        try:
            grad = front.full(shape=known.shape, value=1, dtype=known.dtype)
        finally:
            modes.XP.reset(token)
    elif tuple(grad.shape) != known.shape:
        raise AutogradError(
            f"Mismatch in shape: grad_output[0] has a shape of {list(grad.shape)} and output[0] "
            f"has a shape of {list(known.shape)}."
        )
    return t._node, t._index, grad
