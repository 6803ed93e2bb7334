"""Creating tensors. `shape` arguments are ints or one sequence; `dtype` defaults as in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.api.promotion import check_strided, laid_as, sizes_tensor
from tracegraph.devices import device_for_new, device_of, module_of, parse_device
from tracegraph.dims.shapes import mentions
from tracegraph.dims.symint import SymInt, as_size
from tracegraph.dtypes import (
    BY_NUMPY,
    FLOAT_KIND,
    DType,
    bool_,
    dtype_of,
    get_default_dtype,
    int64,
)
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch, front, size_tensor
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import unseen_of
from tracegraph.eager.tape import make_leaf
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import Op
from tracegraph.ops.memory_order import copied
from tracegraph.ops.table import OPS

_FULL, _IOTA = OPS["full"], OPS["iota"]


def finish(t: Tensor, requires_grad: bool) -> Tensor:
    """Return `t`, as a leaf that accumulates a gradient if asked."""
    if requires_grad:
        if type_of(t).dtype.kind < FLOAT_KIND:
            raise DTypeError(
                "only Tensors of floating point and complex dtype can require gradients"
            )
        make_leaf(t)
    return t


def note_constant(t: Tensor) -> Tensor:
    """Tell an active trace about a tensor made from Python data."""
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.constant(t)
    return t


def shape_of(size: Sequence[Any]) -> tuple[int, ...]:
    """Return a shape given as ints or as one sequence."""
    if len(size) == 1 and not hasattr(size[0], "__index__"):
        size = tuple(size[0])
    elif len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    shape = tuple(map(as_size, size))
    for n in shape:
        if n < 0:
            raise OpError(f"Trying to create tensor with negative dimension {n}: {list(shape)}")
    return shape


def _to_array(data: Any, dtype: DType | None) -> Any:
    """Return fresh NumPy (or CuPy) data for nested Python data, arrays or tensors."""
    if isinstance(data, Tensor):
        array = data._data
    elif isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__cuda_array_interface__"):
        array = data if not isinstance(data, np.generic) else np.asarray(data)
    else:
        array = _from_python(data)
        if dtype is None and array.dtype == np.float64:
            dtype = get_default_dtype()
        elif dtype is None and array.dtype == np.complex128:
            dtype = get_default_dtype().to_complex()
        elif array.dtype.kind == "c" and dtype is not None and not dtype.is_complex:
            raise OpError(f"value cannot be converted to type {dtype} without overflow")
    if array.dtype not in BY_NUMPY:
        array = array.astype(dtype_of(array.dtype).np)
    if dtype in (None, BY_NUMPY[array.dtype]):
        return copied(array)
    real = array.dtype.kind == "c" and not dtype.is_complex and dtype is not bool_
    return (array.real if real else array).astype(dtype.np)


def _from_python(data: Any) -> Any:
    def unpack(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.tolist() if modes.recording else np.asarray(x._data)
        if isinstance(x, (list, tuple)):
            return [unpack(i) for i in x]
        return x

    try:
        array = np.asarray(unpack(data))
    except ValueError as error:
        raise ValueError(f"expected a sequence of equal lengths at every level: {error}") from None
    if array.size == 0 and not isinstance(data, np.ndarray):
        array = array.astype(np.float64)
    if array.dtype == object or array.dtype.kind not in "biufcV":
        raise TypeError(f"cannot make a tensor from {type(data).__name__} of {array.dtype}")
    return array


def tensor(
    data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Return a tensor with a copy of `data` (nested sequences, scalars, arrays, tensors).

    Python floats become the default dtype, ints int64, bools bool.

    Raises:
        TypeError: `data` holds something that is no number.
        ValueError: nested sequences of unequal lengths.
    """
    dtype = None if dtype is None else dtype_of(dtype)
    if modes.sizes and mentions(data):
        return sizes_tensor(data, dtype or int64)
    array = _to_array(data, dtype)
    kept = device is None and (isinstance(data, Tensor) or not isinstance(array, np.ndarray))
    t = wrap(_on(array, device_of(array) if kept else device_for_new(device)))
    return finish(note_constant(t), requires_grad)


def _on(array: Any, device: Any) -> Any:
    """Return an array on a device, moved only if it must be."""
    target = parse_device(device)
    if device_of(array) == target:
        return array
    return target.place(array)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Return `data` as a tensor, sharing memory with a tensor or array where possible."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if isinstance(data, np.ndarray):
        t: Tensor = from_numpy(data).to(device=device, dtype=dtype)
        return t
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: Any) -> Tensor:
    """Return a tensor that shares memory with a NumPy array.

    Raises:
        TypeError: not a NumPy array, or of a dtype that tensors do not have.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    if array.dtype not in BY_NUMPY:
        raise TypeError(f"can't convert np.ndarray of type {array.dtype} to a tensor")
    return _borrowed(array)


def _borrowed(array: Any) -> Tensor:
    """A tensor over the memory of others, who may write to it."""
    t = wrap(array)
    unseen_of(storage_of(t)).borrowed = True
    return note_constant(t)


def asarray(
    obj: Any, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Return `obj` as a tensor, sharing memory where possible unless `copy` is set."""
    made = tensor(obj, dtype=dtype, device=device) if copy else as_tensor(obj, dtype, device)
    return finish(made, requires_grad)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """Return a tensor that shares memory with an object of the DLPack protocol."""
    return _borrowed(np.from_dlpack(ext_tensor))


