"""Trace a function with one size dynamic, replay it at others, and compare with eager.

A replay must be right or refused, never wrong; the function is traced at one size only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import tracegraph as tg
from tracegraph import autograd
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import TraceGraphError

REFUSALS = (TraceGraphError, IndexError, ZeroDivisionError)
_MAX_ELEMENTS = 1 << 18


class Outcome(NamedTuple):
    """How many other sizes a replay served, and which it refused though eager took them."""

    served: int
    refused: list[tuple[int, str]]


def flatten(result: Any) -> list[Any]:
    """The leaves of nested tuples and lists, without None."""
    if isinstance(result, (tuple, list)):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [result]


def resized(array: Any, axes: Sequence[int], size: int) -> Any:
    """The array with another size along some axes: its elements again from the start."""
    for axis in axes:
        array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return array


def pairs(x: Tensor) -> Tensor:
    """Return complex numbers as pairs, real ones as they are."""
    return tg.view_as_real(x) if x.is_complex() else x


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that also gives the gradients of its arguments."""

    def both(*args: Any) -> Any:
        results = flatten(function(*args))
        graded = [pairs(x) for x in results if isinstance(x, Tensor) and x.requires_grad]
        leaves = [a for a in args if a.requires_grad]
        if not graded or not leaves:
            return tuple(results)
        total = sum((x.double() * x.double() * 0.5 + x.double()).sum() for x in graded)
        found = autograd.grad(total, leaves, allow_unused=True)
        return (*results, *(tg.zeros_like(a) if g is None else g
                            for a, g in zip(leaves, found, strict=True)))  # fmt: skip

    return both


def sizes_of(arrays: Mapping[str, Any]) -> list[int]:
    """The sizes above 1 that arrays have."""
    return sorted({n for a in arrays.values() for n in a.shape if n > 1})


def check_size(
    function: Callable[..., Any], arrays: Mapping[str, Any], size: int, gradients: bool = True
) -> Outcome | None:
    """Trace `function(*arrays)` with all dims of a size dynamic, and replay it at others.

    Returns None where eager itself does not take the arguments. A dim that the function fixes is
    fixed without complaint, as if examples had differed there.
    """
    axes = {k: [i for i, n in enumerate(a.shape) if n == size] for k, a in arrays.items()}
    traced_function = with_gradients(function) if gradients else function

    def inputs(n: int) -> list[Tensor]:
        made = [tg.tensor(resized(a, axes[k], n)) for k, a in arrays.items()]
        return [t.requires_grad_() if gradients and t.is_floating_point() else t for t in made]

    dim = tg.Dim("n")
    dim.declared = False
    dynamic = {f"args{i}": dict.fromkeys(axes[k], dim) for i, k in enumerate(arrays) if axes[k]}

    def call(*args: Any) -> Any:
        return traced_function(*args)

    with np.errstate(all="ignore"):
        try:
            call(*inputs(size))
        except Exception:
            return None
        traced = tg.trace(call, tuple(inputs(size)), dynamic=dynamic, check=False)
        served, refused = 0, []
        for n in (size, size + 2, 2 * size, 1, 0):
            try:
                wanted = call(*inputs(n))
            except Exception:
                wanted = None
            if wanted is not None and any(t.numel() > _MAX_ELEMENTS for t in tensors(wanted)):
                continue
            try:
                found = traced(*inputs(n))
            except REFUSALS as error:
                assert n != size, f"refuses the size that it was traced at: {error}"
                if wanted is not None:
                    refused.append((n, str(error)))
                continue
            if wanted is not None:
                compare(found, wanted, f"at size {n}, traced at {size}")
                served += n != size
    return Outcome(served, refused)


def tensors(results: Any) -> list[Tensor]:
    """The tensors among results."""
    return [x for x in flatten(results) if isinstance(x, Tensor)]


def compare(found: Any, wanted: Any, where: str) -> None:
    """Assert that two nests of results agree but for rounding."""
    a, b = flatten(found), flatten(wanted)
    assert len(a) == len(b), where
    for x, y in zip(a, b, strict=True):
        assert type(x) is type(y), where
        if not isinstance(x, Tensor):
            assert x == y, where
            continue
        assert (x.dtype, tuple(x.shape)) == (y.dtype, tuple(y.shape)), where
        p, q = (np.asarray(pairs(t).detach().double().numpy()) for t in (x, y))
        np.testing.assert_allclose(p, q, 1e-4, 1e-5, err_msg=where)
