"""The tape: nodes of the dynamic graph that gradients flow back through.

A Node is made by dispatch for each op whose result needs a gradient. It keeps edges to the nodes
of its operands and exactly what its gradient rules name, with the versions of what it keeps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from tracegraph.dtypes import COMPLEX_KIND, FLOAT_KIND
from tracegraph.eager.kinks import linked
from tracegraph.eager.tensors import Tensor, dtype_of_data, storage_of, type_of, wrap
from tracegraph.errors import AutogradError
from tracegraph.ops.core import Op
from tracegraph.ops.gradient_plan import CONJUGATED, SAVE_INPUTS, SAVE_OUTPUT, SavePlan
from tracegraph.tensor_type import TensorType

Edge = tuple["Node", int] | None

_count = itertools.count(-1, -1)
_leaf_count = itertools.count(1)
_allocate = object.__new__

SPENT: Final = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)

_GRAD_NAMES = {"matmul": "Mm", "cast": "ToCopy", "slice": "Slice", "reshape": "View"}


class Node:
    """One operation on the tape.

    `order` falls with time (users have a lower order than what they use). `types` are those of
    the results; `shape` is the shape of the only result, None where there are several.
    """

    __slots__ = (
        "__weakref__", "attrs", "edges", "hooks", "loc", "op", "order", "plan", "rest", "saved",
        "shape", "types", "versions",
    )  # fmt: skip

    op: Op | None
    edges: Sequence[Edge]
    attrs: dict[str, Any]
    loc: Any
    order: int
    plan: SavePlan
    rest: Sequence[Any] | None
    saved: Sequence[Any] | None
    types: tuple[TensorType, ...]
    versions: Sequence[Any] | None
    hooks: Hooks | None
    shape: tuple[int, ...] | None

    def name(self) -> str:
        """The name PyTorch shows: `AddBackward0`."""
        op = self.op.name if self.op is not None else type(self).__name__
        shown = _GRAD_NAMES.get(op) or "".join(p.capitalize() for p in op.split("_"))
        return f"{shown}Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()} object at 0x{id(self):x}>"

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes of the operands, as PyTorch shows them."""
        return tuple(e if e is not None else (None, 0) for e in self.edges)

    @property
    def metadata(self) -> dict[str, Any]:
        """An empty dict, for programs that ask."""
        return {}

    def register_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(operand gradients, result gradients)` after the node's rules; both tuples.

        What it returns, if not None, replaces the operand gradients.
        """
        return _hang(hooks_of(self).after, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(result gradients)` before the node's rules; what it returns replaces them."""
        return _hang(hooks_of(self).before, hook)

    def apply(self, m: Any, g: Any, create_graph: bool) -> Sequence[Any]:
        """Return the gradients of the operands, in the order of the edges.

        `g` is the gradient of the result, or a list with one (or None) per result.

        Raises:
            AutogradError: what was kept has been freed, or overwritten since.
        """
        if self.saved is None:
            raise AutogradError(SPENT)
        gradients: Sequence[Any] = self.plan.run(self, m, self.completed(m, g), create_graph)
        return linked(self, m, gradients) if create_graph else gradients

    def completed(self, m: Any, g: Any) -> Any:
        """Return the gradients of all results: zeros where none arrived."""
        if self.shape is not None:
            return g
        return tuple(
            zeros(m, t) if x is None and t.dtype.kind >= FLOAT_KIND else x
            for x, t in zip(g, self.types, strict=True)
        )

    def unpack(self, place: int, kind: int, index: int, saved: Any, create_graph: bool) -> Any:
        """Return a kept operand or result, once its memory proves unchanged."""
        versions = self.versions
        version: Any = 0 if versions is None else versions[place]
        if kind == SAVE_OUTPUT:
            array, storage = saved
            if storage.version != version:
                overwritten(storage.version, version, array, self)
            t = wrap(array)
            t._storage = storage
            if create_graph and dtype_of_data(array).kind >= FLOAT_KIND:
                t._node, t._index = self, index
            return t
        if kind == SAVE_INPUTS:
            for t, known in zip(saved, version or (0,) * len(saved), strict=True):
                _check_version(t, known, self)
        elif isinstance(saved, Tensor):
            _check_version(saved, version, self)
        return saved

    def release(self) -> None:
        """Free what was kept; a node that keeps no values can be used again."""
        if self.plan.holds:
            self.saved = None

    def is_released(self) -> bool:
        """Whether what was kept has been freed."""
        return self.saved is None


