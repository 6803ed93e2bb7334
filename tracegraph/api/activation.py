"""Activations that are functions of the package and methods of tensors as well."""

from __future__ import annotations

from tracegraph.eager.dispatch import front
from tracegraph.eager.operators import unary_method
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ops.table import OPS

relu = unary_method(OPS["relu"], floating=False)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Return input where positive, else weight · input; one weight, or one per channel (dim 1).

    Raises:
        OpError: the number of weights is neither 1 nor that of the channels.
    """
    count = weight._data.size
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or count not in (1, channels):
        raise OpError(
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
            f"{count} and channel size = {channels}."
        )
    shape = (count, *(1,) * (input.ndim - 2)) if input.ndim > 1 else (1,) * input.ndim
    return front.prelu(input, front.reshape(weight, shape=shape))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Return input where its absolute value exceeds `lambd`, else 0."""
    return front.hardshrink(input, lambd=float(lambd))
