"""Initial values of Parameters: every `f_` fills its tensor in place and off the tape."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from tracegraph.api import creation
from tracegraph.api import linear_algebra as linalg
from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor

_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid",
)  # fmt: skip
_GAIN = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75, **dict.fromkeys(_LINEAR, 1.0)}


def calculate_gain(nonlinearity: str, param: Any = None) -> float:
    """Return the factor that keeps the variance through a nonlinearity.

    `param` is the negative slope of `leaky_relu` (0.01 by default).

    Raises:
        ValueError: an unknown nonlinearity, or a slope that is no number.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAIN:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return _GAIN[nonlinearity]


def _filler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that fills its first argument run off the tape and return that argument."""

    @functools.wraps(function)
    def fill(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with no_grad():
            function(tensor, *args, **kwargs)
        return tensor

    return fill


@_filler
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> None:
    """Fill uniformly from [a, b)."""
    tensor.uniform_(a, b, generator=generator)


@_filler
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> None:
    """Fill from the normal distribution."""
    tensor.normal_(mean, std, generator=generator)


@_filler
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Any = None,
) -> None:  # fmt: skip
    """Fill from the normal distribution cut to [a, b], by the inverse of its integral."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
            "The distribution of values may be incorrect.",
            stacklevel=3,
        )
    low, high = (math.erf((x - mean) / std / math.sqrt(2.0)) for x in (a, b))
    tensor.uniform_(low, high, generator=generator)
    values = (tensor.erfinv() * (std * math.sqrt(2.0)) + mean).clamp(a, b)
    tensor.copy_(values)


@_filler
def constant_(tensor: Tensor, val: float) -> None:
    """Fill with one value."""
    tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    filled: Tensor = constant_(tensor, 1.0)
    return filled


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    filled: Tensor = constant_(tensor, 0.0)
    return filled


@_filler
def eye_(tensor: Tensor) -> None:
    """Fill a matrix with the identity.

    Raises:
        ValueError: not 2 dims.
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    tensor.copy_(creation.eye(*tensor.shape, dtype=tensor.dtype))


@_filler
def dirac_(tensor: Tensor, groups: int = 1) -> None:
    """Fill a convolution's weight so that it passes its input on, channel by channel.

    Raises:
        ValueError: not 3, 4 or 5 dims, or channels that `groups` does not divide.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    outputs, inputs, *kernel = tensor.shape
    if outputs % groups:
        raise ValueError("dim 0 must be divisible by groups")
    middle = tuple(n // 2 for n in kernel)
    tensor.zero_()
    for group in range(groups):
        for d in range(min(outputs // groups, inputs)):
            tensor[(group * (outputs // groups) + d, d, *middle)] = 1


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs an output of this weight has, and how many outputs an input.

    Raises:
        ValueError: fewer than 2 dims.
    """
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    outputs, inputs, *kernel = tensor.shape
    field = math.prod(kernel)
    return inputs * field, outputs * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    """Return the fan that `mode` names.

    Raises:
        ValueError: an unknown mode.
    """
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


@_filler
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> None:
    """Fill uniformly in ±gain √(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    tensor.uniform_(-bound, bound, generator=generator)


@_filler
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> None:
    """Fill normally with deviation gain √(2 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    deviation = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    tensor.normal_(0.0, deviation, generator=generator)


def _kaiming_deviation(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float | None:
    """gain / √fan, or None (with a warning) where there is nothing to fill."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=4)
        return None
    return calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))


@_filler
def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> None:  # fmt: skip
    """Fill uniformly in ±gain √(3 / fan). He et al. 2015, arXiv:1502.01852."""
    deviation = _kaiming_deviation(tensor, a, mode, nonlinearity)
    if deviation is not None:
        bound = math.sqrt(3.0) * deviation
        tensor.uniform_(-bound, bound, generator=generator)


@_filler
def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> None:  # fmt: skip
    """Fill normally with deviation gain / √fan. He et al. 2015, arXiv:1502.01852."""
    deviation = _kaiming_deviation(tensor, a, mode, nonlinearity)
    if deviation is not None:
        tensor.normal_(0.0, deviation, generator=generator)


def uniform_bias_(bias: Tensor, weight: Tensor) -> Tensor:
    """Fill a bias uniformly in ±1/√fan_in of its weight."""
    fan_in, _ = _calculate_fan_in_and_fan_out(weight)
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
    filled: Tensor = uniform_(bias, -bound, bound)
    return filled


@_filler
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> None:
    """Fill with a (semi-)orthogonal matrix [n0, n1·n2·…] times `gain`. Saxe et al. 2013.

    Raises:
        ValueError: fewer than 2 dims.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    drawn = creation.empty((max(rows, columns), min(rows, columns)))
    drawn.normal_(0.0, 1.0, generator=generator)
    q, r = linalg.qr(drawn)
    q = q * r.diagonal().sign()
    tensor.copy_((q.t() if rows < columns else q).reshape(tensor.shape) * gain)


@_filler
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> None:
    """Fill a matrix normally, with a share `sparsity` of each column zero. Martens 2010.

    Raises:
        ValueError: not 2 dims.
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    zeros = math.ceil(sparsity * tensor.shape[0])
    order = creation.empty_like(tensor)
    order.uniform_(0.0, 1.0, generator=generator)
    ranks = order.argsort(0).argsort(0)
    tensor.normal_(0.0, std, generator=generator)
    tensor.copy_(tensor * (ranks >= zeros))


uniform, normal, constant, eye, dirac = uniform_, normal_, constant_, eye_, dirac_
xavier_uniform, xavier_normal = xavier_uniform_, xavier_normal_
kaiming_uniform, kaiming_normal = kaiming_uniform_, kaiming_normal_
orthogonal, sparse = orthogonal_, sparse_
