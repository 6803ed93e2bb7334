"""Elementwise primitives: arithmetic, comparison, logic, bits, casts.

Operands of one row have one dtype (the front promotes and casts before); shapes broadcast.
The file is long because it is a table: one row for each elementwise primitive.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.dtypes import (
    BY_NUMPY,
    FLOATS,
    INTS,
    NUMBERS,
    DType,
    bool_,
    float32,
    float64,
    int32,
)
from tracegraph.errors import DTypeError
from tracegraph.ops.complex_numbers import real_part
from tracegraph.ops.core import (
    COMMUTATIVE,
    COMPLEX,
    ELEMENTWISE,
    HOLOMORPHIC,
    LAID_ALIKE,
    NOT_DIFFERENTIABLE,
    ZERO,
    Case,
    Spec,
    define,
    elementwise_type,
    in_blocks,
    in_float32,
    is_complex,
    reals,
)
from tracegraph.ops.memory_order import copied
from tracegraph.tensor_type import TensorType, broadcast_shapes

_NUMBER = elementwise_type(NUMBERS)
_FLOAT = elementwise_type(FLOATS)
_ANY = elementwise_type()
_BITS = elementwise_type((bool_, *INTS))
_COMPARE = elementwise_type(result=bool_)
_TEST = elementwise_type(result=bool_)
_TWO = reals(-2, 2, 2)
_POSITIVE = reals(0.1, 4)


def _int_cases(arity: int, low: int = 0, high: int = 8) -> tuple[Case, ...]:
    return reals(low, high, arity, kind="i")


def _zero_of(m: Any, g: Any) -> Any:
    return m.full(shape=(), value=0, dtype=g.dtype)


# Arithmetic.
add = define(
    "add(x, y) -> z", type=_ANY, scalar=lambda m, x, y: x + y,
    vjp=(lambda g: g, lambda g: g), traits=(COMMUTATIVE, COMPLEX), sample=_TWO,
    doc="x + y; for bool, logical or.",
)  # fmt: skip
sub = define(
    "sub(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: x - y,
    vjp=(lambda g: g, lambda g: -g), traits=(COMPLEX,), sample=_TWO, doc="x - y.",
)  # fmt: skip
mul = define(
    "mul(x, y) -> z", type=_ANY, scalar=lambda m, x, y: x * y,
    vjp=(lambda g, y: g * y, lambda g, x: g * x), traits=(COMMUTATIVE, HOLOMORPHIC), sample=_TWO,
    doc="x · y; for bool, logical and.",
)  # fmt: skip
div = define(
    "div(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: x / y,
    vjp=(lambda g, y: g / y, lambda g, x, y: -g * ((x / y) / y)),
    traits=(HOLOMORPHIC,), sample=reals(0.5, 3, 2), doc="x / y, IEEE division.",
)  # fmt: skip


def _pow_x(m: Any, g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):
        return g * 0 if y == 0 else g * (y * x ** (y - 1))
    return m.where(y == 0, m.full(shape=(), value=0, dtype=y.dtype), g * (y * x ** (y - 1)))


def _pow_y(m: Any, g: Any, x: Any, z: Any, y: Any) -> Any:
    if isinstance(x, (int, float)):
        return g * z * (math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan))
    zero = m.full(shape=(), value=0, dtype=z.dtype)
    flat = m.logical_and(x == 0, (real_part(m, y) if is_complex(y) else y) >= 0)
    return m.where(flat, zero, g * z * m.log(x))


pow_ = define(
    "pow(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: m.power(x, y),
    vjp=(_pow_x, _pow_y), traits=(HOLOMORPHIC,), sample=reals(0.5, 2, 2), doc="x to the power y.",
)  # fmt: skip
floor_divide = define(
    "floor_divide(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: m.floor_divide(x, y),
    vjp=ZERO, sample=reals(0.5, 3, 2), doc="Floor of x / y; integer division by 0 raises.",
)  # fmt: skip
trunc_divide = define(
    "trunc_divide(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: m.trunc_divide(x, y),
    vjp=ZERO, sample=reals(0.5, 3, 2), doc="x / y rounded toward zero.",
)  # fmt: skip
remainder = define(
    "remainder(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: m.remainder(x, y),
    vjp=(lambda g: g, lambda m, g, x, y: -g * m.floor(x / y)), sample=reals(0.5, 3, 2),
    doc="x − y·floor(x / y), with the sign of y.",
)  # fmt: skip
fmod = define(
    "fmod(x, y) -> z", type=_NUMBER, scalar=lambda m, x, y: m.fmod(x, y),
    vjp=(lambda g: g, lambda m, g, x, y: -g * m.trunc(x / y)), sample=reals(0.5, 3, 2),
    doc="x − y·trunc(x / y), with the sign of x.",
)  # fmt: skip


def _share(m: Any, g: Any, loses: Any, ties: Any) -> Any:
    """Gradient of a two-way choice: all to the winner, half on ties; to both where one is NaN."""
    return m.where(ties, g * 0.5, m.where(loses, _zero_of(m, g), g))


maximum = define(
    "maximum(x, y) -> z", type=_ANY, scalar=lambda m, x, y: m.maximum(x, y),
    vjp=(lambda m, g, x, y: _share(m, g, m.lt(x, y), m.eq(x, y)),
         lambda m, g, x, y: _share(m, g, m.lt(y, x), m.eq(x, y))),
    traits=(COMMUTATIVE,), sample=_TWO, doc="The larger; NaN if either is NaN.",
)  # fmt: skip
minimum = define(
    "minimum(x, y) -> z", type=_ANY, scalar=lambda m, x, y: m.minimum(x, y),
    vjp=(lambda m, g, x, y: _share(m, g, m.gt(x, y), m.eq(x, y)),
         lambda m, g, x, y: _share(m, g, m.gt(y, x), m.eq(x, y))),
    traits=(COMMUTATIVE,), sample=_TWO, doc="The smaller; NaN if either is NaN.",
)  # fmt: skip


def _keep(m: Any, g: Any, condition: Any) -> Any:
    """g where the condition holds, else 0."""
    return m.where(condition, g, _zero_of(m, g))


def _or_nan(m: Any, test: Any, y: Any) -> Any:
    return m.logical_or(test, m.isnan(y) if hasattr(y, "dtype") else y != y)


fmax = define(
    "fmax(x, y) -> z", type=_ANY, scalar=lambda m, x, y: m.fmax(x, y),
    vjp=(lambda m, g, x, y: _keep(m, g, _or_nan(m, m.ge(x, y), y)),
         lambda m, g, x, y: _keep(m, g, m.logical_not(_or_nan(m, m.ge(x, y), y)))),
    sample=_TWO, doc="The larger; the other one where one is NaN.",
)  # fmt: skip
fmin = define(
    "fmin(x, y) -> z", type=_ANY, scalar=lambda m, x, y: m.fmin(x, y),
    vjp=(lambda m, g, x, y: _keep(m, g, _or_nan(m, m.le(x, y), y)),
         lambda m, g, x, y: _keep(m, g, m.logical_not(_or_nan(m, m.le(x, y), y)))),
    sample=_TWO, doc="The smaller; the other one where one is NaN.",
)  # fmt: skip
clamp_min = define(
    "clamp_min(x, low) -> y", type=_ANY, scalar=lambda m, x, low: m.maximum(x, low),
    vjp=(lambda m, g, x, low: _keep(m, g, m.ge(x, low)),
         lambda m, g, x, low: _keep(m, g, m.lt(x, low))),
    sample=_TWO, doc="x, at least `low`; x takes the gradient where it reaches the bound.",
)  # fmt: skip
clamp_max = define(
    "clamp_max(x, high) -> y", type=_ANY, scalar=lambda m, x, high: m.minimum(x, high),
    vjp=(lambda m, g, x, high: _keep(m, g, m.le(x, high)),
         lambda m, g, x, high: _keep(m, g, m.gt(x, high))),
    sample=_TWO, doc="x, at most `high`; x takes the gradient where it reaches the bound.",
)  # fmt: skip
hypot = define(
    "hypot(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.hypot(x, y),
    vjp=(lambda g, x, z: g * (x / z), lambda g, y, z: g * (y / z)), traits=(COMMUTATIVE,),
    sample=reals(0.5, 3, 2), doc="sqrt(x² + y²), without overflow.",
)  # fmt: skip


def _copysign_vjp(m: Any, g: Any, x: Any, z: Any) -> Any:
    return g * m.where(m.eq(x, 0), _zero_of(m, g), m.sign(x) * m.sign(z))


copysign = define(
    "copysign(x, y) -> z", type=_FLOAT, scalar=lambda m, x, y: m.copysign(x, y),
    vjp=(_copysign_vjp, lambda m, y_type: m.full(shape=y_type.shape, value=0, dtype=y_type.dtype)),
    sample=reals(0.5, 3, 2), doc="|x| with the sign of y.",
)  # fmt: skip
nextafter = define(
    "nextafter(x, y) -> z", type=elementwise_type((float32, float64)),
    scalar=lambda m, x, y: m.nextafter(x, y),
    vjp=(lambda m, g, x, y: _keep(m, g, m.ne(x, y)), None), sample=_TWO,
    doc="The next representable number after x toward y.",
)  # fmt: skip


def _frexp_type(x: TensorType) -> tuple[TensorType, TensorType]:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    return x, x.with_dtype(int32)


frexp = define(
    "frexp(x) -> mantissa, exponent", type=_frexp_type,
    kernel=in_float32(lambda xp, x: tuple(xp.frexp(x))),
    vjp=(lambda m, g, exponent: g[0] / m.exp2(m.cast(exponent, dtype=g[0].dtype)),),
    traits=(LAID_ALIKE,),
    sample=reals(0.6, 0.9), doc="x = mantissa·2^exponent with 0.5 <= |mantissa| < 1.",
)  # fmt: skip
atan2 = define(
    "atan2(y, x) -> z", type=_FLOAT, scalar=lambda m, y, x: m.arctan2(y, x),
    vjp=(lambda g, y, x: g * (x / (x * x + y * y)), lambda g, y, x: g * (-y / (x * x + y * y))),
    sample=reals(0.5, 2, 2), doc="Angle of the point (x, y) in radians.",
)  # fmt: skip
neg = define(
    "neg(x) -> y", type=_NUMBER, scalar=lambda m, x: -x, vjp=(lambda g: -g,),
    traits=(COMPLEX,), sample=reals(-2, 2), doc="−x.",
)  # fmt: skip


def _abs_type(x: TensorType) -> TensorType:
    return x.with_dtype(x.dtype.to_real())


def _abs_vjp(m: Any, g: Any, x: Any) -> Any:
    return m.cast(g, dtype=x.dtype) * m.sgn(x) if is_complex(x) else g * m.sign(x)


abs_ = define(
    "abs(x) -> y", type=_abs_type, scalar=lambda m, x: m.abs(x), vjp=(_abs_vjp,),
    traits=(COMPLEX,), sample=reals(-2, 2), doc="|x|.",
)  # fmt: skip
sign = define(
    "sign(x) -> y", type=_ANY, scalar=lambda m, x: m.sign(x), vjp=ZERO, sample=reals(-2, 2),
    doc="−1, 0 or 1; 0 for NaN.",
)  # fmt: skip
reciprocal = define(
    "reciprocal(x) -> y", type=_FLOAT, scalar=lambda m, x: 1 / x,
    vjp=(lambda g, y: -g * (y * y),), traits=(HOLOMORPHIC,), sample=_POSITIVE, doc="1 / x.",
)  # fmt: skip

# Exponentials, roots, trigonometry.
exp = define(
    "exp(x) -> y", type=_FLOAT, scalar=lambda m, x: m.exp(x), vjp=(lambda g, y: g * y,),
    traits=(HOLOMORPHIC,), sample=reals(-4, 4), doc="e to the power x.",
)  # fmt: skip
exp2 = define(
    "exp2(x) -> y", type=_FLOAT, scalar=lambda m, x: m.exp2(x),
    vjp=(lambda g, y: g * (y * math.log(2)),), traits=(HOLOMORPHIC,), sample=reals(-4, 4),
    doc="2 to the power x.",
)  # fmt: skip
expm1 = define(
    "expm1(x) -> y", type=_FLOAT, scalar=lambda m, x: m.expm1(x), vjp=(lambda g, y: g * (y + 1),),
    traits=(HOLOMORPHIC,), sample=reals(-4, 4), doc="exp(x) − 1, exact near 0.",
)  # fmt: skip
log = define(
    "log(x) -> y", type=_FLOAT, scalar=lambda m, x: m.log(x), vjp=(lambda g, x: g / x,),
    traits=(HOLOMORPHIC,), sample=_POSITIVE, doc="Natural logarithm.",
)  # fmt: skip
log2 = define(
    "log2(x) -> y", type=_FLOAT, scalar=lambda m, x: m.log2(x),
    vjp=(lambda g, x: g / (x * math.log(2)),), traits=(HOLOMORPHIC,), sample=_POSITIVE,
    doc="Logarithm to base 2.",
)  # fmt: skip
log10 = define(
    "log10(x) -> y", type=_FLOAT, scalar=lambda m, x: m.log10(x),
    vjp=(lambda g, x: g / (x * math.log(10)),), traits=(HOLOMORPHIC,), sample=_POSITIVE,
    doc="Logarithm to base 10.",
)  # fmt: skip
log1p = define(
    "log1p(x) -> y", type=_FLOAT, scalar=lambda m, x: m.log1p(x), vjp=(lambda g, x: g / (x + 1),),
    traits=(HOLOMORPHIC,), sample=reals(-0.5, 4), doc="log(1 + x), exact near 0.",
)  # fmt: skip
sqrt = define(
    "sqrt(x) -> y", type=_FLOAT, scalar=lambda m, x: m.sqrt(x), vjp=(lambda g, y: g / (2 * y),),
    traits=(HOLOMORPHIC,), sample=_POSITIVE, doc="Square root.",
)  # fmt: skip
rsqrt = define(
    "rsqrt(x) -> y", type=_FLOAT, scalar=lambda m, x: m.rsqrt(x),
    vjp=(lambda g, y: -0.5 * g * (y * y * y),), traits=(HOLOMORPHIC,), sample=_POSITIVE,
    doc="1 / sqrt(x).",
)  # fmt: skip
sin = define(
    "sin(x) -> y", type=_FLOAT, scalar=lambda m, x: m.sin(x), vjp=(lambda m, g, x: g * m.cos(x),),
    traits=(HOLOMORPHIC,), sample=reals(-4, 4), doc="Sine of x radians.",
)  # fmt: skip
cos = define(
    "cos(x) -> y", type=_FLOAT, scalar=lambda m, x: m.cos(x),
    vjp=(lambda m, g, x: g * -m.sin(x),), traits=(HOLOMORPHIC,), sample=reals(-4, 4),
    doc="Cosine of x radians.",
)  # fmt: skip
tan = define(
    "tan(x) -> y", type=_FLOAT, scalar=lambda m, x: m.tan(x), vjp=(lambda g, y: g * (y * y + 1),),
    traits=(HOLOMORPHIC,), sample=reals(-1, 1), doc="Tangent of x radians.",
)  # fmt: skip
asin = define(
    "asin(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arcsin(x),
    vjp=(lambda m, g, x: g * m.rsqrt(1 - x * x),), traits=(HOLOMORPHIC,), sample=reals(-0.9, 0.9),
    doc="Arc sine.",
)  # fmt: skip
acos = define(
    "acos(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arccos(x),
    vjp=(lambda m, g, x: -g * m.rsqrt(1 - x * x),), traits=(HOLOMORPHIC,), sample=reals(-0.9, 0.9),
    doc="Arc cosine.",
)  # fmt: skip
atan = define(
    "atan(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arctan(x),
    vjp=(lambda g, x: g / (x * x + 1),), traits=(HOLOMORPHIC,), sample=reals(-4, 4),
    doc="Arc tangent.",
)  # fmt: skip
sinh = define(
    "sinh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.sinh(x),
    vjp=(lambda m, g, x: g * m.cosh(x),), traits=(HOLOMORPHIC,), sample=reals(-3, 3),
    doc="Hyperbolic sine.",
)  # fmt: skip
cosh = define(
    "cosh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.cosh(x),
    vjp=(lambda m, g, x: g * m.sinh(x),), traits=(HOLOMORPHIC,), sample=reals(-3, 3),
    doc="Hyperbolic cosine.",
)  # fmt: skip
tanh = define(
    "tanh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.tanh(x),
    vjp=(lambda g, y: g * (1 - y * y),), traits=(HOLOMORPHIC,), sample=reals(-3, 3),
    doc="Hyperbolic tangent.",
)  # fmt: skip
asinh = define(
    "asinh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arcsinh(x),
    vjp=(lambda m, g, x: g * m.rsqrt(x * x + 1),), traits=(HOLOMORPHIC,), sample=reals(-3, 3),
    doc="Inverse hyperbolic sine.",
)  # fmt: skip


def _acosh_vjp(m: Any, g: Any, x: Any) -> Any:
    """One root of x² − 1 would be that of −x left of the imaginary axis."""
    if is_complex(x):
        return g * (m.rsqrt(x - 1) * m.rsqrt(x + 1))
    return g * m.rsqrt(x * x - 1)


acosh = define(
    "acosh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arccosh(x),
    vjp=(_acosh_vjp,), traits=(HOLOMORPHIC,), sample=reals(1.2, 4),
    doc="Inverse hyperbolic cosine.",
)  # fmt: skip
atanh = define(
    "atanh(x) -> y", type=_FLOAT, scalar=lambda m, x: m.arctanh(x),
    vjp=(lambda g, x: g / (1 - x * x),), traits=(HOLOMORPHIC,), sample=reals(-0.9, 0.9),
    doc="Inverse hyperbolic tangent.",
)  # fmt: skip
sigmoid = define(
    "sigmoid(x) -> y", type=_FLOAT, scalar=lambda m, x: m.sigmoid(x),
    vjp=(lambda g, y: g * (y * (1 - y)),), traits=(HOLOMORPHIC,), sample=reals(-4, 4),
    doc="1 / (1 + exp(−x)).",
)  # fmt: skip
erf = define(
    "erf(x) -> y", type=_FLOAT, scalar=lambda m, x: m.erf(x),
    kernel=in_blocks(lambda m, x: m.erf(x)),
    vjp=(lambda m, g, x: g * (m.exp(-(x * x)) * (2 / math.sqrt(math.pi))),),
    sample=reals(-3, 3), doc="Error function (Abramowitz & Stegun 7.1.1).",
)  # fmt: skip
erfc = define(
    "erfc(x) -> y", type=_FLOAT, scalar=lambda m, x: m.erfc(x),
    vjp=(lambda m, g, x: g * (m.exp(-(x * x)) * (-2 / math.sqrt(math.pi))),),
    sample=reals(-3, 3), doc="1 − erf(x), without cancellation.",
)  # fmt: skip

gcd = define(
    "gcd(x, y) -> z", type=elementwise_type(INTS), kernel=lambda xp, x, y: xp.gcd(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(ELEMENTWISE, COMMUTATIVE), sample=_int_cases(2, 1, 30),
    doc="Greatest common divisor.",
)  # fmt: skip
lcm = define(
    "lcm(x, y) -> z", type=elementwise_type(INTS), kernel=lambda xp, x, y: xp.lcm(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(ELEMENTWISE, COMMUTATIVE), sample=_int_cases(2, 1, 30),
    doc="Least common multiple.",
)  # fmt: skip

# Rounding.
floor = define(
    "floor(x) -> y", type=_FLOAT, scalar=lambda m, x: m.floor(x), vjp=ZERO, sample=reals(-3, 3),
    doc="The largest whole number not above x.",
)  # fmt: skip
ceil = define(
    "ceil(x) -> y", type=_FLOAT, scalar=lambda m, x: m.ceil(x), vjp=ZERO, sample=reals(-3, 3),
    doc="The smallest whole number not below x.",
)  # fmt: skip
trunc = define(
    "trunc(x) -> y", type=_FLOAT, scalar=lambda m, x: m.trunc(x), vjp=ZERO, sample=reals(-3, 3),
    doc="x rounded toward zero.",
)  # fmt: skip
round_ = define(
    "round(x) -> y", type=_FLOAT, scalar=lambda m, x: m.round(x), vjp=ZERO, sample=reals(-3, 3),
    doc="x rounded to the nearest whole number, halves to even.",
)  # fmt: skip

# Comparison and tests: bool results.
eq = define(
    "eq(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.equal(x, y), vjp=NOT_DIFFERENTIABLE,
    traits=(COMMUTATIVE, COMPLEX), sample=_int_cases(2, 0, 3), doc="x == y.",
)  # fmt: skip
ne = define(
    "ne(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.not_equal(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE, COMPLEX), sample=_int_cases(2, 0, 3),
    doc="x != y.",
)  # fmt: skip
lt = define(
    "lt(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.less(x, y), vjp=NOT_DIFFERENTIABLE,
    sample=_TWO, doc="x < y.",
)  # fmt: skip
le = define(
    "le(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.less_equal(x, y),
    vjp=NOT_DIFFERENTIABLE, sample=_TWO, doc="x <= y.",
)  # fmt: skip
gt = define(
    "gt(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.greater(x, y),
    vjp=NOT_DIFFERENTIABLE, sample=_TWO, doc="x > y.",
)  # fmt: skip
ge = define(
    "ge(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.greater_equal(x, y),
    vjp=NOT_DIFFERENTIABLE, sample=_TWO, doc="x >= y.",
)  # fmt: skip
isnan = define(
    "isnan(x) -> y", type=_TEST, scalar=lambda m, x: m.isnan(x), vjp=NOT_DIFFERENTIABLE,
    traits=(COMPLEX,), sample=reals(-2, 2), doc="Whether x is NaN.",
)  # fmt: skip
isinf = define(
    "isinf(x) -> y", type=_TEST, scalar=lambda m, x: m.isinf(x), vjp=NOT_DIFFERENTIABLE,
    traits=(COMPLEX,), sample=reals(-2, 2), doc="Whether x is +inf or −inf.",
)  # fmt: skip
isfinite = define(
    "isfinite(x) -> y", type=_TEST, scalar=lambda m, x: m.isfinite(x), vjp=NOT_DIFFERENTIABLE,
    traits=(COMPLEX,), sample=reals(-2, 2), doc="Whether x is neither infinite nor NaN.",
)  # fmt: skip
signbit = define(
    "signbit(x) -> y", type=_TEST, scalar=lambda m, x: m.signbit(x), vjp=NOT_DIFFERENTIABLE,
    sample=reals(-2, 2), doc="Whether the sign bit of x is set.",
)  # fmt: skip

# Logic and bits.
logical_and = define(
    "logical_and(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.logical_and(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE, COMPLEX), sample=_int_cases(2, 0, 2),
    doc="Whether both are nonzero.",
)  # fmt: skip
logical_or = define(
    "logical_or(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.logical_or(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE, COMPLEX), sample=_int_cases(2, 0, 2),
    doc="Whether either is nonzero.",
)  # fmt: skip
logical_xor = define(
    "logical_xor(x, y) -> z", type=_COMPARE, scalar=lambda m, x, y: m.logical_xor(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE, COMPLEX), sample=_int_cases(2, 0, 2),
    doc="Whether exactly one is nonzero.",
)  # fmt: skip
logical_not = define(
    "logical_not(x) -> y", type=_TEST, scalar=lambda m, x: m.logical_not(x),
    vjp=NOT_DIFFERENTIABLE, traits=(COMPLEX,), sample=_int_cases(1, 0, 2), doc="Whether x is zero.",
)  # fmt: skip
bitwise_and = define(
    "bitwise_and(x, y) -> z", type=_BITS, scalar=lambda m, x, y: m.bitwise_and(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE,), sample=_int_cases(2), doc="x & y.",
)  # fmt: skip
bitwise_or = define(
    "bitwise_or(x, y) -> z", type=_BITS, scalar=lambda m, x, y: m.bitwise_or(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE,), sample=_int_cases(2), doc="x | y.",
)  # fmt: skip
bitwise_xor = define(
    "bitwise_xor(x, y) -> z", type=_BITS, scalar=lambda m, x, y: m.bitwise_xor(x, y),
    vjp=NOT_DIFFERENTIABLE, traits=(COMMUTATIVE,), sample=_int_cases(2), doc="x ^ y.",
)  # fmt: skip
bitwise_not = define(
    "bitwise_not(x) -> y", type=_BITS, scalar=lambda m, x: m.invert(x),
    vjp=NOT_DIFFERENTIABLE, sample=_int_cases(1), doc="~x.",
)  # fmt: skip
shift_left = define(
    "bitwise_left_shift(x, y) -> z", type=_BITS, scalar=lambda m, x, y: m.left_shift(x, y),
    vjp=NOT_DIFFERENTIABLE, sample=_int_cases(2), doc="x << y.",
)  # fmt: skip
shift_right = define(
    "bitwise_right_shift(x, y) -> z", type=_BITS, scalar=lambda m, x, y: m.right_shift(x, y),
    vjp=NOT_DIFFERENTIABLE, sample=_int_cases(2), doc="x >> y.",
)  # fmt: skip


def _where_type(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError(f"where expects a bool condition, not {condition.dtype}")
    if x.dtype is not y.dtype:
        raise DTypeError(f"operands have different dtypes {x.dtype} and {y.dtype}")
    return TensorType(x.dtype, broadcast_shapes([condition.shape, x.shape, y.shape]))


where = define(
    "where(condition, x, y) -> z", type=_where_type, scalar=lambda m, c, x, y: m.where(c, x, y),
    vjp=(None, lambda m, g, condition: m.where(condition, g, _zero_of(m, g)),
         lambda m, g, condition: m.where(condition, _zero_of(m, g), g)),
    traits=(COMPLEX,), sample=(Case((Spec((3, 4), 0, 2, "b"), Spec((3, 4)), Spec((3, 4))), {}),
            Case((Spec((3, 1), 0, 2, "b"), Spec((4,)), Spec(())), {})),
    doc="x where the condition holds, else y; neither branch is multiplied (NaN stays apart).",
)  # fmt: skip


def _cast_kernel(xp: Any, x: Any, *, dtype: DType) -> Any:
    if 0 in x.strides:  # by itself NumPy has dims that repeat memory lie innermost
        x = copied(x)
    if is_complex(x) and not dtype.is_complex and dtype is not bool_:
        x = x.real
    source = BY_NUMPY[x.dtype]
    if source.is_floating_point and not dtype.is_floating_point and dtype is not bool_:
        with np.errstate(all="ignore"):
            return x.astype(dtype.np)
    return x.astype(dtype.np)


cast = define(
    "cast(x) -> y", type=lambda x, *, dtype: x.with_dtype(dtype), kernel=_cast_kernel,
    vjp=(lambda m, g, x_type: m.cast(g, dtype=x_type.dtype),), traits=(ELEMENTWISE, COMPLEX),
    sample=(Case((Spec((3, 4)),), {"dtype": float64}),
            Case((Spec((), -2, 2),), {"dtype": int32})),
    doc="x in another dtype; floats to integers truncate.",
)  # fmt: skip
