"""How far native elementary functions are off, in units in the last place (ulp).

The oracle of float32 is NumPy or SciPy in float64, that of float64 is mpmath.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

mp = pytest.importorskip("mpmath")
scipy_special = pytest.importorskip("scipy.special")


def _erfinv(x: Any) -> Any:
    """SciPy's, which is slow where it is NaN."""
    return scipy_special.erfinv(np.where(np.abs(x) <= 1, x, np.nan))


# Functions of one operand: the float64 oracle, and mpmath's.
UNARY: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "arccos": (np.arccos, mp.acos),
    "arccosh": (np.arccosh, mp.acosh),
    "arcsin": (np.arcsin, mp.asin),
    "arcsinh": (np.arcsinh, mp.asinh),
    "arctan": (np.arctan, mp.atan),
    "arctanh": (np.arctanh, mp.atanh),
    "cos": (np.cos, mp.cos),
    "cosh": (np.cosh, mp.cosh),
    "erf": (scipy_special.erf, mp.erf),
    "erfc": (scipy_special.erfc, mp.erfc),
    "erfinv": (_erfinv, mp.erfinv),
    "exp": (np.exp, mp.exp),
    "exp2": (np.exp2, lambda x: mp.mpf(2) ** x),
    "expm1": (np.expm1, mp.expm1),
    "log": (np.log, mp.log),
    "log10": (np.log10, mp.log10),
    "log1p": (np.log1p, mp.log1p),
    "log2": (np.log2, lambda x: mp.log(x, 2)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x: 1 / mp.sqrt(x)),
    "sigmoid": (scipy_special.expit, lambda x: 1 / (1 + mp.exp(-x))),
    "sin": (np.sin, mp.sin),
    "sinh": (np.sinh, mp.sinh),
    "tan": (np.tan, mp.tan),
    "tanh": (np.tanh, mp.tanh),
}
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "arctan2": (np.arctan2, mp.atan2),
    "hypot": (np.hypot, lambda x, y: mp.sqrt(x * x + y * y)),
    "power": (np.power, mp.power),
}

# Where a function is real; of the others, everywhere.
_DOMAINS = {
    "arccos": (-1.0, 1.0), "arccosh": (1.0, math.inf), "arcsin": (-1.0, 1.0),
    "arctanh": (-1.0, 1.0), "erf": (-30.0, 30.0), "erfc": (-30.0, 30.0),
    "erfinv": (-1.0, 1.0), "log": (0.0, math.inf), "log10": (0.0, math.inf),
    "log1p": (-1.0, math.inf), "log2": (0.0, math.inf), "rsqrt": (0.0, math.inf),
}  # fmt: skip


class Worst(NamedTuple):
    """The greatest error found, in ulp, and the arguments, the result and the truth there."""

    ulp: float
    operands: tuple[float, ...]
    got: float
    exact: Any


NOTHING = Worst(-1.0, (), math.nan, math.nan)


@np.errstate(all="ignore")
def single_errors(got: Any, exact: Any) -> Any:
    """Return the errors of float32 results in ulp; inf where one is NaN or infinite alone.

    `exact` is float64. An ulp is the distance of float32 numbers at the true value, not less than
    that of subnormal ones.
    """
    exponent = (exact.view(np.int64) >> 52) & 0x7FF
    ulp = ((np.maximum(exponent, 1023 - 126) - 23) << 52).view(np.float64)
    errors = np.abs(got - exact) / ulp
    rounded = exact.astype(np.float32)
    plain = np.isfinite(got) & np.isfinite(rounded)
    if not plain.all():
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        errors = np.where(plain, errors, np.where(same, 0.0, np.inf))
    return errors


def worst_single(function: Callable[..., Any], oracle: Callable[..., Any], *operands: Any) -> Worst:
    """Return the worst float32 result on some operands."""
    got = function(*operands)
    with np.errstate(all="ignore"):
        exact = oracle(*(x.astype(np.float64) for x in operands))
    errors = single_errors(got, exact)
    i = int(np.argmax(errors))
    return Worst(
        float(errors[i]), tuple(float(x[i]) for x in operands), float(got[i]), float(exact[i])
    )


def float32_patterns(step: int, chunk: int = 1 << 18) -> Iterator[Any]:
    """Yield every `step`-th of all float32 bit patterns, in chunks."""
    for start in range(0, 1 << 32, step * chunk):
        stop = min(start + step * chunk, 1 << 32)
        yield np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def double_error(got: float, exact: Any) -> float:
    """Return the error of a float64 result in ulp, against mpmath's value."""
    if not math.isfinite(got):
        overflows = abs(exact) >= (2 - mp.mpf(2) ** -53) * mp.mpf(2) ** 1023
        return 0.0 if overflows and (got > 0) == (exact > 0) and got == got else math.inf
    if exact == 0:
        return 0.0 if got == 0 else math.inf
    exponent = max(int(mp.mag(exact)) - 1, -1022)
    return float(abs(mp.mpf(got) - exact) / mp.mpf(2) ** (exponent - 52))


def worst_double(function: Callable[..., Any], oracle: Callable[..., Any], *operands: Any) -> Worst:
    """Return the worst float64 result on some operands at which the function is real."""
    worst = NOTHING
    with mp.workprec(160):
        for got, *xs in zip(
            function(*operands).tolist(), *(x.tolist() for x in operands), strict=True
        ):
            exact = oracle(*map(mp.mpf, xs))
            error = double_error(got, exact)
            if error > worst.ulp:
                worst = Worst(error, tuple(xs), got, exact)
    return worst


@np.errstate(all="ignore")
def float64_points(name: str, count: int, seed: int = 0) -> Any:
    """Return points of the domain of a function: all magnitudes, and more where it bends."""
    rng = np.random.default_rng(seed)
    low, high = _DOMAINS.get(name, (-math.inf, math.inf))
    part = count // 4
    scales = np.exp2(rng.uniform(-12, 11, part))
    parts = [
        rng.integers(0, 1 << 64, part, dtype=np.uint64).view(np.float64),
        rng.uniform(-1, 1, part) * scales,
        1 + rng.uniform(-1, 1, part) * np.exp2(rng.uniform(-52, -1, part)),
        rng.integers(-1000, 1000, part) * (np.pi / 2) + rng.standard_normal(part) * 1e-9,
    ]
    x = np.concatenate(parts)
    if math.isfinite(low) and math.isfinite(high):
        x = np.where(np.abs(x) > high, np.fmod(x, high), x)
    elif math.isfinite(low):
        x = low + np.abs(x - low)
    return x[np.isfinite(x) & (x > low) & (x < high)]


@np.errstate(all="ignore")
def float64_pairs(name: str, count: int, seed: int = 0) -> tuple[Any, Any]:
    """Return points for a function of two operands whose value is neither 0 nor infinite."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(count) * np.exp2(rng.uniform(-300, 300, count))
    y = x * rng.standard_normal(count) * np.exp2(rng.uniform(-30, 30, count))
    if name != "power":
        return x, y
    x = np.abs(x)
    x[: count // 2] = 1 + rng.uniform(-0.5, 1, count // 2) * np.exp2(
        rng.uniform(-50, 0, count // 2)
    )
    x = x[x != 1]
    return x, rng.uniform(-1, 1, len(x)) * 1070 / np.abs(np.log2(x))
