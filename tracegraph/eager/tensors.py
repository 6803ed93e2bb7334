"""Tensor: an eager array with history. Operators and methods are bound in `methods.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracegraph.dtypes import BY_NUMPY, DType
from tracegraph.eager import modes
from tracegraph.eager.storage import (
    AbstractArray,
    Chain,
    Lineage,
    Storage,
    SymbolicArray,
    unseen_of,
)
from tracegraph.tensor_type import TensorType

if TYPE_CHECKING:
    from tracegraph.eager.tape import Node

_allocate = object.__new__
_make = tuple.__new__  # a NamedTuple's own takes keywords, and twice the time


class Size(tuple[int, ...]):
    """A shape: a tuple of ints that also has `numel()`."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements."""
        size = 1
        for n in self:
            size *= n
        return size

    def __repr__(self) -> str:
        return f"tracegraph.Size({list(self)})"

    def __getitem__(self, key: Any) -> Any:
        item = tuple.__getitem__(self, key)
        return Size(item) if isinstance(item, tuple) else item

    def __add__(self, other: Any) -> Any:
        return Size(tuple(self) + tuple(other))


class Tensor:
    """An n-dimensional array with PyTorch's semantics.

    `Tensor(data)` copies data as float32, `Tensor(2, 3)` is an uninitialised float32 array; prefer
    `tracegraph.tensor` and the creation functions.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_chain", "_data", "_grad", "_index", "_lineage", "_node",
        "_seen", "_storage",
    )  # fmt: skip

    _data: Any
    _node: Node | None
    _index: int
    _storage: Storage | None
    _chain: Chain
    _lineage: Lineage | None
    _seen: int
    _grad: Tensor | None

    __array_priority__ = 1000

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __pow__(self, other: Any) -> Any: ...
        def __matmul__(self, other: Any) -> Any: ...
        def __neg__(self) -> Any: ...
        def __getitem__(self, key: Any) -> Any: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...
        def __hash__(self) -> int: ...
        def __iter__(self) -> Any: ...
        def __gt__(self, other: Any) -> Any: ...
        def __lt__(self, other: Any) -> Any: ...
        def __ge__(self, other: Any) -> Any: ...
        def __le__(self, other: Any) -> Any: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """Return a tensor of `data`, or of the given sizes; subclasses fill themselves."""
        if cls is Tensor:
            from tracegraph.api.legacy import legacy_tensor

            return legacy_tensor(*args, **kwargs)
        made = _allocate(cls)
        _clear(made)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    @property
    def dtype(self) -> DType:
        """The element type."""
        return dtype_of_data(self._data)

    @property
    def shape(self) -> Size:
        """The shape."""
        return Size(self._data.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._data.shape)

    @property
    def type_(self) -> TensorType:
        """dtype and shape as the IR has them."""
        return type_of(self)


def _clear(t: Tensor) -> None:
    t._node = None
    t._index = 0
    t._storage = None
    t._chain = ()
    t._lineage = None
    t._seen = 0
    t._grad = None


def wrap(data: Any) -> Tensor:
    """Return a fresh Tensor over an array (not copied), without history."""
    t = _allocate(Tensor)
    t._data = data
    t._node = None
    t._index = 0
    t._storage = None
    t._chain = ()
    t._lineage = None
    t._seen = 0
    t._grad = None
    return t


def dtype_of_data(data: Any) -> DType:
    """Return the DType of an array or AbstractArray."""
    if data.__class__ is AbstractArray:
        dtype: DType = data.type.dtype
        return dtype
    return BY_NUMPY[data.dtype]


def type_of_data(data: Any) -> TensorType:
    """Return dtype and shape of an array or AbstractArray."""
    if data.__class__ is AbstractArray:
        known: TensorType = data.type
        return known
    return _make(TensorType, (BY_NUMPY[data.dtype], data.shape))


def type_of(t: Tensor) -> TensorType:
    """Return dtype and shape of a Tensor."""
    return type_of_data(t._data)


def xp_of(data: Any) -> Any:
    """Return the array module (NumPy or CuPy) that an array belongs to."""
    if isinstance(data, (np.ndarray, np.generic)):
        return np
    if isinstance(data, SymbolicArray):
        return xp_of(data.array)
    import cupy

    return cupy


def storage_of(t: Tensor) -> Storage:
    """Return the Storage of a Tensor, made at first need."""
    storage = t._storage
    if storage is None:
        storage = t._storage = Storage(t._data)
    return storage


def count_write(t: Tensor) -> None:
    """Note that the memory of a Tensor was written; through `x.data` autograd does not see it."""
    if t._lineage is None or t._lineage.counted:
        storage_of(t).version += 1
    else:
        unseen_of(storage_of(t)).count += 1


def lineage_of(t: Tensor) -> Lineage:
    """Return the Lineage of a Tensor, made at first need."""
    lineage = t._lineage
    if lineage is None:
        storage_of(t)
        lineage = t._lineage = Lineage(t._node, t._index, len(t._chain), t._data)
        t._seen = 0
    return lineage


def shell(t: Tensor) -> Tensor:
    """Return another Tensor object for the same array, storage and history."""
    other = wrap(t._data)
    other._node, other._index = t._node, t._index
    other._storage, other._chain = storage_of(t), t._chain
    other._lineage, other._seen = t._lineage, t._seen
    return other


def grad_enabled() -> bool:
    """Whether gradients are being recorded in this context."""
    return modes.GRAD.get()
