"""The Tensor class completed: operators, properties and methods are bound here, once.

Functions of `tracegraph.api` whose first parameter is a tensor become methods of the same name;
`f_` in place forms are made from the functions listed in `IN_PLACE`.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegraph import modes, operators, printing
from tracegraph.api import creation, indexing, method_forms, shape
from tracegraph.api.promotion import cast
from tracegraph.autograd.differentiation import backward as _backward
from tracegraph.devices import device_of, parse_device
from tracegraph.dispatch import assign, check_writable, passed_on, refresh, set_aside
from tracegraph.dtypes import FLOAT_KIND, DType, dtype_of
from tracegraph.engine import clone, move
from tracegraph.errors import AutogradError, DTypeError, OpError
from tracegraph.functions import IN_PLACE, TENSOR_METHODS
from tracegraph.tape import AccumulateGrad, add_hook, make_leaf, set_history
from tracegraph.tensors import (
    Size,
    Tensor,
    count_write,
    dtype_of_data,
    lineage_of,
    shell,
    storage_of,
    type_of,
    wrap,
    xp_of,
)

def in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the in-place form of a function: the result overwrites the first operand."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self)
        old = shell(self)
        new = function(old, *[old if a is self else a for a in args], **kwargs)
        mine, theirs = dtype_of_data(self._data), dtype_of_data(new._data)
        if theirs is not mine:
            if theirs.kind > mine.kind:
                raise DTypeError(
                    f"result type {theirs.name.capitalize()} can't be cast to the desired output "
                    f"type {mine.name.capitalize()}"
                )
            new = cast(new, mine)
        if new._node is not None:
            kept = weakref.ref(old)
            del old
            set_aside(kept())
        return assign(self, new)

    functools.update_wrapper(method, function)
    method.__name__ = function.__name__ + "_"
    return method


def _direct(ufunc: Any, general: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """In-place arithmetic that writes straight into memory where no history is concerned."""

    def method(self: Tensor, other: Any, *, alpha: Any = 1, **kwargs: Any) -> Tensor:
        data = self._data
        b = other._data if isinstance(other, Tensor) else other
        if (
            modes.recording
            or kwargs
            or data.__class__ is not np.ndarray
            or data.dtype not in operators.FAST_FLOATS
            or (modes.GRAD.get() and not _without_history(self, other))
            or not (b.__class__ in (float, int) or getattr(b, "dtype", None) is data.dtype)
            or (b.__class__ is np.ndarray and np.broadcast_shapes(b.shape, data.shape) != data.shape)
            or not data.flags.writeable
        ):
            if alpha != 1:
                kwargs["alpha"] = alpha
            return general(self, other, **kwargs)
        with np.errstate(all="ignore"):
            ufunc(data, b if alpha == 1 else b * data.dtype.type(alpha), out=data)
        count_write(self)
        return self

    functools.update_wrapper(method, general)
    return method


def _without_history(*tensors: Any) -> bool:
    return all(
        not isinstance(t, Tensor)
        or (t._node is None and (t._lineage is None or t._lineage.node is None))
        for t in tensors
    )


# Properties and conversions.


def _requires_grad(self: Tensor) -> bool:
    refresh(self)
    return self._node is not None


def _set_requires_grad(self: Tensor, value: bool) -> None:
    requires_grad_(self, value)


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Let a leaf accumulate a gradient, or stop it.

    Raises:
        AutogradError: not a leaf; or not a floating dtype.
    """
    refresh(self)
    leaf = self._node is None or self._node.__class__ is AccumulateGrad
    if requires_grad == (self._node is not None):
        return self
    if not leaf:
        raise AutogradError(
            "you can only change requires_grad flags of leaf variables. If you want to use a "
            "computed variable in a subgraph that doesn't require differentiation use "
            "var_no_grad = var.detach()."
        )
    if requires_grad:
        if type_of(self).dtype.kind != FLOAT_KIND:
            raise AutogradError("only Tensors of floating point dtype can require gradients")
        make_leaf(self)
    else:
        set_history(self, None, 0)
    return self


def detach(self: Tensor) -> Tensor:
    """Return the same memory without history."""
    storage = storage_of(self)
    out = wrap(self._data)
    out._storage, out._chain = storage, self._chain
    if modes.recording and modes.RECORDER.get() is not None:
        modes.RECORDER.get().value_of(self)
    return out


def _get_data(self: Tensor) -> Tensor:
    """Return the same memory without history; writes through it escape the version counter."""
    out = detach(self)
    lineage_of(out).counted = False
    return out


