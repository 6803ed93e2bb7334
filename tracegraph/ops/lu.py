"""LU factorisation with partial pivoting, and the matrix exponential.

NumPy has neither. Gradient rules: Giles 2008 for the square part of LU; the exponential's from a
block triangular matrix (Van Loan 1978; Najfeld & Havel 1995).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.dtypes import INTS, int32, int64
from tracegraph.errors import OpError
from tracegraph.ops.core import NOT_DIFFERENTIABLE, Spec, case, define, in_float32
from tracegraph.ops.matrices import check_matrix, same_square, swapped
from tracegraph.tensor_type import TensorType


def _lu_type(x: TensorType, *, pivot: bool) -> tuple[TensorType, TensorType]:
    check_matrix(x)
    return x, TensorType(int32, (*x.shape[:-2], min(x.shape[-2:])))


def _lu(xp: Any, x: Any, *, pivot: bool) -> tuple[Any, Any]:
    """Gaussian elimination of all matrices, a column at a time."""
    rows, columns = x.shape[-2:]
    a = x.reshape(-1, rows, columns).copy()
    every = xp.arange(a.shape[0])
    pivots = xp.empty((a.shape[0], min(rows, columns)), dtype=xp.int32)
    for k in range(min(rows, columns)):
        best = xp.abs(a[:, k:, k]).argmax(axis=1) + k if pivot else xp.full(len(every), k)
        chosen = a[every, best]
        a[every, best] = a[:, k]
        a[:, k] = chosen
        pivots[:, k] = best + 1
        divisor = a[:, k, k, None]
        a[:, k + 1 :, k] /= xp.where(divisor == 0, 1, divisor)
        a[:, k + 1 :, k + 1 :] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 :]
    return a.reshape(x.shape), pivots.reshape(*x.shape[:-2], -1)


def _block(m: Any, x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    lead = tuple((0, n, 1) for n in x.shape[:-2])
    return m.slice(x, index=(*lead, (*rows, 1), (*columns, 1)))


def _unit_lower(m: Any, x: Any) -> Any:
    """The strict lower triangle with ones on the diagonal."""
    n = x.shape[-1]
    places = m.iota(size=n, start=0, step=1, dtype=int64)
    eye = m.cast(m.eq(m.reshape(places, shape=(n, 1)), places), dtype=x.dtype)
    return m.tril(x, diagonal=-1) + eye


def _lu_vjp(m: Any, g: Any, lu: Any, pivots: Any, x_type: TensorType) -> Any:
    """The square part by Giles 2008; the rest is solved from it: L₂ = A₂·U⁻¹, U₂ = L⁻¹·A₂."""
    rows, columns = x_type.shape[-2:]
    n, g = min(rows, columns), g[0]
    square = _block(m, lu, (0, n), (0, n))
    lower, upper = _unit_lower(m, square), m.triu(square, diagonal=0)

    def over(a: Any, b: Any, is_upper: bool, unit: bool) -> Any:
        return m.solve_triangular(a, b, upper=is_upper, unit=unit)

    corner = _block(m, g, (0, n), (0, n))
    from_lower, from_upper = m.tril(corner, diagonal=-1), m.triu(corner, diagonal=0)
    below = right = None
    if rows > n:
        rest = _block(m, lu, (n, rows), (0, n))
        below = swapped(m, over(upper, swapped(m, _block(m, g, (n, rows), (0, n))), True, False))
        from_upper = from_upper - m.triu(m.matmul(swapped(m, rest), below), diagonal=0)
    if columns > n:
        rest = _block(m, lu, (0, n), (n, columns))
        right = over(swapped(m, lower), _block(m, g, (0, n), (n, columns)), True, True)
        from_lower = from_lower - m.tril(m.matmul(right, swapped(m, rest)), diagonal=-1)
    inner = m.tril(m.matmul(swapped(m, lower), from_lower), diagonal=-1)
    inner = inner + m.triu(m.matmul(from_upper, swapped(m, upper)), diagonal=0)
    out = over(swapped(m, lower), inner, True, True)
    out = swapped(m, over(upper, swapped(m, out), True, False))
    last = len(x_type.shape) - 1
    if below is not None:
        out = m.cat(out, below, dim=last - 1)
    if right is not None:
        out = m.cat(out, right, dim=last)
    # Back to the order of rows before pivoting: row i of the result stands at order(i) of x.
    order = m.pivot_order(pivots, rows=rows)
    index = m.expand(m.reshape(order, shape=(*order.shape, 1)), shape=out.shape)
    return m.scatter(out * 0, index, out, dim=last - 1)


lu_factor = define(
    "lu_factor(x) -> lu, pivots", type=_lu_type, kernel=in_float32(_lu), vjp=(_lu_vjp,),
    sample=(case((3, 3), pivot=True), case((2, 4, 2), pivot=True), case((2, 4), pivot=True)),
    doc="L below and U on the diagonal and above of P·L·U = X; row swaps counted from 1 (LAPACK).",
)  # fmt: skip


def _order_type(pivots: TensorType, *, rows: int) -> TensorType:
    if pivots.dtype not in INTS or not pivots.shape:
        raise OpError(f"pivots are integers [..., count], not {pivots}")
    return TensorType(int64, (*pivots.shape[:-1], rows))


def _order(xp: Any, pivots: Any, *, rows: int) -> Any:
    steps = pivots if xp is np else pivots.get()
    flat = steps.reshape(math.prod(steps.shape[:-1]), steps.shape[-1])
    order = np.tile(np.arange(rows, dtype=np.int64), (flat.shape[0], 1))
    every = np.arange(flat.shape[0])
    for k in range(flat.shape[1]):
        other = flat[:, k] - 1
        kept = order[every, other]
        order[every, other] = order[:, k]
        order[:, k] = kept
    return xp.asarray(order.reshape(*steps.shape[:-1], rows))


pivot_order = define(
    "pivot_order(pivots) -> order", type=_order_type, kernel=_order, vjp=NOT_DIFFERENTIABLE,
    sample=(case(Spec((2,), 1, 4, "i"), rows=3), case(Spec((3, 2), 1, 3, "i"), rows=2)),
    doc="Where the rows of L·U stood before the row swaps of `lu_factor`.",
)  # fmt: skip

# Coefficients of the Padé approximant of degree 13 and how large a matrix it serves
# (Higham 2005, "The scaling and squaring method for the matrix exponential revisited").
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0,
    129060195264000.0, 10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0,
    960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_SERVES = 5.371920351148152


def _matrix_exp(xp: Any, x: Any) -> Any:
    if x.size == 0:
        return x.copy()
    a = x.astype(xp.float64)
    size = float(xp.abs(a).sum(axis=-2).max())
    steps = max(0, math.ceil(math.log2(size / _SERVES))) if size > _SERVES else 0
    a = a / 2**steps
    eye = xp.eye(x.shape[-1], dtype=xp.float64)
    b, a2 = _PADE, a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a @ (
        a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * eye
    )
    even = (
        a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * eye
    )
    out = xp.linalg.solve(even - odd, even + odd)
    for _ in range(steps):
        out = out @ out
    return out.astype(x.dtype)


def _matrix_exp_vjp(m: Any, g: Any, x: Any) -> Any:
    """The upper right block of exp([[Xᵀ, G], [0, Xᵀ]])."""
    last, n = len(x.shape) - 1, x.shape[-1]
    back = swapped(m, x)
    top, bottom = m.cat(back, g, dim=last), m.cat(back * 0, back, dim=last)
    whole = m.matrix_exp(m.cat(top, bottom, dim=last - 1))
    return _block(m, whole, (0, n), (n, 2 * n))


matrix_exp = define(
    "matrix_exp(x) -> y", type=same_square, kernel=in_float32(_matrix_exp), vjp=(_matrix_exp_vjp,),
    sample=(case((3, 3)), case(Spec((2, 2, 2), -4, 4)), case((0, 2, 2))),
    doc="Exponential of square matrices, by scaling and squaring (Higham 2005).",
)  # fmt: skip
