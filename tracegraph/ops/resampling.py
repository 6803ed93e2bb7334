"""Resizing of the last dims, dim by dim, and its adjoint.

Along one dim a resize is a few taps: for each output position the input index and weight of its
first neighbour, of its second, and so on. The adjoint is the same with the taps turned round.

An output position i reads the input around (i + 1/2)·scale − 1/2, or around i·(n − 1)/(count − 1)
with `align_corners`. `scales` holds the scale per dim where the user gave one, else None for
n / count. Positions are computed in float32 unless x is float64, so that ties fall as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tracegraph.dtypes import FLOATS, NUMBERS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import case, define, in_float32
from tracegraph.tensor_type import Shape, TensorType

Scales = tuple[float | None, ...]

# R. Keys, "Cubic convolution interpolation for digital image processing" (1981); PyTorch's
# coefficients, the second of Pillow's when it filters against aliasing.
_CUBIC = -0.75
_CUBIC_ANTIALIAS = -0.5


class Tap(NamedTuple):
    """One neighbour of every output position: its input index and weight (None: 1 for all)."""

    source: Any
    weight: Any
    missing: Any  # output positions without this neighbour, or None


class Line(NamedTuple):
    """What the taps of one dim depend on; `real` computes positions."""

    size: int
    outputs: int
    align: bool
    scale: float | None
    real: Any

    @property
    def step(self) -> Any:
        """Input elements per output element."""
        return self.real(self.size / self.outputs if self.scale is None else self.scale)

    @property
    def places(self) -> Any:
        """Output positions 0, 1, ..."""
        return np.arange(self.outputs).astype(self.real)

    @property
    def source(self) -> Any:
        """Where each output position lies on the input's axis."""
        if self.align:
            step = (self.size - 1) / (self.outputs - 1) if self.outputs > 1 else 0
            return self.places * self.real(step)
        half = self.real(0.5)
        return (self.places + half) * self.step - half


def _nearest(line: Line) -> list[Tap]:
    at = np.floor(line.places * line.step).astype(np.int64)
    return [Tap(np.minimum(at, line.size - 1), None, None)]


def _nearest_exact(line: Line) -> list[Tap]:
    at = np.floor((line.places + line.real(0.5)) * line.step).astype(np.int64)
    return [Tap(np.minimum(at, line.size - 1), None, None)]


def _linear(line: Line) -> list[Tap]:
    at = np.maximum(line.source, 0)
    low = np.minimum(at.astype(np.int64), line.size - 1)
    part = np.clip(at - low, 0, 1)
    return [Tap(low, 1 - part, None), Tap(np.minimum(low + 1, line.size - 1), part, None)]


