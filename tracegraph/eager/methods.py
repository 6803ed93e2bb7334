"""The Tensor class completed: operators, properties and methods are bound here, once.

Functions of `tracegraph.api` whose first parameter is a tensor become methods of the same name;
`f_` in place forms are made from the functions listed in `IN_PLACE`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegraph.api import indexing, method_forms, rearrangement, shape, storages
from tracegraph.api.constants import strided
from tracegraph.api.functions import IN_PLACE, TENSOR_METHODS
from tracegraph.api.promotion import converted
from tracegraph.devices import device_of
from tracegraph.dims.symint import as_size
from tracegraph.dtypes import dtype_of
from tracegraph.eager import conversion, leaves, numpy_calls, operators, printing, writing
from tracegraph.eager.tensors import (
    Tensor,
    type_of,
)
from tracegraph.ops.parameters import parameter_names

PROPERTIES: dict[str, Any] = {
    "requires_grad": property(leaves.read_requires_grad, leaves.set_requires_grad),
    "grad": property(leaves.get_grad, leaves.set_grad),
    "grad_fn": property(leaves.grad_fn),
    "retains_grad": property(leaves.retains_grad),
    "is_leaf": property(leaves.is_leaf),
    "data": property(leaves.get_data, leaves.set_data),
    "device": property(lambda self: device_of(self._data)),
    "is_cuda": property(lambda self: device_of(self._data).type == "cuda"),
    **dict.fromkeys(
        (
            "is_sparse_csr",
            "is_nested",
            "is_mkldnn",
            "is_quantized",
            "is_meta",
            "is_xpu",
            "is_mps",
            "is_ipu",
            "is_vulkan",
            "is_maia",
            "volatile",
        ),
        property(lambda self: False),
    ),
    "is_sparse": False,
    "itemsize": property(lambda self: self._data.dtype.itemsize),
    "nbytes": property(lambda self: self._data.nbytes),
    "layout": property(lambda self: strided),
    "T": property(lambda self: shape.permute(self, tuple(reversed(range(self.ndim))))),
    "mT": property(lambda self: shape.transpose(self, -2, -1)),
    "_version": property(leaves.version),
    "output_nr": property(lambda self: self._index),
}


def _to_sparse(self: Tensor, sparse_dim: int | None = None, *, layout: Any = None) -> Tensor:
    """Return the nonzero elements with their places; `sparse_dim` of 1 keeps whole rows."""
    from tracegraph.sparse.tensor import to_sparse

    return to_sparse(self, sparse_dim, layout=layout)


def _sparse_mask(self: Tensor, mask: Tensor) -> Tensor:
    """Return the elements at the places of a sparse tensor, as another sparse tensor."""
    from tracegraph.sparse.tensor import sparse_mask

    return sparse_mask(self, mask)


METHODS: dict[str, Any] = {
    "graph": leaves.graph,
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__repr__": printing.tensor_repr,
    "__array__": conversion.to_array,
    "__array_ufunc__": numpy_calls.array_ufunc,
    "__array_wrap__": numpy_calls.array_wrap,
    "__bool__": conversion.to_bool,
    "__int__": conversion.to_int,
    "__float__": conversion.to_float,
    "__complex__": conversion.to_complex,
    "__index__": conversion.to_index,
    "__len__": conversion.length,
    "__iter__": conversion.iterate,
    "__contains__": conversion.contains,
    "__reversed__": lambda self: rearrangement.flip(self, *range(self.ndim)),
    "__copy__": conversion.shallow_copy,
    "__deepcopy__": conversion.deepcopy,
    "__reduce_ex__": conversion.reduce_ex,
    "__dlpack__": conversion.to_dlpack,
    "__dlpack_device__": lambda self: self._data.__dlpack_device__(),
    "__format__": conversion.formatted,
    "requires_grad_": leaves.requires_grad_,
    "detach": leaves.detach,
    "detach_": leaves.detach_,
    "clone": conversion.duplicate,
    "item": conversion.item,
    "tolist": conversion.tolist,
    "numpy": conversion.numpy,
    "to": conversion.to,
    "cpu": lambda self: conversion.to(self, "cpu"),
    "cuda": lambda self, device=None, non_blocking=False: conversion.to(self, device or "cuda"),
    "contiguous": conversion.contiguous,
    "is_contiguous": lambda self, memory_format=None: bool(self._data.flags.c_contiguous),
    "view": conversion.view,
    "view_as": lambda self, other: conversion.view(self, other.shape),
    "size": conversion.size,
    "dim": lambda self: self.ndim,
    "ndimension": lambda self: self.ndim,
    "numel": lambda self: as_size(self._data.size),
    "nelement": lambda self: as_size(self._data.size),
    "element_size": lambda self: self._data.dtype.itemsize,
    "stride": conversion.stride,
    "data_ptr": lambda self: int(self._data.ctypes.data),
    "split": lambda self, split_size, dim=0: shape.split(self, split_size, dim),
    "storage_offset": conversion.storage_offset,
    "storage": storages.storage,
    "untyped_storage": storages.untyped_storage,
    "register_hook": leaves.register_hook,
    "retain_grad": leaves.retain_grad,
    "register_post_accumulate_grad_hook": leaves.register_post_accumulate_grad_hook,
    "backward": leaves.backward,
    "copy_": writing.copy_,
    "fill_": writing.fill_,
    "zero_": writing.zero_,
    "is_floating_point": lambda self: type_of(self).dtype.is_floating_point,
    "is_signed": lambda self: type_of(self).dtype.is_signed,
    "type_as": lambda self, other: converted(self, type_of(other).dtype),
    "to_sparse": _to_sparse,
    "to_sparse_coo": _to_sparse,
    "sparse_mask": _sparse_mask,
    "get_device": lambda self: -1 if self.device.type == "cpu" else self.device.index or 0,
}


_CASTS = {
    "float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16",
    "long": "int64", "int": "int32", "short": "int16", "char": "int8", "byte": "uint8",
    "bool": "bool", "cfloat": "complex64", "cdouble": "complex128",
}  # fmt: skip


def _caster(name: str) -> Any:
    dtype = dtype_of(name)

    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return conversion.formatted_as(converted(self, dtype), self, memory_format)

    method.__doc__ = f"Return the tensor as {name}."
    return method


def _tensor_first(function: Callable[..., Any]) -> bool:
    parameters = parameter_names(function)
    return bool(parameters) and parameters[0] in ("input", "self", "tensor", "x")


def complete(cls: type[Tensor]) -> None:
    """Bind everything to the class."""
    operators.bind(cls)
    for name, function in TENSOR_METHODS.items():
        if _tensor_first(function):
            setattr(cls, name, function)
            if name in IN_PLACE:
                setattr(cls, name + "_", writing.in_place(function))
    for members in (method_forms.METHODS, method_forms.PROPERTIES, PROPERTIES, METHODS):
        for name, value in members.items():
            setattr(cls, name, value)
    for name, dtype_name in _CASTS.items():
        setattr(cls, name, _caster(dtype_name))
    for name, ufunc in (
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.true_divide)
    ):  # fmt: skip
        setattr(
            cls, name + "_", writing.direct_in_place(ufunc, writing.in_place(getattr(cls, name)))
        )
    for name, base in (
        ("iadd", "add_"), ("isub", "sub_"), ("imul", "mul_"), ("itruediv", "div_"),
        ("ipow", "pow_"), ("iand", "bitwise_and_"), ("ior", "bitwise_or_"),
        ("ixor", "bitwise_xor_"), ("ifloordiv", "floor_divide_"), ("imod", "remainder_"),
    ):  # fmt: skip
        setattr(cls, f"__{name}__", getattr(cls, base))


complete(Tensor)
