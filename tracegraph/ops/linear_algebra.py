"""Triangles, solvers and determinants of batched matrices, by LAPACK through NumPy or CuPy.

Gradient rules: Giles 2008, "An extended collection of matrix derivative results for forward and
reverse mode algorithmic differentiation".
"""

from __future__ import annotations

from typing import Any

from tracegraph.errors import OpError
from tracegraph.ops.core import (
    COMPLEX,
    HOLOMORPHIC,
    Joint,
    Spec,
    case,
    define,
    in_float32,
    row_major,
)
from tracegraph.ops.matrices import (
    check_matrix,
    check_square,
    lapack,
    per_matrix,
    same_square,
    swapped,
)
from tracegraph.tensor_type import TensorType, broadcast_shapes

_SINGULAR = "The solver failed because the input matrix is singular"


def _triangle(m: Any, x: Any, upper: bool, diagonal: int = 0) -> Any:
    return m.triu(x, diagonal=diagonal) if upper else m.tril(x, diagonal=-diagonal)


# Triangles.


def _triangle_type(x: TensorType, *, diagonal: int) -> TensorType:
    if x.ndim < 2:
        raise OpError(f"tril and triu need at least 2 dims, got {x}")
    return x


_TRIANGLES = (case((3, 4), diagonal=0), case((2, 3, 3), diagonal=-1), case((0, 3), diagonal=1))
tril = define(
    "tril(x) -> y", type=_triangle_type,
    kernel=row_major(lambda xp, x, *, diagonal: xp.tril(x, diagonal)),
    vjp=(lambda m, g, diagonal: m.tril(g, diagonal=diagonal),), traits=(COMPLEX,),
    sample=_TRIANGLES,
    doc="The matrix with zeros above a diagonal.",
)  # fmt: skip
triu = define(
    "triu(x) -> y", type=_triangle_type,
    kernel=row_major(lambda xp, x, *, diagonal: xp.triu(x, diagonal)),
    vjp=(lambda m, g, diagonal: m.triu(g, diagonal=diagonal),), traits=(COMPLEX,),
    sample=_TRIANGLES,
    doc="The matrix with zeros below a diagonal.",
)  # fmt: skip

# Solving.


def _inverse_vjp(m: Any, g: Any, y: Any) -> Any:
    back = swapped(m, y)
    return -m.matmul(back, m.matmul(g, back))


inv = define(
    "inv(x) -> y", type=same_square, kernel=in_float32(lapack("inv", _SINGULAR)),
    vjp=(_inverse_vjp,), traits=(HOLOMORPHIC,),
    sample=(case((3, 3)), case((2, 2, 2)), case((0, 2, 2))),
    doc="Inverse of square matrices.",
)  # fmt: skip


def _solve_type(a: TensorType, b: TensorType) -> TensorType:
    check_square(a)
    check_matrix(b)
    if a.dtype is not b.dtype or a.shape[-1] != b.shape[-2]:
        raise OpError(f"Incompatible matrices to solve: {a} and {b}")
    return b.with_shape((*broadcast_shapes([a.shape[:-2], b.shape[:-2]]), *b.shape[-2:]))


def _solve(xp: Any, a: Any, b: Any) -> Any:
    if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
        lead = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = xp.broadcast_to(a, (*lead, *a.shape[-2:]))
        b = xp.broadcast_to(b, (*lead, *b.shape[-2:]))
    return lapack("solve", _SINGULAR)(xp, a, b)


def _solve_vjp(m: Any, g: Any, a: Any, y: Any, needs: Any) -> Any:
    right = m.solve(swapped(m, a), g)
    return (-m.matmul(right, swapped(m, y)) if needs[0] else None), right


solve = define(
    "solve(a, b) -> y", type=_solve_type, kernel=in_float32(_solve), vjp=Joint(_solve_vjp),
    traits=(HOLOMORPHIC,),
    sample=(case((3, 3), (3, 2)), case((2, 2, 2), (2, 3)), case((0, 2, 2), (2, 1))),
    doc="The matrices Y with A·Y = B.",
)  # fmt: skip


def _triangular_type(a: TensorType, b: TensorType, *, upper: bool, unit: bool) -> TensorType:
    return _solve_type(a, b)


def _triangular(xp: Any, a: Any, b: Any, *, upper: bool, unit: bool) -> Any:
    """By substitution, one row of all matrices at a time."""
    n = a.shape[-1]
    lead = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = xp.array(xp.broadcast_to(b, (*lead, *b.shape[-2:])))
    for i in range(n - 1, -1, -1) if upper else range(n):
        done = slice(i + 1, n) if upper else slice(0, i)
        known = a[..., i : i + 1, done] @ out[..., done, :]
        out[..., i, :] -= known[..., 0, :]
        if not unit:
            out[..., i, :] /= a[..., i, i, None]
    return out


def _triangular_vjp(m: Any, g: Any, a: Any, y: Any, upper: bool, unit: bool, needs: Any) -> Any:
    right = m.solve_triangular(swapped(m, a), g, upper=not upper, unit=unit)
    left = None
    if needs[0]:
        left = _triangle(m, -m.matmul(right, swapped(m, y)), upper, int(unit))
    return left, right


