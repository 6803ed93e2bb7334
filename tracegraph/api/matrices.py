"""Matrices by their layout: diagonals, triangles, and matrices made of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegraph.api.creation import note_constant
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.api.shape import reshape, unsqueeze
from tracegraph.devices import device_for_new, module_of
from tracegraph.dtypes import FLOAT_KIND, DType, dtype_of, int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import OpError
from tracegraph.tensor_type import wrap_dim


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Return matrices (on two new dims) with the last dim of `input` as their diagonal."""
    ndim = input.ndim + 1
    first, second = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if first == second:
        raise OpError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    if first > second:
        first, second, offset = second, first, -offset
    size = input.shape[-1] + (offset if offset > 0 else -offset)
    lead = list(input.shape[:-1])
    lead.insert(first, size)
    lead.insert(second, size)
    zeros = filled(input, tuple(lead), 0)
    return front.diagonal_scatter(zeros, input, offset=offset, dim1=first, dim2=second)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the diagonal of a matrix, or a matrix with a vector as its diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise OpError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return front.copy(front.diagonal(input, offset=diagonal, dim1=0, dim2=1))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """Return a matrix with all elements of `input` as its diagonal."""
    return diag_embed(reshape(input, (-1,)), offset)


def _check_matrix(name: str, x: Tensor) -> None:
    if x.ndim < 2:
        raise OpError(f"{name}: input tensor must have at least 2 dimensions")


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the matrices with zeros above a diagonal."""
    _check_matrix("tril", input)
    return front.tril(input, diagonal=diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return the matrices with zeros below a diagonal."""
    _check_matrix("triu", input)
    return front.triu(input, diagonal=diagonal)


def _triangle_indices(
    function: Any, row: int, col: int, offset: int, dtype: Any, device: Any
) -> Tensor:
    pairs = np.stack(function(row, offset, col)).astype(dtype_of(dtype or int64).np)
    return note_constant(wrap(module_of(device_for_new(device)).asarray(pairs)))


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None,
    layout: Any = None,
) -> Tensor:  # fmt: skip
    """Return the places of a lower triangle, rows first: i64[2, count]."""
    return _triangle_indices(np.tril_indices, row, col, offset, dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None,
    layout: Any = None,
) -> Tensor:  # fmt: skip
    """Return the places of an upper triangle, rows first: i64[2, count]."""
    return _triangle_indices(np.triu_indices, row, col, offset, dtype, device)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Return the powers of a vector's elements as columns, the highest first by default."""
    if x.ndim != 1:
        raise OpError("x must be a one-dimensional tensor.")
    size = x.shape[0] if N is None else N
    base = x if type_of(x).dtype.kind >= FLOAT_KIND else cast(x, int64)
    powers = counting(x, size)
    powers = powers if increasing else (size - 1) - powers
    return unsqueeze(base, 1) ** cast(powers, type_of(base).dtype)
