"""Lengths, distances and angles between vectors."""

from __future__ import annotations

from tracegraph.api.matrices import triu_indices
from tracegraph.api.shape import broadcast_to
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ops.core import refuse_complex
from tracegraph.tensor_type import broadcast_shapes


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """Return input over its p-norm along a dim (at least `eps`)."""
    length = input.norm(p, dim, keepdim=True).clamp_min(eps)
    scaled: Tensor = input / length
    return scaled if out is None else out.copy_(scaled)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the cosine of the angle between vectors along a dim; lengths count as >= `eps`."""
    refuse_complex("cosine_similarity", (x1._data, x2._data))
    shape = broadcast_shapes([tuple(x1.shape), tuple(x2.shape)])
    units = []
    for x in (x1, x2):
        x = broadcast_to(x, shape)
        units.append(x / x.norm(2, dim, keepdim=True).clamp_min(eps))
    return (units[0] * units[1]).sum(dim)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Return the p-norm of x1 − x2 + eps along the last dim."""
    return (x1 - x2 + eps).norm(p, -1, keepdim)


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """Return the p-norm distances between all pairs of rows i < j: f[n · (n − 1) / 2].

    Raises:
        OpError: not a matrix, or a negative p.
    """
    if input.ndim != 2:
        raise OpError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise OpError("pdist only supports non-negative p values")
    first, second = triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return (input[first] - input[second]).norm(p, -1)
