"""A layer here and the same in PyTorch, with the same weights and inputs, compared."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import tracegraph as tg


def translated(text: str) -> str:
    """PyTorch's text with our name for dtypes and sizes."""
    return text.replace("torch.Size", "tracegraph.Size").replace("torch.float", "tracegraph.float")


def pair(name: str, args: Any = (), kwargs: Any = None) -> tuple[Any, Any]:
    """Return (ours, PyTorch's) of a class, ours with PyTorch's weights."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        theirs = getattr(torch.nn, name)(*map(to_torch, args), **(kwargs or {}))
        ours = getattr(tg.nn, name)(*args, **(kwargs or {}))
    copy_weights(theirs, ours)
    return ours, theirs


def copy_weights(theirs: Any, ours: Any) -> None:
    """Load PyTorch's state into ours, by name."""
    state = {key: tg.tensor(value.detach().numpy()) for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state)


def to_torch(value: Any, known: dict[int, Any] | None = None) -> Any:
    """Return tensors of ours as PyTorch's (the same for the same); other values as they are."""
    import torch

    known = {} if known is None else known
    if isinstance(value, tg.Tensor):
        if id(value) not in known:
            values = torch.tensor(value.detach().numpy().copy())
            known[id(value)] = values.requires_grad_(value.requires_grad)
        return known[id(value)]
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(to_torch(item, known) for item in value)
    return value


def draw(shape: Any, seed: int = 0, **options: Any) -> tg.Tensor:
    """Return normal numbers of a shape that accumulate a gradient; an array is taken as it is."""
    if isinstance(shape, np.ndarray):
        return tg.tensor(shape)
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return tg.tensor(values, requires_grad=True, **options)


def flat(value: Any) -> list[Any]:
    """Return the tensors of nested outputs."""
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in flat(item)]
    return [] if value is None else [value]


def same(ours: Any, theirs: Any, what: str, tolerance: float = 1e-5) -> None:
    """Assert that shape, dtype and values agree."""
    a, b = ours.detach().numpy(), theirs.detach().numpy()
    assert a.shape == b.shape, what
    assert a.dtype == b.dtype, what
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


def compare(ours: Any, theirs: Any, inputs: Any, tolerance: float = 1e-5, **options: Any) -> None:
    """Assert that outputs, gradients of inputs and parameters, and buffers after agree."""
    import torch

    others = to_torch(inputs)
    mine, yours = flat(ours(*inputs, **options)), flat(theirs(*others, **to_torch_dict(options)))
    assert len(mine) == len(yours)
    for i, (a, b) in enumerate(zip(mine, yours, strict=True)):
        same(a, b, f"output {i}", tolerance)
    pairs = [(a, b) for a, b in zip(mine, yours, strict=True) if b.requires_grad]
    if not pairs:
        return
    weights = [np.random.default_rng(9).uniform(0.5, 1.5, tuple(a.shape)) for a, _ in pairs]
    sum((a * tg.tensor(w, dtype=a.dtype)).sum() for (a, _), w in zip(pairs, weights)).backward()  # noqa: B905
    sum((b * torch.tensor(w, dtype=b.dtype)).sum() for (_, b), w in zip(pairs, weights)).backward()  # noqa: B905
    for i, (a, b) in enumerate(zip(flat(inputs), flat(others), strict=True)):
        if isinstance(b, torch.Tensor) and b.requires_grad:
            assert (a.grad is None) == (b.grad is None), f"gradient of input {i}"
            if b.grad is not None:
                same(a.grad, b.grad, f"gradient of input {i}", 10 * tolerance)
    found = dict(ours.named_parameters())
    for name, p in theirs.named_parameters():
        assert (found[name].grad is None) == (p.grad is None), f"gradient of {name}"
        if p.grad is not None:
            same(found[name].grad, p.grad, f"gradient of {name}", 10 * tolerance)
    found = dict(ours.named_buffers())
    for name, b in theirs.named_buffers():
        same(found[name], b, f"buffer {name}", tolerance)


def to_torch_dict(options: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments with tensors of PyTorch's."""
    return {name: to_torch(value) for name, value in options.items()}
