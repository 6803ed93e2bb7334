"""The order in which elements lie in memory: rows, or as those of an operand do.

Types know nothing of it. It shows in `stride()`, in what `view` allows, and in whether `reshape`
shares memory, so results lie as PyTorch's do where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

_READ_AND_MAKE: Final = (("readonly",), ("writeonly", "allocate"))


def copy_as(x: Any, like: Any) -> Any:
    """Return a copy of `x` that lies as `like` does, of the same shape, but without gaps.

    Dims that repeat memory are put where they stand in the shape (PyTorch's `preserve_format`).
    """
    if like.flags.c_contiguous:
        return x.copy(order="C")
    if isinstance(like, np.ndarray):
        dtypes = (None, x.dtype)
        made = np.nditer((like, None), ["zerosize_ok"], _READ_AND_MAKE, dtypes).operands[1]
    else:
        made = like.astype(x.dtype, order="K")
    made[...] = x
    return made


def copied(x: Any) -> Any:
    """Return a copy that lies as `x` does, but without gaps."""
    return copy_as(x, x)


def in_rows(x: Any) -> Any:
    """Return an array in row-major order, itself if it is."""
    return x if x.flags.c_contiguous else x.copy(order="C")


def row_major(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that its results lie in row-major order whatever its operands do.

    As in PyTorch, where `cat` or `softmax` of a transposed matrix can be viewed.
    """

    def wrapped(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        out = function(xp, *arrays, **attrs)
        return tuple(map(in_rows, out)) if isinstance(out, tuple) else in_rows(out)

    return wrapped


def is_channels_last(x: Any) -> bool:
    """Whether an image batch [images, channels, ...] lies with its channels side by side."""
    if x.ndim not in (4, 5) or x.flags.c_contiguous:
        return False
    return bool(x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous)


def image_like(x: Any, out: Any) -> Any:
    """Return a result in rows, or with its channels side by side where those of `x` are."""
    if is_channels_last(x):
        return out if is_channels_last(out) else copy_as(out, x)
    return in_rows(out)


def laid_alike(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that its results lie as its first operand does, which has their shape."""

    def laid(out: Any, x: Any) -> Any:
        return in_rows(out) if x.flags.c_contiguous else copy_as(out, x)

    def wrapped(xp: Any, x: Any, *arrays: Any, **attrs: Any) -> Any:
        out = function(xp, x, *arrays, **attrs)
        return tuple(laid(y, x) for y in out) if isinstance(out, tuple) else laid(out, x)

    return wrapped
