"""The public functions, collected from the family modules of `tracegraph.api`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from tracegraph.api import (
    contraction,
    creation,
    pointwise,
    random,
    rearrangement,
    reduction,
    shape,
)


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Public functions that a family module defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ in (module.__name__, "tracegraph.operators")
        and name not in ("unary_method",)
    }


FAMILIES: Final = (creation, pointwise, random, reduction, shape, rearrangement, contraction)
_INNER: Final = frozenset(("finish", "note_constant", "shape_of", "legacy_tensor", "infer_shape",
                           "slice_dim"))  # fmt: skip

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: function
    for family in FAMILIES
    for name, function in functions_of(family).items()
    if name not in _INNER
}

IN_PLACE: Final = frozenset(
    """abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max
    clamp_min clip copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv
    exp exp2 expm1 fix float_power floor floor_divide fmod frac ge greater greater_equal gt
    heaviside hypot i0 ldexp le lerp less less_equal lgamma log log10 log1p log2 logical_and
    logical_not logical_or logical_xor lt maximum minimum mul multiply nan_to_num ne neg negative
    nextafter not_equal pow rad2deg reciprocal remainder renorm round rsqrt sgn sigmoid sign sin
    sinc sinh sqrt square sub subtract tan tanh tril triu true_divide trunc xlogy""".split()
)
"""Functions that have an in-place form `name_`."""
