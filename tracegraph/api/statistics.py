"""Moments, quantiles, counts and covariances, with PyTorch's argument forms."""

from __future__ import annotations

from typing import Any

from tracegraph import return_types
from tracegraph.api.complex_numbers import conj, imag, real
from tracegraph.api.contraction import matmul
from tracegraph.api.indexing import check_index_dtype
from tracegraph.api.matrices import diag
from tracegraph.api.pointwise import (
    clamp,
    eq,
    floor,
    ge,
    isnan,
    le,
    lerp,
    logical_and,
    maximum,
    sqrt,
    where,
)
from tracegraph.api.promotion import (
    cast,
    counting,
    filled,
    float_operand,
    result_type,
    single_dtype,
)
from tracegraph.api.reduction import mean, sum
from tracegraph.api.shape import movedim, reshape, squeeze, unsqueeze
from tracegraph.dims.shapes import alike
from tracegraph.dims.symint import SymInt, larger
from tracegraph.dtypes import FLOAT_KIND, float64, int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.tensor_type import wrap_dim, wrap_dims

# Moments. `unbiased` is the older spelling of `correction=1`; it may also be the second argument.


def _moment(
    name: str, x: Tensor, dim: Any, unbiased: bool | None, keepdim: bool, correction: Any
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    dims = wrap_dims(dim, x.ndim)
    if x.is_complex():  # squared distances of both parts
        attrs = {"dim": dims, "keepdim": bool(keepdim), "correction": correction}
        both: Tensor = front.var(real(x), **attrs) + front.var(imag(x), **attrs)
        return sqrt(both) if name == "std" else both
    return getattr(front, name)(x, dim=dims, keepdim=bool(keepdim), correction=correction)


def var(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Tensor:  # fmt: skip
    """Variance over dims (all by default): squared distances from the mean, over n − correction."""
    return _moment("var", input, dim, unbiased, keepdim, correction)


def std(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Tensor:  # fmt: skip
    """Standard deviation over dims (all by default): the square root of `var`."""
    return _moment("std", input, dim, unbiased, keepdim, correction)


def _mean_beside(x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    return mean(x, None if isinstance(dim, bool) else dim, keepdim)


def var_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (variance, mean) over dims."""
    spread = _moment("var", input, dim, unbiased, keepdim, correction)
    return spread, _mean_beside(input, dim, keepdim)


def std_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (standard deviation, mean) over dims."""
    spread = _moment("std", input, dim, unbiased, keepdim, correction)
    return spread, _mean_beside(input, dim, keepdim)


# Quantiles.

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(
    name: str, x: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip: bool
) -> Tensor:
    if interpolation not in _INTERPOLATIONS:
        raise OpError(f"{name}() interpolation must be one of {', '.join(_INTERPOLATIONS)}")
    if x._data.size == 0:
        raise OpError(f"{name}() input tensor must be non-empty")
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise OpError(f"{name}() q must be in the range [0, 1] but got {q}")
        q = filled(x, (), float(q))
    single_dtype(name, x, q)
    ndim = x.ndim
    place = None if dim is None else wrap_dim(dim, ndim)
    rows = reshape(x, (-1,)) if place is None or not ndim else movedim(x, place, -1)
    values = front.sort(rows, dim=rows.ndim - 1, descending=False)[0]
    result = _at_ranks(values, reshape(q, (-1,)), interpolation, skip)
    result = movedim(result, -1, 0)
    if keepdim:
        lead = tuple(1 if place is None or i == place else n for i, n in enumerate(x.shape))
        result = reshape(result, (result.shape[0], *lead))
    return result if q.ndim else squeeze(result, 0)


def _at_ranks(values: Tensor, q: Tensor, interpolation: str, skip: bool) -> Tensor:
    """Interpolate sorted rows at fractions q of their length; rows with NaN give NaN or skip it."""
    last = values.ndim - 1
    size = values.shape[last]
    missing = sum(cast(isnan(values), int64), last, True)
    count = cast(maximum(size - missing - 1, filled(missing, (), 0)), type_of(values).dtype)
    top = size - 1 if size.__class__ is SymInt else float(size - 1)
    ranks = q * (count if skip else top)
    if not skip:
        ranks = where(missing > 0, top, ranks)
    elif not alike(ranks.shape[:-1], values.shape[:-1]):
        ranks = front.expand(ranks, shape=(*values.shape[:-1], q.shape[0]))
    if not alike(ranks.shape[:-1], values.shape[:-1]):
        ranks = front.expand(ranks, shape=(*values.shape[:-1], q.shape[0]))
    below = floor(ranks)
    if interpolation == "lower":
        return front.gather(values, cast(below, int64), dim=last)
    if interpolation == "nearest":
        return front.gather(values, cast(front.round(ranks), int64), dim=last)
    above = front.ceil(ranks)
    high = front.gather(values, cast(above, int64), dim=last)
    if interpolation == "higher":
        return high
    low = front.gather(values, cast(below, int64), dim=last)
    return lerp(low, high, 0.5 if interpolation == "midpoint" else ranks - below)


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear",
) -> Tensor:  # fmt: skip
    """Return the values below which fractions q of the elements lie; NaN wins.

    Raises:
        OpError: q outside of [0, 1], no elements, or an unknown interpolation.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear",
) -> Tensor:  # fmt: skip
    """Return quantiles of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


# Counts.


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Count how often each whole number from 0 occurs (or sum its weights).

    Raises:
        BakeError: a trace is running: the size of the result is data.
    """
    if input.ndim != 1 or type_of(input).dtype.kind >= FLOAT_KIND:
        raise OpError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise OpError("minlength should be >= 0")
    at = check_index_dtype(input)
    size = minlength
    if at.shape[0]:
        if int(front.amin(at, dim=(0,), keepdim=False)) < 0:
            raise OpError("bincount only supports 1-d non-negative integral inputs.")
        size = max(size, int(front.amax(at, dim=(0,), keepdim=False)) + 1)
    if weights is None:
        weights = filled(at, tuple(at.shape), 1, int64)
    elif not type_of(weights).dtype.is_floating_point:
        weights = cast(weights, float64)
    return front.scatter_add(filled(weights, (size,), 0), at, weights, dim=0)


def _edges(x: Tensor, low: Any, high: Any, apart: float) -> tuple[Tensor, Tensor]:
    """Bounds of a histogram, of the data if low == high; equal ones are moved apart."""
    if low == high and x._data.size:
        dims = tuple(range(x.ndim))
        first, last = (f(x, dim=dims, keepdim=False) for f in (front.amin, front.amax))
        if low != 0:
            first, last = filled(x, (), low), filled(x, (), high)
    else:
        first, last = filled(x, (), low), filled(x, (), high)
    same = eq(first, last)
    return where(same, first - apart, first), where(same, last + apart, last)


def histc(input: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Tensor:
    """Count elements in equal bins between two bounds (those of the data if they are equal)."""
    if bins <= 0:
        raise OpError("bins must be > 0")
    if max < min:
        raise OpError("max must be larger than min")
    x = reshape(input, (-1,))
    first, last = _edges(x, min, max, 1)
    inside = logical_and(ge(x, first), le(x, last))
    place = (x - first) * (bins / (last - first))
    place = cast(clamp(where(inside, place, 0.0), 0, bins - 1), int64)
    return front.scatter_add(filled(x, (bins,), 0), place, cast(inside, type_of(x).dtype), dim=0)


def histogram(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,
    density: bool = False,
) -> Any:  # fmt: skip
    """Return (counts, bin edges) for so many equal bins, or for the edges given."""
    x = reshape(input, (-1,))
    if isinstance(bins, Tensor):
        edges = bins
    else:
        low, high = range or (0, 0)
        first, last = _edges(x, low, high, 0.5)
        steps = counting(x, bins + 1, type_of(x).dtype) / bins
        edges = first * (1 - steps) + last * steps
    size = edges.shape[0] - 1
    first, last = edges[0], edges[size]
    inside = logical_and(ge(x, first), le(x, last))
    place = clamp(front.searchsorted(edges, x, right=True) - 1, 0, size - 1)
    mass = filled(x, tuple(x.shape), 1) if weight is None else reshape(weight, (-1,))
    mass = where(inside, mass, 0.0)
    counts = front.scatter_add(filled(x, (size,), 0), place, mass, dim=0)
    if density:
        widths = edges[1:] - edges[:-1]
        counts = counts / (sum(counts) * widths)
    return return_types.histogram(counts, edges)


# Covariance.


def _weights(name: str, w: Tensor | None, count: int) -> None:
    if w is not None and (w.ndim > 1 or w._data.size != count):
        raise OpError(f"cov(): expected {name} to have one dimension of {count} elements")


def cov(
    input: Tensor, *, correction: Any = 1, fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Covariances of variables (rows), observed (columns) with frequencies and weights."""
    if input.ndim > 2:
        raise OpError(f"cov(): expected input to have two or fewer dimensions but got {input.ndim}")
    x = float_operand(reshape(input, (1, -1)) if input.ndim < 2 else input)
    count = x.shape[1]
    _weights("fweights", fweights, count)
    if fweights is not None and type_of(fweights).dtype.is_floating_point:
        raise OpError("cov(): expected fweights to have integral dtype")
    _weights("aweights", aweights, count)
    weight = fweights
    if aweights is not None:
        weight = aweights if weight is None else weight * aweights
    if weight is None:
        away = x - mean(x, 1, True)
        out = matmul(away, conj(away.t())) / larger(count - correction, 0)
    else:
        w = cast(weight, result_type(x, weight))
        total = sum(w)
        away = x - unsqueeze(sum(x * w, 1) / total, 1)
        if aweights is None or correction == 0:
            norm = total - correction
        else:
            norm = total - correction * sum(w * aweights) / total
        out = matmul(away, conj((away * w).t())) / clamp(norm, min=0)
    return squeeze(out)


def corrcoef(input: Tensor) -> Tensor:
    """Correlations of variables (rows), within [−1, 1]."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = sqrt(diag(c))
    return clamp(c / unsqueeze(deviation, 1) / deviation, -1, 1)
