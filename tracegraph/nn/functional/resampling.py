"""Images resized, and sampled at arbitrary places."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from tracegraph.api import pointwise
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.api.shape import stack
from tracegraph.dims.symint import as_size, scaled
from tracegraph.dtypes import int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.poolings import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
)
from tracegraph.nn.functional.support import count

_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_ROW_MODE = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}

Scales = tuple[float | None, ...]


def _requested(
    input: Tensor, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], Scales]:
    """Return output sizes, and the scale per dim where it is not to be taken from the sizes."""
    dims = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("either size or scale_factor should be defined, and not both")
    given = size if scale_factor is None else scale_factor
    items = tuple(given) if isinstance(given, (tuple, list)) else (given,) * dims
    if len(items) != dims:
        raise ValueError(
            f"Input and output must have the same number of spatial dimensions, but got input with "
            f"spatial dimensions of {list(input.shape[2:])} and output size of {given}."
        )
    if scale_factor is None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return tuple(map(as_size, items)), (None,) * dims
    sizes = tuple(map(scaled, input.shape[2:], items))
    if recompute:
        return sizes, (None,) * dims
    return sizes, tuple(1 / float(s) for s in items)


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Return input[batch, channel, *space] resized to `size`, or by `scale_factor`.

    `mode` is nearest, nearest-exact, linear (3-d input), bilinear, bicubic (4-d), trilinear (5-d)
    or area. `align_corners` puts the centres of the outer elements on each other.

    Raises:
        ValueError: sizes and mode do not fit the input.
        NotImplementedError: no such mode for this number of dims.
    """
    dims = input.ndim - 2
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear "
            "| bicubic | trilinear"
        )
    sizes, scales = _requested(input, size, scale_factor, recompute_scale_factor)
    if dims not in _AREA or _DIMS.get(mode, dims) != dims:
        raise NotImplementedError(f"Got {input.ndim}D input, but {mode} mode needs another")
    if antialias:
        if mode not in ("bilinear", "bicubic"):
            raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes")
    elif mode == "area":
        return _AREA[dims](input, sizes)
    row_mode = _ROW_MODE.get(mode, mode) + ("-antialias" if antialias else "")
    return front.resize(
        input, size=sizes, mode=row_mode, align_corners=bool(align_corners), scales=scales
    )


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return `interpolate` under its old name."""
    warnings.warn(
        "`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.",
        stacklevel=2,
    )
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Return `interpolate` with mode nearest, under its old name."""
    warnings.warn(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.",
        stacklevel=2,
    )
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Return `interpolate` with mode bilinear and aligned corners, under its old name."""
    warnings.warn(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.",
        stacklevel=2,
    )
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _even_steps(like: Tensor, size: int, align_corners: bool) -> Tensor:
    """Coordinates in [−1, 1] of `size` pixels: their centres, or edges on the outer two."""
    dtype = type_of(like).dtype
    place = cast(counting(like, size), dtype)
    if align_corners:
        return place * (2 / (size - 1)) - 1 if size > 1 else place
    return (place * 2 + 1) / size - 1


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Return where an affine map of each sample reads: theta[batch, 2, 3] or [batch, 3, 4].

    The grid is [batch, h, w, 2] of (x, y), or [batch, d, h, w, 3] of (x, y, z), in [−1, 1].

    Raises:
        ValueError: theta and size do not fit.
    """
    dims = len(size) - 2
    if dims not in (2, 3) or tuple(theta.shape[1:]) != (dims, dims + 1):
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size "
            f"{list(size)}. Got {list(theta.shape)}."
        )
    space = tuple(map(as_size, size[2:]))
    axes = []
    for i in reversed(range(dims)):
        line = _even_steps(theta, space[i], bool(align_corners))
        axes.append(line.reshape(tuple(-1 if j == i else 1 for j in range(dims))).expand(space))
    axes.append(filled(theta, space, 1))
    base = stack(axes, -1).reshape(1, count(space), dims + 1)
    out: Tensor = base @ theta.transpose(1, 2)
    return out.reshape(theta.shape[0], *space, dims)


def _unnormalised(coordinate: Tensor, size: int, align_corners: bool) -> Tensor:
    """Grid coordinates in [−1, 1] as places in a dim."""
    if align_corners:
        return (coordinate + 1) * ((size - 1) / 2)
    return ((coordinate + 1) * size - 1) / 2


