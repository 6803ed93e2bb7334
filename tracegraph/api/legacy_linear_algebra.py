"""Linear algebra under the older names that PyTorch keeps at its top level."""

from __future__ import annotations

from typing import Any

from tracegraph import return_types
from tracegraph.api import elimination
from tracegraph.api import linear_algebra as linalg
from tracegraph.api.pointwise import where
from tracegraph.api.promotion import cast, identity
from tracegraph.api.shape import transpose, unsqueeze
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.tensor_type import wrap_dim

# Norms and distances.


def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """Norm over dims (all by default): of vectors for a number p, "fro" or "nuc" of matrices."""
    x = input if dtype is None else cast(input, dtype_of(dtype))
    if p == "nuc":
        return linalg.matrix_norm(x, "nuc", (0, 1) if dim is None else dim, keepdim)
    return linalg.vector_norm(x, 2 if p in ("fro", None) else p, dim, keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """Norm of order p of input − other."""
    return linalg.vector_norm(input - other, p)


def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:  # fmt: skip
    """Norms of order p of all differences of a row of x1 and one of x2.

    `x1: [batch, n, k]`, `x2: [batch, m, k]`, result `[batch, n, m]`; batch dims broadcast.
    """
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise OpError(
            "X1 and X2 must have at least two dimensions and the same number of columns. X1: "
            f"{list(x1.shape)} X2: {list(x2.shape)}"
        )
    return linalg.vector_norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, -1)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Scale each slice along a dim whose norm of order p exceeds `maxnorm` down to it."""
    if input.ndim < 2:
        raise OpError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    rest = tuple(d for d in range(input.ndim) if d != wrap_dim(dim, input.ndim))
    size = linalg.vector_norm(input, p, rest, True)
    factor = where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)
    return in_rows(input * cast(factor, type_of(input).dtype))


# Matrices.


def inverse(input: Tensor) -> Tensor:
    """Inverse of square matrices."""
    return linalg.inv(input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """Pseudo-inverse."""
    return linalg.pinv(input, rcond)


def det(input: Tensor) -> Tensor:
    """Determinants of square matrices."""
    return linalg.det(input)


def logdet(input: Tensor) -> Tensor:
    """Logarithm of determinants; NaN where they are negative."""
    return linalg.logdet(input)


def slogdet(input: Tensor) -> Any:
    """Return (sign, logabsdet) of determinants."""
    return return_types.slogdet(*linalg.slogdet(input))


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """Lower triangular factor of positive definite matrices (upper: its transpose)."""
    return linalg.cholesky(input, upper=upper)


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """Return X with A·X = input, where L is the Cholesky factor of A.

    As in PyTorch the gradient reaches all of L, though the zeros of one triangle are not read.
    """
    return front.cholesky_solve(input, L, upper=bool(upper), spread=True)


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """Inverse of the matrix whose Cholesky factor is given."""
    return cholesky_solve(identity(input, input.shape[-1]), input, upper)


def triangular_solve(
    input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False,
) -> Any:  # fmt: skip
    """Return (X, A) with A·X = input for triangular A, or Aᵀ·X = input."""
    matrix = A.transpose(-2, -1) if transpose else A
    solution = linalg.solve_triangular(
        matrix, input, upper=upper != transpose, unitriangular=unitriangular
    )
    return return_types.triangular_solve(solution, A.clone())


def qr(input: Tensor, some: bool = True) -> Any:
    """Return (Q, R); `some=False` gives a square Q."""
    return return_types.qr(*linalg.qr(input, "reduced" if some else "complete"))


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """Return (U, S, V) with input = U·diag(S)·Vᵀ (V, not its transpose)."""
    u, s, vh = linalg.svd(input, not some)
    if not compute_uv:
        u, vh, s = u * 0, vh * 0, linalg.svdvals(input)
    return return_types.svd(u, s, transpose(vh, -2, -1))


def matrix_power(input: Tensor, n: int) -> Tensor:
    """Return the n-th power of square matrices."""
    return linalg.matrix_power(input, n)


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """Cross products along a dim of size 3, the first such by default."""
    if dim is None:
        dim = next((i for i, n in enumerate(input.shape) if n == 3), None)
        if dim is None:
            raise OpError("no dimension of size 3 in input")
    return linalg.cross(input, other, dim=dim)


def matrix_exp(input: Tensor) -> Tensor:
    """Exponential of square matrices."""
    return elimination.matrix_exp(input)


def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """Return (LU, pivots), and infos of 0 if asked for."""
    results = tuple(elimination.lu_factor_ex(input, pivot=pivot))
    return results if get_infos else results[:2]


def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """Return X with A·X = input for a matrix A factored by `lu`."""
    return elimination.lu_solve(LU_data, LU_pivots, input)
