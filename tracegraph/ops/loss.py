"""Losses that overflow as formulas of other rows, or take a dozen of them for every label."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import LAID_ALIKE, Case, Spec, case, define, elementwise_type, in_float32
from tracegraph.ops.gathering import gather
from tracegraph.ops.reduction import dtype_in
from tracegraph.tensor_type import TensorType


def _limited(m: Any, x: Any) -> Any:
    """A logarithm of at least −100, so that certain mistakes cost much but not infinity."""
    return m.maximum(x, -100.0)


def _cross_entropy(m: Any, x: Any, target: Any) -> Any:
    return (target - 1) * _limited(m, m.log1p(-x)) - target * _limited(m, m.log(x))


def _target_vjp(m: Any, g: Any, x: Any) -> Any:
    low = m.full(shape=(), value=-100, dtype=g.dtype)
    return g * (m.maximum(m.log1p(-x), low) - m.maximum(m.log(x), low))


def _input_vjp(m: Any, g: Any, x: Any, target: Any) -> Any:
    smallest = m.full(shape=(), value=1e-12, dtype=g.dtype)
    return g * ((x - target) / m.maximum((1 - x) * x, smallest))


binary_cross_entropy = define(
    "binary_cross_entropy(x, target) -> y", type=elementwise_type(FLOATS),
    scalar=_cross_entropy, vjp=(_input_vjp, _target_vjp),
    sample=(Case((Spec((3, 4), 0.1, 0.9), Spec((3, 4), 0, 1)), {}),
            Case((Spec((), 0.1, 0.9), Spec((), 0, 1)), {}),
            Case((Spec((0, 2), 0.1, 0.9), Spec((0, 2), 0, 1)), {})),
    doc="−target·log(x) − (1 − target)·log(1 − x), each logarithm at least −100.",
)  # fmt: skip


def _nll_type(
    x: TensorType, target: TensorType, *, dim: int, ignore_index: int
) -> tuple[TensorType, TensorType]:
    if x.dtype not in FLOATS or target.dtype is not int64:
        raise DTypeError(f"expected floats and int64 labels, got {x.dtype} and {target.dtype}")
    if not 0 <= dim < x.ndim or target.shape != (*x.shape[:dim], *x.shape[dim + 1 :]):
        raise OpError(f"labels {target} do not fit {x} without its dim {dim}")
    return x.with_shape(target.shape), target


def _places(m: Any, target: Any, dim: int, ignore_index: int) -> tuple[Any, Any]:
    """Which labels count, and all of them (0 where they do not) with a dim to gather along."""
    known = m.ne(target, ignore_index)
    safe = m.where(known, target, m.full(shape=(), value=0, dtype=int64))
    shape = tuple(target.shape)
    return known, m.reshape(safe, shape=(*shape[:dim], 1, *shape[dim:]))


def _nll(m: Any, x: Any, target: Any, *, dim: int, ignore_index: int) -> Any:
    known, places = _places(m, target, dim, ignore_index)
    cost = -m.reshape(m.gather(x, places, dim=dim), shape=tuple(target.shape))
    zero = m.full(shape=(), value=0, dtype=dtype_in(x))
    return m.where(known, cost, zero), m.cast(known, dtype=int64)


def _nll_kernel(xp: Any, x: Any, target: Any, *, dim: int, ignore_index: int) -> Any:
    known = target != ignore_index
    assert gather.kernel is not None
    cost = -gather.kernel(xp, x, xp.expand_dims(target * known, dim), dim=dim)
    return xp.where(known, cost.reshape(target.shape), 0), known.astype(xp.int64)


def _nll_vjp(m: Any, g: Any, x_type: TensorType, target: Any, dim: int, ignore_index: int) -> Any:
    known, places = _places(m, target, dim, ignore_index)
    share = m.where(known, -g[0], m.full(shape=(), value=0, dtype=x_type.dtype))
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return m.scatter(zeros, places, m.reshape(share, shape=tuple(places.shape)), dim=dim)


nll_loss = define(
    "nll_loss(x, target) -> y, count", type=_nll_type, kernel=in_float32(_nll_kernel),
    decompose=_nll, vjp=(_nll_vjp, None),
    traits=(LAID_ALIKE,),
    sample=(case((4, 3), Spec((4,), 0, 3, "i"), dim=1, ignore_index=1),
            case((2, 3, 4), Spec((2, 4), 0, 3, "i"), dim=1, ignore_index=-100),
            case((3,), Spec((), 0, 3, "i"), dim=0, ignore_index=-100),
            case((0, 3), Spec((0,), 0, 3, "i"), dim=1, ignore_index=-100)),
    doc="−x at each label along a dim, and 1; both 0 where the label is ignore_index.",
)  # fmt: skip
