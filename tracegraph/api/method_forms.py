"""Methods of tensors that are no functions, or whose arguments stand in another order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracegraph.api import complex_numbers, creation, special
from tracegraph.api.contraction import matmul
from tracegraph.api.legacy import construct
from tracegraph.api.pointwise import where
from tracegraph.api.promotion import converted
from tracegraph.api.rearrangement import strided_places
from tracegraph.api.reduction import sum
from tracegraph.api.selection import narrow
from tracegraph.api.shape import expand, reshape, squeeze, t, transpose, unsqueeze
from tracegraph.devices import device_of
from tracegraph.dtypes import dtype_of, get_default_dtype
from tracegraph.eager.dispatch import check_writable, front
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import ROWS
from tracegraph.eager.tensors import Tensor, shell, type_of
from tracegraph.errors import OpError, SparseError

# New tensors of the dtype and device of this one.


def _beside(self: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    if options.get("dtype") is None:
        options["dtype"] = type_of(self).dtype
    if options.get("device") is None:
        options["device"] = device_of(self._data)
    return options


def new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
    """Return a tensor with a copy of `data`."""
    return creation.tensor(data, **_beside(self, options))


def new_zeros(self: Tensor, *size: Any, **options: Any) -> Tensor:
    """Return zeros of a shape."""
    return creation.zeros(*size, **_beside(self, options))


def new_ones(self: Tensor, *size: Any, **options: Any) -> Tensor:
    """Return ones of a shape."""
    return creation.ones(*size, **_beside(self, options))


def new_empty(self: Tensor, *size: Any, **options: Any) -> Tensor:
    """Return a tensor to be overwritten."""
    return creation.empty(*size, **_beside(self, options))


def new_empty_strided(self: Tensor, size: Any, stride: Any, **options: Any) -> Tensor:
    """Return a tensor to be overwritten; memory is row-major whatever the steps asked for."""
    return creation.empty(size, **_beside(self, options))


def new_full(self: Tensor, size: Any, fill_value: Any, **options: Any) -> Tensor:
    """Return a tensor of one value."""
    return creation.full(size, fill_value, **_beside(self, options))


def new(self: Tensor, *args: Any, **options: Any) -> Tensor:
    """Return a tensor of a shape (to be overwritten) or with data: the oldest spelling."""
    device = options.pop("device", None) or device_of(self._data)
    return construct(type_of(self).dtype, device, args, **options)


# Shapes taken from another tensor.


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Return a view expanded to the shape of another tensor."""
    return expand(self, other.shape)


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """Return the same elements under the shape of another tensor."""
    return reshape(self, other.shape)


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Sum the dims that broadcasting would have added to a shape."""
    shape = creation.shape_of(size)
    if not shape:
        return sum(self)
    extra = self.ndim - len(shape)
    if extra < 0 or any(n not in (1, self.shape[i + extra]) for i, n in enumerate(shape)):
        raise OpError(f"size {list(shape)} is not expandable to size {list(self.shape)}.")
    dims = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and self.shape[i + extra] != 1
    )
    return reshape(sum(self, dims, True) if dims else self, shape)


# Views in place: the tensor itself gets another shape over its memory.


def _in_place_view(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return become(self, function(shell(self), *args, **kwargs))

    method.__name__ = function.__name__ + "_"
    method.__doc__ = f"In place: {function.__doc__}"
    return method


def become(self: Tensor, other: Tensor) -> Tensor:
    """Let a tensor stand for another one's memory, shape and history."""
    check_writable(self)
    for name in ("_data", "_node", "_index", "_storage", "_chain", "_lineage", "_seen"):
        setattr(self, name, getattr(other, name))
    return self


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape; elements are kept in row-major order, new ones are 0.

    Raises:
        OpError: the tensor requires a gradient.
    """
    if self._node is not None:
        raise OpError("cannot resize variables that require grad")
    shape = creation.shape_of(sizes)
    flat = reshape(shell(self), (-1,))
    size = math.prod(shape)
    if size > flat.shape[0]:
        flat = front.pad(flat, pads=((0, size - flat.shape[0]),), value=0)
    return become(self, reshape(flat[:size], shape))


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Write one number on the main diagonal of a matrix."""
    if self.ndim != 2 or wrap:
        raise OpError("fill_diagonal_ is implemented for matrices, without wrap")
    self.diagonal().fill_(fill_value)
    return self


