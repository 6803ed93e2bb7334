"""`Function`: operations that a user differentiates by hand."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tracegraph.autograd.differentiation import as_tuple
from tracegraph.autograd.grad_mode import GradMode
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.dispatch import rebase, refresh
from tracegraph.eager.tape import SPENT, Edge, Node, next_order, overwritten, zeros
from tracegraph.eager.tensors import Tensor, shell, storage_of, type_of
from tracegraph.errors import AutogradError, SparseError


class _Saved(NamedTuple):
    """A tensor kept for `backward`, its version, and which result it is (-1: none)."""

    tensor: Tensor | None
    version: int
    result: int


class FunctionCtx:
    """What `forward` of a user-defined function leaves for its `backward`."""

    def __init__(self, label: str) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materialize = True
        self._label = label
        self._to_save: tuple[Tensor | None, ...] = ()
        self._saved: tuple[_Saved, ...] | None = None
        self._dirty: tuple[int, ...] = ()
        self._non_differentiable: tuple[int, ...] = ()
        self._node: Callable[[], Node | None] = _nothing

    def name(self) -> str:
        """The name that PyTorch shows for the node."""
        return self._label

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (or None) for `ctx.saved_tensors`."""
        self._to_save = tensors

    def keep(self) -> None:
        """Take what was saved, at its present version."""
        self._saved = tuple(
            _Saved(t, 0 if t is None else storage_of(t).version, -1) for t in self._to_save
        )
        self._to_save = ()

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept.

        Raises:
            AutogradError: it has been freed, or overwritten in place since.
        """
        if self._saved is None:
            raise AutogradError(SPENT)
        found: list[Any] = []
        for t, version, result in self._saved:
            if t is not None and storage_of(t).version != version:
                data = storage_of(t).array if t.is_sparse else t._data
                overwritten(storage_of(t).version, version, data, self)
            if t is not None and result >= 0:
                t = shell(t)
                t._node, t._index = self._node(), result
            found.append(t)
        return tuple(found)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that inputs were changed in place and are results."""
        self._dirty = tuple(id(t) for t in tensors)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that outputs carry no gradient."""
        self._non_differentiable = tuple(id(t) for t in tensors)

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing output gradients arrive as zeros (True) or None."""
        self.materialize = value


def _nothing() -> None:
    return None


class _UserNode(Node):
    """The tape's node of a user-defined function; `places` are the results that are tensors."""

    __slots__ = ("context", "function", "places")

    function: Callable[..., Any]
    context: FunctionCtx | None
    places: tuple[bool, ...]

    def name(self) -> str:
        return "Backward" if self.context is None else self.context.name()

    def apply(self, m: Any, g: Any, create_graph: bool) -> Sequence[Any]:
        ctx = self.context
        if ctx is None:
            raise AutogradError(SPENT)
        grads = list(g) if self.shape is None else [g]
        if ctx.materialize:
            grads = [
                zeros(m, t) if g is None else g for g, t in zip(grads, self.types, strict=True)
            ]
        given = iter(grads)
        out = as_tuple(self.function(ctx, *(next(given) if p else None for p in self.places)))
        edges = len(self.edges)
        if len(out) < edges or any(g is not None for g in out[edges:]):
            raise AutogradError(
                f"function {self.name()} returned an incorrect number of gradients (expected "
                f"{edges}, got {len(out)})"
            )
        return out[:edges]

    def release(self) -> None:
        if self.context is not None and self.context._saved:
            self.context._saved = None
            self.context = None

    def is_released(self) -> bool:
        return self.context is None


