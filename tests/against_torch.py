"""A function on tracegraph and on PyTorch: values, dtypes, shapes and gradients are compared."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def values(text: str, *shape: int, seed: int = 0) -> Any:
    """Normal numbers of a NumPy dtype; complex ones have normal parts."""
    random = np.random.default_rng(seed)
    drawn = random.normal(size=shape)
    if np.dtype(text).kind == "c":
        drawn = drawn + 1j * random.normal(size=shape)
    return np.asarray(drawn, text)


def outcome(module: Any, function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    """Results of `function(module, *tensors)`, and gradients of what they weigh together."""
    leaves = [module.tensor(a) for a in arrays]
    for t in leaves:
        if t.is_floating_point() or t.is_complex():
            t.requires_grad_()
    made = function(module, *leaves)
    results = list(made) if isinstance(made, (tuple, list)) else [made]
    graded = [r for r in results if r.requires_grad]
    total = None
    for number, r in enumerate(graded):
        weights = values("complex128" if r.is_complex() else "float64", *r.shape, seed=number + 5)
        part = (r * module.tensor(weights)).sum()
        part = part.real + 2 * part.imag if part.is_complex() else part
        total = part if total is None else total + part
    if total is not None:
        total.backward()
    shown = [(str(r.dtype).split(".")[1], r.detach().resolve_conj().numpy()) for r in results]
    return shown, [None if t.grad is None else t.grad.resolve_conj().numpy() for t in leaves]


def compare(function: Callable[..., Any], *arrays: Any, tolerance: float | None = None) -> None:
    """Raise unless both modules give the same."""
    limit = tolerance or (
        1e-11 if all(a.itemsize == 16 or a.dtype == "f8" for a in arrays) else 2e-5
    )
    mine, theirs = (
        outcome(importlib.import_module(name), function, arrays) for name in ("tracegraph", "torch")
    )
    assert [d for d, _ in mine[0]] == [d for d, _ in theirs[0]]
    pairs = [(a, b) for (_, a), (_, b) in zip(mine[0], theirs[0], strict=True)]
    for a, b in (*pairs, *zip(mine[1], theirs[1], strict=True)):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
            np.testing.assert_allclose(a, b, rtol=limit, atol=limit * scale)