solve_triangular = define(
    "solve_triangular(a, b) -> y", type=_triangular_type, kernel=row_major(in_float32(_triangular)),
    vjp=Joint(_triangular_vjp),
    traits=(HOLOMORPHIC,), sample=(case(Spec((3, 3), 0.5, 2), (3, 2), upper=True, unit=False),
            case(Spec((2, 2, 2), 0.5, 2), (2, 3), upper=False, unit=True)),
    doc="The matrices Y with A·Y = B, of A only one triangle (unit: with ones as diagonal).",
)  # fmt: skip


def _factored_type(b: TensorType, factor: TensorType, *, upper: bool, spread: bool) -> TensorType:
    return _solve_type(factor, b)


def _factored(m: Any, b: Any, factor: Any, *, upper: bool, spread: bool) -> Any:
    low = swapped(m, factor) if upper else factor
    half = m.solve_triangular(low, b, upper=False, unit=False)
    return m.solve_triangular(swapped(m, low), half, upper=True, unit=False)


def _factored_vjp(
    m: Any, g: Any, factor: Any, y: Any, upper: bool, spread: bool, needs: Any
) -> Any:
    """From A = L·Lᵀ; spread: what changing the zeros of the other triangle would do counts too."""
    back = m.cholesky_solve(g, factor, upper=upper, spread=spread)
    left = None
    if needs[1]:
        both = m.matmul(back, swapped(m, y))
        both = both + swapped(m, both)
        clean = _triangle(m, factor, upper)
        left = -(m.matmul(clean, both) if upper else m.matmul(both, clean))
        left = left if spread else _triangle(m, left, upper)
    return back, left


cholesky_solve = define(
    "cholesky_solve(b, factor) -> y", type=_factored_type, decompose=_factored,
    vjp=Joint(_factored_vjp),
    sample=(case((3, 2), Spec((3, 3), 0.5, 2), upper=False, spread=False),
            case((2, 3), Spec((2, 2, 2), 0.5, 2), upper=True, spread=False)),
    doc="The matrices Y with A·Y = B, where A = L·Lᵀ and the factor is L (upper: Lᵀ).",
)  # fmt: skip

# Determinants.


def _number_type(x: TensorType) -> TensorType:
    check_square(x)
    return x.with_shape(x.shape[:-2])


det = define(
    "det(x) -> y", type=_number_type, kernel=in_float32(lambda xp, x: xp.linalg.det(x)),
    vjp=(lambda m, g, x: per_matrix(m, g) * m.cofactor(x),),
    traits=(HOLOMORPHIC,), sample=(case((3, 3)), case((2, 2, 2)), case((0, 2, 2))),
    doc="Determinants.",
)  # fmt: skip


def _others(xp: Any, s: Any) -> Any:
    """Products of all but one of the last dim."""
    one = xp.ones((*s.shape[:-1], 1), dtype=s.dtype)
    left = xp.cumprod(xp.concatenate((one, s[..., :-1]), axis=-1), axis=-1)
    right = xp.cumprod(xp.concatenate((one, s[..., :0:-1]), axis=-1), axis=-1)
    return left * right[..., ::-1]


def _cofactor(xp: Any, x: Any) -> Any:
    """From the singular values, so that a singular matrix has one too."""
    if x.size == 0:
        return x.copy()
    u, s, vh = xp.linalg.svd(x)
    sign = xp.linalg.det(u) * xp.linalg.det(vh)
    return (u.conj() * (sign[..., None] * _others(xp, s))[..., None, :]) @ vh.conj()


def _cofactor_vjp(m: Any, g: Any, x: Any, y: Any) -> Any:
    """From cofactor(X) = det(X)·X⁻ᵀ; needs an invertible matrix."""
    back = swapped(m, m.inv(x))
    n = len(x.shape)
    inner = m.sum(g * back, dim=(n - 2, n - 1), keepdim=True)
    return inner * y - m.matmul(y, m.matmul(swapped(m, g), back))


cofactor = define(
    "cofactor(x) -> y", type=same_square, kernel=in_float32(_cofactor), vjp=(_cofactor_vjp,),
    traits=(HOLOMORPHIC,), sample=(case((3, 3)), case((2, 2, 2))),
    doc="Matrices of cofactors: the gradient of det.",
)  # fmt: skip


def _slogdet_type(x: TensorType) -> tuple[TensorType, TensorType]:
    return _number_type(x), _number_type(x)


slogdet = define(
    "slogdet(x) -> sign, logabsdet", type=_slogdet_type,
    kernel=in_float32(lambda xp, x: tuple(xp.linalg.slogdet(x))),
    vjp=(lambda m, g, x: per_matrix(m, g[1]) * swapped(m, m.inv(x)),),
    sample=(case((3, 3)), case((2, 2, 2))),
    doc="Sign and logarithm of the size of determinants; (0, −inf) for a singular matrix.",
)  # fmt: skip