def zeros(m: Any, t: TensorType) -> Any:
    """A zero gradient of a type."""
    return m.full(shape=t.shape, value=0, dtype=t.dtype)


def _check_version(t: Tensor, version: int, node: Node) -> None:
    storage = t._storage
    if storage is not None and storage.version != version:
        overwritten(storage.version, version, t._data, node)


def overwritten(now: int, version: int, data: Any, node: Any) -> None:
    """Refuse to use what was kept and overwritten since."""
    raise AutogradError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [tracegraph.{dtype_of_data(data).name} {list(data.shape)}], needed by "
        f"{node.name()}, is at version {now}; expected version {version} instead. Hint: write "
        "out of place, or clone() the tensor before it is used."
    )


class AccumulateGrad(Node):
    """The end of the tape at a leaf: adds what arrives to the leaf's `.grad`."""

    __slots__ = ("after", "leaf")

    def __init__(self, leaf: Tensor) -> None:
        self.op = None
        self.edges = ()
        self.rest = None
        self.types = (type_of(leaf),)
        self.shape = leaf._data.shape
        self.hooks = None
        self.after: list[Any] | None = None
        self.loc = None
        self.order = next(_leaf_count)
        self.leaf = weakref.ref(leaf)

    @property
    def variable(self) -> Tensor | None:
        """The leaf."""
        return self.leaf()

    def name(self) -> str:
        """As PyTorch shows it."""
        return "AccumulateGrad"

    def release(self) -> None:
        """Nothing is kept."""


class MoveNode(Node):
    """A copy to another device: its gradient goes back to where the operand is."""

    __slots__ = ("back",)

    back: Callable[[Tensor], Tensor]

    def apply(self, m: Any, g: Any, create_graph: bool) -> Sequence[Any]:
        """Return the gradient on the operand's device."""
        return (self.back(g),)


class Hooks:
    """What runs at a node: `results` (lists by result index), then `before`, `retained` (keeps
    `.grad` of a result), and after the gradient rules `after`.
    """  # noqa: D205

    __slots__ = ("after", "before", "results", "retained")

    def __init__(self) -> None:
        self.results: dict[int, list[Callable[..., Any]]] = {}
        self.retained: dict[int, Callable[..., Any]] = {}
        self.before: list[Callable[..., Any]] = []
        self.after: list[Callable[..., Any]] = []


def hooks_of(node: Node) -> Hooks:
    """Return the hooks of a node, made at first need."""
    if node.hooks is None:
        node.hooks = Hooks()
    return node.hooks


def _hang(hooks: list[Callable[..., Any]], hook: Callable[..., Any]) -> HookHandle:
    hooks.append(hook)
    return HookHandle(hooks, hook)


def add_hook(node: Node, index: int, hook: Callable[..., Any]) -> HookHandle:
    """Register `hook(grad) -> grad | None` on one result of a node."""
    return _hang(hooks_of(node).results.setdefault(index, []), hook)


