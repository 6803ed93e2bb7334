"""Reductions and scans over dims, with PyTorch's argument forms."""

from __future__ import annotations

from typing import Any

from tracegraph.api.promotion import cast
from tracegraph.dispatch import front
from tracegraph.dtypes import FLOAT_KIND, DType, bool_, dtype_of, int64
from tracegraph.tensors import Tensor, type_of
from tracegraph.tensor_type import wrap_dims

Dims = int | tuple[int, ...] | list[int] | None


def _accumulate_dtype(x: Tensor, dtype: DType | None) -> Tensor:
    """Return x in the dtype that sums of it have: integers widen to int64."""
    if dtype is not None:
        return cast(x, dtype_of(dtype))
    return x if type_of(x).dtype.kind == FLOAT_KIND else cast(x, int64)


def sum(  # noqa: A001
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
) -> Tensor:
    """Sum over dims (all by default); integers and bools sum to int64."""
    x = _accumulate_dtype(input, dtype)
    out: Tensor = front.sum(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))
    return out


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
) -> Tensor:
    """Arithmetic mean over dims (all by default).

    Raises:
        DTypeError: an integer tensor without `dtype`.
    """
    x = input if dtype is None else cast(input, dtype_of(dtype))
    out: Tensor = front.mean(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))
    return out


def _extreme(name: str) -> Any:
    def function(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A002
        out: Tensor = getattr(front, name)(
            input, dim=wrap_dims(dim, input.ndim), keepdim=bool(keepdim)
        )
        return out

    function.__name__ = name
    function.__doc__ = f"The {name} over dims (all by default)."
    return function


amax = _extreme("amax")
amin = _extreme("amin")


def _truth(name: str) -> Any:
    def function(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A002
        x = cast(input, bool_)
        out: Tensor = getattr(front, name)(x, dim=wrap_dims(dim, x.ndim), keepdim=bool(keepdim))
        return out

    function.__name__ = name
    function.__doc__ = f"Whether {name} elements are nonzero, over dims (all by default)."
    return function


all = _truth("all")  # noqa: A001
any = _truth("any")  # noqa: A001


