"""What the functions of `nn.functional` share: windows as tuples, in-place forms, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.errors import OpError
from tracegraph.methods import in_place
from tracegraph.tensors import Tensor


def apply(function: Callable[..., Tensor], inplace: bool, input: Tensor, **attrs: Any) -> Tensor:
    """Run `function(input)`, over the memory of `input` if asked."""
    return in_place(function)(input, **attrs) if inplace else function(input, **attrs)


def per_dim(value: Any, dims: int, name: str) -> tuple[int, ...]:
    """Return an int, or one int per dim, as a tuple of `dims` ints.

    Raises:
        OpError: another number of items.
    """
    if isinstance(value, (tuple, list)):
        items = tuple(int(v) for v in value)
        if len(items) == 1:
            items *= dims
        if len(items) != dims:
            raise OpError(
                f"{name} should contain {dims} elements, one per spatial dim, but it contains "
                f"{len(items)}: {list(value)}"
            )
        return items
    return (int(value),) * dims


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


def beside_channels(parameter: Tensor, ndim: int) -> Tensor:
    """Return one number per channel as a view that broadcasts against [batch, channel, ...]."""
    out: Tensor = parameter.reshape((1, -1, *(1,) * (ndim - 2)))
    return out


def count(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
