"""A tensor and its history: leaves, `detach`, `.data`, `.grad`, hooks, `backward`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from tracegraph.autograd.differentiation import backward as _backward
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.dispatch import alias, refresh
from tracegraph.eager.engine import clone
from tracegraph.eager.tape import (
    AccumulateGrad,
    HookHandle,
    add_hook,
    hooks_of,
    make_leaf,
    set_history,
)
from tracegraph.eager.tensors import (
    Tensor,
    lineage_of,
    storage_of,
    type_of,
    wrap,
)
from tracegraph.errors import AutogradError, OpError


def requires_grad(self: Tensor) -> bool:
    """Whether gradients flow to this tensor."""
    refresh(self)
    return self._node is not None


def read_requires_grad(self: Tensor) -> bool:
    """Whether gradients flow to this tensor; a trace notes that Python asked."""
    found = requires_grad(self)
    if modes.recording and not found:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.note_no_gradient(self)
    return found


def set_requires_grad(self: Tensor, value: bool) -> None:
    """Set whether a leaf accumulates a gradient."""
    requires_grad_(self, value)


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Let a leaf accumulate a gradient, or stop it.

    Raises:
        AutogradError: not a leaf; or not a floating dtype.
    """
    refresh(self)
    leaf = self._node is None or self._node.__class__ is AccumulateGrad
    if requires_grad == (self._node is not None):
        return self
    if not leaf:
        raise AutogradError(
            "you can only change requires_grad flags of leaf variables. If you want to use a "
            "computed variable in a subgraph that doesn't require differentiation use "
            "var_no_grad = var.detach()."
        )
    if requires_grad:
        if type_of(self).dtype.kind < FLOAT_KIND:
            raise AutogradError("only Tensors of floating point dtype can require gradients")
        make_leaf(self)
    else:
        set_history(self, None, 0)
    return self


def detach(self: Tensor) -> Tensor:
    """Return the same memory without history."""
    return alias(wrap(self._data), self)


def get_data(self: Tensor) -> Tensor:
    """Return the same memory without history; writes through it escape the version counter."""
    out = detach(self)
    lineage_of(out).counted = False
    return out


def detach_(self: Tensor) -> Tensor:
    """Drop the history of this tensor."""
    self._node = None
    self._lineage = None
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None and not recorder.is_state(self):
            alias(self, self)
    return self


def set_data(self: Tensor, other: Tensor) -> None:
    """Let the tensor stand for other memory, keeping its place on the tape."""
    self._data = other._data
    self._storage = storage_of(other)
    self._chain = other._chain
    self._lineage = None
    if self._node.__class__ is AccumulateGrad:
        self._node.types, self._node.shape = (type_of(self),), self._data.shape


def get_grad(self: Tensor) -> Tensor | None:
    """The accumulated gradient, or None."""
    if self._grad is None and modes.recording and modes.RECORDER.get() is not None:
        modes.RECORDER.get().note_grad_read(self)
    return self._grad


def set_grad(self: Tensor, value: Tensor | None) -> None:
    """Replace the accumulated gradient."""
    if value is not None:
        if not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value)}")
        if value._data.shape != self._data.shape:
            raise OpError(
                f"assigned grad has data of a different size: {list(value.shape)}, expected "
                f"{list(self.shape)}"
            )
    if modes.recording and modes.RECORDER.get() is not None:
        modes.RECORDER.get().note_grad_set(self)
    self._grad = value


def grad_fn(self: Tensor) -> Any:
    """The node that made this tensor; None for leaves."""
    refresh(self)
    return None if self._node.__class__ is AccumulateGrad else self._node


def is_leaf(self: Tensor) -> bool:
    """Whether this tensor was not computed from others that need gradients."""
    refresh(self)
    return self._node is None or self._node.__class__ is AccumulateGrad


def register_hook(self: Tensor, hook: Callable[[Tensor], Any]) -> Any:
    """Call `hook(grad)` when this tensor's gradient is known; its result replaces it."""
    refresh(self)
    if self._node is None:
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.refuse_gradient(self, f"a hook at {recorder.here()} is Python")
    return add_hook(self._node, self._index, hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], Any]) -> Any:
    """Call `hook(tensor)` each time after this leaf's `.grad` has been added to.

    Raises:
        AutogradError: not a leaf that requires a gradient.
    """
    refresh(self)
    node = self._node
    if not isinstance(node, AccumulateGrad):
        raise AutogradError(
            "post accumulate grad hooks cannot be registered on non-leaf tensors"
            if node is not None
            else "cannot register a hook on a tensor that doesn't require gradient"
        )
    if node.after is None:
        node.after = []
    node.after.append(hook)
    return HookHandle(node.after, hook)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of a non-leaf in `.grad`.

    Raises:
        AutogradError: the tensor does not require a gradient.
    """
    if not requires_grad(self):
        raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
    if is_leaf(self):
        return
    me = weakref.ref(self)

    def keep(grad: Tensor) -> None:
        owner = me()
        if owner is not None:
            owner._grad = clone(grad) if owner._grad is None else owner._grad + grad

    assert self._node is not None
    hooks_of(self._node).retained[self._index] = keep


def retains_grad(self: Tensor) -> bool:
    """Whether this is a non-leaf that keeps its gradient in `.grad`."""
    if is_leaf(self) or self._node is None or self._node.hooks is None:
        return False
    return self._index in self._node.hooks.retained


def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None,
    create_graph: bool = False, inputs: Any = None,
) -> None:  # fmt: skip
    """Add the gradient of this tensor with respect to every leaf to its `.grad`."""
    _backward(self, gradient, retain_graph, create_graph, inputs)


def graph(self: Tensor) -> Any:
    """Return the IR of what eager has recorded on the way to this tensor; see `history`."""
    from tracegraph.eager.history import graph_of

    return graph_of(self)


def version(self: Tensor) -> int:
    """How often the memory was written."""
    return 0 if self._storage is None else self._storage.version
