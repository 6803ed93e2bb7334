"""Elementwise functions with PyTorch's names."""

from __future__ import annotations

import math
from typing import Any

from tracegraph import return_types
from tracegraph.api.promotion import (
    cast,
    elementwise,
    float_operand,
    of_tensors,
    result_type,
    scalar_tensor,
    scaled,
    single_dtype,
)
from tracegraph.dtypes import (
    FLOAT_KIND,
    bool_,
    complex128,
    finfo,
    float64,
    get_default_dtype,
    int64,
)
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.operators import unary_method
from tracegraph.eager.tape import lasting
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.table import OPS

exp = unary_method(OPS["exp"])
exp2 = unary_method(OPS["exp2"])
expm1 = unary_method(OPS["expm1"])
log = unary_method(OPS["log"])
log2 = unary_method(OPS["log2"])
log10 = unary_method(OPS["log10"])
log1p = unary_method(OPS["log1p"])
sqrt = unary_method(OPS["sqrt"])
rsqrt = unary_method(OPS["rsqrt"])
sin = unary_method(OPS["sin"])
cos = unary_method(OPS["cos"])
tan = unary_method(OPS["tan"])
asin = arcsin = unary_method(OPS["asin"])
acos = arccos = unary_method(OPS["acos"])
atan = arctan = unary_method(OPS["atan"])
sinh = unary_method(OPS["sinh"])
cosh = unary_method(OPS["cosh"])
tanh = unary_method(OPS["tanh"])
asinh = arcsinh = unary_method(OPS["asinh"])
acosh = arccosh = unary_method(OPS["acosh"])
atanh = arctanh = unary_method(OPS["atanh"])
sigmoid = unary_method(OPS["sigmoid"])
erf = unary_method(OPS["erf"])
erfc = unary_method(OPS["erfc"])
reciprocal = unary_method(OPS["reciprocal"])
neg = negative = unary_method(OPS["neg"], floating=False)
abs = absolute = unary_method(OPS["abs"], floating=False)
sign = unary_method(OPS["sign"], floating=False)
lgamma = unary_method(OPS["lgamma"])
digamma = unary_method(OPS["digamma"])
erfinv = unary_method(OPS["erfinv"])
i0 = unary_method(OPS["i0"])
sinc = unary_method(OPS["sinc"])


def _floating(x: Tensor) -> bool:
    return type_of(x).dtype.kind == FLOAT_KIND


def _exact_on_ints(name: str) -> Any:
    """Rounding: integers are already whole."""
    rounded = unary_method(OPS[name], floating=False)

    def function(input: Tensor) -> Tensor:
        return rounded(input) if type_of(input).dtype.kind >= FLOAT_KIND else input.clone()

    function.__name__ = name
    function.__doc__ = OPS[name].doc
    return function


floor = _exact_on_ints("floor")
ceil = _exact_on_ints("ceil")
trunc = fix = _exact_on_ints("trunc")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Round to `decimals` digits, halves to even."""
    if type_of(input).dtype.kind < FLOAT_KIND:
        return input.clone()
    if decimals == 0:
        return elementwise(OPS["round"], input)
    scale = 10.0 ** math.fabs(decimals)
    if decimals > 0:
        return lasting(elementwise(OPS["round"], lasting(input * scale)) / scale)
    return lasting(elementwise(OPS["round"], lasting(input / scale)) * scale)


def add(input: Any, other: Any, *tensor: Any, alpha: Any = 1) -> Tensor:
    """Return input + alpha·other; of old, alpha stands between them."""
    if tensor:
        alpha, (other,) = other, tensor
    return elementwise(OPS["add"], input, scaled(other, alpha))


def sub(input: Any, other: Any, *tensor: Any, alpha: Any = 1) -> Tensor:
    """Return input − alpha·other; of old, alpha stands between them."""
    if tensor:
        alpha, (other,) = other, tensor
    return elementwise(OPS["sub"], input, scaled(other, alpha))


subtract = sub


def mul(input: Any, other: Any) -> Tensor:
    """Return input · other."""
    return elementwise(OPS["mul"], input, other)


multiply = mul


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Return input / other, or its floor (`"floor"`) or truncation (`"trunc"`)."""
    if rounding_mode is None:
        return elementwise(OPS["div"], input, other, floating=True)
    op = {"floor": "floor_divide", "trunc": "trunc_divide"}.get(rounding_mode)
    if op is None:
        raise OpError(
            "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
            f"'{rounding_mode}'"
        )
    return elementwise(OPS[op], input, other)


