"""Layers that multiply by a weight, or look rows of one up: linear, embedding."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import RINGS, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import COMPLEX, CONTRACTION, HOLOMORPHIC, Spec, case, define, in_float32
from tracegraph.ops.matrices import multiplied
from tracegraph.tensor_type import TensorType


def _linear_type(x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
    for other in (weight, bias):
        if other is not None and other.dtype is not x.dtype:
            raise DTypeError(f"mat1 and mat2 must have the same dtype, but got {x.dtype} and "
                             f"{other.dtype}")  # fmt: skip
    if x.dtype not in RINGS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < 1 or weight.ndim != 2:
        raise OpError(f"linear needs x[..., in] and weight[out, in], got {x} and {weight}")
    if x.shape[-1] != weight.shape[1]:
        rows = math.prod(x.shape[:-1])
        raise OpError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1]} and "
            f"{weight.shape[1]}x{weight.shape[0]})"
        )
    if bias is not None and bias.shape != (weight.shape[0],):
        raise OpError(f"bias {bias} does not fit weight {weight}")
    return x.with_shape((*x.shape[:-1], weight.shape[0]))


def _linear_kernel(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    rows = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = multiplied(rows, weight.T)
    if bias is not None:
        y += bias
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], weight.shape[0])


def _rows(m: Any, x: Any) -> Any:
    """All leading dims as one."""
    if len(x.shape) == 2:
        return x
    return m.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))


def _linear(m: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    y = m.matmul(_rows(m, x), m.permute(weight, dims=(1, 0)))
    y = m.reshape(y, shape=(*x.shape[:-1], weight.shape[0]))
    return y if bias is None else m.add(y, bias)


def _linear_x(m: Any, g: Any, weight: Any, x_type: TensorType) -> Any:
    dx = m.matmul(_rows(m, g), weight)
    return dx if x_type.ndim == 2 else m.reshape(dx, shape=x_type.shape)


linear = define(
    "linear(x, weight, bias?) -> y", type=_linear_type, kernel=in_float32(_linear_kernel),
    decompose=_linear, traits=(CONTRACTION, HOLOMORPHIC),
    vjp=(_linear_x, lambda m, g, x: m.matmul(m.permute(_rows(m, g), dims=(1, 0)), _rows(m, x)),
         lambda g: g),
    sample=(case((2, 3), (4, 3), (4,)), case((2, 5, 3), (4, 3)), case((3,), (4, 3), (4,)),
            case((0, 3), (4, 3), (4,)), case((2, 3, 0), (4, 0), (4,))),
    doc="x · weightᵀ + bias over the last dim: x[..., in], weight[out, in], bias[out].",
)  # fmt: skip


def _embedding_type(
    weight: TensorType, index: TensorType, *, padding_idx: int, scale_grad_by_freq: bool
) -> TensorType:
    if weight.ndim != 2:
        raise OpError("'weight' must be 2-D")
    if index.dtype is not int64:
        raise DTypeError(f"an embedding is looked up by int64, not {index.dtype}")
    return weight.with_shape((*index.shape, weight.shape[1]))


def _embedding_kernel(
    xp: Any, weight: Any, index: Any, *, padding_idx: int, scale_grad_by_freq: bool
) -> Any:
    if index.size and (int(index.min()) < 0 or int(index.max()) >= weight.shape[0]):
        raise IndexError("index out of range in self")
    return weight.take(index, axis=0)


def _embedding_vjp(
    m: Any, g: Any, index: Any, weight_type: TensorType, padding_idx: int,
    scale_grad_by_freq: bool,
) -> Any:  # fmt: skip
    """Rows of g added where they were looked up; `padding_idx` (−1: none) gets no gradient."""
    dtype = weight_type.dtype
    if padding_idx >= 0:
        keep = m.reshape(m.ne(index, padding_idx), shape=(*index.shape, 1))
        g = m.where(keep, g, m.full(shape=(), value=0, dtype=dtype))
    if scale_grad_by_freq:
        ones = m.full(shape=tuple(index.shape), value=1, dtype=dtype)
        none = m.full(shape=weight_type.shape[:1], value=0, dtype=dtype)
        counts = m.index_put(none, ones, index, dims=(0,), accumulate=True)
        g = g / m.reshape(m.index(counts, index, dims=(0,)), shape=(*index.shape, 1))
    zeros = m.full(shape=weight_type.shape, value=0, dtype=dtype)
    return m.index_put(zeros, g, index, dims=(0,), accumulate=True)


_INDEX = Spec((2, 3), 0, 5, "i")

embedding = define(
    "embedding(weight, index) -> y", type=_embedding_type, kernel=_embedding_kernel,
    decompose=lambda m, weight, index, *, padding_idx, scale_grad_by_freq: m.index(
        weight, index, dims=(0,)),
    vjp=(_embedding_vjp, None),
    traits=(COMPLEX,), sample=(case((5, 4), _INDEX, padding_idx=-1, scale_grad_by_freq=False),
            case((5, 4), Spec((), 0, 5, "i"), padding_idx=-1, scale_grad_by_freq=False),
            case((5, 4), Spec((0, 2), 0, 5, "i"), padding_idx=-1, scale_grad_by_freq=False)),
    doc="Rows of weight[count, width] by index; its attributes concern the gradient only.",
)  # fmt: skip
