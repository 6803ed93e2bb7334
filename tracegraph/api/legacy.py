"""PyTorch's old names that programs still use: `FloatTensor(...)`, `isinstance(x, LongTensor)`."""

from __future__ import annotations

from typing import Any, Final

from tracegraph.api.creation import empty, tensor
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.tensors import Tensor


class _TypedTensor(type):
    """The type of `FloatTensor` and its like: calls make tensors, `isinstance` looks at dtypes."""

    dtype: DType

    def __call__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """Return `data` as this dtype, or an array of the sizes given, to be overwritten."""
        if not args or (isinstance(args[0], int) and not isinstance(args[0], bool)):
            return empty(*(args or (0,)), dtype=cls.dtype, **kwargs)
        return tensor(args[0], dtype=cls.dtype, **kwargs)

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
