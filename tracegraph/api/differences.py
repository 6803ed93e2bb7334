"""Differences along dims, and sums that approximate integrals."""

from __future__ import annotations

from typing import Any

from tracegraph.api.pointwise import logical_xor
from tracegraph.api.promotion import scaled
from tracegraph.api.reduction import cumsum, sum
from tracegraph.api.selection import narrow
from tracegraph.api.shape import cat, reshape
from tracegraph.dims.shapes import is_zero
from tracegraph.dims.symint import larger, smaller
from tracegraph.dtypes import bool_
from tracegraph.eager.tape import lasting
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.tensor_type import wrap_dim


def _neighbours(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Views without the first and without the last element of a dim."""
    size = x.shape[dim]
    length = larger(size - 1, 0)
    return narrow(x, dim, smaller(1, size), length), narrow(x, dim, 0, length)


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return differences of neighbours along a dim, n times over; of bools, whether they differ.

    Raises:
        OpError: n < 0, or a 0-d input.
    """
    if not input.ndim:
        raise OpError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise OpError(f"order must be non-negative but got {n}")
    place = wrap_dim(dim, input.ndim)
    out = input
    if prepend is not None or append is not None:
        out = cat([x for x in (prepend, input, append) if x is not None], place)
    for _ in range(n):
        if is_zero(out.shape[place]):
            break
        later, before = _neighbours(out, place)
        out = logical_xor(later, before) if type_of(out).dtype is bool_ else later - before
    return out if out is not input else input.clone()


# Trapezoids.


def _twice_areas(y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    place = wrap_dim(dim, y.ndim)
    right, left = _neighbours(y, place)
    if x is None:
        return scaled(left + right, dx)
    if x.ndim == 1:
        if x.shape[0] != y.shape[place]:
            raise OpError("trapezoid: There must be one `x` value for each sample point")
        x = reshape(x, tuple(-1 if i == place else 1 for i in range(y.ndim)))
    axis = place - y.ndim + x.ndim if x.ndim < y.ndim else place
    later, before = _neighbours(x, axis)
    return (left + right) * (later - before)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """Sum the trapezoids under y along a dim, at places x or `dx` apart."""
    return lasting(sum(_twice_areas(y, x, dx, dim), dim) / 2)


trapz = trapezoid


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1
) -> Tensor:
    """Running sums of the trapezoids under y along a dim."""
    return lasting(cumsum(_twice_areas(y, x, dx, dim), dim) / 2)


# Gradients.


def _slope_ends(y: Tensor, gaps: Any, dim: int, edge_order: int) -> tuple[Tensor, Tensor]:
    """One-sided differences at both ends, of first or second order."""
    size = y.shape[dim]

    def at(i: int) -> Tensor:
        return narrow(y, dim, i % size, 1)

    def gap(i: int) -> Any:
        return narrow(gaps, dim, i % (size - 1), 1) if isinstance(gaps, Tensor) else gaps

    if edge_order == 1:
        return (at(1) - at(0)) / gap(0), (at(-1) - at(-2)) / gap(-1)
    a, b = gap(0), gap(1)
    first = (
        at(0) * (-(a * 2 + b) / (a * (a + b))) + at(1) * ((a + b) / (a * b))
        - at(2) * (a / (b * (a + b)))
    )  # fmt: skip
    a, b = gap(-2), gap(-1)
    last = (
        at(-3) * (b / (a * (a + b))) - at(-2) * ((a + b) / (a * b))
        + at(-1) * ((b * 2 + a) / (b * (a + b)))
    )  # fmt: skip
    return first, last


def _slopes(y: Tensor, gaps: Any, dim: int, edge_order: int) -> Tensor:
    """Central differences of second order inside (Fornberg 1988), one-sided ones at the ends."""
    size = y.shape[dim]
    if size < edge_order + 1:
        raise OpError("torch.gradient expected each dimension size to be at least edge_order+1")
    parts = list(_slope_ends(y, gaps, dim, edge_order))
    if size > 2:
        low, middle, high = (narrow(y, dim, i, size - 2) for i in range(3))
        if isinstance(gaps, Tensor):
            a, b = narrow(gaps, dim, 0, size - 2), narrow(gaps, dim, 1, size - 2)
            inner = (
                low * (-b / (a * (a + b)))
                + middle * ((b - a) / (a * b))
                + high * (a / (b * (a + b)))
            )
        else:
            inner = (high - low) / (gaps * 2)
        parts.insert(1, inner)
    return cat(parts, dim)


def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1
) -> list[Tensor]:
    """Return slopes along dims, for equal spacing or at coordinates (one tensor per dim).

    Raises:
        OpError: a dim is too short, or spacings and dims differ in number.
    """
    if edge_order not in (1, 2):
        raise OpError("torch.gradient only supports edge_order=1 and edge_order=2.")
    if dim is None:
        dims = list(range(input.ndim))
    else:
        dims = [wrap_dim(d, input.ndim) for d in ([dim] if isinstance(dim, int) else dim)]
        if len(set(dims)) != len(dims):
            raise OpError(f"a dim of {dims} appears multiple times in the list of dims")
    spacing = 1 if spacing is None else spacing
    several = isinstance(spacing, (tuple, list))
    spacings = list(spacing) if several else [spacing] * len(dims)
    if len(spacings) != len(dims):
        raise OpError(
            "torch.gradient expected spacing to be unspecified, a scalar, or one value or tensor "
            f"for each of {len(dims)} dims, but got {len(spacings)}"
        )
    results = []
    for place, space in zip(dims, spacings, strict=True):
        gaps = space
        if isinstance(space, Tensor) and space.ndim:
            shape = tuple(-1 if i == place else 1 for i in range(input.ndim))
            gaps = reshape(diff(space), shape)
        results.append(_slopes(input, gaps, place, edge_order))
    return results
