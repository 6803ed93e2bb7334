"""Factorisations of batched matrices, by LAPACK through NumPy or CuPy.

Gradient rules: Giles 2008, "An extended collection of matrix derivative results for forward and
reverse mode algorithmic differentiation"; Walter & Lehmann 2013, arXiv:1001.1654 (QR).
"""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS, int64
from tracegraph.errors import OpError
from tracegraph.ops.core import (
    LAID_ALIKE,
    NOT_DIFFERENTIABLE,
    Case,
    Spec,
    case,
    define,
    in_float32,
    row_major,
)
from tracegraph.ops.matrices import (
    as_column,
    as_row,
    check_matrix,
    check_square,
    lapack,
    same_square,
    swapped,
)
from tracegraph.tensor_type import Shape, TensorType

_DEFINITE = (case(Spec((3, 3), kind="p")), case(Spec((2, 2, 2), kind="p")))


def _cholesky(xp: Any, x: Any) -> Any:
    why = "The factorization could not be completed because the input is not positive-definite"
    return lapack("cholesky", why)(xp, x)


def _cholesky_vjp(m: Any, g: Any, y: Any) -> Any:
    """Giles 2008, section 2.4.1, solved with triangles (Murray 2016, arXiv:1602.07527)."""
    phi = m.tril(m.matmul(swapped(m, y), g), diagonal=0)
    phi = phi + swapped(m, m.tril(phi, diagonal=-1))
    left = m.solve_triangular(swapped(m, y), phi, upper=True, unit=False)
    both = m.solve_triangular(swapped(m, y), swapped(m, left), upper=True, unit=False)
    return swapped(m, both) * 0.5


cholesky = define(
    "cholesky(x) -> y", type=same_square, kernel=in_float32(_cholesky), vjp=(_cholesky_vjp,),
    sample=_DEFINITE, doc="Lower triangular Y with Y·Yᵀ = X, for positive definite matrices.",
)  # fmt: skip


def _qr_type(x: TensorType, *, complete: bool) -> tuple[TensorType, TensorType]:
    check_matrix(x)
    *lead, rows, columns = x.shape
    inner = rows if complete else min(rows, columns)
    return x.with_shape((*lead, rows, inner)), x.with_shape((*lead, inner, columns))


def _qr(xp: Any, x: Any, *, complete: bool) -> Any:
    if x.size == 0:
        (q, r) = _qr_type(TensorType(FLOATS[-1], x.shape), complete=complete)
        eye = xp.eye(q.shape[-2], q.shape[-1], dtype=x.dtype)
        return xp.broadcast_to(eye, q.shape).copy(), xp.zeros(r.shape, dtype=x.dtype)
    return tuple(xp.linalg.qr(x, "complete" if complete else "reduced"))


def _qr_tall_vjp(m: Any, gq: Any, gr: Any, q: Any, r: Any) -> Any:
    """For at least as many rows as columns (Walter & Lehmann 2013)."""
    inner = m.triu(m.matmul(gr, swapped(m, r)) - m.matmul(swapped(m, q), gq), diagonal=0)
    both = inner + swapped(m, m.triu(inner, diagonal=1))
    right = swapped(m, gq + m.matmul(q, both))
    return swapped(m, m.solve_triangular(r, right, upper=True, unit=False))


def _qr_vjp(m: Any, g: Any, x: Any, q: Any, r: Any, x_type: TensorType, complete: bool) -> Any:
    """A wide matrix is [X, Y] with X = Q·U square and R = [U, Qᵀ·Y]."""
    rows, columns = x_type.shape[-2:]
    if complete and rows > columns:
        raise OpError("The QR decomposition is not differentiable with complete and rows > columns")
    gq, gr = g
    if rows >= columns:
        return _qr_tall_vjp(m, gq, gr, q, r)
    y, gv = _columns(m, x, rows, columns), _columns(m, gr, rows, columns)
    gq = gq + m.matmul(y, swapped(m, gv))
    left = _qr_tall_vjp(m, gq, _columns(m, gr, 0, rows), q, _columns(m, r, 0, rows))
    return m.cat(left, m.matmul(q, gv), dim=len(x_type.shape) - 1)


def _columns(m: Any, x: Any, start: int, stop: int) -> Any:
    lead = tuple((0, n, 1) for n in x.shape[:-1])
    return m.slice(x, index=(*lead, (start, stop, 1)))


qr = define(
    "qr(x) -> q, r", type=_qr_type, kernel=in_float32(_qr), vjp=(_qr_vjp,),
    traits=(LAID_ALIKE,),
    sample=(case((4, 3), complete=False), case((2, 2, 3), complete=False),
            case((3, 3), complete=True)),
    doc="X = Q·R with orthonormal columns in Q and upper triangular R.",
)  # fmt: skip


def _reflectors_type(x: TensorType) -> tuple[TensorType, TensorType]:
    check_matrix(x)
    return x, x.with_shape((*x.shape[:-2], min(x.shape[-2:])))


