"""The public functions, collected from the family modules of `tracegraph.api`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from tracegraph.api import (
    activation,
    complex_numbers,
    contraction,
    copies,
    creation,
    differences,
    einsum,
    elimination,
    legacy_linear_algebra,
    masking,
    matrices,
    pointwise,
    queries,
    random,
    ranges,
    rearrangement,
    reduction,
    selection,
    shape,
    short_time,
    sorting,
    special,
    statistics,
    window_functions,
)
from tracegraph.api.foreach import FOREACH
from tracegraph.api.keywords import accept_keywords


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Public functions that a family module defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ in (module.__name__, "tracegraph.eager.operators")
        and name not in ("unary_method",)
    }


FAMILIES: Final = (
    creation, ranges, pointwise, complex_numbers, activation, random, reduction, shape,
    rearrangement, contraction, einsum, matrices, selection, masking, sorting, statistics,
    differences, legacy_linear_algebra, queries, copies, short_time,
)  # fmt: skip
_INNER: Final = frozenset((
    "as_row", "count_up", "finish", "infer_shape", "matrix_product", "note_constant", "requested",
    "reshaped", "shape_of", "single_value", "slice_dim", "strided_places",
))  # fmt: skip
_ELSEWHERE: Final[dict[str, Callable[..., Any]]] = {
    "polygamma": special.polygamma,
    "mvlgamma": special.multigammaln,
    "logit": special.logit,
    "igamma": special.igamma,
    "igammac": special.igammac,
    "hann_window": window_functions.hann_window,
    "hamming_window": window_functions.hamming_window,
    "blackman_window": window_functions.blackman_window,
    "bartlett_window": window_functions.bartlett_window,
    "kaiser_window": window_functions.kaiser_window,
    **FOREACH,
    "lu_unpack": elimination.lu_unpack,
    "geqrf": elimination.geqrf,
    "orgqr": elimination.orgqr,
    "ormqr": elimination.ormqr,
}

PLAIN: Final[dict[str, Callable[..., Any]]] = {
    **{
        name: function
        for family in FAMILIES
        for name, function in functions_of(family).items()
        if name not in _INNER
    },
    **_ELSEWHERE,
}
"""The functions as they are written."""

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: accept_keywords(name, function, with_out=True) for name, function in PLAIN.items()
}
"""The functions as programs call them, with `out=`."""

TENSOR_METHODS: Final[dict[str, Callable[..., Any]]] = {
    name: accept_keywords(name, function, with_out=False) for name, function in PLAIN.items()
}

_IN_PLACE_NAMES: Final = """
abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh
arctan arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift
bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip
copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv exp exp2 expm1 fix
float_power floor floor_divide fmod frac gcd ge greater greater_equal gt heaviside hypot i0 igamma
igammac index_add index_copy index_fill index_put index_reduce lcm ldexp le lerp less less_equal
lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt masked_fill
masked_scatter maximum minimum mul multiply mvlgamma nan_to_num ne neg negative nextafter
not_equal pow put rad2deg reciprocal relu remainder renorm round rsqrt scatter scatter_add
scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan tanh tril triu
true_divide trunc xlogy
"""
IN_PLACE: Final = frozenset(_IN_PLACE_NAMES.split())
"""Functions that have an in-place form `name_`."""
