"""Activations with a formula of their own; the rest are written with these in the API.

A gradient is chosen with `where`, not multiplied by a mask, so that NaN and infinity stay where
they are; NaN inputs pass NaN on.
"""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import FLOATS, NUMBERS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import (
    HOLOMORPHIC,
    Case,
    Spec,
    case,
    define,
    elementwise_type,
    in_blocks,
    reals,
    row_major,
)
from tracegraph.tensor_type import TensorType

_REAL = reals(-4, 4)


def _float(x: TensorType) -> TensorType:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x


def _number(x: TensorType) -> TensorType:
    if x.dtype not in NUMBERS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x


def _cases(**attrs: Any) -> tuple[Case, ...]:
    return tuple(case(Spec(shape, -4, 4), **attrs) for shape in ((3, 4), (), (0, 2)))


def _zero(m: Any, g: Any) -> Any:
    return m.full(shape=(), value=0, dtype=g.dtype)


relu = define(
    "relu(x) -> y", type=elementwise_type(NUMBERS), scalar=lambda m, x: m.maximum(x, 0),
    vjp=(lambda m, g, y: m.where(y <= 0, _zero(m, g), g),), sample=_REAL, doc="max(x, 0).",
)  # fmt: skip
leaky_relu = define(
    "leaky_relu(x) -> y", type=lambda x, *, negative_slope: _float(x),
    scalar=lambda m, x, *, negative_slope: m.where(x > 0, x, x * negative_slope),
    vjp=(lambda m, g, x, negative_slope: m.where(x > 0, g, g * negative_slope),),
    sample=_cases(negative_slope=0.1), doc="x where positive, else negative_slope·x.",
)  # fmt: skip
prelu = define(
    "prelu(x, weight) -> y", type=elementwise_type(FLOATS),
    scalar=lambda m, x, weight: m.where(x > 0, x, x * weight),
    vjp=(lambda m, g, x, weight: m.where(x > 0, g, g * weight),
         lambda m, g, x: m.where(x > 0, _zero(m, g), g * x)),
    sample=reals(-2, 2, 2), doc="x where positive, else weight·x. arXiv:1502.01852.",
)  # fmt: skip


def _below(m: Any, x: Any) -> Any:
    """x where it is not positive, else 0: the other side of `where` never overflows."""
    return m.where(x > 0, _zero(m, x), x)


