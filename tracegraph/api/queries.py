"""Questions about tensors and dtypes. Those that read values leave a trace's graph."""

from __future__ import annotations

from typing import Any

from tracegraph.api.pointwise import isclose
from tracegraph.api.promotion import result_type as _result_type
from tracegraph.api.promotion import single_dtype
from tracegraph.dims.symint import as_size
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError


def is_tensor(obj: Any) -> bool:
    """Whether an object is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating one."""
    return type_of(input).dtype.is_floating_point


def is_neg(input: Tensor) -> bool:
    """Whether the tensor is a negated view: never."""
    return False


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative values."""
    return type_of(input).dtype.is_signed


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not 0.

    Raises:
        OpError: there is not exactly one element.
    """
    if input._data.size != 1:
        raise OpError("Boolean value of Tensor with other than one value is ambiguous")
    return bool(front.ne(input, 0))


def numel(input: Tensor) -> int:
    """Number of elements."""
    count: int = as_size(input._data.size)
    return count


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape."""
    return input.shape == other.shape


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """Return the dtype that two tensors or numbers compute in together."""
    return _result_type(tensor1, tensor2)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether a dtype may be cast to another without leaving its category downwards."""
    return dtype_of(to).kind >= dtype_of(from_).kind


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape and equal elements (read: a trace refuses)."""
    if input.shape != other.shape:
        return False
    same = front.eq(input, other)
    return bool(front.all(same, dim=tuple(range(input.ndim)), keepdim=False))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close (see `isclose`; read: a trace refuses)."""
    single_dtype("allclose", input, other)
    near = isclose(input, other, rtol, atol, equal_nan)
    return bool(front.all(near, dim=tuple(range(near.ndim)), keepdim=False))