def detach_(self: Tensor) -> Tensor:
    """Drop the history of this tensor."""
    self._node = None
    self._lineage = None
    return self


def _set_data(self: Tensor, other: Tensor) -> None:
    """Let the tensor stand for other memory, keeping its place on the tape."""
    self._data = other._data
    self._storage = storage_of(other)
    self._chain = other._chain
    self._lineage = None
    if self._node.__class__ is AccumulateGrad:
        self._node.types, self._node.shape = (type_of(self),), self._data.shape


def _get_grad(self: Tensor) -> Tensor | None:
    return self._grad


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if value is not None:
        if not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value)}")
        if value._data.shape != self._data.shape:
            raise OpError(
                f"assigned grad has data of a different size: {list(value.shape)}, expected "
                f"{list(self.shape)}"
            )
    if modes.recording and modes.RECORDER.get() is not None:
        modes.RECORDER.get().note_grad_set(self)
    self._grad = value


def _grad_fn(self: Tensor) -> Any:
    refresh(self)
    return None if self._node.__class__ is AccumulateGrad else self._node


def _is_leaf(self: Tensor) -> bool:
    refresh(self)
    return self._node is None or self._node.__class__ is AccumulateGrad


def leave_graph(t: Tensor, how: str) -> None:
    """Tell an active trace that a value leaves the graph for Python.

    Raises:
        BakeError: a trace is running and the value depends on it.
    """
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            value = t._data.item() if t._data.size == 1 else f"array of shape {t._data.shape}"
            recorder.bake(t, how, value)


def item(self: Tensor) -> Any:
    """Return the only element as a Python number.

    Raises:
        OpError: there is not exactly one element.
        BakeError: a trace is running.
    """
    leave_graph(self, "item()")
    if self._data.size != 1:
        raise OpError(f"a Tensor with {self._data.size} elements cannot be converted to Scalar")
    value = self._data.item()
    return float(value) if type_of(self).dtype.kind == FLOAT_KIND else value


def tolist(self: Tensor) -> Any:
    """Return nested lists of Python numbers."""
    leave_graph(self, "tolist()")
    data = self._data
    if type_of(self).dtype.kind == FLOAT_KIND and data.dtype.kind == "V":
        data = data.astype(np.float32)
    return data.tolist()


def numpy(self: Tensor, *, force: bool = False) -> Any:
    """Return a NumPy array that shares memory (`force` detaches and copies from a GPU first).

    Raises:
        AutogradError: the tensor requires a gradient.
        TypeError: the tensor lives on a GPU.
    """
    if not force and _requires_grad(self):
        raise AutogradError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    leave_graph(self, "numpy()")
    if xp_of(self._data) is not np:
        if not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        return self._data.get()
    return self._data


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    data = numpy(self)
    return np.array(data, dtype=dtype, copy=copy)


def _bool(self: Tensor) -> bool:
    if self._data.size != 1:
        raise OpError(
            "Boolean value of Tensor with "
            + ("no values" if self._data.size == 0 else "more than one value")
            + " is ambiguous"
        )
    leave_graph(self, "bool()")
    return bool(self._data.item())


def _int(self: Tensor) -> int:
    leave_graph(self, "int()")
    return int(self._data.item())


def _float(self: Tensor) -> float:
    leave_graph(self, "float()")
    return float(self._data.item())


def _index(self: Tensor) -> int:
    if type_of(self).dtype.kind == FLOAT_KIND or self._data.size != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    leave_graph(self, "index()")
    return int(self._data.item())


def _len(self: Tensor) -> int:
    if not self._data.shape:
        raise TypeError("len() of a 0-d tensor")
    return int(self._data.shape[0])


def _iter(self: Tensor) -> Any:
    if not self._data.shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter([self[i] for i in range(self._data.shape[0])])


