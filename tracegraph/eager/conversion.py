"""Tensors to Python, NumPy, other dtypes, devices and layouts.

What leaves the graph for Python (`item`, `bool`, `numpy`, ...) tells an active trace first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.api import shape
from tracegraph.api.constants import contiguous_format, preserve_format
from tracegraph.api.promotion import converted
from tracegraph.devices import device_of, parse_device
from tracegraph.dims.shapes import hints
from tracegraph.dims.symint import fix
from tracegraph.dtypes import COMPLEX_KIND, FLOAT_KIND, DType, dtype_of
from tracegraph.eager import modes
from tracegraph.eager.engine import clone, in_rows, move
from tracegraph.eager.leaves import is_leaf, requires_grad
from tracegraph.eager.storage import (
    ROWS,
    AbstractArray,
    SymbolicArray,
    bare,
    fresh,
    lend,
    unseen_of,
)
from tracegraph.eager.tape import make_leaf
from tracegraph.eager.tensors import (
    Size,
    Tensor,
    shell,
    storage_of,
    type_of,
    wrap,
    xp_of,
)
from tracegraph.errors import AutogradError, DTypeError, OpError
from tracegraph.ops.memory_order import is_channels_last

# Elements of a list that a trace guards one by one.
_MAX_GUARDS = 64


def leave_graph(t: Tensor, how: str) -> Any:
    """Return the array that Python reads where a value leaves the graph; a trace is told.

    Raises:
        BakeError: a trace is running that does not allow this value to be frozen.
    """
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            return recorder.bake(t, how)
    return t._data


def decided(t: Tensor, outcome: Any) -> Any:
    """Return a bool or int that was read from a tensor, after an active trace has noted it."""
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.decide(t, outcome)
    return outcome


def item(self: Tensor) -> Any:
    """Return the only element as a Python number.

    In a trace a bool or integer becomes a guard: replays must find the same.

    Raises:
        OpError: there is not exactly one element.
        BakeError: a trace is running and the element is a float.
    """
    if self._data.size != 1:
        raise OpError(f"a Tensor with {self._data.size} elements cannot be converted to Scalar")
    kind = type_of(self).dtype.kind
    if kind < FLOAT_KIND:
        return decided(self, self._data.item())
    number = leave_graph(self, "item()").item()
    return number if kind == COMPLEX_KIND else float(number)


def tolist(self: Tensor) -> Any:
    """Return nested lists of Python numbers.

    In a trace a few bools or integers become guards: replays must find the same.

    Raises:
        BakeError: a trace is running, and the elements are floats or many.
    """
    data = bare(self._data)
    if modes.recording and type_of(self).dtype.kind < FLOAT_KIND and data.size <= _MAX_GUARDS:
        for n in self._data.shape:
            fix(n)
        flat = self.reshape(-1)
        for i in range(data.size):
            item(flat[i])
    else:
        data = leave_graph(self, "tolist()")
    if type_of(self).dtype.kind == FLOAT_KIND and data.dtype.kind == "V":
        data = data.astype(np.float32)
    return data.tolist()


def numpy(self: Tensor, *, force: bool = False) -> Any:
    """Return a NumPy array that shares memory (`force` detaches and copies from a GPU first).

    Raises:
        AutogradError: the tensor requires a gradient.
        TypeError: the tensor lives on a GPU.
    """
    if not force and requires_grad(self):
        raise AutogradError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    data = leave_graph(self, "numpy()")
    if xp_of(data) is not np:
        if not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        return data.get()
    if data is not self._data:
        data.flags.writeable = False  # a write would not reach the graph
        return data
    return lend(storage_of(self), data)


def to_array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    """The array that NumPy sees."""
    data = numpy(self)
    return np.array(data, dtype=dtype, copy=copy)


def to_bool(self: Tensor) -> bool:
    """The truth of a single element."""
    if self._data.size != 1:
        raise OpError(
            "Boolean value of Tensor with "
            + ("no values" if self._data.size == 0 else "more than one value")
            + " is ambiguous"
        )
    return decided(self, bool(self._data.item()))


def to_int(self: Tensor) -> int:
    """The only element as an int."""
    return decided(self, int(self._data.item()))


def to_float(self: Tensor) -> float:
    """The only element as a float."""
    return float(leave_graph(self, "float()").item())


def to_complex(self: Tensor) -> complex:
    """The only element as a complex number."""
    return complex(leave_graph(self, "complex()").item())


def to_index(self: Tensor) -> int:
    """The only element as an index."""
    if type_of(self).dtype.kind >= FLOAT_KIND or self._data.size != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return decided(self, int(self._data.item()))


def length(self: Tensor) -> int:
    """The size of the first dim."""
    if not self._data.shape:
        raise TypeError("len() of a 0-d tensor")
    return fix(self._data.shape[0])


def iterate(self: Tensor) -> Any:
    """Iterate over the first dim."""
    if not self._data.shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter([self[i] for i in range(fix(self._data.shape[0]))])


def contains(self: Tensor, value: Any) -> bool:
    """Whether any element equals a value."""
    return bool((self == value).any())


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the tensor in another dtype and/or on another device: `to(dtype)`, `to(device)`,
    `to(device, dtype)`, `to(other)`; itself when nothing changes.
    """  # noqa: D205
    dtype, device = kwargs.get("dtype"), kwargs.get("device")
    for a in args:
        if isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
        elif isinstance(a, DType) or a in (float, int, bool, complex):
            dtype = a
        elif a is not None and not isinstance(a, bool):
            device = a
    out = self
    if device is not None and parse_device(device) != device_of(self._data):
        out = move(self, parse_device(device))
    if dtype is not None:
        out = converted(out, dtype_of(dtype))
    if kwargs.get("copy") and out is self:
        out = clone(self)
    return formatted_as(out, self, kwargs.get("memory_format"))