class HookHandle:
    """Removes a hook: `handle.remove()`, or as a context manager."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks = weakref.ref(hooks) if not isinstance(hooks, list) else hooks
        self._hook = hook

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        hooks: Any = self._hooks
        if self._hook in hooks:
            hooks.remove(self._hook)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def make_leaf(t: Tensor) -> None:
    """Let a Tensor without history accumulate a gradient."""
    set_history(t, AccumulateGrad(t), 0)


def set_history(t: Tensor, node: Node | None, index: int) -> None:
    """Give a Tensor, and its views, another history; a view leaves the lineage of its base."""
    t._node, t._index = node, index
    lineage = t._lineage
    if lineage is None:
        return
    if len(t._chain) > lineage.depth:
        t._lineage = None
        return
    lineage.node, lineage.index = node, index
    lineage.version += 1
    t._seen = lineage.version


def _type_of_operand(value: Any, outputs: Sequence[Tensor]) -> TensorType | None:
    if isinstance(value, Tensor):
        return type_of(value)
    return None if value is None else TensorType(type_of(outputs[0]).dtype, ())


def _unrecorded(edges: Sequence[Edge], args: Sequence[Any]) -> list[Any]:
    """Operands without an edge: weak references to tensors, and Python scalars (see history)."""
    return [
        (weakref.ref(a) if isinstance(a, Tensor) else a) if edges[i] is None else None
        for i, a in enumerate(args)
    ]


def attach(
    op: Op, edges: Sequence[Edge], mask: int, args: Sequence[Any], attrs: dict[str, Any],
    out: Tensor, loc: Any = None,
) -> None:  # fmt: skip
    """Give the only result of an op a Node; `mask` has a bit for each edge that is not None."""
    node = _allocate(Node)
    node.op = op
    node.edges = edges
    node.attrs = attrs
    plan = op._plans.get(mask)
    node.plan = plan = op.save_plan(mask) if plan is None else plan
    node.hooks = None
    node.loc = loc
    node.order = next(_count)
    if plan.saves:
        plan.keep(node, args, (out,), storage_of, _type_of_operand)
    else:
        node.saved, node.versions = (), None
    node.rest = _unrecorded(edges, args) if plan.partial else None
    node.shape = out._data.shape
    out._node = node
    out._index = 0


@functools.cache
def _lasting(plan: SavePlan) -> SavePlan:
    return dataclasses.replace(plan, holds=False)


def lasting(t: Tensor) -> Tensor:
    """Let several backward passes go through a fresh result: PyTorch keeps nothing for it."""
    if t._node is not None:
        t._node.plan = _lasting(t._node.plan)
    return t


def attach_move(op: Op, t: Tensor, out: Tensor, back: Callable[[Tensor], Tensor]) -> None:
    """Give `out`, a copy of `t` on another device, a MoveNode; `op` is how a graph names a copy."""
    assert t._node is not None
    node = _allocate(MoveNode)
    node.op, node.attrs, node.plan = op, {}, op.save_plan(1)
    node.edges, node.order = ((t._node, t._index),), next(_count)
    node.saved, node.versions, node.rest = (), None, None
    node.hooks = node.loc = None
    node.shape, node.back = out._data.shape, back
    out._node, out._index = node, 0


def record_node(
    op: Op, args: Sequence[Any], attrs: dict[str, Any], outputs: Sequence[Tensor], loc: Any = None
) -> None:
    """Put one op on the tape: give `outputs` a Node whose edges lead to `args`.

    The caller has refreshed the histories of `args` and knows that one needs a gradient.
    """
    edges: list[Edge] = []
    mask = 0
    for place, t in enumerate(args):
        node = t._node if isinstance(t, Tensor) else None
        edges.append(None if node is None else (node, t._index))
        if node is not None:
            mask |= 1 << place
    if op.holomorphic and dtype_of_data(outputs[0]._data).kind == COMPLEX_KIND:
        mask |= CONJUGATED
    if len(outputs) == 1:
        attach(op, edges, mask, args, attrs, outputs[0], loc)
        return
    node = _allocate(Node)
    node.op = op
    node.edges = edges
    node.attrs = attrs
    node.plan = plan = op.save_plan(mask)
    node.hooks = None
    node.loc = loc
    node.order = next(_count)
    plan.keep(node, args, outputs, storage_of, _type_of_operand)
    node.rest = _unrecorded(edges, args)
    node.shape = None
    node.types = tuple(map(type_of, outputs))
    for index, out in enumerate(outputs):
        if node.types[index].dtype.kind >= FLOAT_KIND:
            out._node = node
            out._index = index


def is_spent(node: Node, whole: set[Node]) -> bool:
    """Whether a backward pass freed what gradients of a node's results would need.

    `whole` are nodes that are known not to be spent; those that are found so are added.
    """
    seen: set[Node] = set()
    stack = [node]
    while stack:
        node = stack.pop()
        if node in seen or node in whole or node.__class__ is AccumulateGrad:
            continue
        if node.is_released():
            return True
        seen.add(node)
        stack += [edge[0] for edge in node.edges if edge is not None]
    whole |= seen
    return False


def next_order() -> int:
    """Return the next time stamp of the tape."""
    return next(_count)
