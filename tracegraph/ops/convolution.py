"""Convolution over N spatial dims and its two adjoints, a set closed under differentiation.

Arrays are [batch, channel, *space]; weights are [out, in / groups, *window]. `padding` has one
(before, after) per spatial dim. The kernels lay windows out as columns and let the BLAS multiply
(Chellapilla et al. 2006, "High performance convolutional neural networks"), a block at a time so
that columns stay in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tracegraph.dtypes import NUMBERS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import CONTRACTION, case, define, in_float32
from tracegraph.ops.windows import Pads, counts, padded, tap_slices, window_view
from tracegraph.tensor_type import Shape, TensorType

# Elements of columns laid out at a time: 2 MB of float32. On resnet18 layers 2**18 to 2**20 are
# within 5 %, and the whole of a 64-channel 112² image at once takes 1.4 times as long. A GPU has
# no such cache to keep to, and wants few launches: 256 MB.
_BLOCK = 1 << 19
_DEVICE_BLOCK = 1 << 26


class _Layout(NamedTuple):
    """The sizes of one convolution, as kernels want them."""

    groups: int
    inner: int  # input channels of a group × taps
    outer: int  # output channels of a group
    window: Shape
    windows: Shape  # how many per dim

    @property
    def places(self) -> int:
        """Number of windows."""
        return _product(self.windows)


def _product(shape: Shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _check(x: TensorType, weight: TensorType, groups: int, what: str) -> None:
    if x.dtype is not weight.dtype or x.dtype not in NUMBERS:
        raise DTypeError(
            f"Input type ({x.dtype}) and weight type ({weight.dtype}) should be the same"
        )
    if x.ndim < 3 or x.ndim != weight.ndim:
        raise OpError(f"{what} {x} and weight {weight} must have the same dims, 3 or more")
    if groups < 1 or weight.shape[0] % groups:
        raise OpError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {list(weight.shape)} instead"
        )


def _conv_type(
    x: TensorType, weight: TensorType, *, stride: Shape, padding: Pads, dilation: Shape, groups: int
) -> TensorType:
    _check(x, weight, groups, "input")
    if x.shape[1] != weight.shape[1] * groups:
        raise OpError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input"
            f"{list(x.shape)} to have {weight.shape[1] * groups} channels, but got {x.shape[1]} "
            "channels instead"
        )
    if any(n < 1 for n in (*stride, *dilation)):
        raise OpError("non-positive stride or dilation is not supported")
    count = counts(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.with_shape((x.shape[0], weight.shape[0], *count))


def _blocks(xp: Any, layout: _Layout, batch: int) -> Iterator[tuple[slice, slice]]:
    """Yield (samples, first spatial dim of the windows) whose columns fill about one block."""
    sample = max(1, layout.groups * layout.inner * layout.places)
    rows = layout.windows[0]
    block = _BLOCK if xp.__name__ == "numpy" else _DEVICE_BLOCK
    several = max(1, block // sample)
    step = rows if several > 1 else max(1, min(rows, block * rows // sample))
    for n in range(0, batch, several):
        for row in range(0, rows, step):
            yield slice(n, min(n + several, batch)), slice(row, min(row + step, rows))


def _layout(channels: int, weight: Shape, groups: int, count: Shape) -> _Layout:
    window = weight[2:]
    inner = channels // groups * _product(window)
    return _Layout(groups, inner, weight[0] // groups, window, count)


def _is_pointwise(layout: _Layout, stride: Shape, padding: Pads) -> bool:
    return _product(layout.window) == 1 and _product(stride) == 1 and not any(map(any, padding))


def _convolution(
    xp: Any, x: Any, weight: Any, *, stride: Shape, padding: Pads, dilation: Shape, groups: int
) -> Any:
    count = counts(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    layout = _layout(x.shape[1], weight.shape, groups, count)
    batch, places = x.shape[0], layout.places
    matrix = weight.reshape(groups, layout.outer, layout.inner)
    if _is_pointwise(layout, stride, padding):
        out = matrix @ x.reshape(batch, groups, layout.inner, places)
        return out.reshape(batch, weight.shape[0], *count)
    if layout.inner == _product(layout.window) and layout.outer == 1 and groups > 1:
        return _depthwise(xp, x, weight, stride, padding, dilation, count)
    x = padded(xp, x, padding)
    view = window_view(xp, x, layout.window, stride, dilation, count)
    out = xp.empty((batch, groups, layout.outer, places), dtype=x.dtype)
    row = places // count[0]
    first = 2 + len(count)
    for samples, rows in _blocks(xp, layout, batch):
        block = view[(samples, *(slice(None),) * (first - 1), rows)]
        columns = xp.ascontiguousarray(block).reshape(len(block), groups, layout.inner, -1)
        into = out[samples, :, :, rows.start * row : rows.stop * row]
        xp.matmul(matrix, columns, out=into)
    return out.reshape(batch, weight.shape[0], *count)


def _bands(xp: Any, weight: Any, tile: int, step: int, far: int) -> Any:
    """Matrices [channel, lines · span, tile] that make `tile` outputs of a line at once.

    A tile reads `span` elements of each line of the window; output i weighs those from i · step on.
    """
    channels, taps = weight.shape[0], weight.shape[-1]
    lines, span = _product(weight.shape[2:-1]), (tile - 1) * step + far * (taps - 1) + 1
    band = xp.zeros((channels, lines, span, tile), dtype=weight.dtype)
    places = xp.arange(tile)
    for tap in range(taps):
        scales = weight.reshape(channels, lines, taps)[:, :, tap, None]
        band[:, :, places * step + tap * far, places] = scales
    return band.reshape(channels, lines * span, tile)


def _depthwise(
    xp: Any, x: Any, weight: Any, stride: Shape, padding: Pads, dilation: Shape, count: Shape
) -> Any:
    """Each channel alone: tiles of 16 outputs of a line as the product with a banded matrix.

    A vector of taps would waste the BLAS, and a sum over taps the memory: this takes a third to a
    sixth of the time of either.
    """
    channels, window = weight.shape[0], weight.shape[2:]
    *rest, width = count
    tile = min(16, width)
    tiles = -(-width // tile)
    matrix = _bands(xp, weight, tile, stride[-1], dilation[-1])
    span = matrix.shape[1] // _product(window[:-1])
    before, after = padding[-1]
    reach = (tiles - 1) * tile * stride[-1] + span
    x = padded(xp, x, (*padding[:-1], (before, max(after, reach - x.shape[-1] - before))))
    *steps, item = x.strides[2:]
    moves = [s * m for s, m in zip(steps, stride, strict=False)]
    lines = [s * d for s, d in zip(steps, dilation, strict=False)]
    view = xp.lib.stride_tricks.as_strided(
        x, (*x.shape[:2], *rest, tiles, *window[:-1], span),
        (*x.strides[:2], *moves, tile * stride[-1] * item, *lines, item),
    )  # fmt: skip
    out = xp.empty((x.shape[0], channels, *count), dtype=x.dtype)
    several = max(1, _BLOCK // max(_product(view.shape[1:]), 1))
    for start in range(0, x.shape[0], several):
        block = xp.ascontiguousarray(view[start : start + several])
        tiled = block.reshape(len(block), channels, -1, matrix.shape[1]) @ matrix
        out[start : start + several] = tiled.reshape(len(block), channels, *rest, -1)[..., :width]
    return out


def _input_type(
    y: TensorType, weight: TensorType, *,
    size: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int,
) -> TensorType:  # fmt: skip
    _check(y, weight, groups, "output gradient")
    x = y.with_shape((y.shape[0], weight.shape[1] * groups, *size))
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if y.shape[1] != weight.shape[0]:
        raise OpError(
            f"Given transposed=1, weight of size {list(weight.shape)}, expected input"
            f"{list(y.shape)} to have {weight.shape[0]} channels, but got {y.shape[1]} channels "
            "instead"
        )
    if _conv_type(x, weight, **attrs).shape != y.shape:  # type: ignore[arg-type]
        raise OpError(f"no input of size {size} gives the convolution {y} with {weight}")
    return x


def _flipped(xp: Any, weight: Any, groups: int) -> Any:
    """The weight of the convolution that undoes a stride of 1: turned, in and out swapped."""
    out, inner, *window = weight.shape
    turned = xp.flip(weight, tuple(range(2, weight.ndim)))
    turned = turned.reshape(groups, out // groups, inner, *window).swapaxes(1, 2)
    return xp.ascontiguousarray(turned).reshape(groups * inner, out // groups, *window)


def _input_grad(
    xp: Any, y: Any, weight: Any, *,
    size: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int,
) -> Any:  # fmt: skip
    batch, window, count = y.shape[0], weight.shape[2:], y.shape[2:]
    channels = weight.shape[1] * groups
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    outer = tuple((r - a, r - b) for r, (a, b) in zip(reach, padding, strict=True))
    layout = _layout(channels, weight.shape, groups, count)
    if _is_pointwise(layout, stride, padding):
        matrix = weight.reshape(groups, layout.outer, layout.inner).swapaxes(1, 2)
        out = matrix @ y.reshape(batch, groups, layout.outer, -1)
        return out.reshape(batch, channels, *size)
    # With no more outputs than inputs, gathering columns costs less than scattering them.
    if _product(stride) == 1 and weight.shape[0] <= channels and min(map(min, outer)) >= 0:
        turned = _flipped(xp, weight, groups)
        return _convolution(
            xp, y, turned, stride=stride, padding=outer, dilation=dilation, groups=groups
        )
    return _scatter_columns(xp, y, weight, layout, size, stride, padding, dilation)


def _scatter_columns(
    xp: Any, y: Any, weight: Any, layout: _Layout, size: Shape, stride: Shape, padding: Pads,
    dilation: Shape,
) -> Any:  # fmt: skip
    """Multiply to columns, and add each tap of them where it was taken from."""
    batch, groups, count = y.shape[0], layout.groups, layout.windows
    channels = groups * layout.inner // max(_product(layout.window), 1)
    wide = tuple(n + a + b for n, (a, b) in zip(size, padding, strict=True))
    out = xp.zeros((batch, channels, *wide), dtype=y.dtype)
    matrix = xp.ascontiguousarray(weight.reshape(groups, layout.outer, layout.inner).swapaxes(1, 2))
    flat = y.reshape(batch, groups, layout.outer, layout.places)
    row = layout.places // count[0]
    for samples, rows in _blocks(xp, layout, batch):
        columns = matrix @ flat[samples, :, :, rows.start * row : rows.stop * row]
        part = (rows.stop - rows.start, *count[1:])
        columns = columns.reshape(len(columns), channels, *layout.window, *part)
        start = (rows.start, *(0,) * (len(count) - 1))
        for tap, places in tap_slices(layout.window, stride, dilation, part, start):
            out[(samples, slice(None), *places)] += columns[(slice(None), slice(None), *tap)]
    # The adjoint of a border is a cut, and of a cut a border of zeros.
    return padded(xp, out, tuple((-a, -b) for a, b in padding))


def _weight_type(
    x: TensorType, y: TensorType, *,
    window: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int,
) -> TensorType:  # fmt: skip
    if groups < 1 or x.shape[1] % groups:
        raise OpError(f"{x.shape[1]} channels cannot be divided into {groups} groups")
    weight = x.with_shape((y.shape[1], x.shape[1] // groups, *window))
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if _conv_type(x, weight, **attrs) != y:  # type: ignore[arg-type]
        raise OpError(f"{y} is no convolution of {x} with a window {window}")
    return weight


def _weight_grad(
    xp: Any, x: Any, y: Any, *,
    window: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int,
) -> Any:  # fmt: skip
    batch, count = x.shape[0], y.shape[2:]
    shape = (y.shape[1], x.shape[1] // groups, *window)
    layout = _layout(x.shape[1], shape, groups, count)
    view = window_view(xp, padded(xp, x, padding), window, stride, dilation, count)
    flat = y.reshape(batch, groups, layout.outer, layout.places)
    row = layout.places // count[0]
    total = None
    for samples, rows in _blocks(xp, layout, batch):
        block = view[(samples, *(slice(None),) * (1 + len(count)), rows)]
        grads = flat[samples, :, :, rows.start * row : rows.stop * row]
        part = _correlate(xp, block, grads, layout)
        total = part if total is None else xp.add(total, part, out=total)
    return xp.zeros(shape, dtype=x.dtype) if total is None else total.reshape(shape)


def _correlate(xp: Any, block: Any, grads: Any, layout: _Layout) -> Any:
    """Sum of grads[n] @ columns[n].T over samples, for every group."""
    groups, inner, samples = layout.groups, layout.inner, len(block)
    if samples == 1 or inner <= grads.shape[-1]:
        columns = xp.ascontiguousarray(block).reshape(samples, groups, inner, -1)
        product = grads @ columns.swapaxes(-1, -2)
        return product[0] if samples == 1 else product.sum(axis=0)
    # Few windows and many weights: one product over all samples, and no sum of matrices.
    columns = xp.ascontiguousarray(xp.moveaxis(block, 0, 1 + len(layout.window)))
    folded = xp.ascontiguousarray(xp.moveaxis(grads, 0, 2)).reshape(groups, layout.outer, -1)
    return folded @ columns.reshape(groups, inner, -1).swapaxes(-1, -2)


def _spatial(kind: TensorType) -> Shape:
    return kind.shape[2:]


_ATTRS = {"stride": (1,), "padding": ((1, 0),), "dilation": (1,), "groups": 1}
_PLANE = {"stride": (2, 1), "padding": ((1, 1), (0, 2)), "dilation": (1, 2), "groups": 2}

convolution = define(
    "convolution(x, weight) -> y", type=_conv_type, kernel=in_float32(_convolution),
    vjp=(lambda m, g, weight, x_type, stride, padding, dilation, groups:
         m.convolution_input_grad(g, weight, size=_spatial(x_type), stride=stride,
                                  padding=padding, dilation=dilation, groups=groups),
         lambda m, g, x, weight_type, stride, padding, dilation, groups:
         m.convolution_weight_grad(x, g, window=_spatial(weight_type), stride=stride,
                                   padding=padding, dilation=dilation, groups=groups)),
    traits=(CONTRACTION,),
    sample=(case((2, 2, 5), (3, 2, 2), **_ATTRS), case((2, 4, 5, 6), (6, 2, 3, 2), **_PLANE),
            case((0, 2, 4), (3, 2, 2), **_ATTRS),
            case((2, 3, 5, 6), (3, 1, 3, 2), **{**_PLANE, "groups": 3}),
            case((3, 4, 4, 4), (2, 4, 1, 1), stride=(1, 1), padding=((0, 0), (0, 0)),
                 dilation=(1, 1), groups=1)),
    doc="Sums of products of weights with sliding windows (cross-correlation), as in PyTorch.",
)  # fmt: skip

convolution_input_grad = define(
    "convolution_input_grad(y, weight) -> x", type=_input_type, kernel=in_float32(_input_grad),
    vjp=(lambda m, g, weight, stride, padding, dilation, groups:
         m.convolution(g, weight, stride=stride, padding=padding, dilation=dilation,
                       groups=groups),
         lambda m, g, y, weight_type, stride, padding, dilation, groups:
         m.convolution_weight_grad(g, y, window=_spatial(weight_type), stride=stride,
                                   padding=padding, dilation=dilation, groups=groups)),
    traits=(CONTRACTION,),
    sample=(case((2, 3, 5), (3, 2, 2), size=(5,), **_ATTRS),
            case((2, 6, 3, 6), (6, 2, 3, 2), size=(6, 6), **_PLANE),
            case((2, 3, 5), (3, 4, 2), size=(5,), **_ATTRS)),
    doc="The adjoint of convolution in its input: transposed convolution.",
)  # fmt: skip

convolution_weight_grad = define(
    "convolution_weight_grad(x, y) -> weight", type=_weight_type, kernel=in_float32(_weight_grad),
    vjp=(lambda m, g, y, x_type, stride, padding, dilation, groups:
         m.convolution_input_grad(y, g, size=_spatial(x_type), stride=stride, padding=padding,
                                  dilation=dilation, groups=groups),
         lambda m, g, x, stride, padding, dilation, groups:
         m.convolution(x, g, stride=stride, padding=padding, dilation=dilation, groups=groups)),
    traits=(CONTRACTION,),
    sample=(case((2, 2, 5), (2, 3, 5), window=(2,), **_ATTRS),
            case((2, 4, 5, 6), (2, 6, 3, 6), window=(3, 2), **_PLANE)),
    doc="The adjoint of convolution in its weight.",
)  # fmt: skip
