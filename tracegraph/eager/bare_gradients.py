"""Gradients that nobody records: bare arrays in the backward pass, Tensors to hooks and callers."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np

from tracegraph.eager.tensors import Tensor, wrap, xp_of

FLOAT32: Final = np.dtype(np.float32)
FLOAT64: Final = np.dtype(np.float64)


def wrapped(grad: Any) -> Any:
    """The Tensor of an array, or the Tensors of a list of arrays (None stays)."""
    if isinstance(grad, list):
        return [None if g is None else wrapped(g) for g in grad]
    return wrap(np.asarray(grad) if isinstance(grad, np.generic) else grad)


def bare_of(grad: Any) -> Any:
    """The array of a Tensor, or the arrays of several (None stays)."""
    if isinstance(grad, Tensor):
        return grad._data
    return [None if g is None else g._data for g in grad]


def are_floats(grad: Any) -> bool:
    """Whether the gradient, or that of each of several results, is an array of 32 or 64 bits."""
    return all(
        g is None or (g.__class__ is np.ndarray and g.dtype in (FLOAT32, FLOAT64))
        for g in (grad if isinstance(grad, list) else [grad])
    )


def added(x: Any, y: Any) -> Any:
    """x + y; arrays of two devices meet as Tensors."""
    if isinstance(x, Tensor) or xp_of(x) is xp_of(y):
        return x + y
    return (wrap(x) + wrap(y))._data


def _count_of_one() -> int:
    """What `sys.getrefcount` says of an object that one local variable holds: 2, or 1 by 3.14."""
    x = np.empty(0)
    return sys.getrefcount(x)


_ONE: Final = _count_of_one()


def is_sole(grad: Any, count: int) -> bool:
    """Whether an array that has `count` references is its only holder's to keep."""
    return grad.__class__ is np.ndarray and grad.base is None and count == _ONE


def lie_alike(grad: Tensor, leaf: Tensor) -> bool:
    """Whether a gradient lies in memory as its leaf does, as `.grad` shall."""
    x, y = grad._data, leaf._data
    return bool(x.flags.c_contiguous and y.flags.c_contiguous) or x.strides == y.strides
