"""Special functions, elementwise. Their expressions are in `tracegraph.special_functions`."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import FLOATS
from tracegraph.errors import OpError
from tracegraph.ops.core import Case, define, elementwise_type, reals
from tracegraph.tensor_type import TensorType

_FLOAT = elementwise_type(FLOATS)
_LOG_2 = math.log(2)
_ROOT_PI = math.sqrt(math.pi)
_ROOT_2_PI = math.sqrt(2 * math.pi)


def _zero(m: Any, like: Any) -> Any:
    return m.full(shape=(), value=0, dtype=like.dtype)


def _one(m: Any, like: Any) -> Any:
    return m.full(shape=(), value=1, dtype=like.dtype)


# The gamma function.
lgamma = define(
    "lgamma(x) -> y", type=_FLOAT, scalar=lambda m, x: m.lgamma(x),
    vjp=(lambda m, g, x: g * m.digamma(x),), sample=reals(0.5, 6),
    doc="Logarithm of |Γ(x)| (Abramowitz & Stegun 1964, 6.1).",
)  # fmt: skip
digamma = define(
    "digamma(x) -> y", type=_FLOAT, scalar=lambda m, x: m.digamma(x),
    vjp=(lambda m, g, x: g * m.polygamma(x, n=1),), sample=reals(0.5, 6),
    doc="Derivative of log Γ(x) (Abramowitz & Stegun 1964, 6.3).",
)  # fmt: skip


def _polygamma_type(x: TensorType, *, n: int) -> TensorType:
    if not 0 <= n <= 30:
        raise OpError(f"polygamma is implemented for orders 0 to 30, not {n}")
    return _FLOAT(x)


_POLYGAMMA_CASES = tuple(Case(c.inputs, {"n": n}) for n, c in enumerate(reals(0.5, 6), 1))

polygamma = define(
    "polygamma(x) -> y", type=_polygamma_type, scalar=lambda m, x, *, n: m.polygamma(n, x),
    vjp=(lambda m, g, x, n: g * m.polygamma(x, n=n + 1),), sample=_POLYGAMMA_CASES,
    doc="Derivative of order n of digamma (Abramowitz & Stegun 1964, 6.4).",
)  # fmt: skip

# The normal distribution and the error function.
erfinv = define(
    "erfinv(x) -> y", type=_FLOAT, scalar=lambda m, x: m.erfinv(x),
    vjp=(lambda m, g, y: g * (m.exp(y * y) * (_ROOT_PI / 2)),), sample=reals(-0.9, 0.9),
    doc="The number whose erf is x.",
)  # fmt: skip
ndtr = define(
    "ndtr(x) -> y", type=_FLOAT, scalar=lambda m, x: m.ndtr(x),
    vjp=(lambda m, g, x: g * (m.exp(x * x * -0.5) * (1 / _ROOT_2_PI)),), sample=reals(-3, 3),
    doc="Distribution function of the standard normal distribution.",
)  # fmt: skip
ndtri = define(
    "ndtri(x) -> y", type=_FLOAT, scalar=lambda m, x: m.ndtri(x),
    vjp=(lambda m, g, y: g * (m.exp(y * y * 0.5) * _ROOT_2_PI),), sample=reals(0.1, 0.9),
    doc="The number whose ndtr is x.",
)  # fmt: skip
log_ndtr = define(
    "log_ndtr(x) -> y", type=_FLOAT, scalar=lambda m, x: m.log_ndtr(x),
    vjp=(lambda m, g, x, y: g * (m.exp(x * x * -0.5 - y) * (1 / _ROOT_2_PI)),),
    sample=reals(-3, 3), doc="Logarithm of ndtr(x).",
)  # fmt: skip

# Modified Bessel functions.
i0 = define(
    "i0(x) -> y", type=_FLOAT, scalar=lambda m, x: m.i0(x),
    vjp=(lambda m, g, x: g * m.i1(x),), sample=reals(-4, 4),
    doc="Modified Bessel function of the first kind, order 0.",
)  # fmt: skip
i0e = define(
    "i0e(x) -> y", type=_FLOAT, scalar=lambda m, x: m.i0e(x),
    vjp=(lambda m, g, x, y: g * (m.i1e(x) - m.sign(x) * y),), sample=reals(0.5, 4),
    doc="exp(−|x|)·i0(x).",
)  # fmt: skip


def _nonzero(m: Any, x: Any) -> Any:
    """x, with 1 for 0: a divisor whose branch is not taken."""
    return m.where(m.eq(x, 0), _one(m, x), x)


def _i1_vjp(m: Any, g: Any, x: Any, y: Any) -> Any:
    slope = m.i0(x) - y / _nonzero(m, x)
    return g * m.where(m.eq(x, 0), m.full(shape=(), value=0.5, dtype=x.dtype), slope)


i1 = define(
    "i1(x) -> y", type=_FLOAT, scalar=lambda m, x: m.i1(x), vjp=(_i1_vjp,), sample=reals(0.5, 4),
    doc="Modified Bessel function of the first kind, order 1.",
)  # fmt: skip


def _i1e_vjp(m: Any, g: Any, x: Any, y: Any) -> Any:
    slope = m.i0e(x) - y * (m.sign(x) + 1 / _nonzero(m, x))
    return g * m.where(m.eq(x, 0), m.full(shape=(), value=0.5, dtype=x.dtype), slope)


i1e = define(
    "i1e(x) -> y", type=_FLOAT, scalar=lambda m, x: m.i1e(x), vjp=(_i1e_vjp,),
    sample=reals(0.5, 4), doc="exp(−|x|)·i1(x).",
)  # fmt: skip

# Logarithms with their limits filled in.
entr = define(
    "entr(x) -> y", type=_FLOAT, scalar=lambda m, x: m.entr(x),
    vjp=(lambda m, g, x: g * (-1 - m.log(x)),), sample=reals(0.1, 4), doc="Entropy −x·log(x).",
)  # fmt: skip


def _is_used(m: Any, x: Any) -> Any:
    return m.cast(m.ne(x, 0), dtype=x.dtype)


xlogy = define(
    "xlogy(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.xlogy(x, y),
    vjp=(lambda m, g, x, y: g * m.xlogy(_is_used(m, x), y), lambda g, x, y: g * (x / y)),
    sample=reals(0.1, 4, 2), doc="x·log(y), and 0 where x is 0.",
)  # fmt: skip
xlog1py = define(
    "xlog1py(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.xlog1py(x, y),
    vjp=(lambda m, g, x, y: g * m.xlog1py(_is_used(m, x), y),
         lambda g, x, y: g * (x / (y + 1))),
    sample=reals(0.1, 4, 2), doc="x·log(1 + y), and 0 where x is 0.",
)  # fmt: skip
logit = define(
    "logit(x) -> y", type=_FLOAT, scalar=lambda m, x: m.logit(x),
    vjp=(lambda g, x: g / (x * (1 - x)),), sample=reals(0.1, 0.9), doc="log(x / (1 − x)).",
)  # fmt: skip


def _sinc_vjp(m: Any, g: Any, x: Any) -> Any:
    angle = _nonzero(m, x) * math.pi
    slope = (m.cos(angle) - m.sin(angle) / angle) / _nonzero(m, x)
    return g * m.where(m.eq(x, 0), _zero(m, x), slope)


sinc = define(
    "sinc(x) -> y", type=_FLOAT, scalar=lambda m, x: m.sinc(x), vjp=(_sinc_vjp,),
    sample=reals(0.2, 3), doc="sin(πx) / (πx), and 1 at 0.",
)  # fmt: skip
logaddexp = define(
    "logaddexp(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.logaddexp(x, y),
    vjp=(lambda m, g, x, y: g * m.sigmoid(x - y), lambda m, g, x, y: g * m.sigmoid(y - x)),
    sample=reals(-4, 4, 2), doc="log(exp(x) + exp(y)), without overflow.",
)  # fmt: skip
logaddexp2 = define(
    "logaddexp2(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.logaddexp2(x, y),
    vjp=(lambda m, g, x, y: g * m.sigmoid((x - y) * _LOG_2),
         lambda m, g, x, y: g * m.sigmoid((y - x) * _LOG_2)),
    sample=reals(-4, 4, 2), doc="log2(2^x + 2^y), without overflow.",
)  # fmt: skip
