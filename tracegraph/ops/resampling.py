"""Resizing of the last dims by interpolation, dim by dim, and its adjoint.

An output position i reads the input around (i + 1/2)·scale − 1/2, or around i·(n − 1)/(count − 1)
with `align_corners`. `scales` holds the scale per dim where the user gave one, else None for
n / count. Positions are computed in float32 unless x is float64, so that ties fall as in PyTorch.
"""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS, NUMBERS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import case, define, in_float32
from tracegraph.ops.indexing import fold_at
from tracegraph.tensor_type import Shape, TensorType

Scales = tuple[float | None, ...]

# R. Keys, "Cubic convolution interpolation for digital image processing" (1981), with a = −0.75.
_CUBIC = -0.75


def _resize_type(
    x: TensorType, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> TensorType:
    if mode not in _TAPS:
        raise OpError(f"no interpolation mode {mode!r}; there are {', '.join(_TAPS)}")
    if x.dtype not in (NUMBERS if mode.startswith("nearest") else FLOATS):
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < len(size) or any(n < 1 for n in (*size, *x.shape[x.ndim - len(size) :])):
        raise OpError(
            f"Input and output sizes should be greater than 0, but got input {x} and output "
            f"sizes {size}"
        )
    return x.with_shape((*x.shape[: x.ndim - len(size)], *size))


def _steps(xp: Any, count: int, real: Any) -> Any:
    return xp.arange(count).astype(real)


def _source(xp: Any, n: int, count: int, align: bool, scale: float | None, real: Any) -> Any:
    """Where each output position lies on the input's axis."""
    if align:
        return _steps(xp, count, real) * real((n - 1) / (count - 1) if count > 1 else 0)
    step = real(n / count if scale is None else scale)
    return (_steps(xp, count, real) + real(0.5)) * step - real(0.5)


def _nearest(xp: Any, n: int, count: int, align: bool, scale: float | None, real: Any) -> Any:
    at = xp.floor(_steps(xp, count, real) * real(n / count if scale is None else scale))
    return [(xp.minimum(at.astype(xp.int64), n - 1), None)]


def _nearest_exact(xp: Any, n: int, count: int, align: bool, scale: float | None, real: Any) -> Any:
    at = (_steps(xp, count, real) + real(0.5)) * real(n / count if scale is None else scale)
    return [(xp.minimum(xp.floor(at).astype(xp.int64), n - 1), None)]


def _linear(xp: Any, n: int, count: int, align: bool, scale: float | None, real: Any) -> Any:
    at = xp.maximum(_source(xp, n, count, align, scale, real), 0)
    low = xp.minimum(at.astype(xp.int64), n - 1)
    part = xp.clip(at - low, 0, 1).astype(real)
    return [(low, 1 - part), (xp.minimum(low + 1, n - 1), part)]


def _cubic(xp: Any, n: int, count: int, align: bool, scale: float | None, real: Any) -> Any:
    at = _source(xp, n, count, align, scale, real)
    low = xp.floor(at).astype(xp.int64)
    part = (at - low).astype(real)
    taps = []
    for offset in (-1, 0, 1, 2):
        d = xp.abs(part - offset)
        near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
        far = ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
        weight = near if offset in (0, 1) else far
        taps.append((xp.clip(low + offset, 0, n - 1), weight.astype(real)))
    return taps


_TAPS = {
    "nearest": _nearest,
    "nearest-exact": _nearest_exact,
    "linear": _linear,
    "cubic": _cubic,
}
"""mode -> (input index, weight or None for 1) of each tap, per output position of one dim."""


def _taps(
    xp: Any, x: Any, i: int, n: int, count: int, mode: str, align: bool, scales: Scales
) -> Any:
    real = xp.float64 if x.dtype == xp.float64 else xp.float32
    return _TAPS[mode](xp, n, count, align, scales[i], real)


def _beside(weight: Any, x: Any, axis: int) -> Any:
    return weight.reshape((-1,) + (1,) * (x.ndim - 1 - axis)).astype(x.dtype, copy=False)


def _resize(xp: Any, x: Any, *, size: Shape, mode: str, align_corners: bool, scales: Scales) -> Any:
    lead = x.ndim - len(size)
    for i in reversed(range(len(size))):
        axis, total = lead + i, None
        for index, weight in _taps(xp, x, i, x.shape[axis], size[i], mode, align_corners, scales):
            part = x.take(index, axis=axis)
            if weight is not None:
                part *= _beside(weight, x, axis)
            total = part if total is None else xp.add(total, part, out=total)
        x = total
    return x


def _grad_type(
    g: TensorType, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> TensorType:
    x = g.with_shape((*g.shape[: g.ndim - len(size)], *size))
    count = g.shape[g.ndim - len(size) :]
    _resize_type(x, size=count, mode=mode, align_corners=align_corners, scales=scales)
    return x


def _add_runs(xp: Any, out: Any, index: Any, values: Any, axis: int) -> None:
    """out[index] += values along an axis; index never falls, so equal indices are runs."""
    if xp.__name__ != "numpy":
        fold_at(xp, "add", out, (index,), (axis,), values)
        return
    starts = xp.flatnonzero(xp.concatenate((xp.ones(1, dtype=bool), index[1:] != index[:-1])))
    if len(starts) < len(index):
        values = xp.add.reduceat(values, starts, axis=axis)
    out[(slice(None),) * axis + (index[starts],)] += values


def _resize_grad(
    xp: Any, g: Any, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> Any:
    lead = g.ndim - len(size)
    for i, n in enumerate(size):
        axis = lead + i
        out = xp.zeros((*g.shape[:axis], n, *g.shape[axis + 1 :]), dtype=g.dtype)
        for index, weight in _taps(xp, g, i, n, g.shape[axis], mode, align_corners, scales):
            values = g if weight is None else g * _beside(weight, g, axis)
            _add_runs(xp, out, index, values, axis)
        g = out
    return g


def _last(kind: TensorType, items: Shape) -> Shape:
    return kind.shape[kind.ndim - len(items) :]


_LINEAR = {"mode": "linear", "align_corners": False, "scales": (None, 0.6)}
_CUBIC_CASE = {"mode": "cubic", "align_corners": True, "scales": (None,)}
_NEAREST = {"mode": "nearest", "align_corners": False, "scales": (None, None)}
_EXACT = {"mode": "nearest-exact", "align_corners": False, "scales": (None,)}

resize = define(
    "resize(x) -> y", type=_resize_type, kernel=in_float32(_resize),
    vjp=(lambda m, g, x_type, size, mode, align_corners, scales: m.resize_grad(
        g, size=_last(x_type, size), mode=mode, align_corners=align_corners, scales=scales),),
    sample=(case((2, 3, 4), size=(5, 6), **_LINEAR), case((2, 4), size=(7,), **_CUBIC_CASE),
            case((3, 4), size=(5, 3), **_NEAREST), case((2, 4), size=(3,), **_EXACT)),
    doc="The last dims resampled to `size`: nearest, nearest-exact, linear or cubic.",
)  # fmt: skip

resize_grad = define(
    "resize_grad(g) -> x", type=_grad_type, kernel=in_float32(_resize_grad),
    vjp=(lambda m, g, g_type, size, mode, align_corners, scales: m.resize(
        g, size=_last(g_type, size), mode=mode, align_corners=align_corners, scales=scales),),
    sample=(case((2, 5, 6), size=(3, 4), **_LINEAR), case((2, 7), size=(4,), **_CUBIC_CASE),
            case((5, 3), size=(3, 4), **_NEAREST)),
    doc="The adjoint of resize.",
)  # fmt: skip
