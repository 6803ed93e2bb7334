"""Normalisation layers: statistics, scale and shift in one op, with one joint gradient each.

`var` is the biased variance. The statistics are results, so that running averages and gradients
use them again.
"""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import FLOATS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import LAID_ALIKE, Joint, Spec, case, define, in_float32, row_major
from tracegraph.ops.memory_order import image_like
from tracegraph.tensor_type import Shape, TensorType

# Rows are normalised in blocks of 512 kB of float32: [4096, 1024] takes 7.6 ms against 11.6 ms.
_BLOCK = 1 << 17


def _check(x: TensorType, *params: TensorType | None) -> None:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    for p in params:
        if p is not None and p.dtype is not x.dtype:
            raise DTypeError(f"expected scale and shift of dtype {x.dtype}, got {p.dtype}")


def _squares(xp: Any, x: Any) -> Any:
    """Sums of squares along the last dim."""
    return xp.vecdot(x, x) if xp.__name__ == "numpy" else (x * x).sum(axis=-1)


def _layer_type(
    x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, *,
    ndim: int, eps: float,
) -> tuple[TensorType, ...]:  # fmt: skip
    _check(x, weight, bias)
    shape = x.shape[x.ndim - ndim :]
    if not 1 <= ndim <= x.ndim:
        raise OpError(f"cannot normalise the last {ndim} dims of {x}")
    for p in (weight, bias):
        if p is not None and p.shape != shape:
            raise OpError(
                f"Expected weight to be of same shape as normalized_shape, but got weight of "
                f"shape {list(p.shape)} and normalized_shape = {list(shape)}"
            )
    rest = x.with_shape((*x.shape[: x.ndim - ndim], *(1,) * ndim))
    return x, rest, rest


