"""Window functions, symmetric as `torch.signal.windows` or periodic as `torch.hann_window`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from tracegraph.api.creation import empty, full
from tracegraph.api.pointwise import abs, cos, exp, i0, sin, sqrt
from tracegraph.api.promotion import cast
from tracegraph.api.ranges import linspace
from tracegraph.api.shape import slice_dim
from tracegraph.dtypes import dtype_of, float64, get_default_dtype
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import DTypeError, OpError


def _window(
    M: int, sym: bool, options: dict[str, Any], shape: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return `shape` of M places in [−1, 1], computed in float64; periodic ones lack the last."""
    dtype = dtype_of(options.pop("dtype", None) or get_default_dtype())
    grad = options.pop("requires_grad", False)
    options.pop("layout", None)
    if not dtype.is_floating_point:
        raise DTypeError(f"windows are of a floating dtype, not {dtype}")
    if M < 0:
        raise OpError(f"requires non-negative window_length, got M={M}")
    if M == 0:
        out = empty(0, dtype=dtype, **options)
    elif M == 1:
        out = full((1,), 1, dtype=dtype, **options)
    else:
        places = linspace(-1, 1, M if sym else M + 1, dtype=float64, **options)
        out = cast(shape(slice_dim(places, 0, 0, M)), dtype)
    return out.requires_grad_() if grad else out


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, **options: Any) -> Tensor:
    """Σ (−1)^k·a(k)·cos(2πk·n / (M − 1)), n = 0 … M − 1."""
    terms = list(a)
    if not terms:
        raise OpError("Coefficients cannot be empty")

    def shape(x: Tensor) -> Tensor:
        # cos(2πk·n / (M − 1)) = (−1)^k·cos(πk·x) for the place x in [−1, 1].
        total = x * 0 + terms[0]
        for k, weight in enumerate(terms[1:], 1):
            total = total + cos(x * (math.pi * k)) * weight
        return total

    return _window(M, sym, options, shape)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, **options: Any) -> Tensor:
    """alpha − (1 − alpha)·cos(2πn / (M − 1))."""
    return general_cosine(M, a=(alpha, 1 - alpha), sym=sym, **options)


def hamming(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Hamming window: 0.54 − 0.46·cos."""
    return general_hamming(M, sym=sym, **options)


def hann(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Hann window: sin²."""
    return general_hamming(M, alpha=0.5, sym=sym, **options)


def blackman(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Blackman window: 0.42 − 0.5·cos + 0.08·cos."""
    return general_cosine(M, a=(0.42, 0.5, 0.08), sym=sym, **options)


def nuttall(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Minimum 4-term Blackman-Harris window (Nuttall 1981)."""
    return general_cosine(M, a=(0.3635819, 0.4891775, 0.1365995, 0.0106411), sym=sym, **options)


def bartlett(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Bartlett window: a triangle down to 0 at both ends."""
    return _window(M, sym, options, lambda x: 1 - abs(x))


def cosine(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """Half a period of the sine, taken at midpoints."""
    length = M if sym else M + 1
    return _window(
        M, sym, options, lambda x: sin((x + 1) * (math.pi * (length - 1) / (2 * length))
                                       + math.pi / (2 * length)),
    )  # fmt: skip


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, **options: Any) -> Tensor:
    """exp(−(n / std)² / 2) around the middle."""
    if std <= 0:
        raise OpError(f"Standard deviation must be positive, got: {std} instead.")
    half = ((M if sym else M + 1) - 1) / 2
    return _window(M, sym, options, lambda x: exp((x * (half / std)) ** 2 * -0.5))


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, **options: Any
) -> Tensor:
    """exp(−|n − center| / tau)."""
    if tau <= 0:
        raise OpError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise OpError("Center must be None for symmetric windows")
    half = ((M if sym else M + 1) - 1) / 2
    middle = half if center is None else center
    return _window(M, sym, options, lambda x: exp(abs((x + 1) * half - middle) / -tau))


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, **options: Any) -> Tensor:
    """I₀(beta·sqrt(1 − x²)) / I₀(beta) (Kaiser & Schafer 1980)."""
    if beta < 0:
        raise OpError(f"beta must be non-negative, got: {beta} instead.")

    def shape(x: Tensor) -> Tensor:
        top = i0(full((), beta, dtype=float64))
        return i0(sqrt((1 - x * x).clamp(min=0)) * beta) / top

    return _window(M, sym, options, shape)


# The older names, periodic by default.


def hann_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Hann window."""
    return hann(window_length, sym=not periodic, **options)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46,
    **options: Any,
) -> Tensor:  # fmt: skip
    """alpha − beta·cos(2πn / window_length)."""
    return general_cosine(window_length, a=(alpha, beta), sym=not periodic, **options)


def blackman_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Blackman window."""
    return blackman(window_length, sym=not periodic, **options)


def bartlett_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """Bartlett window."""
    return bartlett(window_length, sym=not periodic, **options)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, **options: Any
) -> Tensor:
    """Kaiser window."""
    return kaiser(window_length, beta=beta, sym=not periodic, **options)
