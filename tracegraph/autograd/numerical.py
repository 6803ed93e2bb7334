"""`gradcheck` and `gradgradcheck`: gradients against central differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegraph.api.creation import tensor, zeros_like
from tracegraph.api.random import randn_like
from tracegraph.autograd.differentiation import grad
from tracegraph.autograd.grad_mode import enable_grad, no_grad
from tracegraph.dtypes import FLOAT_KIND, as_pairs, complex128, float64, from_pairs
from tracegraph.eager.tensors import Tensor

Array = Any


class GradcheckError(RuntimeError):
    """A gradient differs from the finite difference."""


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _wanted(t: Any) -> bool:
    return isinstance(t, Tensor) and bool(t.requires_grad)


def _numbers(t: Tensor) -> Array:
    """The elements in float64; complex ones as pairs."""
    return as_pairs(t.detach().cpu().numpy()).astype(np.float64)


def _count(t: Tensor) -> int:
    return t.numel() * (2 if t.is_complex() else 1)


def _laid(numbers: Array, like: Tensor) -> Tensor:
    """A tensor of these numbers, of the dtype and on the device of another."""
    wide = complex128 if like.is_complex() else float64
    return tensor(from_pairs(numbers, wide), dtype=like.dtype).to(like.device)


def _numeric(
    function: Callable[..., Any], inputs: Sequence[Any], place: int, eps: float
) -> list[Array]:
    """Jacobian of every output by one input: f64[input size, output size], central differences."""
    base = _numbers(inputs[place])
    rows: list[list[Array]] = []
    for i in range(base.size):
        values = []
        for step in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[i] += step
            args = list(inputs)
            args[place] = _laid(moved, inputs[place])
            with no_grad():
                values.append([_numbers(o).reshape(-1) for o in _as_tuple(function(*args))])
        rows.append([(a - b) / (2 * eps) for a, b in zip(*values, strict=True)])
    return [np.array(column) for column in zip(*rows, strict=True)]


def _analytic(out: Tensor, inputs: Sequence[Tensor]) -> list[Array]:
    """Jacobian of one output by each input, one backward pass for every element of the output."""
    columns: list[list[Array]] = [[] for _ in inputs]
    for i in range(_count(out)):
        unit = np.zeros(_numbers(out).shape)
        unit.reshape(-1)[i] = 1.0
        found = grad(out, inputs, _laid(unit, out), retain_graph=True, allow_unused=True)
        for column, g, x in zip(columns, found, inputs, strict=True):
            column.append(_numbers(zeros_like(x) if g is None else g).reshape(-1))
    return [
        np.array(c).reshape(_count(out), _count(x)).T for c, x in zip(columns, inputs, strict=True)
    ]


def gradcheck(
    func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5,
    rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0, **options: Any,
) -> bool:  # fmt: skip
    """Check the gradients of `func` by every input that requires one.

    Args:
        func: takes tensors, returns a tensor or a tuple of tensors.
        inputs: f64 or c128 tensors, whose parts count apart; those without `requires_grad` are
            constants.
        eps: step of the central differences.
        atol: allowed absolute difference.
        rtol: allowed difference relative to the finite difference.
        raise_exception: raise instead of returning False.
        nondet_tol: allowed difference between two backward passes.
        options: PyTorch's other options; reverse mode is what is checked.

    Raises:
        GradcheckError: a gradient differs (with `raise_exception`).
        ValueError: no input requires a gradient.
    """
    given = _as_tuple(inputs)
    places = [i for i, t in enumerate(given) if _wanted(t)]
    if not places:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them "
            "have requires_grad=True."
        )
    for i in places:
        if given[i].dtype not in (float64, complex128):
            warnings.warn(
                f"gradcheck: input {i} is {given[i].dtype}; central differences need float64 "
                "or complex128",
                stacklevel=2,
            )
    try:
        _check(func, given, places, (eps, atol, rtol, nondet_tol))
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(
    func: Callable[..., Any], given: tuple[Any, ...], places: list[int], limits: tuple[float, ...]
) -> None:
    eps, atol, rtol, nondet_tol = limits
    with enable_grad():
        outs = _as_tuple(func(*given))
    numeric = {i: _numeric(func, given, i, eps) for i in places}
    for number, out in enumerate(outs):
        if out.dtype.kind < FLOAT_KIND:
            continue
        if out.requires_grad:
            exact = _analytic(out, [given[i] for i in places])
            again = _analytic(out, [given[i] for i in places])
        else:
            exact = again = [np.zeros((_count(given[i]), _count(out))) for i in places]
        for i, a, b in zip(places, exact, again, strict=True):
            n = numeric[i][number] if given[i].numel() else a
            if not np.allclose(a, n, rtol=rtol, atol=atol, equal_nan=True):
                raise GradcheckError(
                    f"Jacobian mismatch for output {number} with respect to input {i},\n"
                    f"numerical: {n}\nanalytical: {a}"
                )
            if np.max(np.abs(a - b), initial=0) > nondet_tol:
                raise GradcheckError(
                    f"Backward is not reentrant, i.e., running it again with the same input gives "
                    f"other gradients: output {number}, input {i},\nfirst: {a}\nsecond: {b}"
                )


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6,
    atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
    **options: Any,
) -> bool:  # fmt: skip
    """Check the gradients of the gradients of `func`, by its inputs and by `grad_outputs`.

    `grad_outputs` are normal random numbers where they are not given; for the rest see `gradcheck`.

    Raises:
        GradcheckError: a gradient differs (with `raise_exception`).
    """
    given = _as_tuple(inputs)
    with enable_grad():
        outs = [o for o in _as_tuple(func(*given)) if _wanted(o)]
    if grad_outputs is None:
        weights = tuple(randn_like(o).detach().requires_grad_() for o in outs)
    else:
        weights = _as_tuple(grad_outputs)

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        values, seeds = args[: len(given)], args[len(given) :]
        leaves = [v.detach().requires_grad_() if _wanted(x) and not _wanted(v) else v
                  for v, x in zip(values, given, strict=True)]  # fmt: skip
        with enable_grad():
            results = [o for o in _as_tuple(func(*leaves)) if _wanted(o)]
            wanted = [v for v, x in zip(leaves, given, strict=True) if _wanted(x)]
            found = grad(results, wanted, seeds, create_graph=True, allow_unused=True)
        return tuple(zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True))

    return gradcheck(
        gradients, (*given, *weights), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
    )  # fmt: skip
