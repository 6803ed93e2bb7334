"""Pooling over windows whose distances are drawn at random. Graham 2014, arXiv:1412.6071."""

from __future__ import annotations

from typing import Any

from tracegraph.api import pointwise, random
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.devices import device_of
from tracegraph.dtypes import int64
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.poolings import taken, with_indices
from tracegraph.nn.functional.support import count, need_dims, per_dim


def _starts(sample: Tensor, size: int, window: int, windows: int) -> Tensor:
    """First elements of the windows along a dim, for each sample u: i64[..., windows].

    floor((i + u)·a) − floor(u·a) with a = (size − window) / (windows − 1); the last is at the end.
    """
    place = counting(sample, windows)
    if windows == 1:
        return filled(sample, (*sample.shape, 1), size - window, dtype=int64)
    step = (size - window) / (windows - 1)
    u = sample.unsqueeze(-1)
    near = pointwise.floor((cast(place, type_of(sample).dtype) + u) * step)
    first = cast(near - pointwise.floor(u * step), int64)
    end = filled(first, (), size - window)
    return pointwise.where(place < windows - 1, first, end)


def _largest_places(x: Tensor, samples: Tensor, window: Any, windows: Any) -> Tensor:
    """Row-major position of the largest element of each window: i64[batch, channel, *windows]."""
    dims, sizes = len(window), x.shape[2:]
    # PyTorch draws for the last dim first in two dims, and in order in three.
    order = (1, 0) if dims == 2 else (0, 1, 2)
    flat: Any = 0
    for i in range(dims):
        first = _starts(samples[:, :, order[i]], sizes[i], window[i], windows[i])
        inside = first.unsqueeze(-1) + counting(first, window[i])
        shape = [1] * (2 * dims)
        shape[i], shape[dims + i] = windows[i], window[i]
        flat = flat * sizes[i] + inside.reshape(*first.shape[:2], *shape)
    flat = flat.reshape(*flat.shape[: 2 + dims], count(window))
    values = taken(x.detach(), flat, dims)
    best = values.argmax(-1, keepdim=True)
    return flat.gather(-1, best).squeeze(-1)


def _fractional(
    dims: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any,
    return_indices: bool, samples: Tensor | None,
) -> Any:  # fmt: skip
    need_dims(input, dims, f"fractional_max_pool{dims}d")
    if output_size is None and output_ratio is None:
        raise ValueError(
            f"fractional_max_pool{dims}d requires specifying either an output_size or an "
            "output_ratio"
        )
    window = per_dim(kernel_size, dims, "kernel_size")
    batched = input.ndim == dims + 2
    x = input if batched else input.unsqueeze(0)
    sizes = x.shape[2:]
    if output_size is None:
        ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else [output_ratio] * dims
        output_size = [int(n * r) for n, r in zip(sizes, ratios, strict=True)]
    windows = per_dim(output_size, dims, "output_size")
    for n, k, w in zip(sizes, window, windows, strict=True):
        if w < 1 or w + k - 1 > n:
            raise OpError(f"fractional_max_pool{dims}d: pool size {k} is too large for a dim of "
                          f"size {n} and {w} windows")  # fmt: skip
    if samples is None:
        dtype = type_of(x).dtype.compute
        samples = random.rand(*x.shape[:2], dims, dtype=dtype, device=device_of(x._data))
    places = _largest_places(x, samples[: x.shape[0]], window, windows)
    y = taken(x, places, dims)
    if not batched:
        y, places = y.squeeze(0), places.squeeze(0)
    return (y, places) if return_indices else y


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Return the maxima of windows at random distances over the last 2 dims.

    Raises:
        ValueError: neither `output_size` nor `output_ratio` is given.
        OpError: the windows do not fit.
    """
    return _fractional(
        2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Return the maxima of windows at random distances over the last 3 dims.

    Raises:
        ValueError: neither `output_size` nor `output_ratio` is given.
        OpError: the windows do not fit.
    """
    return _fractional(
        3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


fractional_max_pool2d_with_indices = with_indices(fractional_max_pool2d)
fractional_max_pool3d_with_indices = with_indices(fractional_max_pool3d)
