"""Where Values lie in memory: buffers, places in them, and the views that need no copy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.tensor_type import Shape, TensorType

Origin = Literal["arena", "input", "state", "constant", "output", "kept"]

LINE_BYTES: Final = 64


class Buffer:
    """A piece of memory. `key` says which input, State, constant, output or kept value it is.

    `array` is what a constant holds. `offset` is the place of an arena's buffer, given by `memory`.
    """

    __slots__ = ("array", "bytes", "key", "offset", "origin")

    def __init__(self, origin: Origin, size: int, key: Any = None, array: Any = None) -> None:
        self.origin: Origin = origin
        self.bytes, self.key, self.array = size, key, array
        self.offset = 0

    def __repr__(self) -> str:
        return f"<{self.origin} {self.key} of {self.bytes} bytes>"


class Place(NamedTuple):
    """Elements in a buffer: `offset` and `strides` count elements. Strides are not negative."""

    buffer: Buffer
    dtype: DType
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its buffer, in row-major order."""
        return (
            self.offset == 0
            and self.strides == row_major(self.shape)
            and self.buffer.bytes == math.prod(self.shape) * self.dtype.itemsize
        )

    @property
    def is_row_major(self) -> bool:
        """Whether the elements follow each other in row-major order."""
        return all(
            n == 1 or s == w
            for n, s, w in zip(self.shape, self.strides, row_major(self.shape), strict=True)
        )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of an array in row-major order, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def whole(buffer: Buffer, type: TensorType) -> Place:
    """Return the place of a tensor that is a buffer in row-major order."""
    return Place(buffer, type.dtype, type.shape, row_major(type.shape))


def is_dense(x: Place) -> bool:
    """Whether the elements fill one piece of memory, in some order of the dims."""
    step = 1
    for size, stride in sorted(zip(x.shape, x.strides, strict=True), key=lambda d: (d[1], d[0])):
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True


def compact(x: Place) -> tuple[int, ...]:
    """Return the strides of the elements close together, in the order that they lie in."""
    strides, step = [0] * len(x.shape), 1
    for stride, d in sorted((s, d) for d, s in enumerate(x.strides)):
        if stride and x.shape[d] != 1:
            strides[d], step = step, step * x.shape[d]
    return tuple(strides)


def lies_so(x: Place, strides: tuple[int, ...], dtype: DType | None) -> bool:
    """Whether a place has these strides, and this dtype if one is given."""
    return dtype in (None, x.dtype) and all(
        n == 1 or s == t for n, s, t in zip(x.shape, x.strides, strides, strict=True)
    )


def laid_out(x: Place, strides: tuple[int, ...], dtype: DType) -> Place:
    """Return a fresh place for the elements of x with other strides and another dtype."""
    return Place(Buffer("arena", math.prod(x.shape) * dtype.itemsize), dtype, x.shape, strides)


def strides_like(shape: Shape, x: Place) -> tuple[int, ...] | None:
    """Return the strides of a dense array whose dims lie in the order of those of a dense place.

    None where that is row-major order, or not to be known.
    """
    if len(shape) != len(x.shape) or x.is_row_major or not is_dense(x):
        return None
    if any(own == 1 and size != 1 for own, size in zip(x.shape, shape, strict=True)):
        return None
    strides, step = [0] * len(shape), 1
    for d in sorted(range(len(shape)), key=lambda d: (x.strides[d], x.shape[d])):
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)


def byte_size(type: TensorType) -> int:
    """Return the bytes of a tensor."""
    return math.prod(type.shape) * type.dtype.itemsize


def view(op: str, x: Place, attrs: Mapping[str, Any]) -> Place | None:
    """Return where the result of a view op lies, or None where it takes a copy."""
    made = _VIEWS.get(op)
    return None if made is None else made(x, **attrs)


def reshape(x: Place, shape: Shape) -> Place | None:
    """Return the elements in row-major order under another shape, if strides can tell it.

    Dims are taken together, old and new, until both sides have the same size; the old ones must
    follow each other in memory.
    """
    if math.prod(shape) == 0:
        return x._replace(shape=tuple(shape), strides=row_major(shape))
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    new = [n for n in shape if n != 1]
    found: list[int] = []
    while new:
        taken, (size, stride) = [new.pop(0)], old.pop(0)
        count = taken[0]
        while count != size:
            if count < size:
                taken.append(new.pop(0))
                count *= taken[-1]
            else:
                following, step = old.pop(0)
                if stride != following * step:
                    return None
                size, stride = size * following, step
        found += [stride * s for s in row_major(taken)]
    strides = iter(found)
    laid = tuple(0 if n == 1 else next(strides) for n in shape)
    return x._replace(shape=tuple(shape), strides=laid)


def _permute(x: Place, dims: Shape) -> Place:
    return x._replace(
        shape=tuple(x.shape[d] for d in dims), strides=tuple(x.strides[d] for d in dims)
    )


def expand(x: Place, shape: Shape) -> Place:
    """Return the place with dims in front, and dims of size 1 repeated."""
    extra = len(shape) - len(x.shape)
    strides = [0] * extra
    strides += [
        0 if was == 1 and now != 1 else s
        for was, now, s in zip(x.shape, shape[extra:], x.strides, strict=True)
    ]
    return x._replace(shape=tuple(shape), strides=tuple(strides))


def cut(x: Place, index: Sequence[Any]) -> Place:
    """Return a slice: per dim an int (dropped) or (start, stop, step)."""
    offset, shape, strides = x.offset, [], []
    for item, stride in zip(index, x.strides, strict=True):
        if not isinstance(item, tuple):
            offset += item * stride
            continue
        start, stop, step = item
        count = -(-(stop - start) // step)
        offset += start * stride if count else 0
        shape.append(count)
        strides.append(step * stride)
    return x._replace(shape=tuple(shape), strides=tuple(strides), offset=offset)


def _diagonal(x: Place, offset: int, dim1: int, dim2: int) -> Place:
    dim1, dim2 = dim1 % len(x.shape), dim2 % len(x.shape)
    rows, columns = x.shape[dim1], x.shape[dim2]
    size = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = -min(offset, 0) * x.strides[dim1] + max(offset, 0) * x.strides[dim2] if size else 0
    rest = [i for i in range(len(x.shape)) if i not in (dim1, dim2)]
    return x._replace(
        shape=(*(x.shape[i] for i in rest), size),
        strides=(*(x.strides[i] for i in rest), x.strides[dim1] + x.strides[dim2]),
        offset=x.offset + start,
    )


_VIEWS: Final[dict[str, Any]] = {
    "reshape": reshape,
    "permute": _permute,
    "expand": expand,
    "slice": cut,
    "diagonal": _diagonal,
    "detach": lambda x: x,
}
