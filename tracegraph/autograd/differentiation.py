"""`backward` and `grad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.shape import stack
from tracegraph.eager.dispatch import front, refresh
from tracegraph.eager.engine import root_of, run
from tracegraph.eager.tape import zeros
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import AutogradError


def as_tuple(x: Any) -> tuple[Any, ...]:
    """Return one tensor (or None), or a sequence, as a tuple."""
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
    outputs = as_tuple(tensors)
    grads = as_tuple(grad_tensors) if grad_tensors is not None else (None,) * len(outputs)
    roots = [root_of(t, g) for t, g in zip(outputs, grads, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        run(roots, retain_graph=keep, create_graph=create_graph)
        return
    leaves = as_tuple(inputs)
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
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of `outputs` (summed) with respect to each of `inputs`.

    Raises:
        AutogradError: an input needs no gradient, or is not used (unless `allow_unused`).
    """
    outs, ins = as_tuple(outputs), as_tuple(inputs)
    grads = as_tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outs)
    if is_grads_batched:
        return _grad_batched(outs, ins, grads, create_graph, allow_unused, materialize_grads)
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
    for number, (t, place) in enumerate(zip(ins, places, strict=True)):
        g = found.get(place)
        if g is None and materialize_grads:
            g = zeros(front, type_of(t))
        if g is None and not allow_unused:
            raise AutogradError(
                f"The differentiated Tensor at index {number} appears to not have been used in the "
                "graph. Set allow_unused=True if this is the desired behavior."
            )
        result.append(g)
    return tuple(result)


def _grad_batched(
    outs: tuple[Any, ...], ins: tuple[Any, ...], grads: tuple[Any, ...], create_graph: bool,
    allow_unused: bool | None, materialize_grads: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """`grad` for each slice of the gradients along their first dim, the results stacked."""
    size = next((g.shape[0] for g in grads if g is not None), 0)
    rows = [
        grad(outs, ins, [None if g is None else g[i] for g in grads], True, create_graph,
             allow_unused=allow_unused, materialize_grads=materialize_grads)
        for i in range(size)
    ]  # fmt: skip
    return tuple(None if column[0] is None else stack(column) for column in zip(*rows, strict=True))