def _keys(distance: Any, a: float) -> Any:
    """Keys' cubic kernel at distances up to 2."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _cubic(line: Line) -> list[Tap]:
    at = line.source
    low = np.floor(at).astype(np.int64)
    return [
        Tap(np.clip(low + k, 0, line.size - 1), _keys(at - low - k, _CUBIC), None)
        for k in (-1, 0, 1, 2)
    ]


def _area(line: Line) -> list[Tap]:
    """Means of even, overlapping windows: i covers floor(i·n/count) to ceil((i+1)·n/count)."""
    places = np.arange(line.outputs)
    first = places * line.size // line.outputs
    last = -(-(places + 1) * line.size // line.outputs)
    return _runs(first, last - first, lambda index, _: 1 / (last - first))


def _runs(first: Any, length: Any, weigh: Callable[[Any, int], Any]) -> list[Tap]:
    """Taps over runs of input elements, which may differ in length."""
    taps = []
    for k in range(int(length.max(initial=0))):
        index = np.minimum(first + k, first + length - 1)
        missing = np.flatnonzero(length <= k)
        taps.append(Tap(index, weigh(index, k), missing if len(missing) else None))
    return taps


def _filtered(line: Line, support: float, kernel: Callable[[Any], Any]) -> list[Tap]:
    """Weights of a kernel as wide as an output element, so that high frequencies average out."""
    step = (
        float(line.step)
        if not line.align or line.outputs < 2
        else (line.size - 1) / (line.outputs - 1)
    )
    stretch = max(step, 1.0)
    centre = step * (np.arange(line.outputs) + 0.5)
    first = np.maximum((centre - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support * stretch + 0.5).astype(np.int64), line.size)
    length = last - first
    weights = [
        np.where(k < length, kernel((first + k - centre + 0.5) / stretch), 0)
        for k in range(int(length.max(initial=0)))
    ]
    total = sum(weights)
    return _runs(first, length, lambda _, k: weights[k] / total)


def _triangle(distance: Any) -> Any:
    return np.maximum(1 - np.abs(distance), 0)


_TAPS: dict[str, Callable[[Line], list[Tap]]] = {
    "nearest": _nearest,
    "nearest-exact": _nearest_exact,
    "linear": _linear,
    "cubic": _cubic,
    "area": _area,
    "linear-antialias": lambda line: _filtered(line, 1, _triangle),
    "cubic-antialias": lambda line: _filtered(line, 2, lambda d: _keys(d, _CUBIC_ANTIALIAS)),
}


@lru_cache(maxsize=256)
def taps_of(mode: str, line: Line) -> tuple[Tap, ...]:
    """Return the taps of a dim, for each output position."""
    return tuple(_TAPS[mode](line))


@lru_cache(maxsize=256)
def turned_taps(mode: str, line: Line) -> tuple[Tap, ...]:
    """Return for each input position the output positions that read it, as taps."""
    taps = taps_of(mode, line)
    places = np.arange(line.outputs)
    sources, outputs, weights = [], [], []
    for tap in taps:
        held = places if tap.missing is None else np.delete(places, tap.missing)
        sources.append(tap.source[held])
        outputs.append(held)
        weights.append(np.ones(len(held)) if tap.weight is None else tap.weight[held])
    source, output, weight = (np.concatenate(v) for v in (sources, outputs, weights))
    order = np.argsort(source, kind="stable")
    source, output, weight = source[order], output[order], weight[order]
    starts = np.searchsorted(source, np.arange(line.size))
    sizes = np.searchsorted(source, np.arange(line.size), side="right") - starts
    turned = []
    for k in range(int(sizes.max(initial=0))):
        entry = np.minimum(starts + np.minimum(k, np.maximum(sizes - 1, 0)), len(source) - 1)
        missing = np.flatnonzero(sizes <= k)
        plain = all(tap.weight is None for tap in taps)
        turned.append(
            Tap(output[entry], None if plain else weight[entry], missing if len(missing) else None)
        )
    return tuple(turned)


def _tap_along(xp: Any, x: Any, axis: int, taps: tuple[Tap, ...]) -> Any:
    """Sum the taps along one dim."""
    total = None
    for tap in taps:
        part = x.take(xp.asarray(tap.source), axis=axis)
        if tap.weight is not None:
            side = (-1,) + (1,) * (x.ndim - 1 - axis)
            part *= xp.asarray(tap.weight.astype(x.dtype)).reshape(side)
        if tap.missing is not None:
            part[(slice(None),) * axis + (xp.asarray(tap.missing),)] = 0
        total = part if total is None else xp.add(total, part, out=total)
    return total


def _resize_type(
    x: TensorType, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> TensorType:
    if mode not in _TAPS:
        raise OpError(f"no interpolation mode {mode!r}; there are {', '.join(_TAPS)}")
    if x.dtype not in (NUMBERS if mode.startswith("nearest") else FLOATS):
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if len(scales) != len(size) or not all(s is None or 0 < s < 1e9 for s in scales):
        raise OpError(f"scales {scales} must be one positive number (or none) per size {size}")
    if x.ndim < len(size) or any(n < 1 for n in (*size, *x.shape[x.ndim - len(size) :])):
        raise OpError(
            f"Input and output sizes should be greater than 0, but got input {x} and output "
            f"sizes {size}"
        )
    return x.with_shape((*x.shape[: x.ndim - len(size)], *size))


def real_of(dtype: Any) -> Any:
    """Return what positions are computed in where elements are computed in a dtype of NumPy."""
    return np.float64 if dtype == np.float64 else np.float32


def _resize(xp: Any, x: Any, *, size: Shape, mode: str, align_corners: bool, scales: Scales) -> Any:
    for i in reversed(range(len(size))):
        axis = x.ndim - len(size) + i
        line = Line(x.shape[axis], size[i], align_corners, scales[i], real_of(x.dtype))
        x = _tap_along(xp, x, axis, taps_of(mode, line))
    return x


def _grad_type(
    g: TensorType, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> TensorType:
    x = g.with_shape((*g.shape[: g.ndim - len(size)], *size))
    count = g.shape[g.ndim - len(size) :]
    _resize_type(x, size=count, mode=mode, align_corners=align_corners, scales=scales)
    return x


def _resize_grad(
    xp: Any, g: Any, *, size: Shape, mode: str, align_corners: bool, scales: Scales
) -> Any:
    for i, n in enumerate(size):
        axis = g.ndim - len(size) + i
        line = Line(n, g.shape[axis], align_corners, scales[i], real_of(g.dtype))
        g = _tap_along(xp, g, axis, turned_taps(mode, line))
    return g


def _last(kind: TensorType, items: Shape) -> Shape:
    return kind.shape[kind.ndim - len(items) :]


_LINEAR = {"mode": "linear", "align_corners": False, "scales": (None, 0.6)}
_CUBIC_CASE = {"mode": "cubic", "align_corners": True, "scales": (None,)}
_NEAREST = {"mode": "nearest", "align_corners": False, "scales": (None, None)}
_EXACT = {"mode": "nearest-exact", "align_corners": False, "scales": (None,)}
_AREA_CASE = {"mode": "area", "align_corners": False, "scales": (None, None)}
_SMOOTH = {"mode": "cubic-antialias", "align_corners": False, "scales": (None,)}

resize = define(
    "resize(x) -> y", type=_resize_type, kernel=in_float32(_resize),
    vjp=(lambda m, g, x_type, size, mode, align_corners, scales: m.resize_grad(
        g, size=_last(x_type, size), mode=mode, align_corners=align_corners, scales=scales),),
    sample=(case((2, 3, 4), size=(5, 6), **_LINEAR), case((2, 4), size=(7,), **_CUBIC_CASE),
            case((3, 4), size=(5, 3), **_NEAREST), case((2, 4), size=(3,), **_EXACT),
            case((2, 5, 7), size=(3, 2), **_AREA_CASE), case((7,), size=(3,), **_SMOOTH)),
    doc="The last dims resampled to `size`: nearest, nearest-exact, linear, cubic or area (means "
        "of even windows); with -antialias the kernel is as wide as an output element.",
)  # fmt: skip

resize_grad = define(
    "resize_grad(g) -> x", type=_grad_type, kernel=in_float32(_resize_grad),
    vjp=(lambda m, g, g_type, size, mode, align_corners, scales: m.resize(
        g, size=_last(g_type, size), mode=mode, align_corners=align_corners, scales=scales),),
    sample=(case((2, 5, 6), size=(3, 4), **_LINEAR), case((2, 7), size=(4,), **_CUBIC_CASE),
            case((5, 3), size=(3, 4), **_NEAREST), case((3, 2), size=(5, 7), **_AREA_CASE)),
    doc="The adjoint of resize.",
)  # fmt: skip
