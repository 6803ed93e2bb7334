"""What programs ask of a tensor's memory: where it is and how large. It cannot be written."""

from __future__ import annotations

from typing import Any

from tracegraph.devices import Device, device_of
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.tensors import Tensor, storage_of


class UntypedStorage:
    """The bytes that a tensor and the views that share memory with it lie in."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def data_ptr(self) -> int:
        """Return the address of the first byte."""
        return int(self._array.ctypes.data)

    def nbytes(self) -> int:
        """Return the number of bytes."""
        return int(self._array.nbytes)

    def size(self) -> int:
        """Return the number of elements."""
        return self.nbytes() // self.element_size()

    def element_size(self) -> int:
        """Return the bytes of an element."""
        return 1

    def __len__(self) -> int:
        return self.size()

    @property
    def device(self) -> Device:
        """Where the memory is."""
        return device_of(self._array)

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is a GPU's."""
        return self.device.type == "cuda"


class TypedStorage(UntypedStorage):
    """The elements of such memory."""

    def element_size(self) -> int:
        """Return the bytes of an element."""
        return int(self._array.dtype.itemsize)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return dtype_of(self._array.dtype)

    def untyped(self) -> UntypedStorage:
        """Return the same memory as bytes."""
        return UntypedStorage(self._array)


def untyped_storage(self: Tensor) -> UntypedStorage:
    """Return the memory that the tensor is a view of, as bytes."""
    return UntypedStorage(storage_of(self).array)


def storage(self: Tensor) -> TypedStorage:
    """Return the memory that the tensor is a view of, as elements."""
    return TypedStorage(storage_of(self).array)
