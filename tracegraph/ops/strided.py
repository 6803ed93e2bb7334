"""Views by steps in memory: windows that overlap, diagonals of any kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.dtypes import int64
from tracegraph.errors import OpError
from tracegraph.ops.core import COMPLEX, VIEW, case, define
from tracegraph.tensor_type import Shape, TensorType


def overlaps(shape: Shape, strides: Shape) -> bool:
    """Whether elements of an array may share memory: a step is not beyond what lies inside of it.

    Steps that are no multiples of each other may be told to overlap where they do not.
    """
    reach = 0
    for step, size in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if step <= reach:
            return math.prod(shape) > 1
        reach += step * (size - 1)
    return False


def _check(count: int, shape: Shape, strides: Shape, offset: int) -> None:
    """Refuse places outside of memory with `count` elements."""
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if offset < 0 or min((*shape, *strides, 0)) < 0 or (math.prod(shape) != 0 and last >= count):
        raise OpError(
            f"sizes {list(shape)}, strides {list(strides)}, storage offset {offset} are out of "
            f"bounds for memory of {count} elements"
        )


def _strided_type(x: TensorType, *, shape: Shape, strides: Shape, offset: int) -> TensorType:
    _check(x.size, shape, strides, offset)
    return x.with_shape(shape)


def _strided(xp: Any, x: Any, *, shape: Shape, strides: Shape, offset: int) -> Any:
    _check(x.size, shape, strides, offset)  # here as well: NumPy does not
    steps = [s * x.itemsize for s in strides]
    out = xp.lib.stride_tricks.as_strided(x.reshape(-1)[offset:], shape, steps)
    if xp is np and overlaps(shape, strides):
        out.flags.writeable = False
    return out


def _places(m: Any, shape: Shape, strides: Shape, offset: int) -> Any:
    """The places of the elements in row-major memory: i64[shape]."""
    places = m.full(shape=shape, value=offset, dtype=int64)
    for i, (n, step) in enumerate(zip(shape, strides, strict=True)):
        counted = m.iota(size=n, start=0, step=step, dtype=int64)
        places = places + m.reshape(
            counted, shape=tuple(n if k == i else 1 for k in range(len(shape)))
        )
    return places


def _strided_vjp(
    m: Any, g: Any, x_type: TensorType, shape: Shape, strides: Shape, offset: int
) -> Any:
    zeros = m.full(shape=(x_type.size,), value=0, dtype=g.dtype)
    places = _places(m, shape, strides, offset)
    flat = m.index_put(zeros, g, places, dims=(0,), accumulate=True)
    return m.reshape(flat, shape=x_type.shape)


def _write_strided(m: Any, base: Any, value: Any, shape: Shape, strides: Shape, offset: int) -> Any:
    if overlaps(shape, strides):
        raise OpError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    flat = m.reshape(base, shape=(base.type_.size,))
    places = _places(m, shape, strides, offset)
    return m.reshape(
        m.index_put(flat, value, places, dims=(0,), accumulate=False), shape=base.shape
    )


strided = define(
    "strided(x) -> y", type=_strided_type, kernel=_strided, vjp=(_strided_vjp,),
    traits=(VIEW, COMPLEX), write_back=_write_strided,
    sample=(case((3, 4), shape=(2, 2), strides=(4, 1), offset=5),
            case((6,), shape=(3,), strides=(2,), offset=1),
            case((4,), shape=(), strides=(), offset=3)),
    doc="Elements of row-major memory, `strides` apart in each dim, from `offset` on.",
)  # fmt: skip