def formatted_as(out: Tensor, origin: Tensor, memory_format: Any) -> Tensor:
    """Return what became of a tensor in rows if a format was asked for.

    As in PyTorch, `contiguous_format` alone changes no tensor but a batch of images with their
    channels side by side.
    """
    if memory_format in (None, preserve_format):
        return out
    same = out is origin and memory_format is contiguous_format
    return out if same and not is_channels_last(bare(out._data)) else contiguous(out)


def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """Return the tensor itself if its memory is in row-major order, else a copy."""
    out = in_rows(self)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.layouts.in_rows(self, out)
    return out


def duplicate(self: Tensor, memory_format: Any = None) -> Tensor:
    """Return a copy, laid out in memory alike or in rows."""
    if memory_format is None or memory_format is preserve_format:
        return clone(self)
    return clone(self, ROWS)


def view(self: Tensor, *shape_: Any, size: Any = None) -> Tensor:
    """Return the same memory under another shape.

    Raises:
        OpError: the strides do not allow it without a copy; use `reshape`.
    """
    if len(shape_) == 1 and isinstance(shape_[0], DType):
        raise DTypeError("view(dtype) is not supported; use .to(dtype) to convert values")
    requested = shape.requested(shape_ if size is None else (size,))
    wanted = shape.infer_shape(self._data.size, requested)
    if not self._data.flags.c_contiguous and xp_of(self._data) is np:
        try:
            np.reshape(bare(self._data), hints(wanted), copy=False)
        except ValueError:
            raise OpError(
                "view size is not compatible with input tensor's size and stride (at least one "
                "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
            ) from None
    return shape.reshape(self, wanted)


def size(self: Tensor, dim: int | None = None) -> Any:
    """Return the shape, or one size of it."""
    return Size(self._data.shape) if dim is None else self.shape[dim]


def stride(self: Tensor, dim: int | None = None) -> Any:
    """Return steps between elements along each dim, in elements."""
    steps = _strides(self._data)
    return steps if dim is None else steps[dim]


def storage_offset(self: Tensor) -> int:
    """Return where the tensor begins in its memory, in elements."""
    data = bare(self._data)
    if not self._chain or data.__class__ is AbstractArray or not data.size:
        return 0
    whole = bare(storage_of(self).array)
    places = (a.ctypes.data if isinstance(a, np.ndarray) else a.data.ptr for a in (data, whole))
    return int((next(places) - next(places)) // data.itemsize)


def _strides(data: Any) -> tuple[int, ...]:
    if data.__class__ is SymbolicArray:
        if data.flags.c_contiguous:
            return tuple(math.prod(data.shape[i + 1 :]) for i in range(data.ndim))
        for n in data.shape:  # the steps of a view follow from sizes that it does not know
            fix(n)
    return tuple(s // data.dtype.itemsize for s in bare(data).strides)


def deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Copy memory, leaf state, gradient and attributes."""
    if not is_leaf(self):
        raise AutogradError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment."
        )
    out = type(self).__new__(type(self)) if type(self) is not Tensor else wrap(None)
    out._data = fresh(self._data)
    if self._node is not None:
        make_leaf(out)
    if self._grad is not None:
        out._grad = deepcopy(self._grad, memo)
    out.__dict__.update(self.__dict__)
    memo[id(self)] = out
    return out


def shallow_copy(self: Tensor) -> Tensor:
    """Return another tensor over the same memory, a leaf where this is one."""
    out = shell(self)
    out._node, out._lineage = None, None
    out.__class__ = type(self)
    if requires_grad(self):
        make_leaf(out)
    out.__dict__.update(self.__dict__)
    return out


def _rebuild(cls: type[Tensor], array: Any, requires_grad: bool, extra: dict[str, Any]) -> Tensor:
    out = cls.__new__(cls) if cls is not Tensor else wrap(None)
    out._data = array
    if requires_grad:
        make_leaf(out)
    out.__dict__.update(extra)
    return out


def reduce_ex(self: Tensor, protocol: Any) -> Any:
    """What pickle keeps: array, leaf state, attributes."""
    data = leave_graph(self, "pickle")
    return (_rebuild, (type(self), data, requires_grad(self), dict(self.__dict__)))


def to_dlpack(self: Tensor, **options: Any) -> Any:
    """Export through the DLPack protocol."""
    data = leave_graph(self, "dlpack")
    if data is not self._data:
        return data.__dlpack__(**options)
    if xp_of(data) is np:
        return lend(storage_of(self), data).__dlpack__(**options)
    unseen_of(storage_of(self)).borrowed = True
    return data.__dlpack__(**options)


def formatted(self: Tensor, spec: str) -> str:
    """A 0-d tensor is formatted as its number; without a spec that is printing, no use of it."""
    if spec:
        return format(item(self), spec)
    shown = self._data.shape or not hasattr(self._data, "item")
    return str(self) if shown else str(self._data.item())