def _reflectors(xp: Any, x: Any) -> Any:
    if x.size == 0:
        return x.copy(), xp.zeros((*x.shape[:-2], min(x.shape[-2:])), dtype=x.dtype)
    if xp.__name__ == "numpy" or x.ndim == 2:
        packed, scales = xp.linalg.qr(x, "raw")
        return xp.swapaxes(packed, -1, -2), scales
    pairs = [xp.linalg.qr(matrix, "raw") for matrix in x.reshape(-1, *x.shape[-2:])]
    packed, scales = (xp.stack(parts) for parts in zip(*pairs, strict=True))
    rows = xp.swapaxes(packed, -1, -2).reshape(x.shape)
    return rows, scales.reshape(*x.shape[:-2], scales.shape[-1])


geqrf = define(
    "geqrf(x) -> a, tau", type=_reflectors_type, kernel=row_major(in_float32(_reflectors)),
    vjp=NOT_DIFFERENTIABLE, sample=(case((4, 3)), case((2, 2, 3)), case((0, 3))),
    doc="R of X = Q·R with, below its diagonal and in tau, the Householder vectors that make Q.",
)  # fmt: skip


def _eigh_type(x: TensorType, *, upper: bool) -> tuple[TensorType, TensorType]:
    check_square(x)
    return x.with_shape(x.shape[:-1]), x


_DIVERGED = "The algorithm failed to converge"
_SYMMETRIC = tuple(Case(c.inputs, {"upper": upper}) for c in _DEFINITE for upper in (False, True))


def _eigen(name: str, xp: Any, x: Any, upper: bool) -> Any:
    return lapack(name, _DIVERGED)(xp, x, UPLO="U" if upper else "L")


def _gaps(m: Any, w: Any) -> Any:
    """Differences w(j) − w(i), with 1 on the diagonal."""
    n = w.shape[-1]
    rows = m.reshape(m.iota(size=n, start=0, step=1, dtype=int64), shape=(n, 1))
    same = m.eq(rows, m.iota(size=n, start=0, step=1, dtype=int64))
    one = m.full(shape=(), value=1, dtype=w.dtype)
    return m.where(same, one, as_row(m, w) - as_column(m, w))


def _skew(m: Any, x: Any) -> Any:
    return x - swapped(m, x)


def _eigh_vjp(m: Any, g: Any, w: Any, v: Any) -> Any:
    """Giles 2008, section 3.1; eigenvectors of equal eigenvalues have no derivative (inf, NaN)."""
    turned = _skew(m, m.matmul(swapped(m, v), g[1])) * 0.5 / _gaps(m, w)
    inner = m.matmul(v, turned) + v * as_row(m, g[0])
    return m.matmul(inner, swapped(m, v))


eigh = define(
    "eigh(x) -> w, v", type=_eigh_type,
    kernel=in_float32(lambda xp, x, *, upper: tuple(_eigen("eigh", xp, x, upper))),
    vjp=(_eigh_vjp,), sample=_SYMMETRIC,
    doc="Ascending eigenvalues, eigenvectors as columns, of symmetric matrices; reads a triangle.",
)  # fmt: skip


def _values_type(x: TensorType, *, upper: bool) -> TensorType:
    check_square(x)
    return x.with_shape(x.shape[:-1])


def _eigvalsh_vjp(m: Any, g: Any, x: Any, upper: bool) -> Any:
    v = m.eigh(x, upper=upper)[1]
    return m.matmul(v * as_row(m, g), swapped(m, v))


eigvalsh = define(
    "eigvalsh(x) -> w", type=_values_type,
    kernel=in_float32(lambda xp, x, *, upper: _eigen("eigvalsh", xp, x, upper)),
    vjp=(_eigvalsh_vjp,), sample=_SYMMETRIC,
    doc="Ascending eigenvalues of symmetric matrices; reads a triangle.",
)  # fmt: skip


def _svd_shapes(x: TensorType, full: bool) -> tuple[Shape, Shape, Shape]:
    check_matrix(x)
    *lead, rows, columns = x.shape
    k = min(rows, columns)
    return (
        (*lead, rows, rows if full else k),
        (*lead, k),
        (*lead, columns if full else k, columns),
    )


def _svd_type(x: TensorType, *, full: bool) -> tuple[TensorType, ...]:
    return tuple(map(x.with_shape, _svd_shapes(x, full)))


def _svd(xp: Any, x: Any, *, full: bool) -> Any:
    if x.size == 0:
        u, s, vh = _svd_shapes(TensorType(FLOATS[-1], x.shape), full)
        return _eyes(xp, u, x.dtype), xp.zeros(s, dtype=x.dtype), _eyes(xp, vh, x.dtype)
    return tuple(lapack("svd", _DIVERGED)(xp, x, full_matrices=full))


