"""Tensors of which only the elements that are not zero are kept, under PyTorch's names.

`tracegraph.sparse_coo_tensor` makes them. CSR and its like are not available.
"""

from __future__ import annotations

from typing import Any, Final

import tracegraph.sparse.methods  # noqa: F401 - it completes SparseTensor
from tracegraph.dtypes import DType, dtype_of
from tracegraph.sparse.algebra import addmm, log_softmax, softmax
from tracegraph.sparse.algebra import product as mm
from tracegraph.sparse.algebra import total as sum
from tracegraph.sparse.tensor import SparseTensor, sparse_coo_tensor

__all__ = ["addmm", "log_softmax", "mm", "softmax", "sum"]


class _TypedSparseTensor(type):
    """The type of `sparse.FloatTensor` and its like."""

    dtype: DType

    def __call__(cls, *args: Any, **options: Any) -> SparseTensor:
        """Return the tensor of indices and values, as they are, or zeros of the sizes given."""
        if not args or isinstance(args[0], int):
            return sparse_coo_tensor(args or (0,), dtype=cls.dtype, **options)
        return sparse_coo_tensor(*args, **options)

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, SparseTensor) and value.dtype is cls.dtype


_TYPES: Final = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16", "LongTensor": "int64", "IntTensor": "int32",
    "ShortTensor": "int16", "CharTensor": "int8", "ByteTensor": "uint8",
}  # fmt: skip
globals().update({
    name: _TypedSparseTensor(name, (), {"dtype": dtype_of(dtype), "__doc__": f"Sparse {dtype}."})
    for name, dtype in _TYPES.items()
})  # fmt: skip
