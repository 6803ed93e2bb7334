"""TensorType: dtype and shape of a Value, and the arithmetic of shapes.

A dim of a shape is an int, or a `SymInt` where a graph serves several sizes (typed as int here:
it has an int's operators).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tracegraph.dims.shapes import is_one, most
from tracegraph.dims.symint import SymInt, hint_of
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

    def check_dims(self, *dims: int) -> None:
        """Check that these are distinct dims of this type, counted from 0; a 0-d one has dim 0.

        Raises:
            OpError: they are not.
        """
        if len({*dims}) != len(dims) or not all(0 <= d < max(self.ndim, 1) for d in dims):
            raise OpError(f"dims {dims} are not distinct dims of {self}")

    def __str__(self) -> str:
        return f"{self.dtype.code}[{','.join(map(_shown, self.shape))}]"

    def with_shape(self, shape: Iterable[int]) -> TensorType:
        """Return this dtype with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return this shape with another dtype."""
        return TensorType(dtype, self.shape)


def _shown(size: Any) -> str:
    return repr(size).replace(" ", "") if size.__class__ is SymInt else str(size)


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that all of `shapes` broadcast to.

    Raises:
        OpError: two sizes differ and neither is 1.
    """
    if len(shapes) == 1:
        return shapes[0]
    ndim = max(map(len, shapes))
    result: list[Any] = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, ndim - len(shape)):
            if SymInt in (size.__class__, result[axis].__class__):
                result[axis] = _meet(size, result[axis])
            elif size != 1 and size != result[axis]:
                if result[axis] != 1:
                    raise OpError(
                        f"The size of tensor a ({result[axis]}) must match the size of tensor b "
                        f"({size}) at non-singleton dimension {axis}: shapes "
                        f"{', '.join(map(str, shapes))} do not broadcast"
                    )
                result[axis] = size
    return tuple(result)


def _meet(a: Any, b: Any) -> Any:
    """What two sizes broadcast to, one of them symbolic: only the literal 1 gives way."""
    if is_one(a) or is_one(b):
        return b if is_one(a) else a
    for size, other in ((a, b), (b, a)):  # one that is 1 beside another must always be 1
        if hint_of(size) == 1 and (hint_of(other) != 1 or most(size) == 1) and size == 1:
            return other
    if a == b:
        return b if a.__class__ is SymInt else a
    raise OpError(f"sizes {a!r} and {b!r} do not broadcast")


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
