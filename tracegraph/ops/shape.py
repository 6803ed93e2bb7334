"""Shape primitives. The views share memory with their operand in eager mode.

A view's `write_back(m, base, value, **attrs)` gives the new base after its view was overwritten
with `value`: that is how writes through views become functional.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegraph.dims.shapes import alike, was_broadcast
from tracegraph.dims.symint import larger, smaller
from tracegraph.dtypes import bool_
from tracegraph.errors import OpError
from tracegraph.ops.core import (
    COMPLEX,
    LAID_ALIKE,
    VIEW,
    Joint,
    case,
    define,
    laid_alike,
    row_major,
)
from tracegraph.ops.memory_order import copied
from tracegraph.tensor_type import Shape, TensorType, broadcast_shapes, wrap_dim

IndexItem = int | tuple[int, int, int]


def _reshape_type(x: TensorType, *, shape: Shape) -> TensorType:
    result = x.with_shape(shape)
    if result.size != x.size:
        raise OpError(f"shape '{list(shape)}' is invalid for input of size {x.size}")
    return result


reshape = define(
    "reshape(x) -> y", type=_reshape_type, kernel=lambda xp, x, *, shape: x.reshape(shape),
    vjp=(lambda m, g, x_type: m.reshape(g, shape=x_type.shape),), traits=(VIEW, COMPLEX),
    write_back=lambda m, base, value, shape: m.reshape(value, shape=base.shape),
    sample=(case((2, 6), shape=(3, 4)), case((0, 3), shape=(3, 0)), case((), shape=(1, 1))),
    doc="The same elements in row-major order under another shape.",
)  # fmt: skip


def _inverse(dims: Shape) -> Shape:
    inverse = [0] * len(dims)
    for place, dim in enumerate(dims):
        inverse[dim] = place
    return tuple(inverse)


def _permute_type(x: TensorType, *, dims: Shape) -> TensorType:
    if sorted(dims) != list(range(x.ndim)):
        raise OpError(f"dims {dims} are no permutation of the {x.ndim} dims of {x}")
    return x.with_shape(x.shape[d] for d in dims)


permute = define(
    "permute(x) -> y", type=_permute_type, kernel=lambda xp, x, *, dims: x.transpose(dims),
    vjp=(lambda m, g, dims: m.permute(g, dims=_inverse(dims)),), traits=(VIEW, COMPLEX),
    write_back=lambda m, base, value, dims: m.permute(value, dims=_inverse(dims)),
    sample=(case((2, 3, 4), dims=(2, 0, 1)), case((3, 2), dims=(1, 0))),
    doc="Dims in another order.",
)  # fmt: skip


def _expand_type(x: TensorType, *, shape: Shape) -> TensorType:
    if broadcast_shapes([x.shape, tuple(shape)]) != tuple(shape):
        raise OpError(f"shape {x.shape} cannot be expanded to {tuple(shape)}")
    return x.with_shape(shape)


def _sum_to(m: Any, g: Any, shape: Shape) -> Any:
    """Sum `g` over the axes that broadcasting added to `shape`."""
    extra = len(g.shape) - len(shape)
    dims = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if was_broadcast(n, g.shape[i + extra])
    )
    if dims:
        g = m.sum(g, dim=dims, keepdim=True)
    return g if alike(g.shape, shape) else m.reshape(g, shape=shape)


def _expand(xp: Any, x: Any, *, shape: Shape) -> Any:
    out = xp.broadcast_to(x, shape)
    if xp is np and out.size == x.size:  # nothing is repeated: it can be written
        out.flags.writeable = x.flags.writeable
    return out


def _write_expanded(m: Any, base: Any, value: Any, shape: Shape) -> Any:
    if value.type_.size == base.type_.size:
        return m.reshape(value, shape=base.shape)
    raise OpError(
        "unsupported operation: more than one element of the written-to tensor refers to a "
        "single memory location. Please clone() the tensor before performing the operation."
    )


expand = define(
    "expand(x) -> y", type=_expand_type, kernel=_expand,
    vjp=(lambda m, g, x_type: _sum_to(m, g, x_type.shape),), traits=(VIEW, COMPLEX),
    write_back=_write_expanded,
    sample=(case((3, 1), shape=(2, 3, 4)), case((), shape=(2,)), case((1, 2), shape=(0, 2))),
    doc="Dims of size 1 repeated to `shape`, without copying.",
)  # fmt: skip


def numpy_index(index: tuple[IndexItem, ...]) -> tuple[Any, ...]:
    """Return the NumPy index for a slice attribute: one int or (start, stop, step) per dim."""
    return tuple(
        slice(i[0], i[1] if i[1] >= 0 else None, i[2]) if isinstance(i, tuple) else i for i in index
    )


def _slice_type(x: TensorType, *, index: tuple[IndexItem, ...]) -> TensorType:
    if len(index) != x.ndim:
        raise OpError(f"slice index {index} must have one item per dim of {x}")
    shape: list[int] = []
    for item, size in zip(index, x.shape, strict=True):
        if not isinstance(item, tuple):
            if not 0 <= item < size:
                raise OpError(f"index {item} is out of bounds for a dim of size {size}")
        else:
            start, stop, step = item
            if step < 1 or not 0 <= start <= size or not start <= stop <= size:
                raise OpError(f"slice {item} does not fit a dim of size {size}")
            shape.append(-(-(stop - start) // step))
    return x.with_shape(shape)


def _slice_vjp(m: Any, g: Any, x_type: TensorType, index: tuple[IndexItem, ...]) -> Any:
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return m.slice_scatter(zeros, g, index=index)


slice_ = define(
    "slice(x) -> y", type=_slice_type, kernel=lambda xp, x, *, index: x[(*numpy_index(index), ...)],
    vjp=(_slice_vjp,), traits=(VIEW, COMPLEX),
    write_back=lambda m, base, value, index: m.slice_scatter(base, value, index=index),
    sample=(case((4, 5), index=((1, 4, 2), 3)), case((3,), index=(1,)),
            case((4, 2), index=((0, 0, 1), (0, 2, 1)))),
    doc="Basic indexing: per dim an int (dropped) or (start, stop, step), 0 <= start <= stop.",
)  # fmt: skip


def _scatter_type(x: TensorType, y: TensorType, *, index: tuple[IndexItem, ...]) -> TensorType:
    if _slice_type(x, index=index) != y:
        raise OpError(f"cannot write {y} into slice {index} of {x}")
    return x


def _slice_scatter(xp: Any, x: Any, y: Any, *, index: tuple[IndexItem, ...]) -> Any:
    out = copied(x)
    out[numpy_index(index)] = y
    return out


def _scatter_vjp_x(m: Any, g: Any, y_type: TensorType, index: tuple[IndexItem, ...]) -> Any:
    zeros = m.full(shape=y_type.shape, value=0, dtype=g.dtype)
    return m.slice_scatter(g, zeros, index=index)


slice_scatter = define(
    "slice_scatter(x, y) -> z", type=_scatter_type, kernel=_slice_scatter,
    vjp=(_scatter_vjp_x, lambda m, g, index: m.slice(g, index=index)),
    traits=(COMPLEX, LAID_ALIKE),
    sample=(case((4, 5), (2,), index=((1, 4, 2), 3)), case((3,), (), index=(1,))),
    doc="x with y written at a basic index (see slice).",
)  # fmt: skip


copy_ = define(
    "copy(x) -> y", type=lambda x: x, kernel=lambda xp, x: x.copy(order="C"), vjp=(lambda g: g,),
    traits=(COMPLEX,), sample=(case((2, 3)), case(())),
    doc="x in fresh memory; a trace records no node for it.",
)  # fmt: skip

overwrite = define(
    "overwrite(x, y) -> z", type=lambda x, y: y, kernel=lambda xp, x, y: copied(y),
    vjp=(lambda m, x_type: m.full(shape=x_type.shape, value=0, dtype=x_type.dtype), lambda g: g),
    traits=(COMPLEX, LAID_ALIKE), sample=(case((2, 3), (2, 3)), case((), ())),
    doc="y: what x is after all of it was written with y.",
)  # fmt: skip


def _forgotten(m: Any, g: Any, x_type: TensorType) -> Any:
    """Zeros that come from g: in PyTorch, views get what they do not depend on as a part of it."""
    never = m.full(shape=x_type.shape, value=False, dtype=bool_)
    return m.where(never, g, m.full(shape=x_type.shape, value=0, dtype=x_type.dtype))


overwrite_view = define(
    "overwrite_view(x, y) -> z", type=lambda x, y: y, kernel=lambda xp, x, y: copied(y),
    vjp=(_forgotten, lambda g: g),
    traits=(COMPLEX, LAID_ALIKE), sample=(case((2, 3), (2, 3)), case((), ())),
    doc="As overwrite, of memory that was written through a view.",
)  # fmt: skip


def _cat_type(*xs: TensorType, dim: int) -> TensorType:
    first = xs[0]
    for x in xs[1:]:
        if x.dtype is not first.dtype:
            raise OpError(f"cat needs one dtype, got {first.dtype} and {x.dtype}")
        if x.ndim != first.ndim or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != dim
        ):
            raise OpError(f"Sizes of tensors must match except in dimension {dim}: {first} and {x}")
    total = sum(x.shape[dim] for x in xs)
    return first.with_shape((*first.shape[:dim], total, *first.shape[dim + 1 :]))


def _cat_vjp(m: Any, g: Any, xs_type: tuple[TensorType, ...], dim: int, needs: Any) -> Any:
    grads, start = [], 0
    for x, need in zip(xs_type, needs, strict=True):
        stop = start + x.shape[dim]
        index = tuple((start, stop, 1) if i == dim else (0, n, 1) for i, n in enumerate(g.shape))
        grads.append(m.slice(g, index=index) if need else None)
        start = stop
    return tuple(grads)


cat = define(
    "cat(*xs) -> y", type=_cat_type,
    kernel=row_major(lambda xp, *xs, dim: xp.concatenate(xs, axis=dim)),
    vjp=Joint(_cat_vjp), traits=(COMPLEX,),
    sample=(case((2, 3), (2, 1), dim=1), case((2,), (0,), (1,), dim=0)),
    doc="Arrays joined along a dim that they have.",
)  # fmt: skip


def _flip_type(x: TensorType, *, dims: Shape) -> TensorType:
    x.check_dims(*dims)
    return x


flip = define(
    "flip(x) -> y", type=_flip_type,
    kernel=laid_alike(lambda xp, x, *, dims: xp.flip(x, dims).copy(order="C")),
    vjp=(lambda m, g, dims: m.flip(g, dims=dims),),
    traits=(COMPLEX, LAID_ALIKE), sample=(case((2, 3), dims=(0, 1)), case((2, 3), dims=(1,))),
    doc="Elements in reverse order along dims.",
)  # fmt: skip


def _pad_type(x: TensorType, *, pads: tuple[tuple[int, int], ...], value: Any) -> TensorType:
    if len(pads) != x.ndim or any(p < 0 for pair in pads for p in pair):
        raise OpError(f"pads {pads} must be one (before, after) >= 0 per dim of {x}")
    return x.with_shape(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))


def _pad_vjp(m: Any, g: Any, pads: tuple[tuple[int, int], ...]) -> Any:
    index = tuple((a, n - b, 1) for n, (a, b) in zip(g.shape, pads, strict=True))
    return m.slice(g, index=index)


def _pad(xp: Any, x: Any, *, pads: tuple[tuple[int, int], ...], value: Any) -> Any:
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
    out = xp.full(shape, value, dtype=x.dtype)
    out[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, pads, strict=True))] = x
    return out


pad = define(
    "pad(x) -> y", type=_pad_type, kernel=_pad, vjp=(_pad_vjp,),
    traits=(COMPLEX,),
    sample=(case((2, 3), pads=((1, 0), (0, 2)), value=1.5), case((), pads=(), value=0)),
    doc="A constant border: (before, after) per dim.",
)  # fmt: skip


def _diagonal_type(x: TensorType, *, offset: int, dim1: int, dim2: int) -> TensorType:
    if x.ndim < 2 or wrap_dim(dim1, x.ndim) == wrap_dim(dim2, x.ndim):
        raise OpError(f"diagonal dims {dim1} and {dim2} must differ and exist in {x}")
    rows, columns = x.shape[dim1], x.shape[dim2]
    size = larger(0, smaller(rows + min(offset, 0), columns - max(offset, 0)))
    return x.with_shape([n for i, n in enumerate(x.shape) if i not in (dim1, dim2)] + [size])


def _diagonal_scatter_type(
    x: TensorType, y: TensorType, *, offset: int, dim1: int, dim2: int
) -> TensorType:
    if _diagonal_type(x, offset=offset, dim1=dim1, dim2=dim2) != y:
        raise OpError(f"{y} is not the diagonal {offset} of the dims {dim1} and {dim2} of {x}")
    return x


def _diagonal(xp: Any, x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    out = xp.diagonal(x, offset, dim1, dim2)
    if xp is np:
        out.flags.writeable = x.flags.writeable
    return out


def _diagonal_scatter(xp: Any, x: Any, y: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    out = copied(x)
    _diagonal(xp, out, offset=offset, dim1=dim1, dim2=dim2)[...] = y
    return out


def _diagonal_vjp(m: Any, g: Any, x_type: TensorType, offset: int, dim1: int, dim2: int) -> Any:
    zeros = m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)
    return m.diagonal_scatter(zeros, g, offset=offset, dim1=dim1, dim2=dim2)


def _diagonal_scatter_vjp(
    m: Any, g: Any, y_type: TensorType, offset: int, dim1: int, dim2: int
) -> Any:
    zeros = m.full(shape=y_type.shape, value=0, dtype=g.dtype)
    return m.diagonal_scatter(g, zeros, offset=offset, dim1=dim1, dim2=dim2)


diagonal = define(
    "diagonal(x) -> y", type=_diagonal_type, kernel=_diagonal, vjp=(_diagonal_vjp,),
    traits=(VIEW, COMPLEX),
    write_back=lambda m, base, value, **attrs: m.diagonal_scatter(base, value, **attrs),
    sample=(case((3, 4), offset=1, dim1=0, dim2=1), case((2, 3, 3), offset=0, dim1=1, dim2=2)),
    doc="The diagonal of two dims, as the last dim.",
)  # fmt: skip

diagonal_scatter = define(
    "diagonal_scatter(x, y) -> z",
    type=_diagonal_scatter_type, kernel=_diagonal_scatter,
    vjp=(_diagonal_scatter_vjp, lambda m, g, offset, dim1, dim2: m.diagonal(
        g, offset=offset, dim1=dim1, dim2=dim2)),
    traits=(COMPLEX, LAID_ALIKE), sample=(case((3, 4), (3,), offset=1, dim1=0, dim2=1),
            case((3, 2, 3), (2, 2), offset=-1, dim1=0, dim2=2)),
    doc="x with y written on a diagonal.",
)  # fmt: skip
