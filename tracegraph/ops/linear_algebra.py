"""Factorisations and solvers of batched matrices: kernels of LAPACK through NumPy or CuPy.

Gradient rules: Giles 2008, "An extended collection of matrix derivative results for forward and
reverse mode algorithmic differentiation"; Walter & Lehmann 2013, arXiv:1001.1654 (QR).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from tracegraph.dtypes import FLOATS, int64
from tracegraph.errors import DTypeError, LinAlgError, OpError
from tracegraph.ops.core import Case, Joint, Spec, case, define, in_float32
from tracegraph.tensor_type import Shape, TensorType, broadcast_shapes


def _matrix(x: TensorType) -> None:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < 2:
        raise OpError(f"The input tensor A must have at least 2 dimensions, but it is {x}")


def _square(x: TensorType) -> None:
    _matrix(x)
    if x.shape[-1] != x.shape[-2]:
        raise OpError(f"A must be batches of square matrices, but they are {x}")


def _same_square(x: TensorType) -> TensorType:
    _square(x)
    return x


def _swap(m: Any, x: Any) -> Any:
    n = len(x.shape)
    return m.permute(x, dims=(*range(n - 2), n - 1, n - 2))


def _row(m: Any, x: Any) -> Any:
    """A vector as a row: it scales the columns of what it multiplies."""
    return m.reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))


def _column(m: Any, x: Any) -> Any:
    return m.reshape(x, shape=(*x.shape, 1))


def _scalar(m: Any, x: Any) -> Any:
    """One number per matrix, laid against the matrices."""
    return m.reshape(x, shape=(*x.shape, 1, 1))


def _triangle(m: Any, x: Any, upper: bool, diagonal: int = 0) -> Any:
    return m.triu(x, diagonal=diagonal) if upper else m.tril(x, diagonal=-diagonal)


def _lapack(name: str, why: str) -> Any:
    """A kernel of `xp.linalg` whose failure is a LinAlgError that says why."""

    def kernel(xp: Any, *arrays: Any, **options: Any) -> Any:
        try:
            with _raising(xp):
                return getattr(xp.linalg, name)(*arrays, **options)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"linalg.{name}: {why} ({error})") from None

    return kernel


def _raising(xp: Any) -> Any:
    """A context where failures raise: NumPy's always do, CuPy's only if told to."""
    if xp.__name__ == "numpy":
        return nullcontext()
    import cupyx

    return cupyx.errstate(linalg="raise")


_SINGULAR = "The solver failed because the input matrix is singular"

# Triangles.


def _triangle_type(x: TensorType, *, diagonal: int) -> TensorType:
    if x.ndim < 2:
        raise OpError(f"tril and triu need at least 2 dims, got {x}")
    return x


_TRIANGLES = (case((3, 4), diagonal=0), case((2, 3, 3), diagonal=-1), case((0, 3), diagonal=1))
tril = define(
    "tril(x) -> y", type=_triangle_type, kernel=lambda xp, x, *, diagonal: xp.tril(x, diagonal),
    vjp=(lambda m, g, diagonal: m.tril(g, diagonal=diagonal),), sample=_TRIANGLES,
    doc="The matrix with zeros above a diagonal.",
)  # fmt: skip
triu = define(
    "triu(x) -> y", type=_triangle_type, kernel=lambda xp, x, *, diagonal: xp.triu(x, diagonal),
    vjp=(lambda m, g, diagonal: m.triu(g, diagonal=diagonal),), sample=_TRIANGLES,
    doc="The matrix with zeros below a diagonal.",
)  # fmt: skip

# Solving.


def _inverse_vjp(m: Any, g: Any, y: Any) -> Any:
    back = _swap(m, y)
    return -m.matmul(back, m.matmul(g, back))


inv = define(
    "inv(x) -> y", type=_same_square, kernel=in_float32(_lapack("inv", _SINGULAR)),
    vjp=(_inverse_vjp,), sample=(case((3, 3)), case((2, 2, 2)), case((0, 2, 2))),
    doc="Inverse of square matrices.",
)  # fmt: skip


def _solve_type(a: TensorType, b: TensorType) -> TensorType:
    _square(a)
    _matrix(b)
    if a.dtype is not b.dtype or a.shape[-1] != b.shape[-2]:
        raise OpError(f"Incompatible matrices to solve: {a} and {b}")
    return b.with_shape((*broadcast_shapes([a.shape[:-2], b.shape[:-2]]), *b.shape[-2:]))


def _solve(xp: Any, a: Any, b: Any) -> Any:
    if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
        lead = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = xp.broadcast_to(a, (*lead, *a.shape[-2:]))
        b = xp.broadcast_to(b, (*lead, *b.shape[-2:]))
    return _lapack("solve", _SINGULAR)(xp, a, b)


def _solve_vjp(m: Any, g: Any, a: Any, y: Any, needs: Any) -> Any:
    right = m.solve(_swap(m, a), g)
    return (-m.matmul(right, _swap(m, y)) if needs[0] else None), right


solve = define(
    "solve(a, b) -> y", type=_solve_type, kernel=in_float32(_solve), vjp=Joint(_solve_vjp),
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


def _triangular_vjp(
    m: Any, g: Any, a: Any, y: Any, upper: bool, unit: bool, needs: Any
) -> Any:
    right = m.solve_triangular(_swap(m, a), g, upper=not upper, unit=unit)
    left = None
    if needs[0]:
        left = _triangle(m, -m.matmul(right, _swap(m, y)), upper, int(unit))
    return left, right


solve_triangular = define(
    "solve_triangular(a, b) -> y", type=_triangular_type, kernel=in_float32(_triangular),
    vjp=Joint(_triangular_vjp),
    sample=(case(Spec((3, 3), 0.5, 2), (3, 2), upper=True, unit=False),
            case(Spec((2, 2, 2), 0.5, 2), (2, 3), upper=False, unit=True)),
    doc="The matrices Y with A·Y = B, of A only one triangle (unit: with ones as diagonal).",
)  # fmt: skip

# Determinants.


def _number_type(x: TensorType) -> TensorType:
    _square(x)
    return x.with_shape(x.shape[:-2])


det = define(
    "det(x) -> y", type=_number_type, kernel=in_float32(lambda xp, x: xp.linalg.det(x)),
    vjp=(lambda m, g, x: _scalar(m, g) * m.cofactor(x),),
    sample=(case((3, 3)), case((2, 2, 2)), case((0, 2, 2))), doc="Determinants.",
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
    return (u * (sign[..., None] * _others(xp, s))[..., None, :]) @ vh


def _cofactor_vjp(m: Any, g: Any, x: Any, y: Any) -> Any:
    """From cofactor(X) = det(X)·X⁻ᵀ; needs an invertible matrix."""
    back = _swap(m, m.inv(x))
    n = len(x.shape)
    inner = m.sum(g * back, dim=(n - 2, n - 1), keepdim=True)
    return inner * y - m.matmul(y, m.matmul(_swap(m, g), back))


cofactor = define(
    "cofactor(x) -> y", type=_same_square, kernel=in_float32(_cofactor), vjp=(_cofactor_vjp,),
    sample=(case((3, 3)), case((2, 2, 2))), doc="Matrices of cofactors: the gradient of det.",
)  # fmt: skip


def _slogdet_type(x: TensorType) -> tuple[TensorType, TensorType]:
    return _number_type(x), _number_type(x)


slogdet = define(
    "slogdet(x) -> sign, logabsdet", type=_slogdet_type,
    kernel=in_float32(lambda xp, x: tuple(xp.linalg.slogdet(x))),
    vjp=(lambda m, g, x: _scalar(m, g[1]) * _swap(m, m.inv(x)),),
    sample=(case((3, 3)), case((2, 2, 2))),
    doc="Sign and logarithm of the size of determinants; (0, −inf) for a singular matrix.",
)  # fmt: skip

# Factorisations.


_DEFINITE = (case(Spec((3, 3), kind="p")), case(Spec((2, 2, 2), kind="p")))


def _cholesky(xp: Any, x: Any) -> Any:
    why = "The factorization could not be completed because the input is not positive-definite"
    return _lapack("cholesky", why)(xp, x)


def _cholesky_vjp(m: Any, g: Any, y: Any) -> Any:
    """Giles 2008, section 2.4.1, solved with triangles (Murray 2016, arXiv:1602.07527)."""
    phi = m.tril(m.matmul(_swap(m, y), g), diagonal=0)
    phi = phi + _swap(m, m.tril(phi, diagonal=-1))
    left = m.solve_triangular(_swap(m, y), phi, upper=True, unit=False)
    both = m.solve_triangular(_swap(m, y), _swap(m, left), upper=True, unit=False)
    return _swap(m, both) * 0.5


cholesky = define(
    "cholesky(x) -> y", type=_same_square, kernel=in_float32(_cholesky), vjp=(_cholesky_vjp,),
    sample=_DEFINITE, doc="Lower triangular Y with Y·Yᵀ = X, for positive definite matrices.",
)  # fmt: skip


def _qr_type(x: TensorType, *, complete: bool) -> tuple[TensorType, TensorType]:
    _matrix(x)
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
    inner = m.triu(m.matmul(gr, _swap(m, r)) - m.matmul(_swap(m, q), gq), diagonal=0)
    both = inner + _swap(m, m.triu(inner, diagonal=1))
    right = _swap(m, gq + m.matmul(q, both))
    return _swap(m, m.solve_triangular(r, right, upper=True, unit=False))


def _qr_vjp(m: Any, g: Any, x: Any, q: Any, r: Any, x_type: TensorType, complete: bool) -> Any:
    """A wide matrix is [X, Y] with X = Q·U square and R = [U, Qᵀ·Y]."""
    rows, columns = x_type.shape[-2:]
    if complete and rows > columns:
        raise OpError("The QR decomposition is not differentiable with complete and rows > columns")
    gq, gr = g
    if rows >= columns:
        return _qr_tall_vjp(m, gq, gr, q, r)
    y, gv = _columns(m, x, rows, columns), _columns(m, gr, rows, columns)
    gq = gq + m.matmul(y, _swap(m, gv))
    left = _qr_tall_vjp(m, gq, _columns(m, gr, 0, rows), q, _columns(m, r, 0, rows))
    return m.cat(left, m.matmul(q, gv), dim=len(x_type.shape) - 1)


def _columns(m: Any, x: Any, start: int, stop: int) -> Any:
    lead = tuple((0, n, 1) for n in x.shape[:-1])
    return m.slice(x, index=(*lead, (start, stop, 1)))


qr = define(
    "qr(x) -> q, r", type=_qr_type, kernel=in_float32(_qr), vjp=(_qr_vjp,),
    sample=(case((4, 3), complete=False), case((2, 2, 3), complete=False),
            case((3, 3), complete=True)),
    doc="X = Q·R with orthonormal columns in Q and upper triangular R.",
)  # fmt: skip


def _eigh_type(x: TensorType, *, upper: bool) -> tuple[TensorType, TensorType]:
    _square(x)
    return x.with_shape(x.shape[:-1]), x


_DIVERGED = "The algorithm failed to converge"
_SYMMETRIC = tuple(Case(c.inputs, {"upper": upper}) for c in _DEFINITE for upper in (False, True))


def _eigen(name: str, xp: Any, x: Any, upper: bool) -> Any:
    return _lapack(name, _DIVERGED)(xp, x, UPLO="U" if upper else "L")


def _gaps(m: Any, w: Any) -> Any:
    """Differences w(j) − w(i), with 1 on the diagonal."""
    n = w.shape[-1]
    rows = m.reshape(m.iota(size=n, start=0, step=1, dtype=int64), shape=(n, 1))
    same = m.eq(rows, m.iota(size=n, start=0, step=1, dtype=int64))
    one = m.full(shape=(), value=1, dtype=w.dtype)
    return m.where(same, one, _row(m, w) - _column(m, w))


def _skew(m: Any, x: Any) -> Any:
    return x - _swap(m, x)


def _eigh_vjp(m: Any, g: Any, w: Any, v: Any) -> Any:
    """Giles 2008, section 3.1; eigenvectors of equal eigenvalues have no derivative (inf, NaN)."""
    turned = _skew(m, m.matmul(_swap(m, v), g[1])) * 0.5 / _gaps(m, w)
    inner = m.matmul(v, turned) + v * _row(m, g[0])
    return m.matmul(inner, _swap(m, v))


eigh = define(
    "eigh(x) -> w, v", type=_eigh_type,
    kernel=in_float32(lambda xp, x, *, upper: tuple(_eigen("eigh", xp, x, upper))),
    vjp=(_eigh_vjp,), sample=_SYMMETRIC,
    doc="Ascending eigenvalues, eigenvectors as columns, of symmetric matrices; reads a triangle.",
)  # fmt: skip


def _values_type(x: TensorType, *, upper: bool) -> TensorType:
    _square(x)
    return x.with_shape(x.shape[:-1])


def _eigvalsh_vjp(m: Any, g: Any, x: Any, upper: bool) -> Any:
    v = m.eigh(x, upper=upper)[1]
    return m.matmul(v * _row(m, g), _swap(m, v))


eigvalsh = define(
    "eigvalsh(x) -> w", type=_values_type,
    kernel=in_float32(lambda xp, x, *, upper: _eigen("eigvalsh", xp, x, upper)),
    vjp=(_eigvalsh_vjp,), sample=_SYMMETRIC,
    doc="Ascending eigenvalues of symmetric matrices; reads a triangle.",
)  # fmt: skip


def _svd_shapes(x: TensorType, full: bool) -> tuple[Shape, Shape, Shape]:
    _matrix(x)
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
    return tuple(_lapack("svd", _DIVERGED)(xp, x, full_matrices=full))


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
        vh, gvh = (_swap(m, _columns(m, _swap(m, t), 0, k)) for t in (vh, gvh))
    v, gv = _swap(m, vh), _swap(m, gvh)
    gaps = _gaps(m, s * s)
    left = _skew(m, m.matmul(_swap(m, u), gu)) / gaps
    right = _skew(m, m.matmul(vh, gv)) / gaps
    inner = left * _row(m, s) + _column(m, s) * right
    out = m.matmul(m.matmul(u, inner) + u * _row(m, gs), vh)
    if rows > k:
        rest = gu - m.matmul(u, m.matmul(_swap(m, u), gu))
        out = out + m.matmul(rest / _row(m, s), vh)
    if columns > k:
        rest = gvh - m.matmul(m.matmul(gvh, v), vh)
        out = out + m.matmul(u / _row(m, s), rest)
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
    return m.matmul(u * _row(m, g), vh)


svdvals = define(
    "svdvals(x) -> s", type=_svdvals_type,
    kernel=in_float32(lambda xp, x: _svd(xp, x, full=False)[1] if xp.__name__ == "cupy"
                      or x.size == 0 else xp.linalg.svd(x, compute_uv=False)),
    vjp=(_svdvals_vjp,), sample=(case((4, 3)), case((2, 2, 3))),
    doc="Singular values, descending.",
)  # fmt: skip


def _pinv_type(
    x: TensorType, *, rtol: float | None, atol: float, hermitian: bool
) -> TensorType:
    _matrix(x)
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
    gt, yt = _swap(m, g), _swap(m, y)

    def mul(*xs: Any) -> Any:
        out = xs[0]
        for more in xs[1:]:
            out = m.matmul(out, more)
        return out

    if x_type.shape[-2] <= x_type.shape[-1]:
        k = mul(gt, y)
        ky = mul(k, yt)
        return ky - _swap(m, mul(y, k)) - mul(x, y, ky) + mul(yt, y, gt - mul(k, x))
    k = mul(y, gt)
    yk = mul(yt, k)
    return yk - _swap(m, mul(k, y)) + mul(gt - mul(x, k), y, yt) - mul(yk, y, x)


pinv = define(
    "pinv(x) -> y", type=_pinv_type, kernel=in_float32(_pinv), vjp=(_pinv_vjp,),
    sample=(case((4, 3), rtol=None, atol=0.0, hermitian=False),
            case((2, 2, 3), rtol=None, atol=0.0, hermitian=False)),
    doc="Pseudo-inverse; singular values up to max(atol, rtol·largest) count as 0. Of a matrix "
        "said to be hermitian only the lower triangle is read.",
)  # fmt: skip
