"""Scans: each result element folds the elements up to its place along a dim."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS, RINGS, finfo, int64
from tracegraph.errors import DTypeError
from tracegraph.ops.core import COMPLEX, HOLOMORPHIC, case, define, in_float32, row_major
from tracegraph.ops.reduction import cut
from tracegraph.tensor_type import TensorType

_CASES = (case((3, 4), dim=1), case((3, 2), dim=0), case((0, 2), dim=0))


def _scan_type(x: TensorType, *, dim: int) -> TensorType:
    x.check_dims(dim)
    if x.dtype not in RINGS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x


def _reversed_sums(m: Any, x: Any, dim: int) -> Any:
    return m.flip(m.cumsum(m.flip(x, dims=(dim,)), dim=dim), dims=(dim,))


cumsum = define(
    "cumsum(x) -> y", type=_scan_type,
    kernel=row_major(in_float32(lambda xp, x, *, dim: xp.cumsum(x, axis=dim, dtype=x.dtype))),
    vjp=(lambda m, g, dim: _reversed_sums(m, g, dim),), traits=(COMPLEX,), sample=_CASES,
    doc="Running sums along a dim.",
)  # fmt: skip


def _shifted(m: Any, x: Any, dim: int, by: int) -> Any:
    """x moved `by` places towards the front, with zeros behind."""
    rest = cut(m, x, dim, by, x.shape[dim])
    pads = tuple((0, by if i == dim else 0) for i in range(len(x.shape)))
    return m.pad(rest, pads=pads, value=0)


def _cumprod_vjp(m: Any, g: Any, x: Any, y: Any, dim: int) -> Any:
    """With total(i) the gradient that reaches y(i): total(i) = g(i) + x(i+1)·total(i+1), and x(i)
    gets total(i)·y(i−1). The recurrence is run in log2(size) doubling steps (Hillis & Steele
    1986); no division, so zeros are right, in higher orders too.
    """  # noqa: D205
    size = x.shape[dim]
    if size == 0:
        return g
    total, factor = g, _shifted(m, x, dim, 1)
    step = 1
    while step < size:
        total = total + factor * _shifted(m, total, dim, step)
        factor = factor * _shifted(m, factor, dim, step)
        step *= 2
    lead = tuple(1 if i == dim else n for i, n in enumerate(x.shape))
    one = m.full(shape=lead, value=1, dtype=x.dtype)
    return total * m.cat(one, cut(m, y, dim, 0, size - 1), dim=dim)


cumprod = define(
    "cumprod(x) -> y", type=_scan_type,
    kernel=row_major(in_float32(lambda xp, x, *, dim: xp.cumprod(x, axis=dim, dtype=x.dtype))),
    vjp=(_cumprod_vjp,), traits=(HOLOMORPHIC,), sample=_CASES, doc="Running products along a dim.",
)  # fmt: skip


def _accumulate(xp: Any, function: Any, x: Any, dim: int) -> Any:
    """`function.accumulate`; CuPy lacks it, so there in doubling steps."""
    if xp.__name__ == "numpy":
        return function.accumulate(x, axis=dim)
    out, step = xp.moveaxis(x, dim, 0).copy(), 1
    while step < out.shape[0]:
        out[step:] = function(out[step:], out[:-step].copy())
        step *= 2
    return xp.moveaxis(out, 0, dim)


def _extreme_kernel(name: str, reaches: str) -> Any:
    def kernel(xp: Any, x: Any, *, dim: int) -> Any:
        values = _accumulate(xp, getattr(xp, name), x, dim)
        hit = getattr(xp, reaches)(x, values)
        if x.dtype.kind == "f":
            hit |= xp.isnan(x)
        shape = tuple(n if i == dim else 1 for i, n in enumerate(x.shape))
        place = xp.arange(x.shape[dim], dtype=xp.int64).reshape(shape)
        return values, _accumulate(xp, xp.maximum, xp.where(hit, place, 0), dim)

    return in_float32(kernel)


def _extreme_type(x: TensorType, *, dim: int) -> tuple[TensorType, TensorType]:
    x.check_dims(dim)
    return x, x.with_dtype(int64)


def _extreme_vjp(m: Any, g: Any, indices: Any, x_type: TensorType, dim: int) -> Any:
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return m.scatter_add(zeros, indices, g[0], dim=dim)


cummax = define(
    "cummax(x) -> values, indices", type=_extreme_type,
    kernel=row_major(_extreme_kernel("maximum", "greater_equal")), vjp=(_extreme_vjp,),
    sample=_CASES,
    doc="Running largest element and the last place it was reached; NaN wins.",
)  # fmt: skip
cummin = define(
    "cummin(x) -> values, indices", type=_extreme_type,
    kernel=row_major(_extreme_kernel("minimum", "less_equal")), vjp=(_extreme_vjp,),
    sample=_CASES,
    doc="Running smallest element and the last place it was reached; NaN wins.",
)  # fmt: skip


def _float_scan_type(x: TensorType, *, dim: int) -> TensorType:
    x.check_dims(dim)
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x


def _logcumsumexp_vjp(m: Any, g: Any, x: Any, y: Any, dim: int) -> Any:
    """exp(x(i))·Σ g(k)·exp(−y(k)) over k >= i, in logarithms, the signs of g apart.

    The logarithm of 0 is a very small number: −inf would become NaN in the second order.
    """
    one = m.full(shape=(), value=1, dtype=x.dtype)
    lowest = m.full(shape=(), value=finfo(x.dtype).min / 2, dtype=x.dtype)

    def part(weight: Any) -> Any:
        positive = m.gt(weight, 0)
        logs = m.where(positive, m.log(m.where(positive, weight, one)), lowest) - y
        sums = m.logcumsumexp(m.flip(logs, dims=(dim,)), dim=dim)
        return m.exp(m.flip(sums, dims=(dim,)) + x)

    return part(g) - part(-g)


def _logcumsumexp(xp: Any, x: Any, *, dim: int) -> Any:
    """The running value is kept in float64 and rounded where it is stored, as in PyTorch."""
    return _accumulate(xp, xp.logaddexp, x.astype(xp.float64), dim).astype(x.dtype)


logcumsumexp = define(
    "logcumsumexp(x) -> y", type=_float_scan_type, kernel=row_major(_logcumsumexp),
    vjp=(_logcumsumexp_vjp,), sample=_CASES, doc="Logarithms of running sums of exp(x).",
)  # fmt: skip
