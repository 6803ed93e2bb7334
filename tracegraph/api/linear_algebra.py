"""Linear algebra on batches of matrices, with the names and argument forms of `torch.linalg`."""

from __future__ import annotations

import math
from typing import Any

from tracegraph import return_types
from tracegraph.api.contraction import matmul, multi_dot, vecdot
from tracegraph.api.matrices import tril
from tracegraph.api.matrices import vander as _vander
from tracegraph.api.norms import matrix_norm, norm, vector_norm
from tracegraph.api.pointwise import abs, gt, log, maximum, where
from tracegraph.api.promotion import cast, filled, identity, single_dtype
from tracegraph.api.rearrangement import roll
from tracegraph.api.reduction import amax, sum
from tracegraph.api.shape import (
    broadcast_tensors,
    expand,
    movedim,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)
from tracegraph.api.shape import diagonal as _diagonal
from tracegraph.dtypes import finfo, int32, int64
from tracegraph.eager.computing import operand_types
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import LinAlgError, OpError
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import wrap_dim


def _run(op: str, *operands: Tensor, **attrs: Any) -> Any:
    """Check operands by the type rule first: LAPACK's own errors would blame the numbers."""
    OPS[op].infer(operand_types(operands), attrs)
    return getattr(front, op)(*operands, **attrs)


def _both(x: Tensor) -> Tensor:
    return transpose(x, -2, -1)


# Inverses and systems.


def inv(A: Tensor) -> Tensor:
    """Inverse of square matrices.

    Raises:
        LinAlgError: a matrix is singular.
    """
    return _run("inv", A)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """Return (inverse, info); info is 0, since a singular matrix is an error here."""
    return return_types.linalg_inv_ex(inv(A), _no_faults(A))


def _no_faults(A: Tensor) -> Tensor:
    return filled(A, tuple(A.shape[:-2]), 0, int32)


def _as_columns(A: Tensor, B: Tensor) -> bool:
    """Whether B is a batch of vectors for the matrices A, rather than of matrices."""
    return B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])


def cond(A: Tensor, p: Any = None) -> Tensor:
    """Condition numbers: norm of the matrix times norm of its inverse; p as in `matrix_norm`."""
    if p is None or p in (2, -2):
        values = front.svdvals(A)
        most, least = values[..., 0], values[..., -1]
        return least / most if p == -2 else most / least
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """Return X with A·X = B (or X·A = B), B a matrix or a vector.

    Raises:
        LinAlgError: a matrix is singular.
    """
    single_dtype("linalg.solve", A, B)
    if _as_columns(A, B):
        if not left:
            raise OpError(
                "linalg.solve: Vector broadcasting of the left hand side is not supported"
            )
        return squeeze(_run("solve", A, unsqueeze(B, -1)), -1)
    if left:
        return _run("solve", A, B)
    return in_rows(_both(_run("solve", _both(A), _both(B))))


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """Return (solution, info); info is 0, since a singular matrix is an error here."""
    return return_types.linalg_solve_ex(solve(A, B, left=left), _no_faults(A))


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Return X with A·X = B (or X·A = B) for triangular A; the other triangle is not read."""
    single_dtype("linalg.solve_triangular", A, B)
    if left:
        return _run("solve_triangular", A, B, upper=bool(upper), unit=bool(unitriangular))
    out = _run("solve_triangular", _both(A), _both(B), upper=not upper, unit=bool(unitriangular))
    return _both(out)


def _tolerance(x: Tensor, atol: Any, rtol: Any, largest: Tensor) -> Tensor:
    """The size below which a singular value counts as 0."""
    if rtol is None:
        given = atol is not None and (isinstance(atol, Tensor) or atol > 0)
        rtol = 0.0 if given else max(x.shape[-2:]) * finfo(type_of(x).dtype).eps
        if isinstance(atol, Tensor):
            usual = max(x.shape[-2:]) * finfo(type_of(x).dtype).eps
            rtol = where(gt(atol, 0), 0.0, usual)
    relative = largest * rtol
    if atol is None:
        return relative
    absolute = atol if isinstance(atol, Tensor) else filled(x, (), float(atol))
    return maximum(*broadcast_tensors(relative, cast(absolute, type_of(x).dtype)))


def _singular_values(x: Tensor, hermitian: bool) -> Tensor:
    return abs(front.eigvalsh(x, upper=False)) if hermitian else front.svdvals(x)


def matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """Number of singular values above max(atol, rtol·largest): i64[batch]."""
    values = _singular_values(A, hermitian)
    if tol is not None:
        limit = tol if isinstance(tol, Tensor) else filled(A, (), float(tol))
        limit = cast(limit, type_of(A).dtype)
    else:
        if not values.shape[-1]:
            return filled(A, tuple(A.shape[:-2]), 0, int64)
        limit = _tolerance(A, atol, rtol, amax(values, -1))
    return sum(gt(values, unsqueeze(limit, -1) if limit.ndim else limit), -1)


def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """Pseudo-inverse; singular values up to max(atol, rtol·largest) count as 0."""
    rtol = rcond if rtol is None else rtol
    plain = not isinstance(rtol, Tensor) and not isinstance(atol, Tensor)
    if plain or 0 in A.shape[-2:]:
        options = (rtol, 0.0 if atol is None else float(atol)) if plain else (0.0, 0.0)
        return _run("pinv", A, rtol=options[0], atol=options[1], hermitian=bool(hermitian))
    x = tril(A) + _both(tril(A, -1)) if hermitian else A
    u, s, vh = svd(x, False)
    limit = _tolerance(x, atol, rtol, amax(s, -1))
    kept = gt(s, unsqueeze(limit, -1) if limit.ndim else limit)
    inverse = where(kept, 1 / where(kept, s, 1.0), 0.0)
    return matmul(_both(vh) * unsqueeze(inverse, -2), _both(u))


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """Return (solution, residuals, rank, singular_values) of least squares A·X ≈ B."""
    single_dtype("linalg.lstsq", A, B)
    vector = _as_columns(A, B)
    right = unsqueeze(B, -1) if vector else B
    solution = matmul(_run("pinv", A, rtol=rcond, atol=0.0, hermitian=False), right)
    empty = filled(A, (0,), 0)
    residuals, rank, values = empty, filled(A, (0,), 0, int64), empty
    if driver in ("gels", "gelsd", "gelss") and A.shape[-2] > A.shape[-1]:
        residuals = sum((matmul(A, solution) - right) ** 2, -2)
    if driver != "gels":
        rank = matrix_rank(A, rtol=rcond)
    if driver in ("gelsd", "gelss"):
        values = front.svdvals(A)
    solution = squeeze(solution, -1) if vector else solution
    return return_types.linalg_lstsq(solution, residuals, rank, values)


# Determinants.


def det(A: Tensor) -> Tensor:
    """Determinants of square matrices."""
    return _run("det", A)


def slogdet(A: Tensor) -> Any:
    """Return (sign, logabsdet) of determinants."""
    return return_types.linalg_slogdet(*_run("slogdet", A))


def logdet(A: Tensor) -> Tensor:
    """Logarithm of determinants; NaN where they are negative."""
    sign, size = _run("slogdet", A)
    return size + log(sign)


# Factorisations.


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """Lower triangular L with L·Lᵀ = A (upper: its transpose), for positive definite matrices.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    out = _run("cholesky", _both(A) if upper else A)
    return _both(out) if upper else out


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """Return (L, info); info is 0, since a matrix that is not positive definite is an error."""
    return return_types.linalg_cholesky_ex(cholesky(A, upper=upper), _no_faults(A))


