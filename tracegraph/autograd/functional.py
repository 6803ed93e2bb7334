"""Derivatives of functions: `torch.autograd.functional` (jacobian, hessian, vjp, jvp, hvp)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.api.creation import ones_like, zeros_like
from tracegraph.api.shape import reshape, stack
from tracegraph.autograd.differentiation import grad
from tracegraph.autograd.grad_mode import enable_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import AutogradError

Tensors = Tensor | Sequence[Tensor]


def _inputs(inputs: Tensors, create_graph: bool) -> tuple[Tensor, ...]:
    """Return the inputs as leaves (or, to differentiate again, as views of the caller's)."""
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if create_graph:
        return tuple(x if x.requires_grad else x.detach().requires_grad_() for x in given)
    return tuple(x.detach().requires_grad_() for x in given)


def _outputs(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _filled(found: Sequence[Any], like: Sequence[Tensor]) -> tuple[Any, ...]:
    """Gradients, zeros where there is none."""
    return tuple(zeros_like(x) if g is None else g for g, x in zip(found, like, strict=True))


def _like(result: tuple[Any, ...], given: Any) -> Any:
    return result[0] if isinstance(given, Tensor) else result


def vjp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None,
    create_graph: bool = False, strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return `func(*inputs)` and the product of `v` with its Jacobian.

    Raises:
        AutogradError: `v` is missing and the output is no scalar.
    """
    with enable_grad():
        leaves = _inputs(inputs, create_graph)
        value = func(*leaves)
        outs = _outputs(value)
        if v is None and any(o.numel() != 1 for o in outs):
            raise AutogradError("The vector v can only be None if the output is a single element")
        weights = tuple(map(ones_like, outs)) if v is None else _outputs(v)
        found = grad(outs, leaves, weights, create_graph=create_graph, allow_unused=True)
        filled = _filled(found, leaves)
    if not create_graph:
        value = _like(tuple(o.detach() for o in outs), value)
    return value, _like(filled, inputs)


def jvp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None,
    create_graph: bool = False, strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return `func(*inputs)` and the product of its Jacobian with `v`, by two reverse passes."""
    with enable_grad():
        leaves = _inputs(inputs, create_graph)
        value = func(*leaves)
        outs = _outputs(value)
        dummies = tuple(zeros_like(o).requires_grad_() for o in outs)
        back = grad(outs, leaves, dummies, create_graph=True, allow_unused=True)
        used = [(g, w) for g, w in zip(back, _weights(v, leaves), strict=True) if g is not None]
        found = grad(
            [g for g, _ in used], dummies, [w for _, w in used], create_graph=create_graph,
            allow_unused=True,
        ) if used else (None,) * len(dummies)  # fmt: skip
        filled = _filled(found, outs)
    if not create_graph:
        value = _like(tuple(o.detach() for o in outs), value)
    return value, _like(filled, value)


def _weights(v: Tensors | None, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(ones_like, leaves)) if v is None else _outputs(v)


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """Return d func / d inputs, shaped output.shape + input.shape for each pair."""
    with enable_grad():
        leaves = _inputs(inputs, create_graph)
        value = func(*leaves)
        outs = _outputs(value)
        table = tuple(_rows(o, leaves, create_graph) for o in outs)
    shaped = tuple(_like(row, inputs) for row in table)
    return _like(shaped, value)


def _rows(out: Tensor, leaves: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    """The Jacobian of one output: one reverse pass per element."""
    flat = reshape(out, (-1,))
    rows = []
    for i in range(flat.numel()):
        found = grad(flat[i], leaves, retain_graph=True, create_graph=create_graph,
                     allow_unused=True)  # fmt: skip
        rows.append(_filled(found, leaves))
    return tuple(
        reshape(stack(column), (*out.shape, *x.shape)) if column else zeros_like(x)
        for column, x in zip(zip(*rows, strict=True), leaves, strict=True)
    )


def hessian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """Return the second derivatives of a scalar function."""

    def first(*leaves: Tensor) -> Any:
        found = jacobian(func, leaves if not isinstance(inputs, Tensor) else leaves[0], True)
        return found

    return jacobian(first, inputs, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None,
    create_graph: bool = False, strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return a scalar function's value and the product of its Hessian with `v`."""
    with enable_grad():
        leaves = _inputs(inputs, create_graph)
        value = func(*leaves)
        first = grad(value, leaves, create_graph=True)
        found = grad(first, leaves, _weights(v, leaves), create_graph=create_graph,
                     allow_unused=True)  # fmt: skip
        filled = _filled(found, leaves)
    return value if create_graph else value.detach(), _like(filled, inputs)


def vhp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None,
    create_graph: bool = False, strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return what `hvp` does: a Hessian is its own transpose."""
    return hvp(func, inputs, v, create_graph, strict)
