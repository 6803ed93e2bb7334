"""Convolutions and their gradients as contractions over images in NHWC order.

    forward       C[place, out]    = sum over (tap, in) of windows of x · weight
    input grad    dx[pixel, in]    = sum over (tap, out) of windows of dy · weight
    weight grad   dw[out, tap, in] = sum over places of dy · windows of x

Each gives `Product`s: what to write into a `Contraction` and its argument block besides pointers
and what `schedule` says. With a stride, the gradient of the input falls apart into one product for
each remainder of a pixel's place modulo the stride: each has only the taps that reach such pixels
(so nothing is multiplied by zeros), and together they write every pixel once.

Groups are a batch dim; narrow ones are better off with `convolution_direct`.
One-dimensional convolutions have height 1.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from tracegraph.runtime.cpu.code.chunks import CHUNK_NS, units_in_chunk
from tracegraph.runtime.cpu.products.contraction import ALayout, BLayout, Extents

Pair = tuple[int, int]

# Words that contractions and direct convolutions have alike.
_SHARED: Final = (
    "out_height", "out_width", "y_step", "x_step", "y_start", "x_start", "y_spread", "x_spread",
    "image", "line", "pixel",
)  # fmt: skip
# Products of one pixel each that the gradient of the input may be taken apart into.
_MOST_PIXELS: Final = 64
# About what a tap of a channel takes, and the fewest places that a line is cut into.
_DIRECT_NS: Final = 0.05
_SEGMENT: Final = 64


class Geometry(NamedTuple):
    """The sizes of a convolution; pairs are (vertical, horizontal), of padding (before, after)."""

    images: int
    size: Pair
    channels: int
    out_channels: int
    window: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int

    @property
    def out_size(self) -> Pair:
        """The number of places of windows."""
        first, second = (
            (self.size[d] + sum(self.padding[d]) - self.dilation[d] * (self.window[d] - 1) - 1)
            // self.stride[d]
            + 1
            for d in (0, 1)
        )
        return max(first, 0), max(second, 0)

    @property
    def inner(self) -> int:
        """Input channels of a group."""
        return self.channels // self.groups

    @property
    def outer(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    @property
    def is_pixelwise(self) -> bool:
        """Whether pixels of the result are made of one pixel each, side by side."""
        return (self.window, self.stride, self.padding) == ((1, 1), (1, 1), ((0, 0), (0, 0)))

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is a group of its own."""
        return self.groups == self.channels == self.out_channels > 1

    @property
    def apart(self) -> Geometry:
        """The same, but of one window alone it is known that there is no other.

        Then the gradient of the input has one tap for each pixel, not all, most of them outside.
        """
        if math.prod(self.window) > _MOST_PIXELS:
            return self
        reach = (size + sum(pad) for size, pad in zip(self.size, self.padding, strict=True))
        dims = zip(self.out_size, self.stride, reach, strict=True)
        y, x = (max(step, far) if count == 1 else step for count, step, far in dims)
        return self._replace(stride=(y, x))

    @property
    def places(self) -> int:
        """Windows of all images."""
        return self.images * math.prod(self.out_size)


class Panels(NamedTuple):
    """Where to take a packed weight from: `packing` has these words.

    `offset` is that of the first element; strides are in elements of weight[out, in, y, x].
    """

    offset: int
    words: dict[str, int]


class Product(NamedTuple):
    """One contraction of a convolution.

    Its rows are the pixels `first`, `first + steps`, ... of result images, `channels` of them for
    each group; or those of a matrix, for the gradient of a weight, which has no `panels`.
    """

    a: ALayout
    b: BLayout
    extents: Extents
    words: dict[str, int]
    channels: int
    panels: Panels | None
    first: Pair = (0, 0)
    steps: Pair = (1, 1)

    def pixels(self, far: tuple[int, int, int]) -> tuple[int, dict[str, int]]:
        """Return where such rows of an array begin, and its strides of a row by their level.

        `far`: its strides of an image, of a line and of a pixel.
        """
        image, line, pixel = far
        offset = self.first[0] * line + self.first[1] * pixel
        strides = {"image": image, "line": self.steps[0] * line, "stride": self.steps[1] * pixel}
        return offset, strides if self.a == "windows" else {"stride": pixel}


def dense(size: Pair, channels: int) -> tuple[int, int, int]:
    """Return the strides of images in NHWC order: of an image, of a line, of a pixel."""
    return size[0] * size[1] * channels, size[1] * channels, channels