def qr(A: Tensor, mode: str = "reduced") -> Any:
    """Return (Q, R) with A = Q·R; mode "complete" gives a square Q, "r" an empty one.

    Raises:
        OpError: an unknown mode.
    """
    if mode not in ("reduced", "complete", "r"):
        raise OpError(f"qr received unrecognized mode '{mode}'")
    q, r = _run("qr", A, complete=mode == "complete")
    return return_types.linalg_qr(filled(A, (0,), 0) if mode == "r" else q, r)


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """Return (U, S, Vh) with A = U·diag(S)·Vh and S descending."""
    return return_types.linalg_svd(*_run("svd", A, full=bool(full_matrices)))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """Singular values, descending."""
    return _run("svdvals", A)


def _is_upper(UPLO: str) -> bool:
    if UPLO.upper() not in ("L", "U"):
        raise OpError(f'Expected UPLO argument to be "L" or "U", but got {UPLO}')
    return UPLO.upper() == "U"


def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Return (eigenvalues ascending, eigenvectors as columns) of symmetric matrices."""
    return return_types.linalg_eigh(*_run("eigh", A, upper=_is_upper(UPLO)))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues of symmetric matrices, ascending."""
    return _run("eigvalsh", A, upper=_is_upper(UPLO))


# Products.


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Return the n-th power of square matrices, by squaring; negative n inverts first."""
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise OpError(f"linalg.matrix_power: A must be batches of square matrices: {A.shape}")
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 0:
        return front.overwrite(A, expand(identity(A, A.shape[-1]), A.shape))
    result: Tensor | None = None
    power = A
    while True:
        if n & 1:
            result = power if result is None else matmul(result, power)
        n >>= 1
        if not n:
            assert result is not None
            return result if result is not A else A.clone()
        power = matmul(power, power)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """Cross products of vectors of 3 elements along a dim; the other dims broadcast."""
    if input.ndim != other.ndim:
        raise OpError("linalg.cross: inputs must have the same number of dimensions.")
    place = wrap_dim(dim, input.ndim)
    if input.shape[place] != 3 or other.shape[place] != 3:
        raise OpError(f"linalg.cross: inputs dimension {dim} must have length 3.")
    a, b = input, other
    return roll(a, -1, place) * roll(b, -2, place) - roll(a, -2, place) * roll(b, -1, place)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Return the view of a diagonal, of the last two dims by default."""
    return _diagonal(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Return powers 0 to N − 1 of each element as a new last dim."""
    size = (*x.shape, 1)[x.ndim - 1] if N is None else N
    if size < 1:
        raise OpError(f"linalg.vander: N must be greater than 0, but got {size}")
    flat = _vander(reshape(x, (-1,)), size, True)
    return reshape(flat, (*(x.shape or (1,)), size))


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """Inverse of a tensor seen as a matrix: its first `ind` dims by the others."""
    if ind < 1:
        raise OpError("Expected a strictly positive integer for 'ind'")
    rows, columns = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if math.prod(rows) != math.prod(columns):
        raise OpError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            "prod(self.shape[:ind])"
        )
    flat = inv(reshape(A, (math.prod(rows), math.prod(columns))))
    return reshape(flat, (*columns, *rows))


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """Return X with tensordot(A, X, X.ndim) = B."""
    if dims is not None:
        places = [wrap_dim(d, A.ndim) for d in dims]
        A = movedim(A, places, [A.ndim - len(places) + i for i in range(len(places))])
    shape = tuple(A.shape[B.ndim :])
    if math.prod(shape) != B.numel():
        raise OpError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            "prod(self.shape[:other.ndim])"
        )
    flat = solve(reshape(A, (-1, math.prod(shape))), reshape(B, (-1,)))
    return reshape(flat, shape)


__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eigh",
    "eigvalsh", "inv", "inv_ex", "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd",
    "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip
