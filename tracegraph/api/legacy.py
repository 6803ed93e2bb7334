"""PyTorch's old names that programs still use: `FloatTensor(...)`, `isinstance(x, LongTensor)`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracegraph.api.creation import empty, tensor
from tracegraph.dtypes import DType, dtype_of, get_default_dtype
from tracegraph.eager.tensors import Size, Tensor, type_of


def legacy_tensor(*args: Any, data: Any = None, size: Any = None, device: Any = None) -> Tensor:
    """`Tensor(2, 3)` or `Tensor(x.shape)`, to be overwritten; `Tensor(data)`; a view of a tensor.

    Raises:
        TypeError: a number or None for data.
    """
    if len(args) == 1 and isinstance(given := args[0], Tensor):
        return given.view(given.shape)
    return construct(get_default_dtype(), device, args, data, size)


def construct(
    dtype: DType, device: Any, args: tuple[Any, ...], data: Any = None, size: Any = None
) -> Tensor:
    """Do as the oldest constructors: a `Size` is a shape where other sequences are data.

    Raises:
        TypeError: a number or None for data, or a tensor of another dtype.
    """
    if len(args) == 1 and isinstance(args[0], Size):
        size = args[0]
    elif len(args) == 1 and not _is_int(args[0]):
        data = args[0]
        if data is None or isinstance(data, (bool, float, complex)):
            raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})")
    if isinstance(data, Tensor):
        if type_of(data).dtype is not dtype:
            raise TypeError(f"expected a tensor of {dtype}, got one of {type_of(data).dtype}")
        return data.view(data.shape)
    if data is not None:
        return tensor(data, dtype=dtype, device=device)
    shape = tuple(size) if size is not None else args or (0,)
    return empty(shape, dtype=dtype, device=device)


def _is_int(value: Any) -> bool:
    if isinstance(value, (bool, Tensor, np.ndarray)):
        return False
    return hasattr(value, "__index__")


class _TypedTensor(type):
    """The type of `FloatTensor` and its like: calls make tensors, `isinstance` looks at dtypes."""

    dtype: DType

    def __call__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """Return `data` as this dtype, or an array of the sizes given, to be overwritten."""
        return construct(cls.dtype, kwargs.pop("device", None), args, **kwargs)

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor) and value.dtype is cls.dtype and not value.is_sparse


def _typed(name: str, dtype: str) -> Any:
    return _TypedTensor(name, (), {"dtype": dtype_of(dtype), "__doc__": f"A tensor of {dtype}."})


TYPES: Final[dict[str, Any]] = {
    name: _typed(name, dtype)
    for name, dtype in {
        "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16",
        "BFloat16Tensor": "bfloat16", "LongTensor": "int64", "IntTensor": "int32",
        "ShortTensor": "int16", "CharTensor": "int8", "ByteTensor": "uint8", "BoolTensor": "bool",
    }.items()
}  # fmt: skip
"""PyTorch's typed tensor names."""
