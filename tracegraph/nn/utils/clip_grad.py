"""Gradients made smaller before a step."""

from __future__ import annotations

from typing import Any

from tracegraph.api import creation, shape
from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError


def _tensors(given: Any) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else list(given)


def _norm(x: Tensor, norm_type: float) -> Tensor:
    """(Σ |x|ᵖ)¹ᐟᵖ over all elements."""
    if norm_type == float("inf"):
        out: Tensor = x.abs().amax()
    elif norm_type == 2:
        out = (x * x).sum().sqrt()
    elif norm_type == 1:
        out = x.abs().sum()
    else:
        out = (x.abs() ** norm_type).sum() ** (1.0 / norm_type)
    return out


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the norm of all elements of some tensors together, 0-d.

    Raises:
        OpError: it is not finite, where `error_if_nonfinite`.
    """
    parts = _tensors(tensors)
    kind = float(norm_type)
    if not parts:
        return creation.tensor(0.0)
    norms = [_norm(t.abs() if t.is_complex() else t, kind) for t in parts]
    total = norms[0] if len(norms) == 1 else _norm(shape.stack(norms), kind)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise OpError(
            f"The total norm of order {kind} for gradients from `parameters` is non-finite, so it "
            "cannot be clipped. To disable this error and scale the gradients by the non-finite "
            "norm anyway, set `error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale gradients by max_norm / total_norm where that is below 1."""
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for p in _tensors(parameters):
        if p.grad is not None:
            p.grad.mul_(factor.to(p.grad.device))


@no_grad()
def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale the gradients of some Parameters so that their joint norm is at most `max_norm`.

    Returns the norm before. The scale is computed, never read: it can be traced.

    Raises:
        OpError: the norm is not finite, where `error_if_nonfinite`.
    """
    parts = _tensors(parameters)
    grads = [p.grad for p in parts if p.grad is not None]
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parts, max_norm, total)
    return total


clip_grad_norm = clip_grad_norm_


@no_grad()
def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every element of the gradients to ±clip_value."""
    bound = float(clip_value)
    for p in _tensors(parameters):
        if p.grad is not None:
            p.grad.copy_(p.grad.clamp(-bound, bound))
