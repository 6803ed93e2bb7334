"""Reductions over the dims of the attribute `dim` (sorted, counted from the front)."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dims.shapes import alike
from tracegraph.dims.symint import SymInt, larger
from tracegraph.dtypes import BY_NUMPY, FIELDS, FLOATS, REALS, RINGS, DType, bool_, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import (
    COMPLEX,
    HOLOMORPHIC,
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
    """Return the shape after folding `dim`.

    Raises:
        OpError: not dims of the shape, or one twice.
    """
    if len({*dim}) != len(dim) or not all(0 <= d < len(shape) for d in dim):
        raise OpError(f"dims {dim} are not distinct dims of a tensor of shape {shape}")
    if keepdim:
        return tuple(1 if i in dim else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in dim)


def _reduction_type(among: tuple[DType, ...], result: DType | None = None) -> TypeRule:
    def rule(x: TensorType, *, dim: Shape, keepdim: bool) -> TensorType:
        if x.dtype not in among:
            raise DTypeError(f"not implemented for dtype {x.dtype}")
        return TensorType(result or x.dtype, reduced_shape(x.shape, dim, keepdim))

    return rule


def dtype_in(x: Any) -> DType:
    """Return the DType of a Tensor or of a raw array: decompositions run on both."""
    return x.dtype if isinstance(x.dtype, DType) else BY_NUMPY[x.dtype]


def laid_against(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    """Return the gradient (or result) of a reduction with the dims of its operand, folded to 1."""
    kept = reduced_shape(x_type.shape, dim, True)
    return g if alike(g.shape, kept) else m.reshape(g, shape=kept)


def _expanded(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    g = laid_against(m, g, x_type, dim)
    return g if alike(g.shape, x_type.shape) else m.expand(g, shape=x_type.shape)


def _non_empty(xp: Any, x: Any, dim: Shape) -> None:
    if any(x.shape[d] == 0 for d in dim):
        raise OpError(
            f"cannot reduce over dim {dim} of size 0 (shape {x.shape}): no identity exists"
        )


def _sum(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    return x.sum(axis=dim, keepdims=keepdim, dtype=x.dtype)


sum_ = define(
    "sum(x) -> y", type=_reduction_type(RINGS), kernel=in_float32(_sum),
    vjp=(lambda m, g, x_type, dim: _expanded(m, g, x_type, dim),), traits=(REDUCTION, COMPLEX),
    sample=_SAMPLE, doc="Sum over dims, in the dtype of x (pairwise for floats).",
)  # fmt: skip


def _count(x_type: TensorType, dim: Shape) -> int:
    return math.prod(x_type.shape[d] for d in dim)


def _mean(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    count = math.prod(x.shape[d] for d in dim)
    total = x.sum(axis=dim, keepdims=keepdim, dtype=x.dtype)
    return total / count if count else total * xp.nan


def _mean_vjp(m: Any, g: Any, x_type: TensorType, dim: Shape) -> Any:
    return _expanded(m, g, x_type, dim) / larger(_count(x_type, dim), 1)


mean = define(
    "mean(x) -> y", type=_reduction_type(FIELDS), kernel=in_float32(_mean),
    decompose=lambda m, x, *, dim, keepdim: m.sum(x, dim=dim, keepdim=keepdim) / _count(
        TensorType(x.dtype, tuple(x.shape)), dim),
    vjp=(_mean_vjp,), traits=(REDUCTION, COMPLEX), sample=_SAMPLE, doc="Arithmetic mean over dims.",
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
    left = m.cat(one, m.cumprod(cut(m, flat, axis, 0, size - 1), dim=axis), dim=axis)
    back = m.flip(flat, dims=(axis,))
    right = m.cat(one, m.cumprod(cut(m, back, axis, 0, size - 1), dim=axis), dim=axis)
    others = left * m.flip(right, dims=(axis,))
    shape = tuple(x_type.shape[i] for i in order)
    inverse = tuple(order.index(i) for i in range(len(order)))
    laid = m.permute(m.reshape(others, shape=shape), dims=inverse)
    return laid_against(m, g, x_type, dim) * laid


def cut(m: Any, x: Any, axis: int, start: int, stop: int) -> Any:
    """Return x[start:stop] on one axis."""
    index = tuple((start, stop, 1) if i == axis else (0, n, 1) for i, n in enumerate(x.shape))
    return m.slice(x, index=index)


prod = define(
    "prod(x) -> y", type=_reduction_type(RINGS), kernel=in_float32(_prod), vjp=(_prod_vjp,),
    traits=(REDUCTION, HOLOMORPHIC), sample=_SAMPLE, doc="Product over dims.",
)  # fmt: skip


def _extreme_vjp(m: Any, g: Any, x: Any, y: Any, x_type: TensorType, dim: Shape) -> Any:
    """The gradient shared evenly among the elements that reach the extreme (as PyTorch's amax)."""
    hit = m.cast(m.eq(x, laid_against(m, y, x_type, dim)), dtype=x_type.dtype)
    count = m.sum(hit, dim=dim, keepdim=True)
    return hit * (laid_against(m, g, x_type, dim) / count)


def _amax(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    _non_empty(xp, x, dim)
    return x.max(axis=dim, keepdims=keepdim)


def _amin(xp: Any, x: Any, *, dim: Shape, keepdim: bool) -> Any:
    _non_empty(xp, x, dim)
    return x.min(axis=dim, keepdims=keepdim)


amax = define(
    "amax(x) -> y", type=_reduction_type(REALS), kernel=in_float32(_amax), vjp=(_extreme_vjp,),
    traits=(REDUCTION,), sample=_SAMPLE, doc="Largest element over dims; NaN wins.",
)  # fmt: skip
amin = define(
    "amin(x) -> y", type=_reduction_type(REALS), kernel=in_float32(_amin), vjp=(_extreme_vjp,),
    traits=(REDUCTION,), sample=_SAMPLE, doc="Smallest element over dims; NaN wins.",
)  # fmt: skip

# Moments.


def _moment_type(x: TensorType, *, dim: Shape, keepdim: bool, correction: float) -> TensorType:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return TensorType(x.dtype, reduced_shape(x.shape, dim, keepdim))


def _freedom(shape: Shape, dim: Shape, correction: float) -> float:
    """The divisor of a variance: the count less the correction, never negative."""
    less = int(correction) if float(correction).is_integer() else correction
    return larger(math.prod(shape[d] for d in dim) - less, 0)


def _var(m: Any, x: Any, *, dim: Shape, keepdim: bool, correction: float) -> Any:
    away = x - m.mean(x, dim=dim, keepdim=True)
    total = m.sum(away * away, dim=dim, keepdim=keepdim)
    freedom: Any = _freedom(tuple(x.shape), dim, correction)
    return total / (freedom if freedom.__class__ is SymInt else float(freedom))


def _var_kernel(xp: Any, x: Any, *, dim: Shape, keepdim: bool, correction: float) -> Any:
    away = x - _mean(xp, x, dim=dim, keepdim=True)
    away *= away
    freedom = _freedom(x.shape, dim, correction)
    total = away.sum(axis=dim, keepdims=keepdim, dtype=x.dtype)
    return total / freedom if freedom else total * xp.nan


def _var_vjp(m: Any, g: Any, x: Any, x_type: TensorType, dim: Shape, correction: float) -> Any:
    freedom: Any = _freedom(x_type.shape, dim, correction)
    scale = 2 / freedom if freedom.__class__ is SymInt or freedom else math.inf
    away = x - m.mean(x, dim=dim, keepdim=True)
    return laid_against(m, g, x_type, dim) * (away * scale)


_MOMENTS = (
    case((3, 4), dim=(1,), keepdim=False, correction=1),
    case((2, 3, 4), dim=(0, 2), keepdim=True, correction=0),
    case((5,), dim=(0,), keepdim=False, correction=1.5),
)
var = define(
    "var(x) -> y", type=_moment_type, kernel=in_float32(_var_kernel), decompose=_var,
    vjp=(_var_vjp,), traits=(REDUCTION,), sample=_MOMENTS,
    doc="Mean squared distance from the mean, over (count − correction).",
)  # fmt: skip


def _std_vjp(
    m: Any, g: Any, x: Any, y: Any, x_type: TensorType, dim: Shape, correction: float
) -> Any:
    """Gradient through the variance; 0 where nothing varies."""
    flat = m.eq(y, 0)
    zero = m.full(shape=(), value=0, dtype=x_type.dtype)
    one = m.full(shape=(), value=1, dtype=x_type.dtype)
    g = m.where(flat, zero, g / (2 * m.where(flat, one, y)))
    return _var_vjp(m, g, x, x_type, dim, correction)


std = define(
    "std(x) -> y", type=_moment_type,
    kernel=in_float32(lambda xp, x, **attrs: xp.sqrt(_var_kernel(xp, x, **attrs))),
    decompose=lambda m, x, **attrs: m.sqrt(m.var(x, **attrs)), vjp=(_std_vjp,),
    traits=(REDUCTION,), sample=_MOMENTS, doc="Square root of the variance.",
)  # fmt: skip


# Norms.


def _norm_type(x: TensorType, *, ord: float, dim: Shape, keepdim: bool) -> TensorType:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if ord in (math.inf, -math.inf) and 0 in (x.shape[d] for d in dim):
        raise OpError(f"the norm of order {ord} has no identity, so dim {dim} must not be empty")
    return TensorType(x.dtype, reduced_shape(x.shape, dim, keepdim))


def _norm(m: Any, x: Any, *, ord: float, dim: Shape, keepdim: bool) -> Any:
    size = m.abs(x)
    if ord == math.inf:
        return m.amax(size, dim=dim, keepdim=keepdim)
    if ord == -math.inf:
        return m.amin(size, dim=dim, keepdim=keepdim)
    if ord == 0:
        used = m.cast(m.ne(x, 0), dtype=dtype_in(x))
        return m.sum(used, dim=dim, keepdim=keepdim)
    if ord == 1:
        return m.sum(size, dim=dim, keepdim=keepdim)
    if ord == 2:
        return m.sqrt(m.sum(x * x, dim=dim, keepdim=keepdim))
    return m.sum(size ** float(ord), dim=dim, keepdim=keepdim) ** (1 / ord)


def _norm_kernel(xp: Any, x: Any, *, ord: float, dim: Shape, keepdim: bool) -> Any:
    if ord == 2:
        return xp.sqrt((x * x).sum(axis=dim, keepdims=keepdim))
    if ord in (math.inf, -math.inf):
        _non_empty(xp, x, dim)
        size = xp.abs(x)
        fold = size.max if ord > 0 else size.min
        return fold(axis=dim, keepdims=keepdim)
    if ord == 0:
        return (x != 0).sum(axis=dim, keepdims=keepdim).astype(x.dtype)
    return (xp.abs(x) ** ord).sum(axis=dim, keepdims=keepdim) ** (1 / ord)


def _norm_vjp(m: Any, g: Any, x: Any, y: Any, x_type: TensorType, ord: float, dim: Shape) -> Any:
    """Gradient of a norm; 0 at 0, and shared evenly among ties of an infinite order."""
    g, y = laid_against(m, g, x_type, dim), laid_against(m, y, x_type, dim)
    zero = m.full(shape=(), value=0, dtype=x_type.dtype)
    one = m.full(shape=(), value=1, dtype=x_type.dtype)
    if ord == 0:
        return x * 0
    if ord == 1:
        return g * m.sign(x)
    if ord in (math.inf, -math.inf):
        hit = m.cast(m.eq(m.abs(x), y), dtype=x_type.dtype)
        return m.sign(x) * hit * (g / m.sum(hit, dim=dim, keepdim=True))
    still = m.logical_or(m.eq(y, 0), m.eq(x, 0))
    ratio = m.where(still, one, m.abs(x)) / m.where(m.eq(y, 0), one, y)
    slope = m.sign(x) * (ratio if ord == 2 else ratio ** float(ord - 1))
    return g * m.where(still, zero, slope)


vector_norm = define(
    "vector_norm(x) -> y", type=_norm_type, kernel=in_float32(_norm_kernel), decompose=_norm,
    vjp=(_norm_vjp,), traits=(REDUCTION,),
    sample=(case((3, 4), ord=2, dim=(1,), keepdim=False),
            case((2, 3, 4), ord=3.5, dim=(0, 2), keepdim=True),
            case((4,), ord=math.inf, dim=(0,), keepdim=False),
            case((3, 2), ord=1, dim=(0, 1), keepdim=False), case((), ord=2, dim=(), keepdim=False)),
    doc="(Σ |x|^ord)^(1/ord) over dims; ord 0 counts what is not 0, ±inf is the largest, smallest.",
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


def _extreme_type(x: TensorType, *, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
    shape = reduced_shape(x.shape, (dim,), keepdim)
    return x.with_shape(shape), TensorType(int64, shape)


def _extreme_at(name: str) -> tuple[Any, Any]:
    """Kernel and decomposition of an extreme and where it is."""

    def kernel(xp: Any, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        _non_empty(xp, x, (dim,))
        places = xp.expand_dims(getattr(x, name)(axis=dim), dim)
        values = xp.take_along_axis(x, places, axis=dim)
        if not keepdim:
            values, places = values.squeeze(dim), places.squeeze(dim)
        return values, places.astype(xp.int64, copy=False)

    def decompose(m: Any, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        places = getattr(m, name)(x, dim=dim, keepdim=True)
        values = m.gather(x, places, dim=dim)
        if keepdim:
            return values, places
        shape = reduced_shape(tuple(x.shape), (dim,), False)
        return m.reshape(values, shape=shape), m.reshape(places, shape=shape)

    return in_float32(kernel), decompose


def _extreme_at_vjp(m: Any, g: Any, indices: Any, x_type: TensorType, dim: int) -> Any:
    """All of it to the chosen element."""
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    places = laid_against(m, indices, x_type, (dim,))
    return m.scatter(zeros, places, laid_against(m, g[0], x_type, (dim,)), dim=dim)


_kernel, _decompose = _extreme_at("argmax")
max_at = define(
    "max_at(x) -> values, indices", type=_extreme_type, kernel=_kernel, decompose=_decompose,
    vjp=(_extreme_at_vjp,), traits=(REDUCTION,), sample=_ARG,
    doc="Largest element along a dim and where it first stands; NaN wins.",
)  # fmt: skip
_kernel, _decompose = _extreme_at("argmin")
min_at = define(
    "min_at(x) -> values, indices", type=_extreme_type, kernel=_kernel, decompose=_decompose,
    vjp=(_extreme_at_vjp,), traits=(REDUCTION,), sample=_ARG,
    doc="Smallest element along a dim and where it first stands; NaN wins.",
)  # fmt: skip