class Function:
    """A function with a gradient of its own: static `forward(ctx, ...)`, `backward(ctx, ...)`."""

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; subclasses write this."""
        raise AutogradError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return one gradient (or None) per argument of `forward`; subclasses write this."""
        raise AutogradError(
            "You must implement the backward function for custom autograd.Function."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` off the tape and put one node on it."""
        ctx = FunctionCtx(f"{cls.__name__}Backward")
        recorder = modes.RECORDER.get() if modes.recording and modes.GRAD.get() else None
        needs = []
        for a in args:
            if isinstance(a, Tensor):
                if a.is_sparse:
                    _check_sparse(cls, a)
                    needs.append(False)
                    continue
                refresh(a)
                if recorder is not None:
                    recorder.value_of(a)  # as it is read here, where gradients are recorded
            needs.append(isinstance(a, Tensor) and a._node is not None)
        ctx.needs_input_grad = tuple(needs)
        on = modes.GRAD.get() and any(needs)
        edges: list[Edge] = [
            (a._node, a._index) if n and a._node is not None else None
            for a, n in zip(args, needs, strict=True)
        ]
        with GradMode(False):
            setup = getattr(cls, "setup_context", None)
            if setup is not None:
                result = cls.forward(*args, **kwargs)
                setup(ctx, args, result)
            else:
                result = cls.forward(ctx, *args, **kwargs)
        ctx.keep()
        if on:
            result = attach(cls.backward, ctx, edges, args, result)
        if recorder is not None:
            reason = f"{cls.__qualname__} at {recorder.here()} has a backward in Python"
            for t in as_tuple(result):
                if isinstance(t, Tensor) and id(t) not in ctx._non_differentiable:
                    recorder.refuse_gradient(t, reason)
        return result


def _check_sparse(cls: type[Function], a: Tensor) -> None:
    if a.requires_grad and modes.GRAD.get():
        raise SparseError(
            f"{cls.__qualname__}.apply() with a sparse tensor that requires a gradient is not "
            "available: give it indices and values, and make the sparse tensor inside"
        )


def attach(
    function: Callable[..., Any], ctx: FunctionCtx, edges: Sequence[Edge], args: Sequence[Any],
    result: Any,
) -> Any:  # fmt: skip
    """Put a node on the tape for the tensors that `forward` returned."""
    several = isinstance(result, (tuple, list))
    outs = list(result) if several else [result]
    tensors = [t for t in outs if isinstance(t, Tensor)]
    node = _UserNode()
    node.op = None
    node.function = function
    node.context = ctx
    node.edges = tuple(edges)
    node.hooks = None
    node.loc = None
    node.attrs = {}
    node.order = next_order()
    node.places = tuple(isinstance(t, Tensor) for t in outs)
    node.types = tuple(map(type_of, tensors))
    node.shape = node.types[0].shape if len(tensors) == 1 else None
    ctx._node = weakref.ref(node)
    results = {id(t): index for index, t in enumerate(tensors)}
    given = {id(a) for a in args if isinstance(a, Tensor)}
    # A result that is kept would close a circle (node, context, result): a shell is kept instead.
    ctx._saved = tuple(
        s if s.tensor is None or id(s.tensor) not in results or id(s.tensor) in given
        else _Saved(shell(s.tensor), s.version, results[id(s.tensor)])
        for s in ctx._saved or ()
    )  # fmt: skip
    for place, t in enumerate(outs):
        if isinstance(t, Tensor) and id(t) not in ctx._non_differentiable:
            outs[place] = _result(t, node, results[id(t)], id(t) in given, id(t) in ctx._dirty)
    return type(result)(outs) if several else outs[0]


def _result(t: Tensor, node: Node, index: int, given: bool, dirty: bool) -> Tensor:
    """Give one result its history; an operand that is a result gets it only if it was written."""
    if type_of(t).dtype.kind < FLOAT_KIND:
        return t
    out = shell(t) if given else t
    out._lineage = None
    out._node, out._index = node, index
    if not dirty:
        return out
    rebase(t, out)
    return t


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a `backward` that is not made of differentiable operations.

    Differentiating its results raises AutogradError.
    """

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise AutogradError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        with GradMode(False):
            result = backward(ctx, *grads)
        needed = [t for t in grads if isinstance(t, Tensor) and t.requires_grad]
        if not modes.GRAD.get() or not needed:
            return result
        edges = [None if t._node is None else (t._node, t._index) for t in needed]
        return attach(refuse, FunctionCtx(backward.__name__), edges, (), result)

    return wrapped
