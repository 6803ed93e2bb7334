"""The backward pass: gradients flow through the tape, latest node first, without recursion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from tracegraph import modes
from tracegraph.devices import Device, device_of, module_of
from tracegraph.dispatch import assign, front, refresh
from tracegraph.errors import AutogradError
from tracegraph.ops.shape import copy_ as _COPY
from tracegraph.tape import AccumulateGrad, MoveNode, Node, attach_move, record_node
from tracegraph.tensors import Tensor, type_of, wrap, xp_of

Root = tuple[Node, int, Tensor]


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
    """One backward pass: gradients that wait at nodes, and the nodes in order of time."""

    __slots__ = (
        "captured", "create_graph", "crossing", "heap", "needed", "pending", "retain_graph",
        "wanted",
    )  # fmt: skip

    def __init__(
        self, retain_graph: bool, create_graph: bool, wanted: dict[tuple[int, int], int] | None
    ) -> None:
        self.pending: dict[Node, Any] = {}
        self.heap: list[tuple[int, Node]] = []
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.wanted = wanted
        self.needed: set[int] | None = None
        self.crossing = False
        self.captured: dict[int, Tensor] = {}

    def arrive(self, node: Node, index: int, grad: Any) -> None:
        """Add a gradient to what waits at a node."""
        pending = self.pending
        have = pending.get(node)
        if node.shape is not None:
            if have is None:
                pending[node] = grad
                heappush(self.heap, (node.order, node))
            else:
                pending[node] = have + grad
            return
        if have is None:
            have = pending[node] = [None] * len(node.types)
            heappush(self.heap, (node.order, node))
        have[index] = grad if have[index] is None else have[index] + grad

    def drain(self, recorder: Any) -> None:  # noqa: C901, PLR0912 (the hot loop, unrolled)
        """Visit nodes, latest first, until no gradient waits."""
        heap, pending, needed = self.heap, self.pending, self.needed
        create_graph, retain_graph = self.create_graph, self.retain_graph
        while heap:
            node = heappop(heap)[1]
            grad = pending.pop(node)
            if self.crossing:
                modes.XP.set(_module_of(grad))
            if node.hooks is not None:
                grad = _run_hooks(node, grad)
            if self.wanted is not None:
                self._capture(node, grad)
            if node.__class__ is AccumulateGrad:
                if self.wanted is None:
                    _accumulate(node, grad, self.create_graph)
                continue
            if recorder is not None:
                recorder.enter(node.loc)
            if node.__class__ is Node and node.shape is not None and node.saved is not None:
                grads = node.plan.run(node, front, grad, create_graph)
            else:
                grads = self._apply(node, grad)
            if node.hooks is not None and node.hooks.after:
                grads = _run_hooks_after(node, grads, grad)
            for edge, grad in zip(node.edges, grads, strict=False):
                if edge is None or grad is None:
                    continue
                target, index = edge
                if grad._data.shape != target.shape or needed is not None:
                    self._route(node, target, index, grad)
                    continue
                have = pending.get(target)
                if have is None:
                    pending[target] = grad
                    heappush(heap, (target.order, target))
                else:
                    pending[target] = have + grad
            if recorder is not None:
                recorder.leave(node.loc)
            if not retain_graph:
                node.release()

    def _apply(self, node: Node, grad: Any) -> Sequence[Any]:
        """Run a node that is more than one op; constants of rules are made where its gradient is.

        Only copies between devices change that, and gradients of two devices may then alternate.
        """
        if node.__class__ is MoveNode:
            self.crossing = True
        return node.apply(front, grad, self.create_graph)

    def _route(self, node: Node, target: Node, index: int, grad: Any) -> None:
        """Deliver one gradient: not where it is not needed, summed where it was broadcast."""
        if self.needed is not None and id(target) not in self.needed:
            return
        shape = target.types[index].shape if target.shape is None else target.shape
        if grad._data.shape != shape:
            grad = _sum_to(grad, shape, node)
        self.arrive(target, index, grad)

    def _capture(self, node: Node, grad: Any) -> None:
        assert self.wanted is not None
        grads = grad if node.shape is None else [grad]
        for index, g in enumerate(grads):
            place = self.wanted.get((id(node), index))
            if place is not None and g is not None:
                self.captured[place] = g


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
    work = _Backward(retain_graph, create_graph, wanted)
    if wanted is not None:
        work.needed = needed_for(roots, {key[0] for key in wanted})
    grad_token = modes.GRAD.set(create_graph)
    xp_token = modes.XP.set(xp_of(roots[0][2]._data) if roots else np)
    try:
        for node, index, grad in roots:
            work.arrive(node, index, grad)
        work.drain(modes.RECORDER.get() if modes.recording else None)
    finally:
        modes.XP.reset(xp_token)
        modes.GRAD.reset(grad_token)
    return work.captured


def _module_of(grad: Any) -> Any:
    """NumPy or CuPy, for one gradient or those of several results."""
    grads = grad if isinstance(grad, list) else [grad]
    return next(module_of(device_of(g._data)) for g in grads if g is not None)


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


def _run_hooks_after(node: Node, found: Sequence[Any], grad: Any) -> Sequence[Any]:
    assert node.hooks is not None
    grads = tuple(grad) if node.shape is None else (grad,)
    for hook in list(node.hooks.after):
        changed = hook(tuple(found), grads)
        found = found if changed is None else _as_tuple(changed)
    return found


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, Tensor) else tuple(x)


def _sum_to(grad: Tensor, shape: tuple[int, ...], node: Node) -> Tensor:
    """Sum a gradient over the axes that broadcasting added to the operand."""
    have = grad._data.shape
    extra = len(have) - len(shape)
    dims = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and have[i + extra] != 1
    )
    if extra < 0 or any(n not in (1, have[i + extra]) for i, n in enumerate(shape)):
        raise AutogradError(
            f"{node.name()} returned an invalid gradient: got {list(have)} but expected shape "
            f"compatible with {list(shape)}"
        )
    if dims:
        grad = front.sum(grad, dim=dims, keepdim=True)
    return grad if grad._data.shape == shape else front.reshape(grad, shape=shape)


def _accumulate(node: AccumulateGrad, grad: Tensor, create_graph: bool) -> None:
    leaf = node.leaf()
    if leaf is None:
        return
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.note_grad_read(leaf)
    if grad._data.__class__ is not leaf._data.__class__:
        grad = _at_home(grad, device_of(leaf._data))
    have = leaf._grad
    if have is None:
        owned = grad._storage is None and grad._data.__class__ is np.ndarray
        if not (owned and grad._data.flags.owndata and sys.getrefcount(grad) <= 4):
            grad = clone(grad)
        leaf._grad = grad
    elif create_graph:
        leaf._grad = have + grad
    else:
        assign(have, have + grad)
    if node.after:
        for hook in list(node.after):
            hook(leaf)


def _at_home(grad: Tensor, device: Device) -> Tensor:
    """A gradient on the device of its leaf: a 0-d leaf of the CPU may meet a GPU's tensors."""
    return grad if device_of(grad._data) == device else move(grad, device)


def clone(t: Tensor) -> Tensor:
    """Return a copy in fresh memory, on the tape as `t` itself and in a trace as the same Value."""
    data = t._data.copy(order="C") if hasattr(t._data, "copy") else t._data
    if t._lineage is not None:
        refresh(t)
    out = wrap(data)
    if t._node is not None and modes.GRAD.get():
        record_node(_COPY, (t,), {}, (out,))
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.same_value(out, t)
    return out


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
        grad = front.full(shape=known.shape, value=1, dtype=known.dtype)
        if xp_of(t._data) is not np:
            grad = wrap(xp_of(t._data).asarray(grad._data))
    elif tuple(grad.shape) != known.shape:
        raise AutogradError(
            f"Mismatch in shape: grad_output[0] has a shape of {list(grad.shape)} and output[0] "
            f"has a shape of {list(known.shape)}."
        )
    return t._node, t._index, grad