def forward(g: Geometry, columns: int, may_be_plain: bool = True) -> Product:
    """Return the convolution, for weights packed in panels of `columns`.

    Windows of one element, side by side, are plain rows; if they may be.
    """
    taps = math.prod(g.window)
    k = taps * g.inner
    kernel = {
        "matrix_stride": g.outer * k, "n": g.outer, "n_stride": k,
        "k2": g.window[0], "k2_stride": g.window[1], "k1": g.window[1], "k1_stride": 1,
        "k0": g.inner, "k0_stride": taps,
    }  # fmt: skip
    if may_be_plain and g.is_pixelwise:
        layout: ALayout = "rows"
        words = {"a_stride": g.channels}
    else:
        layout = "windows"
        start = (-g.padding[0][0], -g.padding[1][0])
        view = _View(g.size, g.channels, g.inner, g.window, g.stride, start, g.dilation, g.out_size)
        words = _window_words(view)
    extents = Extents(_batch(g), g.places, g.outer, k)
    words |= _batch_strides(g, g.inner, -(-g.outer // columns) * k * columns)
    return Product(layout, "panels", extents, words, g.outer, _panels(g, 0, kernel, columns))


def input_grad(g: Geometry, columns: int, may_be_plain: bool = True) -> list[Product]:
    """Return the products that together write the gradient of the input."""
    phases = [[_phase(g, d, r) for r in range(min(g.stride[d], g.size[d]))] for d in (0, 1)]
    found = [_input_product(g, y, x, columns) for y in phases[0] for x in phases[1]]
    if not (may_be_plain and g.is_pixelwise):
        return found
    (whole,) = found
    strides = {name: far for name, far in whole.words.items() if name.endswith("_batch0")}
    return [whole._replace(a="rows", words={"a_stride": g.out_channels} | strides)]


class _Phase(NamedTuple):
    """Pixels r, r + stride, ... in one dim, and the taps that reach them, the last one first."""

    first: int
    pixels: int
    taps: range
    start: int  # the place of the window of the first tap for the first pixel
    spread: int  # places from tap to tap


def _phase(g: Geometry, d: int, r: int) -> _Phase:
    """Solve pixel + padding = place · stride + tap · dilation for the pixels r + stride · i."""
    stride, dilation, before = g.stride[d], g.dilation[d], g.padding[d][0]
    reaching = [t for t in range(g.window[d]) if (r + before - t * dilation) % stride == 0]
    every = stride // math.gcd(stride, dilation)
    last = reaching[-1] if reaching else 0
    taps = range(last, -1, -every) if reaching else range(0)
    start = (r + before - last * dilation) // stride
    return _Phase(r, len(range(r, g.size[d], stride)), taps, start, every * dilation // stride)


def _input_product(g: Geometry, y: _Phase, x: _Phase, columns: int) -> Product:
    window = (len(y.taps), len(x.taps))
    grid, k = (y.pixels, x.pixels), math.prod(window) * g.outer
    spread = (y.spread, x.spread)
    view = _View(
        g.out_size, g.out_channels, g.outer, window, (1, 1), (y.start, x.start), spread, grid
    )
    taps = math.prod(g.window)
    kernel = {
        "matrix_stride": g.outer * g.inner * taps, "n": g.inner, "n_stride": taps,
        "k2": window[0], "k2_stride": y.taps.step * g.window[1], "k1": window[1],
        "k1_stride": x.taps.step, "k0": g.outer, "k0_stride": g.inner * taps,
    }  # fmt: skip
    offset = y.taps.start * g.window[1] + x.taps.start
    words = _window_words(view)
    words |= _batch_strides(g, g.outer, -(-g.inner // columns) * k * columns)
    extents = Extents(_batch(g), g.images * math.prod(grid), g.inner, k)
    return Product(
        "windows", "panels", extents, words, g.inner, _panels(g, offset, kernel, columns),
        (y.first, x.first), g.stride,
    )  # fmt: skip


def weight_grad(g: Geometry, may_be_plain: bool = True) -> Product:
    """Return the gradient of the weight, as dw[out, y, x, in]."""
    n = math.prod(g.window) * g.inner
    start = (-g.padding[0][0], -g.padding[1][0])
    view = _View(g.size, g.channels, g.inner, g.window, g.stride, start, g.dilation, g.out_size)
    is_plain = may_be_plain and g.is_pixelwise
    words = {"b_stride": g.channels} if is_plain else _window_words(view)
    words |= {"a_stride": g.out_channels} | _batch_strides(g, g.outer, g.inner)
    extents = Extents(_batch(g), g.outer, n, g.places)
    return Product("columns", "rows" if is_plain else "windows", extents, words, g.outer, None)


def _batch(g: Geometry) -> tuple[int, ...]:
    return (g.groups,) if g.groups > 1 else ()


def _batch_strides(g: Geometry, a: int, b: int) -> dict[str, int]:
    return {"a_batch0": a, "b_batch0": b} if g.groups > 1 else {}


def _panels(g: Geometry, offset: int, kernel: dict[str, int], columns: int) -> Panels:
    words = kernel | {"matrices": g.groups, "panel_count": -(-kernel["n"] // columns)}
    return Panels(offset, words)


class _View(NamedTuple):
    """Windows over images: sizes as in `Geometry`, `inner` channels of them, places in `grid`."""

    size: Pair
    channels: int
    inner: int
    window: Pair
    step: Pair
    start: Pair
    spread: Pair
    grid: Pair


def _window_words(view: _View) -> dict[str, int]:
    """Return the words of the argument block for an operand that is windows."""
    line = view.size[1] * view.channels
    run, runs = view.inner, view.window[1]
    if view.spread[1] == 1 and view.inner == view.channels:  # taps of a line follow each other
        run, runs = run * runs, 1
    return {
        "out_height": max(1, view.grid[0]), "out_width": max(1, view.grid[1]),
        "y_step": view.step[0], "x_step": view.step[1],
        "y_start": view.start[0], "x_start": view.start[1],
        "y_spread": view.spread[0], "x_spread": view.spread[1],
        "height": view.size[0], "width": line, "image": view.size[0] * line, "line": line,
        "pixel": view.channels, "run": max(1, run), "runs": max(1, runs),
    }  # fmt: skip


class DirectProduct(NamedTuple):
    """A direct convolution: its weights [inner, taps, channels] begin at `weight_offset`.

    `product` tells which pixels are written.
    """

    product: Product
    words: dict[str, int]
    weight_offset: int
    chunks: int
    cost_ns: int


def direct_forward(g: Geometry, width: int, together: int) -> DirectProduct:
    """Return the convolution, `together` groups in vectors of a width."""
    return _direct(g, forward(g, 1, may_be_plain=False), (g.inner, g.outer), width, together)


def direct_input_grad(g: Geometry, width: int, together: int) -> list[DirectProduct]:
    """Return the products that together write the gradient of the input."""
    found = input_grad(g, 1, may_be_plain=False)
    return [_direct(g, product, (g.outer, g.inner), width, together) for product in found]


def _direct(g: Geometry, product: Product, group: Pair, width: int, together: int) -> DirectProduct:
    assert product.panels is not None
    words, kernel = product.words, product.panels.words
    x_size, places = words["width"] // words["pixel"], words["out_width"]
    reach = max(kernel["k1"] - 1, 0) * words["x_spread"]
    first, end = _inner(x_size, words["x_start"], words["x_step"], reach)
    (inner, outer), parts = group, 1 if together > 1 else -(-group[1] // width)
    channels, blocks = g.groups * outer, -(-g.groups // together) * parts
    lines = product.extents.m // places
    taps = kernel["k2"] * kernel["k1"] * inner
    line_ns = places * blocks * width * (taps + 2) * _DIRECT_NS
    segments = max(1, min(places // _SEGMENT, int(line_ns / CHUNK_NS)))
    segment = -(-places // segments // 8) * 8
    segments = -(-places // segment)
    units = lines * segments
    chunk = units_in_chunk(max(units, 1), line_ns / segments)
    found = {name: words[name] for name in _SHARED} | {
        "units": units, "chunk": chunk, "segment": segment, "segments": segments,
        "channels": channels, "sources": g.groups * inner,
        "blocks": blocks, "parts": parts, "inner": inner, "outer": outer,
        "taps_y": kernel["k2"], "taps_x": kernel["k1"],
        "weight_y": kernel["k2_stride"] * channels, "weight_x": kernel["k1_stride"] * channels,
        "weight_i": math.prod(g.window) * channels,
        "y_size": words["height"], "x_size": x_size,
        "x_inner": first, "x_inner_end": min(end, places),
    }  # fmt: skip
    return DirectProduct(
        product, found, product.panels.offset * channels, -(-units // chunk), int(lines * line_ns)
    )


def depthwise_weight_grad(g: Geometry) -> dict[str, int]:
    """Return the words for the gradient of the weight, [taps, channels], but for pointers."""
    words = weight_grad(g, may_be_plain=False).words
    found = {name: words[name] for name in _SHARED} | {
        "y_size": words["height"], "x_size": words["width"] // words["pixel"],
        "images": g.images, "channels": g.channels,
        "dy_pixel": g.channels, "dy_line": g.out_size[1] * g.channels,
        "dy_image": math.prod(g.out_size) * g.channels,
    }  # fmt: skip
    reach = g.dilation[1] * (g.window[1] - 1)
    inner, inner_end = _inner(g.size[1], words["x_start"], words["x_step"], reach)
    places = {"x_inner": inner, "x_inner_end": min(inner_end, g.out_size[1])}
    return found | places | {"out_height": g.out_size[0], "out_width": g.out_size[1]}


def _inner(size: int, start: int, step: int, reach: int) -> tuple[int, int]:
    """Return the first place, and the end of the places, whose taps are all inside of a line."""
    return max(-(start // step), 0), (size - 1 - start - reach) // step + 1
