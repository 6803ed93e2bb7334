"""What the functions of `nn.functional` share: windows as tuples, in-place forms, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.api.promotion import single_dtype
from tracegraph.dims.symint import as_size
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, dtype_of_data
from tracegraph.eager.writing import in_place
from tracegraph.errors import DTypeError, OpError


def apply(function: Callable[..., Tensor], inplace: bool, input: Tensor, **attrs: Any) -> Tensor:
    """Run `function(input)`, over the memory of `input` if asked."""
    return in_place(function)(input, **attrs) if inplace else function(input, **attrs)


def floating(name: str, input: Tensor, inplace: bool = False, **attrs: Any) -> Tensor:
    """Run an op that takes floats only.

    Raises:
        DTypeError: the input has no floating dtype.
    """
    dtype = dtype_of_data(input._data)
    if dtype.kind < FLOAT_KIND:
        raise DTypeError(f'"{name}" not implemented for {dtype}')
    return apply(getattr(front, name), inplace, input, **attrs)


def per_dim(value: Any, dims: int, name: str) -> tuple[int, ...]:
    """Return an int, or one int per dim, as a tuple of `dims` ints.

    Raises:
        OpError: another number of items.
    """
    if isinstance(value, (tuple, list)):
        items = tuple(map(as_size, value))
        if len(items) == 1:
            items *= dims
        if len(items) != dims:
            raise OpError(
                f"{name} should contain {dims} elements, one per spatial dim, but it contains "
                f"{len(items)}: {list(value)}"
            )
        return items
    return (as_size(value),) * dims


def need_dims(input: Tensor, dims: int, name: str) -> None:
    """Refuse inputs that are not [channel, *space] or [batch, channel, *space].

    Raises:
        OpError: another number of dims.
    """
    if input.ndim not in (dims + 1, dims + 2):
        raise OpError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
            f"input of size: {list(input.shape)}"
        )


def need_one_dtype(name: str, *tensors: Tensor | None) -> None:
    """Refuse operands of different dtypes, which the kernels would promote in silence.

    Raises:
        DTypeError: they differ.
    """
    dtype = tensors[0]._data.dtype if tensors[0] is not None else None
    for t in tensors:
        if t is not None and t._data.dtype is not dtype:
            single_dtype(name, *(t for t in tensors if t is not None))


def need_filled(input: Tensor, dims: int) -> None:
    """Refuse inputs that are empty in another dim than the batch.

    Raises:
        OpError: a channel or spatial dim has size 0.
    """
    first = 1 if input.ndim == dims + 2 else 0
    if 0 in input._data.shape[first:]:
        raise OpError(
            f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 dim batch "
            f"size for input, but got: {list(input.shape)}"
        )


def beside_channels(parameter: Tensor, ndim: int) -> Tensor:
    """Return one number per channel as a view that broadcasts against [batch, channel, ...]."""
    return parameter.reshape((1, -1, *(1,) * (ndim - 2)))


def count(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
