"""Functions that PyTorch's public ones call, which programs call directly all the same."""

from __future__ import annotations

from typing import Any

from tracegraph.api.legacy_linear_algebra import norm
from tracegraph.api.promotion import cast
from tracegraph.api.reduction import log_softmax, softmax, sum
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError


def _softmax(input: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Return the softmax along a dim."""
    return softmax(input, dim, dtype_of("float32") if half_to_float else None)


def _log_softmax(input: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Return the logarithm of softmax along a dim."""
    return log_softmax(input, dim, dtype_of("float32") if half_to_float else None)


def _softmax_backward_data(
    grad_output: Tensor, output: Tensor, dim: int, input_dtype: DType
) -> Tensor:
    """Return the gradient of softmax's input from that of its output, and the output."""
    scaled = grad_output * output
    return cast(scaled - output * sum(scaled, dim, True), dtype_of(input_dtype))


def _log_softmax_backward_data(
    grad_output: Tensor, output: Tensor, dim: int, input_dtype: DType
) -> Tensor:
    """Return the gradient of log-softmax's input from that of its output, and the output."""
    grad = grad_output - front.exp(output) * sum(grad_output, dim, True)
    return cast(grad, dtype_of(input_dtype))


def frobenius_norm(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Return the root of the sum of squares over dims (none named: all).

    Raises:
        OpError: more than two dims.
    """
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) > 2:
        raise OpError(f"expected at most 2 dimensions, but got {len(dims)} dimensions instead")
    return norm(input, 2, dims or None, keepdim)


def nuclear_norm(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Return the sum of the singular values of matrices (no dims named: of the one there is)."""
    if isinstance(dim, bool):
        dim, keepdim = (), dim
    return norm(input, "nuc", tuple(dim) or (0, 1), keepdim)


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """Return the norms of the slices along a dim, beside dims of size 1; -1: of the whole."""
    if dim == -1:
        return norm(v, pow)
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    return norm(v, pow, others, True) if others else v.abs()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return `v` with the norms `g` of its slices along a dim."""
    return v * (g / norm_except_dim(v, 2, dim))