def _eyes(xp: Any, shape: Shape, dtype: Any) -> Any:
    return xp.broadcast_to(xp.eye(shape[-2], shape[-1], dtype=dtype), shape).copy()


def _svd_vjp(m: Any, g: Any, u: Any, s: Any, vh: Any, x_type: TensorType, full: bool) -> Any:
    """Giles 2008, section 3.2, with the parts outside of the column and row space.

    Singular vectors of equal singular values have no derivative (inf, NaN).
    """
    rows, columns = x_type.shape[-2:]
    k = min(rows, columns)
    gu, gs, gvh = g
    if full:
        u, gu = _columns(m, u, 0, k), _columns(m, gu, 0, k)
        vh, gvh = (swapped(m, _columns(m, swapped(m, t), 0, k)) for t in (vh, gvh))
    v, gv = swapped(m, vh), swapped(m, gvh)
    gaps = _gaps(m, s * s)
    left = _skew(m, m.matmul(swapped(m, u), gu)) / gaps
    right = _skew(m, m.matmul(vh, gv)) / gaps
    inner = left * as_row(m, s) + as_column(m, s) * right
    out = m.matmul(m.matmul(u, inner) + u * as_row(m, gs), vh)
    if rows > k:
        rest = gu - m.matmul(u, m.matmul(swapped(m, u), gu))
        out = out + m.matmul(rest / as_row(m, s), vh)
    if columns > k:
        rest = gvh - m.matmul(m.matmul(gvh, v), vh)
        out = out + m.matmul(u / as_row(m, s), rest)
    return out


svd = define(
    "svd(x) -> u, s, vh", type=_svd_type, kernel=in_float32(_svd), vjp=(_svd_vjp,),
    sample=(case((4, 3), full=False), case((2, 2, 3), full=False), case((3, 3), full=True)),
    doc="X = U·diag(S)·Vh with orthonormal columns in U, rows in Vh, and S descending.",
)  # fmt: skip


def _svdvals_type(x: TensorType) -> TensorType:
    return x.with_shape(_svd_shapes(x, False)[1])


def _svdvals_vjp(m: Any, g: Any, x: Any) -> Any:
    u, _, vh = m.svd(x, full=False)
    return m.matmul(u * as_row(m, g), vh)


svdvals = define(
    "svdvals(x) -> s", type=_svdvals_type,
    kernel=in_float32(lambda xp, x: _svd(xp, x, full=False)[1] if xp.__name__ == "cupy"
                      or x.size == 0 else xp.linalg.svd(x, compute_uv=False)),
    vjp=(_svdvals_vjp,), sample=(case((4, 3)), case((2, 2, 3))),
    doc="Singular values, descending.",
)  # fmt: skip


def _pinv_type(x: TensorType, *, rtol: float | None, atol: float, hermitian: bool) -> TensorType:
    check_matrix(x)
    return x.with_shape((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _pinv(xp: Any, x: Any, *, rtol: float | None, atol: float, hermitian: bool) -> Any:
    if hermitian:
        x = xp.tril(x) + xp.swapaxes(xp.tril(x, -1), -1, -2)
    if x.size == 0:
        return xp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), dtype=x.dtype)
    u, s, vh = _svd(xp, x, full=False)
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(xp.finfo(x.dtype).eps) if atol == 0 else 0.0
    least = xp.maximum(s[..., :1] * rtol, xp.asarray(atol, dtype=x.dtype))
    kept = s > least
    inverse = xp.where(kept, 1 / xp.where(kept, s, 1), 0).astype(x.dtype)
    return xp.swapaxes((u * inverse[..., None, :]) @ vh, -1, -2)


def _pinv_vjp(m: Any, g: Any, x: Any, y: Any, x_type: TensorType) -> Any:
    """Golub & Pereyra 1973, equation 4.12: for matrices of constant rank."""
    gt, yt = swapped(m, g), swapped(m, y)

    def mul(*xs: Any) -> Any:
        out = xs[0]
        for more in xs[1:]:
            out = m.matmul(out, more)
        return out

    if x_type.shape[-2] <= x_type.shape[-1]:
        k = mul(gt, y)
        ky = mul(k, yt)
        return ky - swapped(m, mul(y, k)) - mul(x, y, ky) + mul(yt, y, gt - mul(k, x))
    k = mul(y, gt)
    yk = mul(yt, k)
    return yk - swapped(m, mul(k, y)) + mul(gt - mul(x, k), y, yt) - mul(yk, y, x)


pinv = define(
    "pinv(x) -> y", type=_pinv_type, kernel=row_major(in_float32(_pinv)), vjp=(_pinv_vjp,),
    sample=(case((4, 3), rtol=None, atol=0.0, hermitian=False),
            case((2, 2, 3), rtol=None, atol=0.0, hermitian=False)),
    doc="Pseudo-inverse; singular values up to max(atol, rtol·largest) count as 0. Of a matrix "
        "said to be hermitian only the lower triangle is read.",
)  # fmt: skip