def _layer_kernel(
    xp: Any, x: Any, weight: Any = None, bias: Any = None, *, ndim: int, eps: float
) -> Any:
    width = math.prod(x.shape[x.ndim - ndim :])
    rows = x.reshape(math.prod(x.shape[: x.ndim - ndim]), width)
    weight, bias = (None if p is None else p.reshape(-1) for p in (weight, bias))
    out = xp.empty_like(rows, order="C")
    mean, var = (xp.empty((len(rows), 1), dtype=x.dtype) for _ in range(2))
    step = len(rows) if xp.__name__ == "cupy" else max(1, _BLOCK // max(width, 1))
    for start in range(0, len(rows), max(step, 1)):
        part = slice(start, start + step)
        y = out[part]
        mean[part] = rows[part].sum(axis=-1, keepdims=True)
        mean[part] /= width
        xp.subtract(rows[part], mean[part], out=y)
        var[part, 0] = _squares(xp, y) / width
        y *= 1 / xp.sqrt(var[part] + x.dtype.type(eps))
        if weight is not None:
            y *= weight
        if bias is not None:
            y += bias
    rest = (*x.shape[: x.ndim - ndim], *(1,) * ndim)
    return out.reshape(x.shape), mean.reshape(rest), var.reshape(rest)


def _layer_norm(
    m: Any, x: Any, weight: Any = None, bias: Any = None, *, ndim: int, eps: float
) -> Any:
    dims = tuple(range(len(x.shape) - ndim, len(x.shape)))
    mean = m.mean(x, dim=dims, keepdim=True)
    centred = x - mean
    var = m.mean(centred * centred, dim=dims, keepdim=True)
    y = centred * m.rsqrt(var + eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, var


def _layer_vjp(
    m: Any, g: Any, x: Any, weight: Any, mean: Any, var: Any, ndim: int, eps: float, needs: Any
) -> Any:
    """Gradient of y, and of mean and var where they were used (Ba et al. 2016, worked out).

    dx = (h − avg(h) − z·avg(h·z)) / std with h = g·weight and z = (x − mean) / std.
    """
    gy, g_mean, g_var = g
    dims = tuple(range(len(x.shape) - ndim, len(x.shape)))
    count = math.prod(x.shape[d] for d in dims)
    scale = m.rsqrt(var + eps)
    z = (x - mean) * scale
    dx = None
    if needs[0]:
        h = gy if weight is None else gy * weight
        shift = m.mean(h, dim=dims, keepdim=True) - g_mean / (scale * count)
        tilt = m.mean(h * z, dim=dims, keepdim=True) - g_var * 2 / (scale * scale * count)
        dx = (h - shift - z * tilt) * scale
    return (dx, gy * z if weight is not None and needs[1] else None, gy)[: len(needs)]


layer_norm = define(
    "layer_norm(x, weight?, bias?) -> y, mean, var", type=_layer_type,
    kernel=in_float32(_layer_kernel), decompose=_layer_norm, vjp=Joint(_layer_vjp),
    sample=(case((3, 4), (4,), (4,), ndim=1, eps=1e-5), case((2, 3, 4), ndim=2, eps=1e-3),
            case((2, 3, 4), (3, 4), ndim=2, eps=1e-3), case((0, 4), (4,), (4,), ndim=1, eps=1e-5)),
    doc="(x − mean) / sqrt(var + eps) · weight + bias over the last dims. arXiv:1607.06450.",
)  # fmt: skip


def _rms_type(
    x: TensorType, weight: TensorType | None = None, *, ndim: int, eps: float
) -> TensorType:
    return _layer_type(x, weight, ndim=ndim, eps=eps)[0]


def _rms_kernel(xp: Any, x: Any, weight: Any = None, *, ndim: int, eps: float) -> Any:
    width = math.prod(x.shape[x.ndim - ndim :])
    rows = x.reshape(math.prod(x.shape[: x.ndim - ndim]), width)
    mean = _squares(xp, rows)[:, None] / width
    y = rows * (1 / xp.sqrt(mean + x.dtype.type(eps)))
    if weight is not None:
        y *= weight.reshape(-1)
    return y.reshape(x.shape)


def _inverse_rms(m: Any, x: Any, ndim: int, eps: float) -> Any:
    dims = tuple(range(len(x.shape) - ndim, len(x.shape)))
    return m.rsqrt(m.mean(x * x, dim=dims, keepdim=True) + eps)


def _rms_norm(m: Any, x: Any, weight: Any = None, *, ndim: int, eps: float) -> Any:
    y = x * _inverse_rms(m, x, ndim, eps)
    return y if weight is None else y * weight


def _rms_vjp(m: Any, g: Any, x: Any, weight: Any, ndim: int, eps: float, needs: Any) -> Any:
    scale = _inverse_rms(m, x, ndim, eps)
    z = x * scale
    dx = None
    if needs[0]:
        dims = tuple(range(len(x.shape) - ndim, len(x.shape)))
        h = g if weight is None else g * weight
        dx = (h - z * m.mean(h * z, dim=dims, keepdim=True)) * scale
    return (dx, g * z if weight is not None else None)[: len(needs)]


rms_norm = define(
    "rms_norm(x, weight?) -> y", type=_rms_type,
    kernel=row_major(in_float32(_rms_kernel)), decompose=_rms_norm, vjp=Joint(_rms_vjp),
    sample=(case((3, 4), (4,), ndim=1, eps=1e-5), case((2, 3, 4), ndim=2, eps=1e-3)),
    doc="x / sqrt(mean(x²) + eps) · weight over the last dims. arXiv:1910.07467.",
)  # fmt: skip


def _channel(x: TensorType, *params: TensorType | None) -> TensorType:
    _check(x, *params)
    if x.ndim < 2:
        raise OpError(f"batch_norm needs [batch, channel, ...], got {x}")
    for p in params:
        if p is not None and p.shape != x.shape[1:2]:
            raise OpError(f"expected {x.shape[1]} elements, one per channel of {x}, got {p}")
    return x.with_shape(x.shape[1:2])


def _batch_type(
    x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, *, eps: float
) -> tuple[TensorType, ...]:
    channel = _channel(x, weight, bias)
    return x, channel, channel


def _batch_kernel(xp: Any, x: Any, weight: Any = None, bias: Any = None, *, eps: float) -> Any:
    batch, channels = x.shape[:2]
    flat = x.reshape(batch, channels, math.prod(x.shape[2:]))
    count = batch * flat.shape[2]
    mean = flat.sum(axis=(0, 2)) / count
    y = flat - mean[:, None]
    var = (_squares(xp, y) if flat.shape[2] > 1 else (y * y)[:, :, 0]).sum(axis=0) / count
    scale = 1 / xp.sqrt(var + x.dtype.type(eps))
    y *= (scale if weight is None else scale * weight)[:, None]
    if bias is not None:
        y += bias[:, None]
    return image_like(x, y.reshape(x.shape)), mean, var


def _beside(m: Any, p: Any, x: Any) -> Any:
    """One number per channel, laid out to broadcast against x."""
    return m.reshape(p, shape=(1, x.shape[1], *(1,) * (len(x.shape) - 2)))


def _batch_dims(x: Any) -> Shape:
    return (0, *range(2, len(x.shape)))


def _batch_norm(m: Any, x: Any, weight: Any = None, bias: Any = None, *, eps: float) -> Any:
    dims = _batch_dims(x)
    mean = m.mean(x, dim=dims, keepdim=False)
    centred = x - _beside(m, mean, x)
    var = m.mean(centred * centred, dim=dims, keepdim=False)
    scale = m.rsqrt(var + eps)
    y = centred * _beside(m, scale if weight is None else scale * weight, x)
    return (y if bias is None else y + _beside(m, bias, x)), mean, var


def _batch_vjp(
    m: Any, g: Any, x: Any, weight: Any, mean: Any, var: Any, eps: float, needs: Any
) -> Any:
    """As for layer_norm; scale is constant over what is averaged, so it moves out of the sums."""
    gy, g_mean, g_var = g
    dims = _batch_dims(x)
    count = math.prod(x.shape[d] for d in dims)
    scale = m.rsqrt(var + eps)
    z = (x - _beside(m, mean, x)) * _beside(m, scale, x)
    total = m.sum(gy, dim=dims, keepdim=False)
    moment = m.sum(gy * z, dim=dims, keepdim=False)
    dx = None
    if needs[0]:
        steep = scale if weight is None else scale * weight
        shift = steep * total - g_mean
        tilt = steep * moment - 2 * g_var / scale
        dx = gy * _beside(m, steep, x) - (
            z * _beside(m, tilt / count, x) + _beside(m, shift / count, x)
        )
    return (dx, moment, total)[: len(needs)]


_AXES = case((3, 2, 4), (2,), (2,), eps=1e-5)

batch_norm = define(
    "batch_norm(x, weight?, bias?) -> y, mean, var", type=_batch_type,
    kernel=in_float32(_batch_kernel), decompose=_batch_norm, vjp=Joint(_batch_vjp),
    traits=(LAID_ALIKE,),
    sample=(_AXES, case((4, 3), eps=1e-3), case((2, 3, 2, 2), (3,), eps=1e-3)),
    doc="Each channel (dim 1) normalised by its own mean and variance. arXiv:1502.03167.",
)  # fmt: skip


def _inference_type(
    x: TensorType, mean: TensorType, var: TensorType, weight: TensorType | None = None,
    bias: TensorType | None = None, *, eps: float,
) -> TensorType:  # fmt: skip
    _channel(x, mean, var, weight, bias)
    return x


def _inference_kernel(
    xp: Any, x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float
) -> Any:
    scale = 1 / xp.sqrt(var + x.dtype.type(eps))
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift += bias
    side = (slice(None), *(None,) * (x.ndim - 2))
    y = x * scale[side]
    y += shift[side]
    return image_like(x, y)


def _inference(
    m: Any, x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float
) -> Any:
    scale = m.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    return x * _beside(m, scale, x) + _beside(m, shift, x)


def _inference_vjp(
    m: Any, g: Any, x: Any, mean: Any, var: Any, weight: Any, eps: float, needs: Any
) -> Any:
    """The running statistics are not learnt: they get no gradient (as in PyTorch)."""
    scale = m.rsqrt(var + eps)
    steep = scale if weight is None else scale * weight
    dx = g * _beside(m, steep, x) if needs[0] else None
    d_weight = d_bias = None
    if len(needs) > 3 and needs[3]:
        centred = x - _beside(m, mean, x)
        d_weight = m.sum(g * centred, dim=_batch_dims(x), keepdim=False) * scale
    if len(needs) > 4 and needs[4]:
        d_bias = m.sum(g, dim=_batch_dims(x), keepdim=False)
    return (dx, None, None, d_weight, d_bias)[: len(needs)]


_POSITIVE = Spec((2,), 0.5, 2)

batch_norm_inference = define(
    "batch_norm_inference(x, mean, var, weight?, bias?) -> y", type=_inference_type,
    kernel=in_float32(_inference_kernel), decompose=_inference, vjp=Joint(_inference_vjp),
    sample=(case((3, 2, 4), (2,), _POSITIVE, (2,), (2,), eps=1e-5),
            case((3, 2), (2,), _POSITIVE, eps=1e-5)),
    doc="batch_norm with given statistics, which are constants to the gradient.",
)  # fmt: skip
