"""Random bits: the one primitive that all random functions are built on.

The random state is an i64[2] tensor (seed, tick). Each call takes one tick; the element's index
fills the rest of the counter of Philox4x32-10 (Salmon et al. 2011), see `tracegraph.philox`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tracegraph import philox
from tracegraph.dtypes import FLOATS, DType, float64, int64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.array_math import math_over
from tracegraph.ops.core import NOT_DIFFERENTIABLE, RANDOM, Case, Spec, define, elementwise_type
from tracegraph.tensor_type import Shape, TensorType

_STATE = TensorType(int64, (2,))
# Up to so many normals, Python floats are faster than array calls.
_FEW: Final = 24
_SQRT_HALF: Final = 0.7071067811865476


def _draw_type(
    state: TensorType, *, shape: Shape, dtype: DType, distribution: str, low: int, high: int
) -> tuple[TensorType, TensorType]:
    if state != _STATE:
        raise OpError(f"the random state is i64[2], not {state}")
    if distribution not in _DRAW:
        raise OpError(f"no distribution {distribution!r}; there are {', '.join(_DRAW)}")
    if (distribution in ("uniform", "normal")) != (dtype in FLOATS):
        raise DTypeError(f"{distribution} numbers cannot be of dtype {dtype}")
    return TensorType(dtype, tuple(shape)), state


def _uniform(xp: Any, seed: int, tick: int, size: int, dtype: DType, low: int, high: int) -> Any:
    words = philox.words_per_uniform(dtype.np)
    return philox.uniform(xp, philox.random_bits(xp, seed, tick, size * words), dtype.np)


def _normal(xp: Any, seed: int, tick: int, size: int, dtype: DType, low: int, high: int) -> Any:
    words = philox.words_per_uniform(dtype.np)
    bits = philox.random_bits(xp, seed, tick, size * words)
    if words == 1 and size <= _FEW:
        quantiles = [_quantile((word - 2.0**31 + 0.5) * 2.0**-32) for word in bits.tolist()]
        return xp.array(quantiles, dtype=xp.float32)
    return philox.normal(xp, bits, dtype.np)


def _horner(coefficients: Sequence[float], x: float) -> float:
    result = 0.0
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


def _quantile(offset: float) -> float:
    """Return one normal quantile, bit for bit as `philox.normal` does for arrays."""
    x = 0.180625 - offset * offset
    if x >= 0.0:
        result = _horner(philox.CENTRAL_NUMERATOR, x) * offset
        return result / _horner(philox.CENTRAL_DENOMINATOR, x)
    mantissa, exponent = math.frexp(0.5 - abs(offset))
    if mantissa < _SQRT_HALF:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(philox.ATANH_SERIES, ratio * ratio) * ratio
    distance = math.sqrt(-(exponent * philox.LOG_2 + (series + series)))
    numerator, denominator = philox.MIDDLE_NUMERATOR, philox.MIDDLE_DENOMINATOR
    x = distance - 1.6
    if distance > 5.0:
        numerator, denominator = philox.FAR_NUMERATOR, philox.FAR_DENOMINATOR
        x = distance - 5.0
    return math.copysign(_horner(numerator, x) / _horner(denominator, x), offset)


def _integers(xp: Any, seed: int, tick: int, size: int, dtype: DType, low: int, high: int) -> Any:
    words = philox.words_per_integer(low, high)
    bits = philox.random_bits(xp, seed, tick, size * words)
    return philox.random_integers(xp, bits, low, high).astype(dtype.np)


def _permutation(xp: Any, seed: int, tick: int, size: int, dtype: DType, *_: int) -> Any:
    return philox.permutation(xp, seed, tick, size).astype(dtype.np)


_DRAW: Final[dict[str, Callable[..., Any]]] = {
    "uniform": _uniform,
    "normal": _normal,
    "integers": _integers,
    "permutation": _permutation,
}


def _draw(
    xp: Any, state: Any, *, shape: Shape, dtype: DType, distribution: str, low: int, high: int
) -> tuple[Any, Any]:
    seed, tick = (int(v) for v in state)
    size = 1
    for n in shape:
        size *= n
    mask = (1 << 64) - 1
    values = _DRAW[distribution](xp, seed & mask, tick & mask, size, dtype, low, high)
    after = state.copy()
    after[1] += 1
    return values.astype(dtype.np, copy=False).reshape(shape), after


draw = define(
    "draw(state) -> values, after", type=_draw_type, kernel=_draw, vjp=NOT_DIFFERENTIABLE,
    traits=(RANDOM,), sample=(),
    doc="Random numbers and the state one tick later: uniform [0, 1), normal, integers [low, "
        "high), or a permutation of 0..n−1.",
)  # fmt: skip


def _poisson_quantile(xp: Any, u: Any, rate: Any) -> Any:
    """Sum the probabilities upward from where the lower tail is below 1e-17, until u is reached."""
    u, rate = xp.broadcast_arrays(u, rate)
    count = xp.maximum(xp.floor(rate - 9 * xp.sqrt(rate)), 0.0)
    safe = xp.where(rate > 0, rate, 1.0)
    log_gamma = math_over(xp).lgamma(count + 1)
    mass = xp.where(rate > 0, xp.exp(count * xp.log(safe) - rate - log_gamma), 1.0)
    reached = mass.copy()
    # The sum can stop short of 1 by rounding; the smallest mass that counts ends the search.
    more = (u >= reached) & (mass > 0)
    while more.any():
        count = count + more
        mass = xp.where(more, mass * rate / xp.maximum(count, 1.0), mass)
        reached = reached + xp.where(more, mass, 0.0)
        more = more & (u >= reached) & ((count < rate) | (mass > 1e-18))
    return xp.where(rate >= 0, count, xp.nan)


poisson_quantile = define(
    "poisson_quantile(u, rate) -> y", type=elementwise_type((float64,)), kernel=_poisson_quantile,
    vjp=NOT_DIFFERENTIABLE,
    sample=(Case((Spec((3, 4), 0, 0.99), Spec((4,), 0, 40)), {}),
            Case((Spec((), 0, 0.99), Spec((), 900, 1000)), {}),
            Case((Spec((0, 2), 0, 1), Spec((2,), 0, 1)), {})),
    doc="The smallest count whose Poisson distribution function exceeds u.",
)  # fmt: skip
