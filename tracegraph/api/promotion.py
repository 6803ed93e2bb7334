"""Operands of the API to operands of ops: promotion, casts, Python scalars."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tracegraph.api.constants import preserve_format, strided
from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import (
    BOOL_KIND,
    COMPLEX_KIND,
    FLOAT_KIND,
    HALVES,
    INT_KIND,
    DType,
    bool_,
    float32,
    get_default_dtype,
    int64,
    promote_types,
    scalar_dtype,
    scalar_kind,
)
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch, front, size_tensor
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tape import lasting
from tracegraph.eager.tensors import Tensor, dtype_of_data, type_of, wrap, xp_of
from tracegraph.errors import DTypeError, OpError, SparseError
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS


def result_type(*operands: Any) -> DType:
    """Return the dtype that tensors and Python scalars compute in together (PyTorch's rules).

    Tensors with dims decide; 0-d tensors, then Python scalars, only raise the category.
    """
    dims: DType | None = None
    zero: DType | None = None
    scalar: DType | None = None
    for x in operands:
        if isinstance(x, Tensor):
            dtype = dtype_of_data(x._data)
            if x._data.shape:
                dims = dtype if dims is None else promote_types(dims, dtype)
            else:
                zero = dtype if zero is None else promote_types(zero, dtype)
        else:
            lone = int64 if x.__class__ is SymInt else scalar_dtype(scalar_kind(x))
            scalar = lone if scalar is None or lone.kind > scalar.kind else scalar
    result = _raise_category(_raise_category(dims, zero), scalar)
    if result is None:
        raise DTypeError("result_type needs at least one operand")
    return result


def _raise_category(strong: DType | None, weak: DType | None) -> DType | None:
    if strong is None or weak is None:
        return strong or weak
    if strong.kind >= FLOAT_KIND:
        return strong.to_complex() if weak.kind == COMPLEX_KIND else strong
    if strong.kind == INT_KIND and weak.kind < FLOAT_KIND:
        return strong
    return promote_types(strong, weak) if weak.kind > strong.kind else strong


def cast(x: Tensor, dtype: DType) -> Tensor:
    """Return `x` in another dtype; `x` itself when it has it."""
    if dtype_of_data(x._data) is dtype:
        return x
    out: Tensor = front.cast(x, dtype=dtype)
    return out


def converted(x: Tensor, dtype: DType) -> Tensor:
    """Return `cast(x, dtype)` where a program asks for it: it may lose what is imaginary."""
    mine = dtype_of_data(x._data)
    if mine is dtype:
        return x
    if mine.kind == COMPLEX_KIND and not dtype.is_complex and dtype is not bool_:
        warnings.warn(
            "Casting complex values to real discards the imaginary part", UserWarning, stacklevel=3
        )
    return cast(x, dtype)


def scalar_tensor(value: Any, dtype: DType) -> Tensor:
    """Return a Python scalar as a 0-d tensor (a constant of the graph when traced)."""
    if value.__class__ is SymInt:
        return size_tensor(value, dtype)
    if isinstance(value, complex) and not dtype.is_complex:
        raise OpError(f"value cannot be converted to type {dtype} without overflow: {value}")
    t = wrap(modes.XP.get().asarray(np.asarray(value).astype(dtype.np)))
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.constant(t)
    return t


def sizes_tensor(data: Any, dtype: DType) -> Tensor:
    """Return nested sequences of symbolic sizes and numbers as a tensor."""
    if not isinstance(data, (list, tuple)):
        return scalar_tensor(data, dtype)
    items = [sizes_tensor(item, dtype) for item in data]
    out: Tensor = front.cat(*(front.reshape(x, shape=(1, *x.shape)) for x in items), dim=0)
    return out


def beside(like: Tensor) -> Any:
    """Return the array module that constants must come from to be used with `like`."""
    data = like._data
    return np if data.__class__ in (np.ndarray, AbstractArray) else xp_of(data)


def filled(like: Tensor, shape: tuple[int, ...], value: Any, dtype: DType | None = None) -> Tensor:
    """Return one value in a shape, on the device of `like` and by default of its dtype."""
    return _made(like, "full", shape=shape, value=value, dtype=dtype or type_of(like).dtype)


def counting(like: Tensor, size: int, dtype: DType = int64) -> Tensor:
    """Return 0, 1, ... size − 1 on the device of `like`."""
    return _made(like, "iota", size=size, start=0, step=1, dtype=dtype)


def identity(like: Tensor, size: int) -> Tensor:
    """Return the identity matrix on the device of `like` and of its dtype."""
    places = counting(like, size)
    same = front.eq(front.reshape(places, shape=(size, 1)), places)
    return cast(same, type_of(like).dtype)


def _made(like: Tensor, name: str, **attrs: Any) -> Tensor:
    token = modes.XP.set(beside(like))
    try:
        out: Tensor = getattr(front, name)(**attrs)
        return out
    finally:
        modes.XP.reset(token)


def single_dtype(name: str, *tensors: Tensor) -> DType:
    """Return the dtype that all tensors have.

    Raises:
        DTypeError: they differ.
    """
    dtype = type_of(tensors[0]).dtype
    for x in tensors[1:]:
        if type_of(x).dtype is not dtype:
            raise DTypeError(
                f"{name}: expected tensors of the same dtype, but got: {dtype.name} and "
                f"{type_of(x).dtype.name}"
            )
    return dtype


def _fit(x: Any, dtype: DType) -> Any:
    """Cast a tensor operand to `dtype`, or a Python scalar to its Python type."""
    if isinstance(x, Tensor):
        return x if dtype_of_data(x._data) is dtype else front.cast(x, dtype=dtype)
    if x.__class__ is SymInt:
        return size_tensor(x, dtype)
    if dtype.kind == FLOAT_KIND:
        return float(x)
    if dtype.kind == COMPLEX_KIND:
        return scalar_tensor(x, dtype)
    if dtype.kind == BOOL_KIND:
        return bool(x)
    return int(np.asarray(int(x)).astype(dtype.np))


def elementwise(op: Op, *operands: Any, floating: bool = False) -> Tensor:
    """Run an elementwise op after promotion; `floating` makes integers default floats first.

    Where all operands are Python scalars the first becomes a tensor.
    """
    kinds = {dtype_of_data(x._data) if isinstance(x, Tensor) else None for x in operands}
    alone = kinds.pop()
    if not kinds and alone is not None and (not floating or alone.kind >= FLOAT_KIND):
        same: Tensor = dispatch(op, operands, {})
        return same
    dtype = result_type(*operands)
    if floating and dtype.kind < FLOAT_KIND:
        dtype = get_default_dtype()
    if not any(isinstance(x, Tensor) for x in operands):
        operands = (scalar_tensor(operands[0], dtype), *operands[1:])
    if dtype in HALVES and any(not isinstance(x, Tensor) for x in operands):
        wide: Tensor = dispatch(op, [_fit(x, float32) for x in operands], {})
        return cast(wide, dtype) if dtype_of_data(wide._data) is float32 else wide
    out: Tensor = dispatch(op, [_fit(x, dtype) for x in operands], {})
    return out


def of_tensors(name: str, *operands: Any) -> Tensor:
    """Run a floating elementwise op whose expression needs arrays: numbers become 0-d tensors."""
    dtype = result_type(*operands)
    made = (x if isinstance(x, Tensor) else scalar_tensor(x, dtype) for x in operands)
    return elementwise(OPS[name], *made, floating=True)


def float_operand(x: Tensor) -> Tensor:
    """Return `x`, integers and bools as the default float."""
    if dtype_of_data(x._data).kind >= FLOAT_KIND:
        return x
    return cast(x, get_default_dtype())


def as_operand(x: Any, like: Tensor) -> Tensor:
    """Return `x` as a Tensor; Python scalars take the promoted dtype beside `like`."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (np.ndarray, np.generic)):
        return wrap(np.asarray(x))
    return scalar_tensor(x, result_type(like, x))


def check_strided(layout: Any) -> None:
    """Refuse to make a dense tensor where another layout is asked for."""
    if layout not in (None, strided):
        raise SparseError(f"{layout} tensors are made by sparse_coo_tensor(size) or to_sparse()")


def laid_as(made: Tensor, input: Tensor, memory_format: Any = None) -> Tensor:
    """Return a fresh tensor in rows laid out as `input` is, unless a format is asked for."""
    like = input._data
    if memory_format not in (None, preserve_format) or like.__class__ is AbstractArray:
        return made
    out = made if like.flags.c_contiguous else clone(made, like)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.layouts.lies_as(out, input)
    return out


def scaled(x: Any, factor: Any) -> Any:
    """Return factor·x; a number is no reason to refuse a second backward pass, as in PyTorch."""
    if not isinstance(factor, (int, float)):
        return x * factor
    return x if factor == 1 else lasting(x * factor) if isinstance(x, Tensor) else x * factor
