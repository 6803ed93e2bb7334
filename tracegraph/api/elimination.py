"""LU factorisations in PyTorch's forms, and what is solved with them."""

from __future__ import annotations

from typing import Any

from tracegraph import return_types
from tracegraph.api.linear_algebra import solve_triangular
from tracegraph.api.matrices import tril, triu
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.api.shape import expand, transpose, unsqueeze
from tracegraph.dispatch import front, operand_types
from tracegraph.dtypes import int32
from tracegraph.errors import OpError
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import broadcast_shapes
from tracegraph.tensors import Tensor, type_of


def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """Return (LU, pivots): both factors in one matrix, and the row swaps counted from 1."""
    OPS["lu_factor"].infer(operand_types((A,)), {"pivot": bool(pivot)})
    return return_types.linalg_lu_factor(*front.lu_factor(A, pivot=bool(pivot)))


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """Return (LU, pivots, info); info is 0: an exact zero as pivot shows in U."""
    info = filled(A, tuple(A.shape[:-2]), 0, int32)
    packed, pivots = lu_factor(A, pivot=pivot)
    return return_types.linalg_lu_factor_ex(packed, pivots, info)


def _unit_lower(x: Tensor) -> Tensor:
    rows = unsqueeze(counting(x, x.shape[-2]), 1)
    eye = cast(front.eq(rows, counting(x, x.shape[-1])), type_of(x).dtype)
    return tril(x, -1) + eye


def _gathered(x: Tensor, order: Tensor) -> Tensor:
    return front.gather(x, expand(unsqueeze(order, -1), x.shape), dim=x.ndim - 2)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    """Return (P, L, U) with P·L·U the matrix that was factored."""
    rows, columns = LU_data.shape[-2:]
    n = min(rows, columns)
    empty = filled(LU_data, (0,), 0)
    permutation, lower, upper = empty, empty, empty
    if unpack_pivots:
        order = front.pivot_order(LU_pivots, rows=rows)
        marks = front.eq(unsqueeze(counting(LU_data, rows), 1), unsqueeze(order, -2))
        permutation = cast(marks, type_of(LU_data).dtype)
    if unpack_data:
        lower, upper = _unit_lower(LU_data[..., :n]), triu(LU_data[..., :n, :])
    return return_types.lu_unpack(permutation, lower, upper)


def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """Return (P, L, U) with P·L·U = A."""
    packed, pivots = lu_factor(A, pivot=pivot)
    permutation, lower, upper = lu_unpack(packed, pivots, True, pivot)
    return return_types.linalg_lu(permutation, lower, upper)


def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """Return X with A·X = B (or X·A = B; adjoint: Aᵀ) for a matrix factored by `lu_factor`."""
    if not left:
        return transpose(lu_solve(LU, pivots, transpose(B, -2, -1), adjoint=not adjoint), -2, -1)
    if LU.shape[-1] != LU.shape[-2] or B.shape[-2] != LU.shape[-1]:
        raise OpError(f"lu_solve: Incompatible matrix sizes {list(LU.shape)} and {list(B.shape)}")
    n = LU.shape[-1]
    lead = [*broadcast_shapes([tuple(LU.shape[:-2]), tuple(B.shape[:-2])]), n]
    order = expand(front.pivot_order(pivots, rows=n), tuple(lead))
    right = expand(B, (*lead[:-1], *B.shape[-2:]))
    if adjoint:
        half = solve_triangular(transpose(LU, -2, -1), right, upper=False)
        half = solve_triangular(transpose(LU, -2, -1), half, upper=True, unitriangular=True)
        places = expand(unsqueeze(order, -1), half.shape)
        return front.scatter(half * 0, places, half, dim=half.ndim - 2)
    half = solve_triangular(LU, _gathered(right, order), upper=False, unitriangular=True)
    return solve_triangular(LU, half, upper=True)


def matrix_exp(A: Tensor) -> Tensor:
    """Exponential of square matrices."""
    OPS["matrix_exp"].infer(operand_types((A,)), {})
    return front.matrix_exp(A)
