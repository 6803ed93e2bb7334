"""Activation functions. `inplace` writes the result over the input."""

from __future__ import annotations

import math
import warnings

from tracegraph.api import activation, pointwise, random, reduction
from tracegraph.api.activation import hardshrink as hardshrink
from tracegraph.api.activation import prelu as prelu
from tracegraph.api.promotion import filled
from tracegraph.dtypes import FLOAT_KIND, DType
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.eager.writing import in_place
from tracegraph.errors import OpError
from tracegraph.nn.functional.support import apply, floating

# Klambauer et al. 2017, "Self-normalizing neural networks", arXiv:1706.02515.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return max(input, 0)."""
    return relu_(input) if inplace else activation.relu(input)


relu_ = in_place(activation.relu)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Return input where positive, else negative_slope · input."""
    return floating("leaky_relu", input, inplace, negative_slope=float(negative_slope))


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place."""
    return leaky_relu(input, negative_slope, inplace=True)


def _elu(
    input: Tensor, inplace: bool, alpha: float, scale: float = 1.0, input_scale: float = 1.0
) -> Tensor:
    return floating(
        "elu", input, inplace,
        alpha=float(alpha), scale=float(scale), input_scale=float(input_scale),
    )  # fmt: skip


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return input where positive, else alpha · (exp(input) − 1)."""
    return _elu(input, inplace, alpha)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu` in place."""
    return _elu(input, True, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return `elu` with the scale and alpha that keep mean 0 and variance 1. arXiv:1706.02515."""
    return _elu(input, inplace, SELU_ALPHA, scale=SELU_SCALE)


def selu_(input: Tensor) -> Tensor:
    """`selu` in place."""
    return selu(input, inplace=True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return input where positive, else alpha · (exp(input / alpha) − 1). arXiv:1704.07483."""
    if alpha == 0:
        raise OpError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _elu(input, inplace, alpha, input_scale=1 / alpha)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu` in place."""
    return celu(input, alpha, inplace=True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """Return input times the normal distribution function of it (`"tanh"`: approximately).

    Raises:
        OpError: another approximation.
    """
    if approximate not in ("none", "tanh"):
        raise OpError("approximate argument must be either none or tanh.")
    return floating("gelu", input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return input · sigmoid(input)."""
    return floating("silu", input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """Return input · tanh(softplus(input))."""
    return floating("mish", input, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(beta · input)) / beta; the input itself above the threshold."""
    return floating("softplus", input, beta=float(beta), threshold=float(threshold))


def softsign(input: Tensor) -> Tensor:
    """Return input / (1 + |input|)."""
    return input / (abs(input) + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """Return input − tanh(input)."""
    return input - pointwise.tanh(input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Return input moved toward 0 by `lambd`, 0 within.

    Raises:
        OpError: a negative `lambd`.
    """
    if lambd < 0:
        raise OpError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return floating("softshrink", input, lambd=float(lambd))


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """Return input limited to [min_val, max_val].

    Raises:
        ValueError: min_val > max_val.
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    kind: type[float] | type[int] = float if type_of(input).dtype.kind == FLOAT_KIND else int
    return apply(front.hardtanh, inplace, input, low=kind(min_val), high=kind(max_val))


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place."""
    return hardtanh(input, min_val, max_val, inplace=True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """Return input limited to [0, 6]."""
    return hardtanh(input, 0, 6, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Return (input + 3) / 6 limited to [0, 1]."""
    return floating("hardsigmoid", input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Return input · hardsigmoid(input). arXiv:1905.02244."""
    return floating("hardswish", input, inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """Return input where above `threshold`, else `value`."""
    kind: type[float] | type[int] = float if type_of(input).dtype.kind == FLOAT_KIND else int
    limit = threshold if kind is float else math.floor(threshold)
    return apply(front.threshold, inplace, input, threshold=kind(limit), value=kind(value))


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold` in place."""
    return in_place(front.threshold)(input, threshold=float(threshold), value=float(value))


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """Return leaky_relu with a random slope per element in training, else the mean slope.

    Raises:
        OpError: lower > upper.
    """
    if lower > upper:
        raise OpError("Lower bound should be less than or equal to the upper bound")
    if not training:
        out = leaky_relu(input, (lower + upper) / 2, inplace)
        return out if inplace else in_rows(out)

    def with_drawn_slopes(x: Tensor) -> Tensor:
        slopes = random.rand_like(x) * (upper - lower) + lower
        return front.prelu(x, slopes)

    return apply(with_drawn_slopes, inplace, input)


def rrelu_(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Return first half · sigmoid(second half) along a dim. arXiv:1612.08083.

    Raises:
        OpError: the dim cannot be halved.
    """
    if input.ndim == 0:
        raise OpError("glu does not support scalars because halving size must be even")
    size = input.shape[dim]
    if size % 2:
        raise OpError(f"Halving dimension must be even, but dimension {dim} is size {size}")
    value, gate = input.chunk(2, dim) if size else (input, input)
    return value * pointwise.sigmoid(gate)


def logsigmoid(input: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(−input)))."""
    return floating("logsigmoid", input)


def sigmoid(input: Tensor) -> Tensor:
    """Return 1 / (1 + exp(−input))."""
    return pointwise.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    return pointwise.tanh(input)


def _class_dim(name: str, ndim: int, stacklevel: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
        "dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if ndim in (0, 1, 3) else 1


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """Return exp(input) over its sum along a dim, computed in `dtype` if given."""
    if dim is None:
        dim = _class_dim("softmax", input.ndim, _stacklevel)
    return reduction.softmax(input, dim, dtype)


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """Return the softmax of −input."""
    if dim is None:
        dim = _class_dim("softmin", input.ndim, _stacklevel)
    return reduction.softmax(-input, dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """Return the logarithm of softmax along a dim."""
    if dim is None:
        dim = _class_dim("log_softmax", input.ndim, _stacklevel)
    return reduction.log_softmax(input, dim, dtype)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Return a sample of the Gumbel-softmax distribution along a dim. arXiv:1611.01144.

    `hard` returns one-hot samples whose gradient is that of the soft ones.
    """
    exponential = random.exponential_(filled(logits, tuple(logits.shape), 0))
    soft = reduction.softmax((logits - pointwise.log(exponential)) / tau, dim)
    if not hard:
        return soft
    place = soft.argmax(dim, keepdim=True)
    zeros = filled(soft, tuple(soft.shape), 0)
    one = zeros.scatter(dim, place, 1.0)
    return one - soft.detach() + soft
