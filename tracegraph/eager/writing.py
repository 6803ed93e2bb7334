"""Writing in place: every `f_` form, and the short way for arithmetic without history."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegraph.api import creation, shape
from tracegraph.api.promotion import cast, converted
from tracegraph.devices import device_of
from tracegraph.eager import modes, operators
from tracegraph.eager.dispatch import assign, check_writable, passed_on, set_aside
from tracegraph.eager.engine import move
from tracegraph.eager.tensors import (
    Tensor,
    count_write,
    dtype_of_data,
    shell,
    type_of,
)
from tracegraph.errors import DTypeError


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


def direct_in_place(ufunc: Any, general: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """In-place arithmetic that writes straight into memory where no history is concerned."""

    def method(self: Tensor, other: Any, *old: Any, alpha: Any = 1, **kwargs: Any) -> Tensor:
        if old:
            return general(self, other, *old)
        data = self._data
        b = other._data if isinstance(other, Tensor) else other
        if (
            modes.recording
            or kwargs
            or data.__class__ is not np.ndarray
            or data.dtype not in operators.FAST_FLOATS
            or (modes.GRAD.get() and not without_history(self, other))
            or not (b.__class__ in (float, int) or getattr(b, "dtype", None) is data.dtype)
            or (
                b.__class__ is np.ndarray and np.broadcast_shapes(b.shape, data.shape) != data.shape
            )
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


def without_history(*tensors: Any) -> bool:
    """Whether a write among these tensors changes no gradient history."""
    return all(
        not isinstance(t, Tensor)
        or (t._node is None and (t._lineage is None or t._lineage.node is None))
        for t in tensors
    )


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite with `src`, broadcast and cast."""
    if not isinstance(src, Tensor):
        src = creation.tensor(src)
    new = converted(src, type_of(self).dtype)
    if device_of(new._data) != device_of(self._data):
        new = move(new, device_of(self._data))
    if new._data.shape != self._data.shape:
        new = shape.expand(new, self._data.shape)
    return assign(self, passed_on(new, self))


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite with one value."""
    self[...] = value
    return self


def zero_(self: Tensor) -> Tensor:
    """Overwrite with zeros."""
    return fill_(self, 0)
