"""TensorType: dtype and shape of a Value, and the arithmetic of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tracegraph.dtypes import DType
from tracegraph.errors import OpError

Shape = tuple[int, ...]


class TensorType(NamedTuple):
    """The type of a Value, written `f32[2,3]`."""

    dtype: DType
    shape: Shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the elements, packed."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.code}[{','.join(map(str, self.shape))}]"

    def with_shape(self, shape: Iterable[int]) -> TensorType:
        """Return this dtype with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return this shape with another dtype."""
        return TensorType(dtype, self.shape)


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that all of `shapes` broadcast to.

    Raises:
        OpError: two sizes differ and neither is 1.
    """
    if len(shapes) == 1:
        return shapes[0]
    ndim = max(map(len, shapes))
    result = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, ndim - len(shape)):
            if size != 1 and size != result[axis]:
                if result[axis] != 1:
                    raise OpError(
                        f"The size of tensor a ({result[axis]}) must match the size of tensor b "
                        f"({size}) at non-singleton dimension {axis}: shapes "
                        f"{', '.join(map(str, shapes))} do not broadcast"
                    )
                result[axis] = size
    return tuple(result)


def wrap_dim(dim: int, ndim: int) -> int:
    """Return `dim` counted from the front. A 0-d tensor has the dims -1 and 0.

    Raises:
        IndexError: `dim` is out of range, with PyTorch's sentence.
    """
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], "
            f"but got {dim})"
        )
    return dim % bound


def wrap_dims(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return dims counted from the front, sorted; None or () is every dim.

    Raises:
        IndexError: a dim is out of range.
        OpError: a dim appears twice.
    """
    if dims is None:
        return tuple(range(ndim))
    if isinstance(dims, int):
        place = wrap_dim(dims, ndim)
        return (place,) if ndim else ()
    if len(dims) == 0:
        return tuple(range(ndim))
    wrapped = sorted(wrap_dim(int(d), ndim) for d in dims)
    if len(set(wrapped)) != len(wrapped):
        raise OpError(f"dim {dims} appears multiple times in the list of dims")
    return tuple(wrapped) if ndim else ()