def frombuffer(
    buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """Return a vector that shares memory with a buffer, from `offset` bytes on."""
    array = np.frombuffer(buffer, dtype_of(dtype).np, count, offset)
    return finish(_borrowed(array), requires_grad)


def full(
    size: Any, fill_value: Any, *, dtype: DType | None = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Return a tensor of one value; the dtype defaults to that of `fill_value`."""
    check_strided(layout)
    shape = shape_of((size,))
    if fill_value.__class__ is SymInt:
        fill_value = size_tensor(fill_value, int64)
    if isinstance(fill_value, Tensor):
        wanted = dtype_of(dtype) if dtype is not None else type_of(fill_value).dtype
        value = fill_value.to(wanted).reshape(())
        return finish(front.expand(value, shape=shape).clone(), requires_grad)
    if dtype is None:
        dtype = type_of(tensor(np.asarray(fill_value).item())).dtype
    dtype = dtype_of(dtype)
    if isinstance(fill_value, (complex, np.complexfloating)):
        return finish(_full_complex(shape, fill_value, dtype, device), requires_grad)
    if dtype is bool_:
        fill_value = bool(fill_value)
    elif dtype.is_complex:
        fill_value = int(fill_value) if fill_value in (0, 1) else float(fill_value)
    elif dtype.is_floating_point:
        fill_value = float(fill_value)
    elif fill_value.__class__ is not int or not 0 <= fill_value < 128:
        fill_value = int(np.asarray(int(fill_value)).astype(dtype.np))
    t = _made(_FULL, {"shape": shape, "value": fill_value, "dtype": dtype}, device)
    return finish(t, requires_grad) if requires_grad else t


def _full_complex(shape: tuple[int, ...], value: Any, dtype: DType, device: Any) -> Tensor:
    """A complex number everywhere: attributes of ops hold real ones."""
    if not dtype.is_complex:
        raise OpError(f"value cannot be converted to type {dtype} without overflow: {value}")
    real, imag = (
        _made(_FULL, {"shape": shape, "value": float(part), "dtype": dtype.to_real()}, device)
        for part in (value.real, value.imag)
    )
    made: Tensor = front.complex(real, imag)
    return made


def zeros(*size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return zeros of a shape."""
    return full(_size(size, options), 0, dtype=dtype or get_default_dtype(), **options)


def ones(*size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return ones of a shape."""
    return full(_size(size, options), 1, dtype=dtype or get_default_dtype(), **options)


def _size(size: tuple[Any, ...], options: dict[str, Any]) -> tuple[int, ...]:
    return shape_of((options.pop("size"),) if not size and "size" in options else size)


def empty(
    *size: Any, dtype: DType | None = None, memory_format: Any = None, **options: Any
) -> Tensor:
    """Return a tensor to be overwritten; it holds zeros, so that runs repeat."""
    return full(_size(size, options), 0, dtype=dtype or get_default_dtype(), **options)


def _like(input: Tensor, value: Any, dtype: DType | None, options: dict[str, Any]) -> Tensor:
    memory_format = options.pop("memory_format", None)
    requires_grad = options.pop("requires_grad", False)
    options.setdefault("device", device_of(input._data))
    made = full(input._data.shape, value, dtype=dtype or type_of(input).dtype, **options)
    return finish(laid_as(made, input, memory_format), requires_grad)


def zeros_like(input: Tensor, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return zeros of the shape, dtype and device of `input`."""
    return _like(input, 0, dtype, options)


def ones_like(input: Tensor, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return ones of the shape, dtype and device of `input`."""
    return _like(input, 1, dtype, options)


def empty_like(input: Tensor, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return a tensor of the shape, dtype and device of `input`, to be overwritten."""
    return _like(input, 0, dtype, options)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: DType | None = None, **options: Any
) -> Tensor:
    """Return one value in the shape, dtype and device of `input`."""
    return _like(input, fill_value, dtype, options)


def _made(op: Op, attrs: dict[str, Any], device: Any) -> Tensor:
    """Run a creation op on a device."""
    token = modes.XP.set(module_of(device_for_new(device)))
    try:
        return dispatch(op, (), attrs)
    finally:
        modes.XP.reset(token)


def count_up(size: int, start: Any, step: Any, dtype: DType, device: Any) -> Tensor:
    """Return start, start + step, ...: `size` numbers."""
    return _made(_IOTA, {"size": size, "start": start, "step": step, "dtype": dtype}, device)


def fill(input: Tensor, value: Any) -> Tensor:
    """Return one number in the shape and dtype of `input`; a 0-d tensor takes its gradient."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise OpError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{value.ndim} dimensions."
            )
        value = front.expand(value.to(type_of(input).dtype), shape=input._data.shape)
        return clone(value, input._data)
    return front.overwrite(input, full_like(input, value))


def eye(n: int, m: int | None = None, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Return the identity matrix [n, m]."""
    if n < 0 or (m is not None and m < 0):
        raise OpError(f"n and m must be greater or equal to 0, got {n} and {m}")
    device = options.pop("device", None)
    rows = count_up(n, 0, 1, int64, device)
    columns = count_up(n if m is None else m, 0, 1, int64, device)
    same = front.eq(front.reshape(rows, shape=(n, 1)), columns)
    t: Tensor = front.cast(same, dtype=dtype_of(dtype or get_default_dtype()))
    return finish(t, options.get("requires_grad", False))


def scalar_tensor(s: Any, **options: Any) -> Tensor:
    """Return a number as a 0-d tensor of the default dtype."""
    options.setdefault("dtype", get_default_dtype())
    options.pop("layout", None)
    return tensor(s, **options)


def empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    """Return a tensor to be overwritten; memory is row-major whatever the steps asked for."""
    return empty(size, **options)


def empty_permuted(size: Any, physical_layout: Any, **options: Any) -> Tensor:
    """Return a tensor to be overwritten; memory is row-major whatever the layout asked for."""
    return empty(size, **options)
