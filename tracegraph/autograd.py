"""Differentiation: modes, `backward`, `grad`, and user-defined functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tracegraph import modes
from tracegraph.dispatch import refresh
from tracegraph.engine import root_of, run
from tracegraph.errors import AutogradError
from tracegraph.tape import Edge, Node, next_order, zeros
from tracegraph.tensors import Tensor, type_of


class _GradMode:
    """A context manager and decorator that sets whether gradients are recorded."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(modes.GRAD.set(self.mode))

    def __exit__(self, *exc: object) -> None:
        modes.GRAD.reset(self._tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode = self.mode
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                steps = function(*args, **kwargs)
                while True:
                    with _GradMode(mode):
                        try:
                            item = next(steps)
                        except StopIteration as stop:
                            return stop.value
                    yield item

            return generator

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(mode):
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):  # noqa: N801
    """Record no gradients inside; a context manager or a decorator (with or without `()`)."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        _GradMode.__init__(made, cls._mode())
        return made(function)

    def __init__(self, function: Any = None) -> None:
        super().__init__(self._mode())

    @classmethod
    def _mode(cls) -> bool:
        return False


class enable_grad(no_grad):  # noqa: N801
    """Record gradients inside, also within `no_grad`."""

    @classmethod
    def _mode(cls) -> bool:
        return True


class inference_mode(_GradMode):  # noqa: N801
    """As `no_grad`; `inference_mode(False)` leaves gradients on."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)
        self._inference: list[Any] = []

    def __enter__(self) -> None:
        super().__enter__()
        self._inference.append(modes.INFERENCE.set(not self.mode))

    def __exit__(self, *exc: object) -> None:
        modes.INFERENCE.reset(self._inference.pop())
        super().__exit__(*exc)


class set_grad_enabled(_GradMode):  # noqa: N801
    """Switch gradients on or off at once; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._tokens.append(modes.GRAD.set(mode))

    def __enter__(self) -> None:
        pass


def is_grad_enabled() -> bool:
    """Whether gradients are recorded in this context."""
    return modes.GRAD.get()


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on."""
    return modes.INFERENCE.get()


def _tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, Tensor) or x is None else tuple(x)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of `tensors` with respect to every leaf to its `.grad`.

    Raises:
        AutogradError: no history, a non-scalar without gradient, or freed history.
    """
    outputs = _tuple(tensors)
    grads = _tuple(grad_tensors) if grad_tensors is not None else (None,) * len(outputs)
    roots = [root_of(t, g) for t, g in zip(outputs, grads, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        run(roots, retain_graph=keep, create_graph=create_graph)
        return
    leaves = _tuple(inputs)
    found = grad(tensors, leaves, grad_tensors, keep, create_graph, allow_unused=True)
    for leaf, g in zip(leaves, found, strict=True):
        if g is not None:
            leaf.grad = g if leaf.grad is None else leaf.grad + g


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of `outputs` (summed) with respect to each of `inputs`.

    Raises:
        AutogradError: an input needs no gradient, or is not used (unless `allow_unused`).
    """
    outs, ins = _tuple(outputs), _tuple(inputs)
    grads = _tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outs)
    roots = [root_of(t, g) for t, g in zip(outs, grads, strict=True)]
    wanted: dict[tuple[int, int], int] = {}
    places: list[int] = []
    for place, t in enumerate(ins):
        refresh(t)
        if t._node is None:
            raise AutogradError("One of the differentiated Tensors does not require grad")
        places.append(wanted.setdefault((id(t._node), t._index), place))
    keep = create_graph if retain_graph is None else retain_graph
    found = run(roots, retain_graph=keep, create_graph=create_graph, wanted=wanted)
    result: list[Any] = []
    for t, place in zip(ins, places, strict=True):
        g = found.get(place)
        if g is None and materialize_grads:
            from tracegraph.dispatch import front

            g = zeros(front, type_of(t))
        if g is None and not allow_unused:
            raise AutogradError(
                "One of the differentiated Tensors appears to not have been used in the graph. "
                "Set allow_unused=True if this is the desired behavior."
            )
        result.append(g)
    return tuple(result)


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
        out = _tuple(self.cls.backward(ctx, *grads))
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
    """A user-defined differentiable function: static `forward(ctx, ...)` and `backward(ctx, ...)`."""

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; subclasses write this."""
        raise AutogradError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return one gradient (or None) per argument of `forward`; subclasses write this."""
        raise AutogradError("You must implement the backward function for custom autograd.Function.")

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
        with _GradMode(False):
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
                from tracegraph.tensors import shell

                outs[place] = t = shell(t)
                t._lineage = None
            t._node, t._index = node, index
        index += 1
    return type(result)(outs) if several else outs[0]
