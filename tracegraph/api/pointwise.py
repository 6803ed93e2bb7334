"""Elementwise functions with PyTorch's names."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api.promotion import cast, elementwise, result_type
from tracegraph.dispatch import front
from tracegraph.dtypes import FLOAT_KIND, bool_, get_default_dtype
from tracegraph.ops.table import OPS
from tracegraph.operators import unary_method
from tracegraph.tensors import Tensor, type_of

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
abs = absolute = unary_method(OPS["abs"], floating=False)  # noqa: A001
sign = unary_method(OPS["sign"], floating=False)


def _exact_on_ints(name: str) -> Any:
    """Rounding: integers are already whole."""
    rounded = unary_method(OPS[name], floating=False)

    def function(input: Tensor) -> Tensor:
        return rounded(input) if type_of(input).dtype.kind == FLOAT_KIND else input.clone()

    function.__name__ = name
    function.__doc__ = OPS[name].doc
    return function


floor = _exact_on_ints("floor")
ceil = _exact_on_ints("ceil")
trunc = fix = _exact_on_ints("trunc")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:  # noqa: A001
    """Round to `decimals` digits, halves to even."""
    if type_of(input).dtype.kind != FLOAT_KIND:
        return input.clone()
    if decimals == 0:
        return elementwise(OPS["round"], input)
    scale = 10.0 ** math.fabs(decimals)
    if decimals > 0:
        return elementwise(OPS["round"], input * scale) / scale
    return elementwise(OPS["round"], input / scale) * scale





def _scaled(other: Any, alpha: Any) -> Any:
    return other if alpha == 1 else other * alpha


def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return input + alpha·other."""
    return elementwise(OPS["add"], input, _scaled(other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return input − alpha·other."""
    return elementwise(OPS["sub"], input, _scaled(other, alpha))


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
        from tracegraph.errors import OpError

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


pow = _binary("pow")  # noqa: A001
floor_divide = _binary("floor_divide")
remainder = _binary("remainder")
fmod = _binary("fmod")
maximum = _binary("maximum")
minimum = _binary("minimum")
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
logical_not = unary_method(OPS["logical_not"], floating=False)
bitwise_not = unary_method(OPS["bitwise_not"], floating=False)
isnan = unary_method(OPS["isnan"], floating=False)
isinf = unary_method(OPS["isinf"], floating=False)
isfinite = unary_method(OPS["isfinite"], floating=False)
signbit = unary_method(OPS["signbit"], floating=False)


def square(input: Tensor) -> Tensor:
    """Return input²."""
    return input * input


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return input limited to [min, max]; either bound may be None or a tensor."""
    if min is None and max is None:
        from tracegraph.errors import OpError

        raise OpError("torch.clamp: At least one of 'min' or 'max' must not be None")
    out = input
    bounds = [b for b in (min, max) if b is not None]
    dtype = result_type(input, *bounds)
    out = cast(out, dtype)
    # A bound that is reached lets the gradient through, so where() and not maximum().
    if min is not None:
        out = where(elementwise(OPS["lt"], out, min), min, out)
    if max is not None:
        out = where(elementwise(OPS["gt"], out, max), max, out)
    return cast(out, dtype)


clip = clamp


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Return `input` where `condition` holds, else `other`; with the condition only, `nonzero`."""
    if input is None and other is None:
        from tracegraph.api.indexing import nonzero_tuple

        return nonzero_tuple(condition)
    from tracegraph.api.promotion import scalar_tensor

    dtype = result_type(input, other)
    if not isinstance(input, Tensor) and not isinstance(other, Tensor) and dtype.kind == FLOAT_KIND:
        dtype = get_default_dtype()
    x, y = (
        cast(v, dtype) if isinstance(v, Tensor) else scalar_tensor(v, dtype) for v in (input, other)
    )
    out: Tensor = front.where(cast(condition, bool_), x, y)
    return out


IN_PLACE = frozenset(
    """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh
    asinh acosh atanh sigmoid erf erfc reciprocal neg abs sign floor ceil trunc round add sub mul
    div pow floor_divide remainder fmod maximum minimum atan2 eq ne lt le gt ge logical_and
    logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not square clamp
    clip negative absolute true_divide multiply subtract divide""".split()
)
"""Functions that have an in-place form `name_`."""
