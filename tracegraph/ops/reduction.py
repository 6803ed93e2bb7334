"""Reductions over the dims of the attribute `dim` (sorted, counted from the front), and scans."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import ALL, FLOATS, INTS, NUMBERS, DType, bool_, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import (
    NOT_DIFFERENTIABLE,
    REDUCTION,
    Spec,
    TypeRule,
    case,
    define,
    in_float32,
)
from tracegraph.tensor_type import Shape, TensorType

_SAMPLE = (
    case((3, 4), dim=(1,), keepdim=False),
    case((2, 3, 4), dim=(0, 2), keepdim=True),
    case((), dim=(), keepdim=False),
)


def reduced_shape(shape: Shape, dim: Shape, keepdim: bool) -> Shape:
    """Return the shape after folding `dim`."""
    if keepdim:
        return tuple(1 if i in dim else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in dim)


def _reduction_type(among: tuple[DType, ...], result: DType | None = None) -> TypeRule:
    def rule(x: TensorType, *, dim: Shape, keepdim: bool) -> TensorType:
        if x.dtype not in among:
            raise DTypeError(f"not implemented for dtype {x.dtype}")
        return TensorType(result or x.dtype, reduced_shape(x.shape, dim, keepdim))

    return rule


def _spread(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    """The gradient (or result) of a reduction, laid out against its operand."""
    kept = reduced_shape(x_type.shape, dim, True)
    if g.shape != kept:
        g = m.reshape(g, shape=kept)
    return g


def _expanded(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    g = _spread(m, g, x_type, dim)
    return m.expand(g, shape=x_type.shape) if g.shape != x_type.shape else g


def _non_empty(xp: Any, x: Any, dim: Shape) -> None:
    if any(x.shape[d] == 0 for d in dim):
        raise OpError(
            f"cannot reduce over dim {dim} of size 0 (shape {x.shape}): no identity exists"
        )


def _sum(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    return x.sum(axis=dim, keepdims=keepdim, dtype=x.dtype)


sum_ = define(
    "sum(x) -> y", type=_reduction_type(NUMBERS), kernel=in_float32(_sum),
    vjp=(lambda m, g, x_type, dim: _expanded(m, g, x_type, dim),), traits=(REDUCTION,),
    sample=_SAMPLE, doc="Sum over dims, in the dtype of x (pairwise for floats).",
)  # fmt: skip


def _count(x_type: TensorType, dim: Shape) -> int:
    size = 1
    for d in dim:
        size *= x_type.shape[d]
    return size


def _mean(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    count = 1
    for d in dim:
        count *= x.shape[d]
    total = x.sum(axis=dim, keepdims=keepdim, dtype=x.dtype)
    return total / count if count else total * xp.nan


def _mean_vjp(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    return _expanded(m, g, x_type, dim) / max(_count(x_type, dim), 1)


mean = define(
    "mean(x) -> y", type=_reduction_type(FLOATS), kernel=in_float32(_mean),
    decompose=lambda m, x, *, dim, keepdim: m.sum(x, dim=dim, keepdim=keepdim) / _count(
        TensorType(x.dtype, tuple(x.shape)), dim),
    vjp=(_mean_vjp,), traits=(REDUCTION,), sample=_SAMPLE, doc="Arithmetic mean over dims.",
)  # fmt: skip


def _prod(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    return x.prod(axis=dim, keepdims=keepdim, dtype=x.dtype)


def _prod_vjp(m: Any, g: Any, x: Any, x_type: TensorType, dim: Shape) -> Any:
    """Products of all other elements, from exclusive scans both ways, so that zeros are right."""
    rest = tuple(i for i in range(len(x_type.shape)) if i not in dim)
    order = rest + dim
    lead = tuple(x_type.shape[i] for i in rest)
    flat = m.reshape(m.permute(x, dims=order), shape=(*lead, _count(x_type, dim)))
    axis = len(lead)
    one = m.full(shape=(*lead, 1), value=1, dtype=x_type.dtype)
    size = flat.shape[axis]
    if size == 0:
        return x * 0
    left = m.cat(one, m.cumprod(_take(m, flat, axis, 0, size - 1), dim=axis), dim=axis)
    back = m.flip(flat, dims=(axis,))
    right = m.cat(one, m.cumprod(_take(m, back, axis, 0, size - 1), dim=axis), dim=axis)
    others = left * m.flip(right, dims=(axis,))
    shape = tuple(x_type.shape[i] for i in order)
    inverse = tuple(order.index(i) for i in range(len(order)))
    laid = m.permute(m.reshape(others, shape=shape), dims=inverse)
    return _spread(m, g, x_type, dim) * laid


def _take(m: Any, x: Any, axis: int, start: int, stop: int) -> Any:
    index = tuple((start, stop, 1) if i == axis else (0, n, 1) for i, n in enumerate(x.shape))
    return m.slice(x, index=index)


prod = define(
    "prod(x) -> y", type=_reduction_type(NUMBERS), kernel=in_float32(_prod), vjp=(_prod_vjp,),
    traits=(REDUCTION,), sample=_SAMPLE, doc="Product over dims.",
)  # fmt: skip


def _extreme_vjp(m: Any, g: Any, x: Any, y: Any, x_type: TensorType, dim: Shape) -> Any:
    """The gradient shared evenly among the elements that reach the extreme (as PyTorch's amax)."""
    hit = m.cast(m.eq(x, _spread(m, y, x_type, dim)), dtype=x_type.dtype)
    count = m.sum(hit, dim=dim, keepdim=True)
    return hit * (_spread(m, g, x_type, dim) / count)


def _amax(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    _non_empty(xp, x, dim)
    return x.max(axis=dim, keepdims=keepdim)


def _amin(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    _non_empty(xp, x, dim)
    return x.min(axis=dim, keepdims=keepdim)


amax = define(
    "amax(x) -> y", type=_reduction_type(ALL), kernel=in_float32(_amax), vjp=(_extreme_vjp,),
    traits=(REDUCTION,), sample=_SAMPLE, doc="Largest element over dims; NaN wins.",
)  # fmt: skip
amin = define(
    "amin(x) -> y", type=_reduction_type(ALL), kernel=in_float32(_amin), vjp=(_extreme_vjp,),
    traits=(REDUCTION,), sample=_SAMPLE, doc="Smallest element over dims; NaN wins.",
)  # fmt: skip

_BOOLS = tuple(
    case(Spec(shape, 0, 2, "b"), dim=dim, keepdim=keepdim)
    for shape, dim, keepdim in (((3, 4), (1,), False), ((0, 2), (0,), True))
)
any_ = define(
    "any(x) -> y", type=_reduction_type((bool_,)),
    kernel=lambda xp, x, *, dim, keepdim: x.any(axis=dim, keepdims=keepdim),
    vjp=NOT_DIFFERENTIABLE, traits=(REDUCTION,), sample=_BOOLS, doc="Whether any is true.",
)  # fmt: skip
all_ = define(
    "all(x) -> y", type=_reduction_type((bool_,)),
    kernel=lambda xp, x, *, dim, keepdim: x.all(axis=dim, keepdims=keepdim),
    vjp=NOT_DIFFERENTIABLE, traits=(REDUCTION,), sample=_BOOLS, doc="Whether all are true.",
)  # fmt: skip


def _arg_type(x: TensorType, *, dim: int, keepdim: bool) -> TensorType:
    return TensorType(int64, reduced_shape(x.shape, (dim,), keepdim))


_ARG = (case((3, 4), dim=1, keepdim=False), case((3, 4), dim=0, keepdim=True))


def _arg(name: str) -> Any:
    def kernel(xp: Any, x: Any, *, dim: int, keepdim: bool) -> Any:
        _non_empty(xp, x, (dim,))
        return getattr(x, name)(axis=dim, keepdims=keepdim).astype(xp.int64)

    return in_float32(kernel)


argmax = define(
    "argmax(x) -> y", type=_arg_type, kernel=_arg("argmax"), vjp=NOT_DIFFERENTIABLE,
    traits=(REDUCTION,), sample=_ARG, doc="Index of the first largest element along a dim.",
)  # fmt: skip
argmin = define(
    "argmin(x) -> y", type=_arg_type, kernel=_arg("argmin"), vjp=NOT_DIFFERENTIABLE,
    traits=(REDUCTION,), sample=_ARG, doc="Index of the first smallest element along a dim.",
)  # fmt: skip


def _scan_type(x: TensorType, *, dim: int) -> TensorType:
    if x.dtype not in (*INTS, *FLOATS):
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x


def _cumsum_vjp(m: Any, g: Any, dim: int) -> Any:
    return m.flip(m.cumsum(m.flip(g, dims=(dim,)), dim=dim), dims=(dim,))


cumsum = define(
    "cumsum(x) -> y", type=_scan_type,
    kernel=in_float32(lambda xp, x, *, dim: xp.cumsum(x, axis=dim, dtype=x.dtype)),
    vjp=(_cumsum_vjp,), sample=(case((3, 4), dim=1), case((3, 4), dim=0)),
    doc="Running sums along a dim.",
)  # fmt: skip


def _cumprod_vjp(m: Any, g: Any, x: Any, y: Any, dim: int) -> Any:
    """Sum over later outputs of g times the product without element i; exact also with zeros.

    d y_k / d x_i = prod_{j<i} x_j · prod_{i<j<=k} x_j for k >= i.
    """
    size = x.shape[dim]
    if size == 0:
        return g
    columns = []
    one = m.full(shape=(*x.shape[:dim], 1, *x.shape[dim + 1 :]), value=1, dtype=x.dtype)
    before = one
    for i in range(size):
        after = one
        if i + 1 < size:
            after = m.cat(one, m.cumprod(_take(m, x, dim, i + 1, size), dim=dim), dim=dim)
        part = _take(m, g, dim, i, size) * after * before
        columns.append(m.sum(part, dim=(dim,), keepdim=True))
        before = before * _take(m, x, dim, i, i + 1)
    return m.cat(*columns, dim=dim)


cumprod = define(
    "cumprod(x) -> y", type=_scan_type,
    kernel=in_float32(lambda xp, x, *, dim: xp.cumprod(x, axis=dim, dtype=x.dtype)),
    vjp=(_cumprod_vjp,), sample=(case((3, 4), dim=1), case((3, 2), dim=0)),
    doc="Running products along a dim.",
)  # fmt: skip
