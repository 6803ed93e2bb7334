"""LU factorisations in PyTorch's forms, what is solved with them, and reflections."""

from __future__ import annotations

from typing import Any

from tracegraph import return_types
from tracegraph.api.linear_algebra import solve_triangular
from tracegraph.api.matrices import tril, triu
from tracegraph.api.promotion import cast, counting, filled, identity
from tracegraph.api.shape import expand, slice_dim, transpose, unsqueeze
from tracegraph.dtypes import int32
from tracegraph.eager.computing import operand_types
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.ops.core import refuse_complex
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import broadcast_shapes


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
    refuse_complex("lu_solve", (LU._data, B._data))
    if not left:
        solved = lu_solve(LU, pivots, transpose(B, -2, -1), adjoint=not adjoint)
        return in_rows(transpose(solved, -2, -1))
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


# Householder reflections.


def geqrf(input: Tensor) -> Any:
    """Return (a, tau): R, and below its diagonal the reflections whose product is Q."""
    OPS["geqrf"].infer(operand_types((input,)), {})
    return return_types.geqrf(*front.geqrf(input))


def _reflected(vectors: Tensor, tau: Tensor, x: Tensor, forward: bool) -> Tensor:
    """The product of the reflections I − tau·v·vᵀ, or of its transpose (`forward`), with x."""
    refuse_complex("a product of reflections", (vectors._data, tau._data))
    for i in range(tau.shape[-1]) if forward else reversed(range(tau.shape[-1])):
        v = slice_dim(vectors, vectors.ndim - 1, i, i + 1)
        scale = unsqueeze(slice_dim(tau, tau.ndim - 1, i, i + 1), -1)
        x = x - scale * v * (v * x).sum(-2, keepdim=True)
    return x


def _check_reflections(A: Tensor, tau: Tensor) -> None:
    if A.ndim < 2 or A.shape[-2] < A.shape[-1] or tau.shape[-1] > A.shape[-1]:
        raise OpError(
            "linalg.householder_product: input must have at least 2 dimensions, as many rows as "
            f"columns, and no fewer columns than tau has elements, got {list(A.shape)} and "
            f"{list(tau.shape)}"
        )


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """Return the first columns of the product of reflections, as many as A has.

    Raises:
        OpError: the shapes do not fit.
    """
    _check_reflections(A, tau)
    vectors = _unit_lower(slice_dim(A, A.ndim - 1, 0, tau.shape[-1]))
    columns = slice_dim(identity(A, A.shape[-2]), 1, 0, A.shape[-1])
    out = expand(_reflected(vectors, tau, columns, forward=False), A.shape)
    return out if tau.shape[-1] else front.overwrite(A, out)


def orgqr(input: Tensor, input2: Tensor) -> Tensor:
    """Return `householder_product(input, input2)`."""
    return householder_product(input, input2)


def ormqr(
    input: Tensor, input2: Tensor, input3: Tensor, left: bool = True, transpose: bool = False
) -> Tensor:
    """Return Q·input3, or input3·Q, for the square Q that reflections make (or its transpose)."""
    vectors = _unit_lower(slice_dim(input, input.ndim - 1, 0, input2.shape[-1]))
    if left:
        return _reflected(vectors, input2, input3, forward=transpose)
    out = _reflected(vectors, input2, _swapped(input3), forward=not transpose)
    return _swapped(out)


def _swapped(x: Tensor) -> Tensor:
    return transpose(x, -2, -1)