divide = true_divide = div


def _binary(name: str, floating: bool = False) -> Any:
    op = OPS[name]

    def function(input: Any, other: Any) -> Tensor:
        return elementwise(op, input, other, floating=floating)

    function.__name__ = name
    function.__doc__ = op.doc
    return function


_power = _binary("pow")


def pow(input: Any, other: Any) -> Tensor:
    """Return a power; of a number to elements in rows."""
    out: Tensor = _power(input, other)
    return out if isinstance(input, Tensor) else in_rows(out)


floor_divide = _binary("floor_divide")
remainder = _binary("remainder")
fmod = _binary("fmod")
maximum = _binary("maximum")
minimum = _binary("minimum")
fmax = _binary("fmax")
fmin = _binary("fmin")
hypot = _binary("hypot")
copysign = _binary("copysign", floating=True)
nextafter = _binary("nextafter")
logaddexp = _binary("logaddexp", floating=True)
logaddexp2 = _binary("logaddexp2", floating=True)

atan2 = arctan2 = _binary("atan2", floating=True)
eq = _binary("eq")
ne = not_equal = _binary("ne")
lt = less = _binary("lt")
le = less_equal = _binary("le")
gt = greater = _binary("gt")
ge = greater_equal = _binary("ge")
logical_and = _binary("logical_and")
logical_or = _binary("logical_or")
logical_xor = _binary("logical_xor")
bitwise_and = _binary("bitwise_and")
bitwise_or = _binary("bitwise_or")
bitwise_xor = _binary("bitwise_xor")
bitwise_left_shift = _binary("bitwise_left_shift")
bitwise_right_shift = _binary("bitwise_right_shift")
gcd = _binary("gcd")
lcm = _binary("lcm")
logical_not = unary_method(OPS["logical_not"], floating=False)
bitwise_not = unary_method(OPS["bitwise_not"], floating=False)
isnan = unary_method(OPS["isnan"], floating=False)
isinf = unary_method(OPS["isinf"], floating=False)
isfinite = unary_method(OPS["isfinite"], floating=False)
signbit = unary_method(OPS["signbit"], floating=False)


def square(input: Tensor) -> Tensor:
    """Return input²; of bools, as int64."""
    x = cast(input, int64) if type_of(input).dtype is bool_ else input
    return x * x


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return input limited to [min, max]; either bound may be None or a tensor. NaN stays.

    Raises:
        OpError: both bounds are None.
    """
    bounds = [b for b in (min, max) if b is not None]
    if not bounds:
        raise OpError("torch.clamp: At least one of 'min' or 'max' must not be None")
    out = cast(input, result_type(input, *bounds))
    if min is not None:
        out = elementwise(OPS["clamp_min"], out, min)
    if max is not None:
        out = elementwise(OPS["clamp_max"], out, max)
    return out


clip = clamp
clamp_min = _binary("clamp_min")
clamp_max = _binary("clamp_max")


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Return `input` where `condition` holds, else `other`; with the condition only, `nonzero`."""
    if input is None and other is None:
        from tracegraph.api.indexing import nonzero_tuple

        return nonzero_tuple(condition)
    tensors = isinstance(input, Tensor), isinstance(other, Tensor)
    if all(tensors) and input._data.dtype is other._data.dtype is not None:
        return front.where(cast(condition, bool_), input, other)
    dtype = result_type(input, other)
    if not any(tensors) and dtype.kind == FLOAT_KIND:
        dtype = get_default_dtype()
    x, y = (
        cast(v, dtype) if isinstance(v, Tensor) else scalar_tensor(v, dtype) for v in (input, other)
    )
    out: Tensor = front.where(cast(condition, bool_), x, y)
    return out


