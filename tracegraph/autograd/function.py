"""`Function`: operations that a user differentiates by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph import modes
from tracegraph.autograd.differentiation import as_tuple
from tracegraph.autograd.grad_mode import GradMode
from tracegraph.dispatch import refresh
from tracegraph.errors import AutogradError
from tracegraph.tape import Edge, Node, next_order, zeros
from tracegraph.tensors import Tensor, shell, type_of


class FunctionCtx:
    """What `forward` of a user-defined function leaves for its `backward`."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self._non_differentiable: tuple[int, ...] = ()
        self.materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (or None) for `ctx.saved_tensors`."""
        self.saved_tensors = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that inputs were changed in place (their versions already tell)."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that outputs carry no gradient."""
        self._non_differentiable = tuple(id(t) for t in tensors)

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing output gradients arrive as zeros (True) or None."""
        self.materialize = value


class _UserNode(Node):
    """The tape's node of a user-defined function."""

    __slots__ = ("cls", "context")

    cls: Any
    context: FunctionCtx | None

    def name(self) -> str:
        return f"{self.cls.__name__}Backward"

    def apply(self, m: Any, g: Any, create_graph: bool) -> Sequence[Any]:
        grads = g if self.shape is None else [g]
        ctx = self.context
        if ctx is None:
            raise AutogradError(
                "Trying to backward through the graph a second time; specify retain_graph=True"
            )
        if ctx.materialize:
            grads = [
                zeros(m, t) if g is None else g for g, t in zip(grads, self.types, strict=True)
            ]
        out = as_tuple(self.cls.backward(ctx, *grads))
        edges = len(self.edges)
        if len(out) < edges or any(g is not None for g in out[edges:]):
            raise AutogradError(
                f"function {self.name()} returned an incorrect number of gradients (expected "
                f"{edges}, got {len(out)})"
            )
        return out[:edges]

    def release(self) -> None:
        self.context = None


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
        ctx = FunctionCtx()
        needs = []
        for a in args:
            if isinstance(a, Tensor):
                refresh(a)
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
        if on:
            result = _attach(cls, ctx, edges, args, result)
        return result


def _attach(cls: Any, ctx: FunctionCtx, edges: list[Edge], args: Any, result: Any) -> Any:
    """Put a node on the tape for the tensors that `forward` returned."""
    several = isinstance(result, (tuple, list))
    outs = list(result) if several else [result]
    node = _UserNode()
    node.op = None
    node.cls = cls
    node.context = ctx
    node.edges = tuple(edges)
    node.hooks = None
    node.loc = None
    node.attrs = {}
    node.order = next_order()
    tensors = [t for t in outs if isinstance(t, Tensor)]
    node.types = tuple(map(type_of, tensors))
    node.shape = node.types[0].shape if len(tensors) == 1 else None
    given = {id(a) for a in args if isinstance(a, Tensor)}
    index = 0
    for place, t in enumerate(outs):
        if not isinstance(t, Tensor):
            continue
        if id(t) not in ctx._non_differentiable and type_of(t).dtype.is_floating_point:
            if id(t) in given:
                outs[place] = t = shell(t)
                t._lineage = None
            t._node, t._index = node, index
        index += 1
    return type(result)(outs) if several else outs[0]
