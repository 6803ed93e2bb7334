"""Creation primitives: arrays from attributes only."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import DType, int64
from tracegraph.ops.core import CREATION, NOT_DIFFERENTIABLE, case, define
from tracegraph.tensor_type import TensorType


def _full_type(*, shape: tuple[int, ...], value: Any, dtype: DType) -> TensorType:
    return TensorType(dtype, tuple(shape))


full = define(
    "full() -> y", type=_full_type,
    kernel=lambda xp, *, shape, value, dtype: xp.full(shape, value, dtype=dtype.np),
    vjp=NOT_DIFFERENTIABLE, traits=(CREATION,), sample=(),
    doc="An array with one value everywhere.",
)  # fmt: skip


def _dim_value_type(*, value: int) -> TensorType:
    return TensorType(int64, ())


dim_value = define(
    "dim_value() -> y", type=_dim_value_type,
    kernel=lambda xp, *, value: xp.asarray(value, dtype=xp.int64), vjp=NOT_DIFFERENTIABLE,
    traits=(CREATION,), sample=(case(value=3), case(value=0)),
    doc="A size as a number: what a program computes from the dims of its inputs.",
)  # fmt: skip


def _iota_type(*, size: int, start: Any, step: Any, dtype: DType) -> TensorType:
    return TensorType(dtype, (size,))


def _iota(xp: Any, *, size: int, start: Any, step: Any, dtype: DType) -> Any:
    wide = xp.float64 if isinstance(start, float) or isinstance(step, float) else xp.int64
    return (start + step * xp.arange(size, dtype=wide)).astype(dtype.np)


iota = define(
    "iota() -> y", type=_iota_type, kernel=_iota, vjp=NOT_DIFFERENTIABLE, traits=(CREATION,),
    sample=(), doc="start + step·i for i < size, computed in 64 bits and cast.",
)  # fmt: skip
