"""Pooling over the last 1, 2 or 3 dims."""

from __future__ import annotations

from typing import Any

from tracegraph.api import pointwise
from tracegraph.api.promotion import filled
from tracegraph.dims.shapes import mentions
from tracegraph.dims.symint import as_size
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.functional.activations import relu
from tracegraph.nn.functional.support import count, need_dims, need_filled, per_dim

_Size = Any  # an int, or one int per dim


def _stride(stride: _Size, window: tuple[int, ...]) -> tuple[int, ...]:
    if stride is None or (isinstance(stride, (tuple, list)) and not stride):
        return window
    return per_dim(stride, len(window), "stride")


def _max_pool(
    dims: int, input: Tensor, kernel_size: _Size, stride: _Size, padding: _Size, dilation: _Size,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    need_dims(input, dims, f"max_pool{dims}d")
    need_filled(input, dims)
    window = per_dim(kernel_size, dims, "kernel_size")
    attrs = {
        "window": window, "stride": _stride(stride, window), "ceil_mode": bool(ceil_mode),
        "padding": per_dim(padding, dims, "padding"),
        "dilation": per_dim(dilation, dims, "dilation"),
    }  # fmt: skip
    y = front.max_pool(input, **attrs)
    return (y, front.max_pool_indices(input, **attrs)) if return_indices else y


def max_pool1d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    dilation: _Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element of each window over the last dim, with indices if asked.

    Raises:
        OpError: sizes do not fit.
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    dilation: _Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element of each window over the last 2 dims, with indices if asked.

    Raises:
        OpError: sizes do not fit.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    dilation: _Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element of each window over the last 3 dims, with indices if asked.

    Raises:
        OpError: sizes do not fit.
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def with_indices(pool: Any) -> Any:
    """Return a pooling function that always returns indices as well."""

    def function(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        values, places = pool(*args, **{**kwargs, "return_indices": True})
        return values, places

    function.__name__ = f"{pool.__name__}_with_indices"
    function.__doc__ = f"Return the values of {pool.__name__} and where they were found."
    return function


max_pool1d_with_indices = with_indices(max_pool1d)
max_pool2d_with_indices = with_indices(max_pool2d)
max_pool3d_with_indices = with_indices(max_pool3d)


def _avg_pool(
    dims: int, input: Tensor, kernel_size: _Size, stride: _Size, padding: _Size, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    need_dims(input, dims, f"avg_pool{dims}d")
    if divisor_override == 0:
        raise OpError("divisor must be not zero")
    window = per_dim(kernel_size, dims, "kernel_size")
    return front.avg_pool(
        input, window=window, stride=_stride(stride, window),
        padding=per_dim(padding, dims, "padding"), ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad), divisor=divisor_override,
    )  # fmt: skip


def avg_pool1d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last dim.

    Raises:
        OpError: sizes do not fit.
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last 2 dims; `divisor_override` replaces the count.

    Raises:
        OpError: sizes do not fit.
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last 3 dims; `divisor_override` replaces the count.

    Raises:
        OpError: sizes do not fit.
    """
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive_size(dims: int, input: Tensor, output_size: Any, name: str) -> tuple[int, ...]:
    if dims > 1 and input.ndim <= dims:
        raise ValueError(f"Input dimension should be at least {dims + 1}, got {input.ndim}")
    need_dims(input, dims, name)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(wanted) != dims:
        raise OpError(f"{name}: output_size must be {dims} numbers")
    need_filled(input, dims)
    sizes = input.shape[-dims:]
    if any(w is not None and w < 0 for w in wanted):
        raise OpError("elements of output_size must be greater than or equal to 0")
    return tuple(n if w is None else as_size(w) for w, n in zip(wanted, sizes, strict=True))


def _even_windows(input: Tensor, size: tuple[int, ...]) -> tuple[int, ...] | None:
    """The window that covers each output once, if the sizes divide."""
    sizes = input.shape[-len(size) :]
    if mentions((*sizes, *size)):  # whether they divide would be one more thing to rely on
        return None
    if any(w < 1 or n % w for n, w in zip(sizes, size, strict=True)):
        return None
    return tuple(n // w for n, w in zip(sizes, size, strict=True))


def _adaptive_avg(dims: int, input: Tensor, output_size: Any) -> Tensor:
    size = _adaptive_size(dims, input, output_size, f"adaptive_avg_pool{dims}d")
    out: Tensor
    if all(n == 1 for n in size):
        out = front.mean(input, dim=tuple(range(input.ndim - dims, input.ndim)), keepdim=True)
        return out
    if 0 in size:
        return filled(input, (*input.shape[: input.ndim - dims], *size), 0)
    window = _even_windows(input, size)
    if window is None:
        out = front.resize(
            input, size=size, mode="area", align_corners=False, scales=(None,) * dims
        )
        return out
    return _avg_pool(dims, input, window, window, 0, False, True, None)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Return the means of `output_size` even windows over the last dim."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Return the means of `output_size` even windows over the last 2 dims; None keeps a size."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Return the means of `output_size` even windows over the last 3 dims; None keeps a size."""
    return _adaptive_avg(3, input, output_size)


def taken(input: Tensor, places: Tensor, dims: int) -> Tensor:
    """The elements at row-major positions in the last dims."""
    lead = input.ndim - dims
    flat = input.reshape(*input.shape[:lead], count(input.shape[lead:]))
    found = places.reshape(*places.shape[:lead], count(places.shape[lead:]))
    return front.gather(flat, found, dim=lead).reshape(places.shape)


def _adaptive_max(dims: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    size = _adaptive_size(dims, input, output_size, f"adaptive_max_pool{dims}d")
    window = _even_windows(input, size)
    if window is not None:
        return _max_pool(dims, input, window, window, 0, 1, False, return_indices)
    places = front.adaptive_max_indices(input, size=size)
    y = taken(input, places, dims)
    return (y, places) if return_indices else y


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of `output_size` even windows over the last dim."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of `output_size` even windows over the last 2 dims."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of `output_size` even windows over the last 3 dims."""
    return _adaptive_max(3, input, output_size, return_indices)


adaptive_max_pool1d_with_indices = with_indices(adaptive_max_pool1d)
adaptive_max_pool2d_with_indices = with_indices(adaptive_max_pool2d)
adaptive_max_pool3d_with_indices = with_indices(adaptive_max_pool3d)


def _lp_pool(
    dims: int, input: Tensor, norm_type: float, kernel_size: _Size, stride: _Size, ceil_mode: bool
) -> Tensor:
    window = per_dim(kernel_size, dims, "kernel_size")
    mean = _avg_pool(
        dims, pointwise.pow(input, norm_type), window, stride, 0, ceil_mode, True, None
    )
    total = pointwise.sign(mean) * relu(abs(mean)) * count(window)
    return pointwise.pow(total, 1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: _Size, stride: _Size = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return (Σ x^p)^(1/p) of each window over the last dim."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: _Size, stride: _Size = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return (Σ x^p)^(1/p) of each window over the last 2 dims."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: _Size, stride: _Size = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return (Σ x^p)^(1/p) of each window over the last 3 dims."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _unpooled_size(
    input: Tensor, window: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    output_size: Any,
) -> tuple[int, ...]:  # fmt: skip
    dims = len(window)
    default = tuple(
        (n - 1) * s + k - 2 * p
        for n, k, s, p in zip(input.shape[-dims:], window, stride, padding, strict=True)
    )
    if output_size is None:
        return default
    wanted = tuple(int(n) for n in output_size)[-dims:]
    if len(wanted) != dims:
        raise ValueError(
            f"output_size should be a sequence containing {dims} or {dims + 2} elements, but it "
            f"has a length of '{len(output_size)}'"
        )
    for n, near, step in zip(wanted, default, stride, strict=True):
        if not near - step < n < near + step:
            raise ValueError(f"invalid output_size {output_size} (each dim must be near {default})")
    return wanted


def _max_unpool(
    dims: int, input: Tensor, indices: Tensor, kernel_size: _Size, stride: _Size, padding: _Size,
    output_size: Any,
) -> Tensor:  # fmt: skip
    window = per_dim(kernel_size, dims, "kernel_size")
    pads = per_dim(padding, dims, "padding")
    size = _unpooled_size(input, window, _stride(stride, window), pads, output_size)
    if input.shape != indices.shape:
        raise OpError(
            f"Expected shape of indices to be: {list(input.shape)} but got: {list(indices.shape)}"
        )
    lead = tuple(input.shape[: input.ndim - dims])
    flat = (*lead, count(input.shape[input.ndim - dims :]))
    zeros = filled(input, (*lead, count(size)), 0)
    y = front.scatter(zeros, indices.reshape(flat), input.reshape(flat), dim=len(lead))
    return y.reshape(*lead, *size)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Return zeros with the input written where max_pool1d found it.

    Raises:
        ValueError: an output size that pooling could not have had.
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Return zeros with the input written where max_pool2d found it.

    Raises:
        ValueError: an output size that pooling could not have had.
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: _Size, stride: _Size = None, padding: _Size = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Return zeros with the input written where max_pool3d found it.

    Raises:
        ValueError: an output size that pooling could not have had.
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