# Composed of the functions above.


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return other − alpha·input."""
    return elementwise(OPS["sub"], other, scaled(input, alpha))


def addcmul(input: Tensor, tensor1: Any, tensor2: Any, *tensor: Any, value: Any = 1) -> Tensor:
    """Return input + value·tensor1·tensor2; of old, value stands before the factors."""
    if tensor:
        value, tensor1, (tensor2,) = tensor1, tensor2, tensor
    return input + scaled(tensor1 * tensor2, value)


def addcdiv(input: Tensor, tensor1: Any, tensor2: Any, *tensor: Any, value: Any = 1) -> Tensor:
    """Return input + value·tensor1 / tensor2; of old, value stands before the two."""
    if tensor:
        value, tensor1, (tensor2,) = tensor1, tensor2, tensor
    return input + scaled(tensor1 / tensor2, value)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """Return input + weight·(end − input), exact at both ends."""
    single_dtype("lerp", input, end)
    gap = end - input
    if not isinstance(weight, Tensor):
        return input + scaled(gap, weight) if weight < 0.5 else end - scaled(gap, 1 - weight)
    return where(lt(weight, 0.5), input + weight * gap, end - gap * (1 - weight))


def frac(input: Tensor) -> Tensor:
    """Return the part behind the point, with the sign of the input."""
    return input - trunc(input)


def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    return lasting(input * (math.pi / 180))


def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    return lasting(input * (180 / math.pi))


def xlogy(input: Any, other: Any) -> Tensor:
    """Return input·log(other), and 0 where input is 0."""
    return of_tensors("xlogy", input, other)


def ldexp(input: Tensor, other: Any) -> Tensor:
    """Return input·2^other."""
    return input * _power(2.0, other)


def float_power(input: Any, exponent: Any) -> Tensor:
    """Return a power computed in float64, or in complex128."""
    wide = float64 if result_type(input, exponent).kind <= FLOAT_KIND else complex128
    x, y = (cast(v, wide) if isinstance(v, Tensor) else v for v in (input, exponent))
    return cast(pow(x, y), wide)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """Return 0 below 0 (and for NaN), `values` at 0, 1 above."""
    single_dtype("heaviside", input, values)
    step = cast(front.gt(input, 0), type_of(input).dtype)
    return front.where(front.eq(input, 0), values, step)


def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:  # fmt: skip
    """Return finite numbers for NaN (0) and the infinities (the extremes of the dtype)."""
    if type_of(input).dtype.is_complex:
        raise DTypeError("nan_to_num is not implemented for complex dtypes")
    if not _floating(input):
        return input.clone()
    limits = finfo(type_of(input).dtype)
    top = limits.max if posinf is None else posinf
    bottom = limits.min if neginf is None else neginf
    out: Tensor = where(front.isnan(input), 0.0 if nan is None else nan, input)
    out = where(front.eq(input, math.inf), top, out)
    return cast(where(front.eq(input, -math.inf), bottom, out), type_of(input).dtype)


def frexp(input: Tensor) -> Any:
    """Return (mantissa, exponent) with input = mantissa·2^exponent, 0.5 <= |mantissa| < 1."""
    return return_types.frexp(*front.frexp(float_operand(input)))


def isposinf(input: Tensor) -> Tensor:
    """Whether an element is +inf."""
    return logical_and(isinf(input), gt(input, 0))


def isneginf(input: Tensor) -> Tensor:
    """Whether an element is −inf."""
    return logical_and(isinf(input), lt(input, 0))


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether |input − other| <= atol + rtol·|other|; infinities only equal themselves."""
    single_dtype("isclose", input, other)
    if rtol < 0 or atol < 0:
        raise OpError(f"rtol and atol must be greater than or equal to zero: {rtol}, {atol}")
    same = eq(input, other)
    if equal_nan:
        same = logical_or(same, logical_and(isnan(input), isnan(other)))
    if type_of(input).dtype is bool_:
        return same
    gap = abs(input - other)
    near = logical_and(isfinite(gap), le(gap, abs(other * rtol) + atol))
    return logical_or(same, near)


def positive(input: Tensor) -> Tensor:
    """Return the input itself."""
    if type_of(input).dtype is bool_:
        raise DTypeError("The `+` operator, on a bool tensor is not supported.")
    return input