def _elu_vjp(m: Any, g: Any, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    steep = m.exp(_below(m, x) * input_scale) * (alpha * scale * input_scale)
    return m.where(x <= 0, g * steep, g * scale)


elu = define(
    "elu(x) -> y", type=lambda x, *, alpha, scale, input_scale: _float(x),
    scalar=lambda m, x, *, alpha, scale, input_scale: m.where(
        x > 0, x * scale, m.expm1(m.minimum(x, 0) * input_scale) * (alpha * scale)),
    vjp=(_elu_vjp,), sample=_cases(alpha=1.5, scale=1.1, input_scale=0.7),
    doc="scale·x where positive, else scale·alpha·(exp(input_scale·x) − 1). arXiv:1511.07289.",
)  # fmt: skip


def _silu_vjp(m: Any, g: Any, x: Any) -> Any:
    s = m.sigmoid(x)  # not from y, which PyTorch's programs overwrite: act(x).add_(shortcut)
    return g * (s * (1 + x * (1 - s)))


silu = define(
    "silu(x) -> y", type=elementwise_type(FLOATS), scalar=lambda m, x: x * m.sigmoid(x),
    vjp=(_silu_vjp,), traits=(HOLOMORPHIC,), sample=_REAL,
    doc="x times its sigmoid. Hendrycks & Gimpel 2016, arXiv:1606.08415.",
)  # fmt: skip


def _mish_vjp(m: Any, g: Any, x: Any) -> Any:
    t = m.tanh(m.softplus(x, beta=1.0, threshold=20.0))
    return g * (t + x * m.sigmoid(x) * (1 - t * t))


mish = define(
    "mish(x) -> y", type=elementwise_type(FLOATS),
    scalar=lambda m, x: x * m.tanh(m.maximum(x, 0) + m.log1p(m.exp(-m.abs(x)))),
    vjp=(_mish_vjp,), sample=_REAL, doc="x·tanh(softplus(x)). Misra 2019, arXiv:1908.08681.",
)  # fmt: skip


def _softplus_vjp(m: Any, g: Any, x: Any, beta: float, threshold: float) -> Any:
    scaled = x * beta
    return m.where(scaled > threshold, g, g * m.sigmoid(scaled))


softplus = define(
    "softplus(x) -> y", type=lambda x, *, beta, threshold: _float(x),
    scalar=lambda m, x, *, beta, threshold: m.where(
        x * beta > threshold, x, m.log1p(m.exp(m.minimum(x * beta, threshold))) / beta),
    vjp=(_softplus_vjp,), sample=_cases(beta=2.0, threshold=3.0),
    doc="log(1 + exp(beta·x)) / beta; x where beta·x exceeds the threshold.",
)  # fmt: skip


def _logsigmoid(m: Any, x: Any) -> Any:
    return m.minimum(x, 0) - m.log1p(m.exp(-m.abs(x)))


logsigmoid = define(
    "logsigmoid(x) -> y", type=elementwise_type(FLOATS), scalar=_logsigmoid,
    kernel=row_major(in_blocks(_logsigmoid)),
    vjp=(lambda m, g, x: g * m.sigmoid(-x),), sample=_REAL, doc="log of the sigmoid.",
)  # fmt: skip

_TANH_SCALE = math.sqrt(2 / math.pi)


def _gelu(m: Any, x: Any, *, approximate: str) -> Any:
    if approximate == "tanh":
        y = m.tanh(_TANH_SCALE * (x + 0.044715 * (x * x * x)))
    else:
        y = m.erf(x * math.sqrt(0.5))
    y += 1  # in place, where these are arrays
    y *= x
    y *= 0.5
    return y


def _gelu_vjp(m: Any, g: Any, x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        t = m.tanh(_TANH_SCALE * (x + 0.044715 * (x * x * x)))
        slope = (1 - t * t) * (_TANH_SCALE * (1 + 3 * 0.044715 * (x * x)))
        return g * (0.5 * (1 + t + x * slope))
    density = m.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return g * (0.5 * (1 + m.erf(x * math.sqrt(0.5))) + x * density)


def _gelu_type(x: TensorType, *, approximate: str) -> TensorType:
    if approximate not in ("none", "tanh"):
        raise OpError("approximate argument must be either none or tanh.")
    return _float(x)


gelu = define(
    "gelu(x) -> y", type=_gelu_type, scalar=_gelu, kernel=in_blocks(_gelu), vjp=(_gelu_vjp,),
    sample=_cases(approximate="none") + _cases(approximate="tanh"),
    doc="x·P(N(0, 1) <= x), exactly or by tanh. Hendrycks & Gimpel 2016, arXiv:1606.08415.",
)  # fmt: skip


def _between_vjp(m: Any, g: Any, x: Any, low: float, high: float, slope: Any) -> Any:
    """Gradient `slope` strictly between two bounds, 0 elsewhere and for NaN."""
    return m.where(m.logical_and(x > low, x < high), slope, _zero(m, g))


hardtanh = define(
    "hardtanh(x) -> y", type=lambda x, *, low, high: _number(x),
    scalar=lambda m, x, *, low, high: m.minimum(m.maximum(x, low), high),
    vjp=(lambda m, g, x, low, high: _between_vjp(m, g, x, low, high, g),),
    sample=_cases(low=-1.0, high=1.5), doc="x limited to [low, high].",
)  # fmt: skip
hardsigmoid = define(
    "hardsigmoid(x) -> y", type=elementwise_type(FLOATS),
    scalar=lambda m, x: m.minimum(m.maximum(x + 3, 0), 6) / 6,
    vjp=(lambda m, g, x: _between_vjp(m, g, x, -3, 3, g / 6),), sample=_REAL,
    doc="(x + 3) / 6 limited to [0, 1].",
)  # fmt: skip
hardswish = define(
    "hardswish(x) -> y", type=elementwise_type(FLOATS),
    scalar=lambda m, x: x * m.minimum(m.maximum(x + 3, 0), 6) / 6,
    vjp=(lambda m, g, x: m.where(x >= 3, g, m.where(x <= -3, _zero(m, g), g * (x / 3 + 0.5))),),
    sample=_REAL, doc="x·hardsigmoid(x). Howard et al. 2019, arXiv:1905.02244.",
)  # fmt: skip
threshold = define(
    "threshold(x) -> y", type=lambda x, *, threshold, value: _number(x),
    scalar=lambda m, x, *, threshold, value: m.where(x <= threshold, value, x),
    vjp=(lambda m, g, x, threshold: m.where(x <= threshold, _zero(m, g), g),),
    sample=_cases(threshold=0.5, value=-1.0), doc="x where above the threshold, else value.",
)  # fmt: skip
hardshrink = define(
    "hardshrink(x) -> y", type=lambda x, *, lambd: _float(x),
    scalar=lambda m, x, *, lambd: m.where(m.abs(x) <= lambd, 0.0, x),
    vjp=(lambda m, g, x, lambd: m.where(m.abs(x) <= lambd, _zero(m, g), g),),
    sample=_cases(lambd=0.5), doc="x where |x| exceeds lambd, else 0.",
)  # fmt: skip
softshrink = define(
    "softshrink(x) -> y", type=lambda x, *, lambd: _float(x),
    scalar=lambda m, x, *, lambd: m.where(
        m.abs(x) <= lambd, 0.0, x - m.copysign(lambd, x)),
    vjp=(lambda m, g, x, lambd: m.where(m.abs(x) <= lambd, _zero(m, g), g),),
    sample=_cases(lambd=0.5), doc="x moved toward 0 by lambd, and 0 within.",
)  # fmt: skip
