"""Convolutions by `winograd` as launches: when they pay, and how they are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.convolution import Geometry, Pair, dense
from tracegraph.runtime.cpu.products.convolution_places import rows_of
from tracegraph.runtime.cpu.products.launches import Array, Buffer, Kernel, Launch, Steps
from tracegraph.runtime.cpu.products.winograd import (
    LEAST_CHANNELS,
    SPARE,
    Winograd,
    most_channels,
    winograd_slots,
    winograd_tile,
)
from tracegraph.runtime.cpu.products.winograd_code import winograd_text
from tracegraph.runtime.cpu.products.winograd_weights import (
    WEIGHT_SLOTS,
    WinogradWeights,
    winograd_weights_text,
)

# What panels of a unit may take of the second cache, and what a chunk should take of time.
_PANEL_BYTES: Final = 600 << 10
_CHUNK_NS: Final = 3000
# How times are estimated: multiplications a ns and lane; what it takes to transform a patch of a
# channel, or back, in ns for vectors of 16, by the size of tiles; a weight; bytes of weights a ns;
# threads that share the work. Tiles have to be faster by the margin, for they cost accuracy.
_LANE_RATE: Final = 3.4
_PATCH_NS: Final = {2: 0.7, 4: 3.0}
_WEIGHT_NS: Final = 3.0
_STREAM_RATE: Final = 60.0
_THREADS: Final = 2
_MARGIN: Final = 1.2
# Weights of places that take so much are kept as taps, for so many tiles: a ResNet-18 of one image
# needs 50 in place of 78 MB for its weights, and 5 % more time. (16 images took 13 to 22 % more.)
_LATE_BYTES: Final = 4 << 20
_LATE_TILES: Final = 56


class WinogradConvolution(NamedTuple):
    """The kernels of a convolution, or of the gradient of its input; the weight is known ahead."""

    spec: Winograd
    is_gradient: bool
    target: Target

    @property
    def weights(self) -> WinogradWeights:
        """What packs the weights."""
        return WinogradWeights.of(self.spec)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What is to be compiled."""
        return (
            Kernel(self.spec.name, winograd_text, self.spec, self.target),
            Kernel(self.weights.name, winograd_weights_text, self.weights, self.target),
        )

    def steps(self, g: Geometry, operands: Sequence[Array] = ()) -> Steps:
        """Return what to run for a geometry that differs in `images` and `size` only."""
        spec, view = self.spec, _view(g, self.is_gradient)
        panels = Buffer("packed", 0)
        filled: dict[str, int | Buffer] = {"a": Buffer("operand", 0), "b": panels}
        for name, row in rows_of(spec.output, g, self.is_gradient, operands).items():
            filled[name] = row.buffer
            levels = zip(("image", "line", "stride"), row.far, strict=True)
            filled |= {f"{name}_{level}": far for level, far in levels}
        words, chunks, cost_ns = _cut(spec, g.images, view)
        filled |= words
        arguments = {name: filled[name] for name in winograd_slots(spec)}
        flops = 2 * words["tiles"] * spec.places * view.n * view.channels
        launch = Launch(spec.name, arguments, chunks, cost_ns, flops)
        before = self._weight_launch(view, panels)
        size = self.weights.bytes(view.channels, view.n)
        return Steps((launch,), (before,), (size,), (), may_alias=True)

    def _weight_launch(self, view: _View, panels: Buffer) -> Launch:
        n, channels = view.n, view.channels
        n_stride, channel_stride, sign, first = channels * 9, 9, 1, 0
        if self.is_gradient:
            n_stride, channel_stride, sign, first = 9, n * 9, -1, 8
        filled: dict[str, int | Buffer] = {
            "source": Buffer("operand", 1, first * self.spec.dtype.itemsize), "panels": panels,
            "n": n, "channels": channels, "n_stride": n_stride, "channel_stride": channel_stride,
            "y_stride": 3 * sign, "x_stride": sign,
        }  # fmt: skip
        arguments = {name: filled[name] for name in WEIGHT_SLOTS}
        cost_ns = int(n * channels * _WEIGHT_NS)
        return Launch(self.weights.name, arguments, -(-n // self.spec.tile.columns), cost_ns)


class _View(NamedTuple):
    """What is read and what is made, of the convolution or of the gradient."""

    source: Pair
    channels: int
    result: Pair
    n: int
    start: Pair


def _view(g: Geometry, is_gradient: bool) -> _View:
    (top, _), (left, _) = g.padding
    if is_gradient:
        return _View(g.out_size, g.out_channels, g.size, g.channels, (top - 2, left - 2))
    return _View(g.size, g.channels, g.out_size, g.out_channels, (-top, -left))


def winograd_size(g: Geometry, is_gradient: bool, dtype: DType, target: Target) -> int:
    """Return the size of the tiles that pay, 0 if none do; what is given ahead is the weight.

    By the sizes of one image, so that the number of images changes no bit of a result.
    """
    view = _view(g, is_gradient)
    is_fit = (g.window, g.stride, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
    if not is_fit or min(view.channels, view.n) < LEAST_CHANNELS or 0 in view.result:
        return 0
    tile, found = winograd_tile(target, dtype), 0
    lanes, columns = tile.width, -(-view.n // tile.columns) * tile.columns
    weights = view.channels * columns * dtype.itemsize / _STREAM_RATE
    products = math.prod(view.result) * view.channels * columns
    least = 9 * (products / (_LANE_RATE * lanes) / _THREADS + weights)
    for size in (2, 4):
        if view.channels > most_channels(dtype, size):
            continue
        spec = Winograd(dtype, Output((dtype,)), tile, size)
        _, _, cost_ns = _cut(spec, 1, view)
        taken = cost_ns / _THREADS + spec.places * weights
        if taken * _MARGIN < least:
            found, least = size, taken
    return found


def winograd_convolution(
    g: Geometry, dtype: DType, output: Output, target: Target, size: int, is_gradient: bool
) -> WinogradConvolution:
    """Return the kernels for tiles of a size, 2 or 4.

    There must be as many channels as `LEAST_CHANNELS` and `most_channels` say.
    """
    tile, view = winograd_tile(target, dtype), _view(g, is_gradient)
    spec = Winograd(dtype, output, tile, size)
    tiles = g.images * math.prod(-(-n // size) for n in view.result)
    if (
        tiles <= _LATE_TILES
        and WinogradWeights.of(spec).bytes(view.channels, view.n) >= _LATE_BYTES
    ):
        blocks = 2 if 2 * view.channels <= most_channels(dtype, size) else 1
        spec = spec._replace(is_late=True, blocks=blocks)
    return WinogradConvolution(spec, is_gradient, target)


def _cut(spec: Winograd, images: int, view: _View) -> tuple[dict[str, int], int, int]:
    """Return words of the argument block, chunks, and about what all takes."""
    tiles_y, tiles_x = (-(-n // spec.size) for n in view.result)
    tiles = images * tiles_y * tiles_x
    panels = -(-view.n // spec.tile.columns)
    row_blocks = max(-(-(tiles - SPARE) // spec.rows), min(tiles, 1))
    panel_bytes = WinogradWeights.of(spec).bytes(view.channels, 1)
    panel_block = max(1, min(panels, _PANEL_BYTES // max(1, panel_bytes)))
    panel_block = 1 if spec.is_late else panel_block
    units = row_blocks * -(-panels // panel_block)
    lanes, columns = spec.tile.width, panel_block * spec.tile.columns
    products = spec.places * columns * view.channels / (_LANE_RATE * lanes)
    transforms = (columns + view.channels) * _PATCH_NS[spec.size] * 16 / lanes
    row_ns = products + transforms
    unit_ns = min(tiles, spec.rows) * row_ns
    chunk = units_in_chunk(units, unit_ns, _CHUNK_NS)
    image, line, pixel = dense(view.source, view.channels)
    words = {
        "out_height": max(1, tiles_y), "out_width": max(1, tiles_x), "tiles": tiles,
        "y_start": view.start[0], "x_start": view.start[1], "height": view.source[0],
        "width": view.source[1], "image": image, "line": line, "pixel": pixel,
        "channels": view.channels, "panels": panels, "panel_block": panel_block,
        "row_blocks": max(1, row_blocks), "units": units, "chunk": chunk, "n": view.n,
        "y_size": view.result[0], "x_size": view.result[1],
    }  # fmt: skip
    return words, -(-units // chunk), int(tiles * row_ns * -(-panels // panel_block))
