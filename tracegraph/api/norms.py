"""Norms of vectors and matrices, with the argument forms of `torch.linalg`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.pointwise import abs
from tracegraph.api.promotion import cast, float_operand
from tracegraph.api.reduction import Dims, amax, amin, sum
from tracegraph.api.shape import movedim, unsqueeze
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import DTypeError, OpError
from tracegraph.tensor_type import wrap_dim, wrap_dims


def _norm_operand(x: Tensor, dtype: DType | None) -> Tensor:
    """Return floats; of complex numbers their moduli, which have the same norms."""
    y = float_operand(x) if dtype is None else cast(x, dtype_of(dtype))
    return abs(y) if y.is_complex() else y


def vector_norm(
    x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """(Σ |x|^ord)^(1/ord) over dims (all by default); ±inf: the largest, the smallest; 0: count."""
    y = _norm_operand(x, dtype)
    dims = wrap_dims(dim, y.ndim)
    if (ord < 0 or ord == math.inf) and 0 in (y.shape[d] for d in dims):
        raise OpError(
            f"linalg.vector_norm cannot compute the {ord} norm on an empty dim of {list(y.shape)} "
            "because the operation does not have an identity"
        )
    return front.vector_norm(y, ord=ord, dim=dims, keepdim=bool(keepdim))


def _last_two(x: Tensor, dim: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    if x.ndim < 2 or len(dim) != 2:
        raise OpError("linalg.matrix_norm: The input tensor must have at least 2 dimensions")
    places = (wrap_dim(dim[0], x.ndim), wrap_dim(dim[1], x.ndim))
    if places[0] == places[1]:
        raise OpError(f"linalg.matrix_norm: dims must be different. Got {tuple(dim)}")
    return movedim(x, places, (-2, -1)), places


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """Norms of matrices: "fro", "nuc", ±1 (columns), ±2 (singular values) or ±inf (rows).

    Raises:
        OpError: an unknown order, or fewer than 2 dims.
    """
    x, places = _last_two(_norm_operand(A, dtype), dim)
    if A.is_complex() and (ord == "nuc" or ord in (2, -2)):
        raise DTypeError(f"the norm {ord!r} of matrices is not implemented for complex dtypes")
    if ord == "fro":
        return vector_norm(_norm_operand(A, dtype), 2, tuple(dim), keepdim)
    if ord == "nuc" or ord in (2, -2):
        values = front.svdvals(x)
        fold = sum if ord == "nuc" else amax if ord == 2 else amin
        out = fold(values, -1)
    elif ord in (1, -1, math.inf, -math.inf):
        totals = sum(abs(x), -2 if ord in (1, -1) else -1)
        out = (amax if ord > 0 else amin)(totals, -1)
    else:
        raise OpError(f"linalg.matrix_norm: Order {ord} not supported.")
    if keepdim:
        for place in sorted(places):
            out = unsqueeze(out, place)
    return out


def norm(
    A: Tensor, ord: Any = None, dim: Dims = None, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """Norm of vectors (one dim) or matrices (two dims, or an order that only matrices have)."""
    if isinstance(ord, str):
        dims: Any = tuple(range(A.ndim)) if dim is None else dim
        return matrix_norm(A, ord, dims, keepdim, dtype=dtype)
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if isinstance(dim, (tuple, list)) and len(dim) == 2:
        return matrix_norm(A, ord, dim, keepdim, dtype=dtype)
    if dim is None and A.ndim == 2:
        return matrix_norm(A, ord, (0, 1), keepdim, dtype=dtype)
    if dim is None and A.ndim > 2:
        raise OpError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
            f"{A.ndim}D."
        )
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)