def _mirrored(place: Tensor, low: float, span: float) -> Tensor:
    """Reflect places at both ends of [low, low + span] until they are inside."""
    if span == 0:
        return place * 0
    away = abs(place - low)
    turns = pointwise.floor(away.detach() / span)
    rest = away - turns * span
    even = turns.remainder(2) == 0
    return pointwise.where(even, rest, span - rest) + low


def _bounded(place: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Apply the padding mode to places; "zeros" leaves them outside."""
    if padding_mode == "reflection":
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        place = _mirrored(place, low, span)
    if padding_mode != "zeros":
        place = place.clamp(0, size - 1)
    return place


def _pick(input: Tensor, places: list[Tensor]) -> Tensor:
    """The elements at whole places (one tensor per spatial dim), 0 outside: [batch, c, *grid]."""
    sizes = input.shape[2:]
    inside, flat = None, None
    for place, size in zip(places, sizes, strict=True):
        within = (place >= 0) & (place <= size - 1)
        inside = within if inside is None else inside & within
        index = cast(place.clamp(0, size - 1), int64)
        flat = index if flat is None else flat * size + index
    assert inside is not None and flat is not None
    batch, channels = input.shape[:2]
    grid = tuple(flat.shape[1:])
    flat = flat.reshape(batch, 1, count(grid)).expand(batch, channels, count(grid))
    found = front.gather(input.reshape(batch, channels, count(sizes)), flat, dim=2)
    return found.reshape(batch, channels, *grid) * cast(inside.unsqueeze(1), type_of(input).dtype)


def _blend(input: Tensor, places: list[Tensor]) -> Tensor:
    """Linear interpolation at places between the 2 neighbours along every dim."""
    low = [pointwise.floor(p.detach()) for p in places]
    total = None
    for corner in range(2 ** len(places)):
        at, share = [], None
        for i, (place, base) in enumerate(zip(places, low, strict=True)):
            upper = corner >> i & 1
            at.append(base + upper)
            near = place - base if upper else base + 1 - place
            share = near if share is None else share * near
        assert share is not None
        part = _pick(input, at) * share.unsqueeze(1)
        total = part if total is None else total + part
    assert total is not None
    return total


_CUBIC = -0.75  # the coefficient of Keys 1981 that PyTorch uses


def _cubic_shares(part: Tensor) -> list[Tensor]:
    """Weights of the 4 neighbours of a place `part` beyond the second."""
    shares = []
    for offset in (-1, 0, 1, 2):
        d = part + 1 if offset == -1 else part if offset == 0 else offset - part
        if offset in (0, 1):
            shares.append(((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1)
        else:
            shares.append(((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC)
    return shares


def _bicubic(input: Tensor, places: list[Tensor], padding_mode: str, align_corners: bool) -> Tensor:
    sizes = input.shape[2:]
    low = [pointwise.floor(p.detach()) for p in places]
    shares = [_cubic_shares(p - base) for p, base in zip(places, low, strict=True)]
    total = None
    for i, j in ((i, j) for i in range(4) for j in range(4)):
        at = [
            _bounded(base + (step - 1), size, padding_mode, align_corners)
            for base, step, size in zip(low, (i, j), sizes, strict=True)
        ]
        part = _pick(input, at) * (shares[0][i] * shares[1][j]).unsqueeze(1)
        total = part if total is None else total + part
    assert total is not None
    return total


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the input read at the places of a grid: [batch, channel, *grid space].

    input[batch, channel, h, w] with grid[batch, h', w', 2] of (x, y) in [−1, 1]; or one more dim.

    Raises:
        ValueError: no such mode or padding mode.
        OpError: shapes do not fit.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', "
            f"but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    dims, align = input.ndim - 2, bool(align_corners)
    if dims not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != dims:
        raise OpError(
            "grid_sampler(): expected grid to have size "
            f"{dims} in last dimension and as many dims as input {list(input.shape)}, but got "
            f"grid with sizes {list(grid.shape)}"
        )
    if mode == "bicubic" and dims != 2:
        raise OpError("grid_sampler(): bicubic interpolation only supports 4D input")
    sizes = input.shape[2:]
    places = [_unnormalised(grid[..., dims - 1 - i], sizes[i], align) for i in range(dims)]
    if mode == "bicubic":
        return _bicubic(input, places, padding_mode, align)
    places = [_bounded(p, n, padding_mode, align) for p, n in zip(places, sizes, strict=True)]
    if mode == "nearest":
        return _pick(input, [pointwise.round(p) for p in places])
    return _blend(input, places)
