"""Reductions and scans over dims, with PyTorch's argument forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph import return_types
from tracegraph.api.pointwise import isnan, logical_not, maximum, minimum, where
from tracegraph.api.promotion import cast, filled, float_operand
from tracegraph.api.shape import reshape, unsqueeze
from tracegraph.dtypes import FLOAT_KIND, DType, bool_, dtype_of, int64, uint8
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.tensors import Tensor, dtype_of_data, type_of
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import wrap_dim, wrap_dims

_SUM, _MEAN = OPS["sum"], OPS["mean"]
Dims = int | tuple[int, ...] | list[int] | None


def _accumulate_dtype(x: Tensor, dtype: DType | None) -> Tensor:
    """Return x in the dtype that sums of it have: integers widen to int64."""
    if dtype is not None:
        return cast(x, dtype_of(dtype))
    return x if dtype_of_data(x._data).kind >= FLOAT_KIND else cast(x, int64)


def sum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum over dims (all by default); integers and bools sum to int64."""
    x = _accumulate_dtype(input, dtype)
    dims = wrap_dims(dim, len(x._data.shape))
    return dispatch(_SUM, (x,), {"dim": dims, "keepdim": bool(keepdim)})


def nansum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum over dims, NaN counted as 0."""
    return sum(where(isnan(input), 0, input), dim, keepdim, dtype=dtype)


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Arithmetic mean over dims (all by default).

    Raises:
        DTypeError: an integer tensor without `dtype`.
    """
    x = input if dtype is None else cast(input, dtype_of(dtype))
    if dtype_of_data(x._data).kind < FLOAT_KIND:
        raise DTypeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {type_of(x).dtype.name.capitalize()}"
        )
    dims = wrap_dims(dim, len(x._data.shape))
    return dispatch(_MEAN, (x,), {"dim": dims, "keepdim": bool(keepdim)})


def nanmean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Mean over dims of what is not NaN."""
    known = sum(logical_not(isnan(input)), dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / known


def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Product over a dim (all by default); integers and bools multiply to int64."""
    x = _accumulate_dtype(input, dtype)
    return front.prod(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))


def _over_dims(name: str) -> Callable[..., Tensor]:
    def function(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        dims = wrap_dims(dim, input.ndim)
        for d in dims:
            if not input._data.shape[d]:
                error = IndexError if dim else OpError
                raise error(f"{name}(): Expected reduction dim {d} to have non-zero size.")
        return getattr(front, name)(input, dim=dims, keepdim=bool(keepdim))

    function.__name__ = name
    function.__doc__ = f"The {name} over dims (all by default)."
    return function


amax = _over_dims("amax")
amin = _over_dims("amin")


def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """Logarithm of the sum of exponentials over dims, without overflow."""
    x = float_operand(input)
    return front.logsumexp(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))


def _truth(name: str) -> Callable[..., Tensor]:
    def function(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        x = cast(input, bool_)
        if isinstance(dim, (tuple, list)) and not dim and x.ndim:
            return cast(x, bool_)
        out = getattr(front, name)(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))
        return cast(out, uint8) if type_of(input).dtype is uint8 else out

    function.__name__ = name
    function.__doc__ = f"Whether {name} elements are nonzero, over dims (all by default)."
    return function


all = _truth("all")
any = _truth("any")


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """Number of elements that are not 0, over dims (all by default)."""
    return sum(cast(input, bool_), dim)


# Extremes and where they are.


def _check_extreme(name: str, x: Tensor, dim: int | None) -> None:
    if dim is None and x._data.size == 0:
        raise OpError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.")
    if dim is not None and x.ndim and x.shape[dim] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")


def _arg(name: str) -> Callable[..., Tensor]:
    def function(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        place = None if dim is None else wrap_dim(dim, input.ndim)
        _check_extreme(name, input, place)
        if place is None or input.ndim == 0:
            found = getattr(front, name)(reshape(input, (-1,)), dim=0, keepdim=False)
            return reshape(found, (1,) * input.ndim) if keepdim else found
        return getattr(front, name)(input, dim=place, keepdim=bool(keepdim))

    function.__name__ = name
    function.__doc__ = f"Index of the {name[3:]}imum along a dim (of all elements by default)."
    return function


argmax = _arg("argmax")
argmin = _arg("argmin")


def _extreme_at(name: str, x: Tensor, dim: int, keepdim: bool) -> Any:
    """Return values and indices along a dim; the gradient goes to the chosen element."""
    place = wrap_dim(dim, x.ndim)
    _check_extreme(name, x, place)
    row = x if x.ndim else reshape(x, (1,))
    keep = bool(keepdim) and x.ndim > 0
    return getattr(return_types, name)(*getattr(front, name + "_at")(row, dim=place, keepdim=keep))


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the largest element; along a dim (values, indices); of two tensors the larger each.

    Raises:
        IndexError: the dim has size 0.
        OpError: there is no element.
    """
    if other is not None or isinstance(dim, Tensor):
        return maximum(input, dim if other is None else other)
    if dim is None:
        _check_extreme("max", input, None)
        return amax(input)
    return _extreme_at("max", input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the smallest element; along a dim (values, indices); of two tensors the smaller each.

    Raises:
        IndexError: the dim has size 0.
        OpError: there is no element.
    """
    if other is not None or isinstance(dim, Tensor):
        return minimum(input, dim if other is None else other)
    if dim is None:
        _check_extreme("min", input, None)
        return amin(input)
    return _extreme_at("min", input, dim, keepdim)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return (min, max) along a dim, or of all elements."""
    return return_types.aminmax(amin(input, dim, keepdim), amax(input, dim, keepdim))


# Scans.


def _scan(op: str, x: Tensor, dim: int) -> Any:
    place = wrap_dim(dim, x.ndim)
    if x.ndim:
        return getattr(front, op)(x, dim=place)
    return (x.clone(), filled(x, (), 0, int64)) if op in ("cummax", "cummin") else x.clone()


def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running sums along a dim; integers and bools sum to int64."""
    return _scan("cumsum", _accumulate_dtype(input, dtype), dim)


def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running products along a dim; integers and bools multiply to int64."""
    return _scan("cumprod", _accumulate_dtype(input, dtype), dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Logarithms of running sums of exponentials along a dim."""
    return _scan("logcumsumexp", float_operand(input), dim)


def cummax(input: Tensor, dim: int) -> Any:
    """Running (values, indices) of the largest element along a dim."""
    return return_types.cummax(*_scan("cummax", input, dim))


def cummin(input: Tensor, dim: int) -> Any:
    """Running (values, indices) of the smallest element along a dim."""
    return return_types.cummin(*_scan("cummin", input, dim))


# Softmax.


def _along(op: str, input: Tensor, dim: int, dtype: DType | None) -> Tensor:
    x = input if dtype is None else cast(input, dtype_of(dtype))
    place = wrap_dim(dim, x.ndim)
    if x.ndim == 0:
        return reshape(getattr(front, op)(unsqueeze(x, 0), dim=0), ())
    return getattr(front, op)(x, dim=place)


def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """exp(input) over its sum along a dim."""
    return _along("softmax", input, dim, dtype)


def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """Logarithm of softmax along a dim."""
    return _along("log_softmax", input, dim, dtype)