def type_method(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Return the name of the tensor's type, or the tensor in another dtype."""
    if dtype is None:
        return "torch." + _TYPE_NAMES[type_of(self).dtype.name]
    if isinstance(dtype, str):
        wanted = dtype.removeprefix("torch.").removeprefix("cuda.")
        names = {shown: name for name, shown in _TYPE_NAMES.items()}
        return converted(self, dtype_of(names.get(wanted, wanted)))
    if dtype is Tensor:
        return converted(self, get_default_dtype())
    return converted(self, dtype_of(getattr(dtype, "dtype", dtype)))


_TYPE_NAMES = {
    "float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor", "int64": "LongTensor", "int32": "IntTensor",
    "int16": "ShortTensor", "int8": "CharTensor", "uint8": "ByteTensor", "bool": "BoolTensor",
    "complex64": "ComplexFloatTensor", "complex128": "ComplexDoubleTensor",
    "uint16": "UInt16Tensor", "uint32": "UInt32Tensor", "uint64": "UInt64Tensor",
}  # fmt: skip


def _rmatmul(self: Tensor, other: Any) -> Any:
    return matmul(other, self) if isinstance(other, Tensor) else NotImplemented


def _matmul(self: Tensor, other: Any) -> Any:
    try:
        return matmul(self, other) if isinstance(other, Tensor) else NotImplemented
    except SparseError:
        return NotImplemented  # the operator of the sparse operand is asked next


PROPERTIES: dict[str, Any] = {
    **complex_numbers.PROPERTIES,
    "is_cpu": property(lambda self: device_of(self._data).type == "cpu"),
}


def as_strided_scatter(
    self: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """Return the tensor with `src` written at places in memory given by steps per dim."""
    places = strided_places(self, tuple(size), tuple(stride), storage_offset or 0)
    flat = front.index_put(reshape(self, (-1,)), src, places, dims=(0,), accumulate=False)
    return reshape(flat, self.shape)


def _elementwise_in_python(self: Tensor, function: Callable[..., Any], *others: Tensor) -> Tensor:
    """Overwrite each element with a Python function of it (and of those beside it)."""
    if self._node is not None:
        raise OpError("apply_ and map_ cannot be used on a tensor that requires a gradient")
    columns = [t.expand(self.shape).reshape(-1).tolist() for t in (self, *others)]
    values = [function(*items) for items in zip(*columns, strict=True)]
    return self.copy_(new_tensor(self, values).reshape(self.shape))


def as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """Return the same memory and history as an object of a subclass of Tensor."""
    other = shell(self)
    made = cls.__new__(cls)
    for name in ("_data", "_node", "_index", "_storage", "_chain", "_lineage", "_seen", "_grad"):
        setattr(made, name, getattr(other, name))
    return made


def set_(self: Tensor, source: Any = None) -> Tensor:
    """Let the tensor stand for the memory of another one; without one, for no elements."""
    if self._node is not None:
        raise OpError("set_ cannot be used on a tensor that requires a gradient")
    return become(self, new_empty(self, 0) if source is None else shell(source))


METHODS: dict[str, Callable[..., Any]] = {
    "__matmul__": _matmul,
    "__rmatmul__": _rmatmul,
    "new": new,
    "new_tensor": new_tensor,
    "new_zeros": new_zeros,
    "new_ones": new_ones,
    "new_empty": new_empty,
    "new_empty_strided": new_empty_strided,
    "new_full": new_full,
    "expand_as": expand_as,
    "reshape_as": reshape_as,
    "sum_to_size": sum_to_size,
    "where": lambda self, condition, other: where(condition, self, other),
    "polygamma": lambda self, n: special.polygamma(n, self),
    "transpose_": _in_place_view(transpose),
    "swapaxes_": _in_place_view(transpose),
    "swapdims_": _in_place_view(transpose),
    "t_": _in_place_view(t),
    "squeeze_": _in_place_view(squeeze),
    "unsqueeze_": _in_place_view(unsqueeze),
    "resize_": resize_,
    "resize_as_": lambda self, other, memory_format=None: resize_(self, other.shape),
    "fill_diagonal_": fill_diagonal_,
    "type": type_method,
    "as_strided_scatter": as_strided_scatter,
    "apply_": lambda self, callable: _elementwise_in_python(self, callable),
    "map_": lambda self, tensor, callable: _elementwise_in_python(self, callable, tensor),
    "map2_": lambda self, x, y, callable: _elementwise_in_python(self, callable, x, y),
    "as_subclass": as_subclass,
    "narrow_copy": lambda self, dim, start, length: clone(narrow(self, dim, start, length), ROWS),
    "set_": set_,
    "record_stream": lambda self, stream: None,
    "pin_memory": lambda self, device=None: self,
    "is_pinned": lambda self, device=None: False,
    "share_memory_": lambda self: self,
    "is_shared": lambda self: False,
    "is_inference": lambda self: False,
    "to_dense": lambda self, dtype=None: self,
}
"""Bound to Tensor by `eager/methods.py`."""