def _contains(self: Tensor, value: Any) -> bool:
    return bool((self == value).any())


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the tensor in another dtype and/or on another device: `to(dtype)`, `to(device)`,
    `to(device, dtype)`, `to(other)`; itself when nothing changes.
    """  # noqa: D205
    dtype, device = kwargs.get("dtype"), kwargs.get("device")
    for a in args:
        if isinstance(a, Tensor):
            dtype, device = type_of(a).dtype, device_of(a._data)
        elif isinstance(a, DType) or a in (float, int, bool):
            dtype = a
        elif a is not None and not isinstance(a, bool):
            device = a
    out = self
    if device is not None and parse_device(device) != device_of(self._data):
        out = move(self, parse_device(device))
    if dtype is not None:
        out = cast(out, dtype_of(dtype))
    if kwargs.get("copy") and out is self:
        out = clone(self)
    return out


def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """Return the tensor itself if its memory is in row-major order, else a copy."""
    return self if self._data.flags.c_contiguous else clone(self)


def view(self: Tensor, *size: Any) -> Tensor:
    """Return the same memory under another shape.

    Raises:
        OpError: the strides do not allow it without a copy; use `reshape`.
    """
    if len(size) == 1 and isinstance(size[0], DType):
        raise DTypeError("view(dtype) is not supported; use .to(dtype) to convert values")
    wanted = shape.infer_shape(self._data.size, shape.requested(size))
    if not self._data.flags.c_contiguous and xp_of(self._data) is np:
        try:
            np.reshape(self._data, wanted, copy=False)
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
    item_bytes = self._data.dtype.itemsize
    steps = tuple(s // item_bytes for s in self._data.strides)
    return steps if dim is None else steps[dim]


def register_hook(self: Tensor, hook: Callable[[Tensor], Any]) -> Any:
    """Call `hook(grad)` when this tensor's gradient is known; its result replaces it."""
    refresh(self)
    if self._node is None:
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    return add_hook(self._node, self._index, hook)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of a non-leaf in `.grad`."""
    if _is_leaf(self):
        return
    me = weakref.ref(self)

    def keep(grad: Tensor) -> None:
        owner = me()
        if owner is not None:
            owner._grad = clone(grad) if owner._grad is None else owner._grad + grad

    register_hook(self, keep)


def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None,
    create_graph: bool = False, inputs: Any = None,
) -> None:  # fmt: skip
    """Add the gradient of this tensor with respect to every leaf to its `.grad`."""
    _backward(self, gradient, retain_graph, create_graph, inputs)


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite with `src`, broadcast and cast."""
    if not isinstance(src, Tensor):
        src = creation.tensor(src)
    new = cast(src, type_of(self).dtype)
    if device_of(new._data) != device_of(self._data):
        new = move(new, device_of(self._data))
    if new._data.shape != self._data.shape:
        new = shape.expand(new, self._data.shape)
    return assign(self, passed_on(new) if new is src else new)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite with one value."""
    self[...] = value
    return self


def zero_(self: Tensor) -> Tensor:
    """Overwrite with zeros."""
    return fill_(self, 0)


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if not _is_leaf(self):
        raise AutogradError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment."
        )
    out = type(self).__new__(type(self)) if type(self) is not Tensor else wrap(None)
    out._data = self._data.copy()
    if self._node is not None:
        make_leaf(out)
    if self._grad is not None:
        out._grad = _deepcopy(self._grad, memo)
    out.__dict__.update(self.__dict__)
    memo[id(self)] = out
    return out


def _rebuild(cls: type[Tensor], array: Any, requires_grad: bool, extra: dict[str, Any]) -> Tensor:
    out = cls.__new__(cls) if cls is not Tensor else wrap(None)
    out._data = array
    if requires_grad:
        make_leaf(out)
    out.__dict__.update(extra)
    return out


def _reduce(self: Tensor, protocol: Any) -> Any:
    leave_graph(self, "pickle")
    return (_rebuild, (type(self), self._data, _requires_grad(self), dict(self.__dict__)))


def _dlpack(self: Tensor, **options: Any) -> Any:
    leave_graph(self, "dlpack")
    return self._data.__dlpack__(**options)


def _format(self: Tensor, spec: str) -> str:
    """A 0-d tensor is formatted as its number; without a spec that is printing, no use of it."""
    if spec:
        return format(item(self), spec)
    shown = self._data.shape or not hasattr(self._data, "item")
    return str(self) if shown else str(self._data.item())


def _version(self: Tensor) -> int:
    return 0 if self._storage is None else self._storage.version


PROPERTIES: dict[str, Any] = {
    "requires_grad": property(_requires_grad, _set_requires_grad),
    "grad": property(_get_grad, _set_grad),
    "grad_fn": property(_grad_fn),
    "is_leaf": property(_is_leaf),
    "data": property(_get_data, _set_data),
    "device": property(lambda self: device_of(self._data)),
    "is_cuda": property(lambda self: device_of(self._data).type == "cuda"),
    **dict.fromkeys(
        ("is_sparse", "is_xpu", "is_mps", "is_quantized", "is_meta"), property(lambda self: False)
    ),
    "itemsize": property(lambda self: self._data.dtype.itemsize),
    "nbytes": property(lambda self: self._data.nbytes),
    "layout": property(lambda self: "strided"),
    "T": property(lambda self: shape.permute(self, tuple(reversed(range(self.ndim))))),
    "mT": property(lambda self: shape.transpose(self, -2, -1)),
    "_version": property(_version),
    "output_nr": property(lambda self: self._index),
}

def graph(self: Tensor) -> Any:
    """Return the IR of what eager has recorded on the way to this tensor; see `history`."""
    from tracegraph.history import graph_of

    return graph_of(self)


METHODS: dict[str, Any] = {
    "graph": graph,
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__repr__": printing.tensor_repr,
    "__array__": _array,
    "__bool__": _bool,
    "__int__": _int,
    "__float__": _float,
    "__index__": _index,
    "__len__": _len,
    "__iter__": _iter,
    "__contains__": _contains,
    "__deepcopy__": _deepcopy,
    "__reduce_ex__": _reduce,
    "__dlpack__": _dlpack,
    "__dlpack_device__": lambda self: self._data.__dlpack_device__(),
    "__format__": _format,
    "requires_grad_": requires_grad_,
    "detach": detach,
    "detach_": detach_,
    "clone": lambda self, memory_format=None: clone(self),
    "item": item,
    "tolist": tolist,
    "numpy": numpy,
    "to": to,
    "cpu": lambda self: to(self, "cpu"),
    "cuda": lambda self, device=None, non_blocking=False: to(self, device or "cuda"),
    "contiguous": contiguous,
    "is_contiguous": lambda self, memory_format=None: bool(self._data.flags.c_contiguous),
    "view": view,
    "view_as": lambda self, other: view(self, other.shape),
    "size": size,
    "dim": lambda self: self.ndim,
    "ndimension": lambda self: self.ndim,
    "numel": lambda self: int(self._data.size),
    "nelement": lambda self: int(self._data.size),
    "element_size": lambda self: self._data.dtype.itemsize,
    "stride": stride,
    "data_ptr": lambda self: int(self._data.ctypes.data),
    "storage_offset": lambda self: 0,
    "register_hook": register_hook,
    "retain_grad": retain_grad,
    "backward": backward,
    "copy_": copy_,
    "fill_": fill_,
    "zero_": zero_,
    "is_floating_point": lambda self: type_of(self).dtype.is_floating_point,
    "is_complex": lambda self: False,
    "is_signed": lambda self: type_of(self).dtype.is_signed,
    "type_as": lambda self, other: cast(self, type_of(other).dtype),
    "get_device": lambda self: -1 if self.device.type == "cpu" else self.device.index or 0,
}

_CASTS = {
    "float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16",
    "long": "int64", "int": "int32", "short": "int16", "char": "int8", "byte": "uint8",
    "bool": "bool",
}  # fmt: skip


def _caster(name: str) -> Any:
    dtype = dtype_of(name)

    def method(self: Tensor) -> Tensor:
        return cast(self, dtype)

    method.__doc__ = f"Return the tensor as {name}."
    return method


def _tensor_first(function: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(function).parameters)
    return bool(parameters) and parameters[0] in ("input", "self", "tensor", "x")


def complete(cls: type[Tensor]) -> None:
    """Bind everything to the class."""
    operators.bind(cls)
    for name, function in TENSOR_METHODS.items():
        if _tensor_first(function):
            setattr(cls, name, function)
            if name in IN_PLACE:
                setattr(cls, name + "_", in_place(function))
    for name, value in {**method_forms.METHODS, **PROPERTIES, **METHODS}.items():
        setattr(cls, name, value)
    for name, dtype_name in _CASTS.items():
        setattr(cls, name, _caster(dtype_name))
    for name, ufunc in (
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.true_divide)
    ):  # fmt: skip
        setattr(cls, name + "_", _direct(ufunc, in_place(getattr(cls, name))))
    for name, base in (
        ("iadd", "add_"), ("isub", "sub_"), ("imul", "mul_"), ("itruediv", "div_"),
        ("ipow", "pow_"), ("iand", "bitwise_and_"), ("ior", "bitwise_or_"),
        ("ixor", "bitwise_xor_"), ("ifloordiv", "floor_divide_"), ("imod", "remainder_"),
    ):  # fmt: skip
        setattr(cls, f"__{name}__", getattr(cls, base))


complete(Tensor)
