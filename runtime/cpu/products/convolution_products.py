"""Convolutions and their gradients as launches; images are NHWC, weights OIHW, both dense.

As in `products`: kernels are chosen once, the words for extents are found as often as they change.

    made = convolution(g, float32, operands=[bias], epilogue=..., target=target, ahead=True)
    texts = {kernel.name: kernel.text() for kernel in made.kernels}
    steps = made.steps(g, [bias])

`images` and `size` of the geometry may differ from call to call of `steps`, nothing else of it.
One-dimensional convolutions have height 1.

What the epilogue reads are arrays of four dims that broadcast against the result: with strides 1
or 0 of channels, and any strides of images, lines and pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from tracegraph.dtypes import DType, float32, float64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.products.contraction import Contraction
from tracegraph.runtime.cpu.products.contraction_code import contraction_text
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_tiles import tile_for
from tracegraph.runtime.cpu.products.convolution import (
    DirectProduct,
    Geometry,
    Product,
    dense,
    depthwise_weight_grad,
    direct_forward,
    direct_input_grad,
    forward,
    input_grad,
    weight_grad,
)
from tracegraph.runtime.cpu.products.convolution_depthwise_grad import (
    GRADIENT_SLOTS,
    DepthwiseGradient,
    gradient_text,
)
from tracegraph.runtime.cpu.products.convolution_direct import (
    Direct,
    direct_slots,
    direct_text,
)
from tracegraph.runtime.cpu.products.convolution_places import (
    Row,
    is_plain,
    output_of,
    result_shape,
    rows_of,
)
from tracegraph.runtime.cpu.products.launches import Array, Buffer, Epilogue, Kernel, Launch, Steps
from tracegraph.runtime.cpu.products.matrix import (
    packing_kernel,
    packing_launch,
    panels_bytes,
    product_launch,
)
from tracegraph.runtime.cpu.products.packing import Packing, source_of
from tracegraph.runtime.cpu.products.transposition import Matrices, Transposition
from tracegraph.runtime.cpu.products.winograd_products import (
    WinogradConvolution,
    winograd_convolution,
    winograd_size,
)

_GRADIENT_NS: Final = 0.06
# What weights may take, the longest sum and the fewest places of a line for which `Direct` is as
# fast as a product, which reads weights less often; fewer weights where there are no windows.
_MOST_BYTES: Final = {"windows": 240 << 10, "pixels": 1 << 14}
_MOST_K: Final = 800
_LEAST_LINE: Final = 12
# Products of a place that are written one after the other, not as a loop.
_MOST_TAPS: Final = 24


class Convolution(NamedTuple):
    """The kernels of a convolution, or of the gradient of its input.

    `may_be_plain`: pixels may be taken for rows of a matrix, as far as the epilogue is concerned;
    `has_partial`: sums need a place of their own.
    """

    spec: Contraction | Direct
    packings: tuple[Packing, ...]
    is_gradient: bool
    may_be_plain: bool
    target: Target
    ahead: bool
    has_partial: bool = False

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What is to be compiled."""
        spec, target = self.spec, self.target
        if isinstance(spec, Direct):
            turned = Transposition.of(spec.dtype, 2, target).kernel(target)
            return Kernel(spec.name, direct_text, spec, target), turned
        packings = dict.fromkeys(packing_kernel(p, target) for p in self.packings)
        return Kernel(spec.name, contraction_text, spec, target), *packings

    def steps(self, g: Geometry, operands: Sequence[Array] = ()) -> Steps:
        """Return what to run for a geometry that differs in `images` and `size` only."""
        if isinstance(self.spec, Direct):
            return self._direct(self.spec, g, operands)
        spec = self.spec
        rows = rows_of(spec.output, g, self.is_gradient, operands)
        products = _products(g, self.is_gradient, spec.tile.columns, self.may_be_plain)
        scratch: list[int] = []
        rows["partial"] = rows["result0"]
        if self.has_partial:
            images, size, channels = result_shape(g, self.is_gradient)
            scratch.append(images * math.prod(size) * channels * spec.dtype.itemsize)
            rows["partial"] = Row(Buffer("scratch", 0), dense(size, channels), 1, spec.dtype)
        sizes: list[int] = [] if self.ahead else scratch
        before, launches = [], []
        for product, packing in zip(products, self.packings, strict=True):
            assert product.panels is not None
            panels = Buffer("packed" if self.ahead else "scratch", len(sizes))
            offset = product.panels.offset * spec.dtype.itemsize
            sizes.append(panels_bytes(product.panels.words, packing))
            source = Buffer("operand", 1, offset)
            before.append(packing_launch(packing, product.panels.words, source, panels))
            words, buffers = _placed(product, rows)
            buffers |= {"a": Buffer("operand", 0), "b": panels}
            launches.append(product_launch(spec, product.extents, words, buffers))
        may_alias = self.has_partial or all(p.extents.k <= spec.k_block for p in products)
        return self._made(before, launches, sizes, scratch, may_alias)

    def _direct(self, spec: Direct, g: Geometry, operands: Sequence[Array]) -> Steps:
        rows = rows_of(spec.output, g, self.is_gradient, operands)
        panels = Buffer("packed" if self.ahead else "scratch", 0)
        taps, size = math.prod(g.window), spec.dtype.itemsize
        turned = Transposition.of(spec.dtype, 2, self.target)
        before = [turned.launch(_lanes_last(g, self.is_gradient), Buffer("operand", 1), panels)]
        launches = []
        cut = (g, spec.width, spec.together)
        parts = direct_input_grad(*cut) if self.is_gradient else [direct_forward(*cut)]
        for part in parts:
            words, buffers = _placed(part.product, rows)
            weight = panels._replace(offset_bytes=part.weight_offset * size)
            buffers |= {"a": Buffer("operand", 0), "b": weight}
            launches.append(_direct_launch(spec, part, words, buffers))
        packed = [taps * g.channels * g.outer * size]
        return self._made(before, launches, packed, [] if self.ahead else packed, True)

    def _made(
        self, before: list[Launch], launches: list[Launch], sizes: list[int], scratch: list[int],
        may_alias: bool,
    ) -> Steps:  # fmt: skip
        if self.ahead:
            return Steps(tuple(launches), tuple(before), tuple(sizes), tuple(scratch), may_alias)
        return Steps((*before, *launches), (), (), tuple(scratch), may_alias)


def convolution(
    g: Geometry, dtype: DType, results: Sequence[DType] | None = None,
    operands: Sequence[Array] = (), epilogue: Epilogue | None = None, *, target: Target,
    ahead: bool = False,
) -> Convolution | WinogradConvolution:  # fmt: skip
    """Return the kernels of a convolution; `ahead`: the weight is known before a call.

    Operand 0 is x, 1 the weight, 2 and on are the operands of the epilogue.

    Raises:
        UnsupportedError: of dtypes or strides.
    """
    output = output_of(g, False, results or (dtype,), operands, epilogue)
    return _convolution(g, dtype, output, operands, target, ahead, is_gradient=False)


def convolution_input_grad(
    g: Geometry, dtype: DType, results: Sequence[DType] | None = None,
    operands: Sequence[Array] = (), epilogue: Epilogue | None = None, *, target: Target,
    ahead: bool = False,
) -> Convolution | WinogradConvolution:  # fmt: skip
    """Return the kernels of the gradient of the input; operand 0 is dy, the rest as above.

    Raises:
        UnsupportedError: of dtypes or strides.
    """
    output = output_of(g, True, results or (dtype,), operands, epilogue)
    return _convolution(g, dtype, output, operands, target, ahead, is_gradient=True)


def _convolution(
    g: Geometry, dtype: DType, output: Output, operands: Sequence[Array], target: Target,
    ahead: bool, is_gradient: bool,
) -> Convolution | WinogradConvolution:  # fmt: skip
    _check(dtype)
    if ahead and (size := winograd_size(g, is_gradient, dtype, target)):
        return winograd_convolution(g, dtype, output, target, size, is_gradient)
    may_be_plain = all(is_plain(g, is_gradient, x) for x in operands)
    width = target.vector_bytes // dtype.itemsize
    if (group := _direct_group(g, is_gradient, dtype, width)) is not None:
        spec = Direct(dtype, output, width, *group, _unrolled_taps(g, is_gradient, group[0]))
        return Convolution(spec, (), is_gradient, may_be_plain, target, ahead)
    tile = tile_for(target, dtype, g.inner if is_gradient else g.outer)
    products = _products(g, is_gradient, tile.columns, may_be_plain)
    batch = len(products[0].extents.batch)
    made = Contraction(dtype, products[0].a, "panels", batch, output, tile)
    is_long = any(product.extents.k > made.k_block for product in products)
    has_partial = output.results[0] is not dtype and is_long
    packings = tuple(
        Packing(dtype, tile.columns, tile.width, source_of(product.panels.words, tile.width))
        for product in products
        if product.panels is not None
    )
    return Convolution(made, packings, is_gradient, may_be_plain, target, ahead, has_partial)


def _direct_group(
    g: Geometry, is_gradient: bool, dtype: DType, width: int
) -> tuple[int, int] | None:
    """Return the channels of groups that are `Direct`'s, (0, 0) of those with lanes enough.

    None where weights are so many that a product, which reads them less often, is faster.
    """
    inner, outer = (g.outer, g.inner) if is_gradient else (g.inner, g.outer)
    if g.groups > 1 and max(inner, outer) <= width // 2:
        return inner, outer
    k, size = math.prod(g.window) * inner, g.groups * outer * dtype.itemsize
    line = g.size[1] // g.stride[1] if is_gradient else g.out_size[1]
    if not 0 < k <= _MOST_K or line < _LEAST_LINE:
        return None
    most = _MOST_BYTES["pixels" if g.window == (1, 1) and g.groups == 1 else "windows"]
    return (0, 0) if k * size <= most else None


def _unrolled_taps(g: Geometry, is_gradient: bool, inner: int) -> tuple[int, int, int] | None:
    """Return taps, step and spread of lines of windows that code may depend on.

    None where they are long, or the gradient has windows of several kinds.
    """
    taps, step, spread = g.window[1], g.stride[1], g.dilation[1]
    if taps * max(inner, 1) > _MOST_TAPS or (is_gradient and step > 1):
        return None
    return taps, step, spread


def _lanes_last(g: Geometry, is_gradient: bool) -> Matrices:
    """Return weight[group, out, in, tap] as [in, tap, out], of the gradient as [out, tap, in].

    The channels of groups follow each other.
    """
    taps = math.prod(g.window)
    if not is_gradient or g.outer == 1:
        k = g.inner * taps
        rows, columns = (g.out_channels, k) if not is_gradient else (g.channels, taps)
        return Matrices(rows, columns, columns, rows, ((1, 0, 0), (1, 0, 0)))
    far = g.inner * taps
    groups = (g.groups, g.outer * far, g.inner)
    return Matrices(g.inner, taps, taps, g.channels, (groups, (g.outer, far, taps * g.channels)))


class WeightGradient(NamedTuple):
    """The kernels of the gradient of a weight."""

    spec: Contraction | DepthwiseGradient
    turned: Transposition
    target: Target

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What is to be compiled."""
        text = contraction_text if isinstance(self.spec, Contraction) else gradient_text
        return Kernel(self.spec.name, text, self.spec, self.target), self.turned.kernel(self.target)

    def steps(self, g: Geometry) -> Steps:
        """Return what to run for a geometry that differs in `images` and `size` only."""
        taps, inner, size = math.prod(g.window), g.inner, self.spec.dtype.itemsize
        result = Buffer("result", 0)
        made = result if taps == 1 else Buffer("scratch", 0)
        if isinstance(self.spec, Contraction):
            sizes, first = (g.out_channels, taps, inner), _weight_launch(self.spec, g, made)
        else:
            sizes, first = (1, taps, g.channels), _tap_launch(self.spec, g, made)
        if taps == 1:
            return Steps((first,))
        turn = self.turned.launch(Matrices.dense(*sizes), made, result)
        return Steps((first, turn), scratch_bytes=(math.prod(sizes) * size,))


def convolution_weight_grad(g: Geometry, dtype: DType, *, target: Target) -> WeightGradient:
    """Return the kernels of the gradient of the weight; operand 0 is x, 1 is dy.

    Raises:
        UnsupportedError: of a dtype.
    """
    _check(dtype)
    turned = Transposition.of(dtype, 1, target)
    if g.is_depthwise:
        width = target.vector_bytes // dtype.itemsize
        return WeightGradient(DepthwiseGradient(dtype, width, g.window), turned, target)
    product = weight_grad(g)
    tile = tile_for(target, dtype, product.extents.n)
    batch = len(product.extents.batch)
    spec = Contraction(dtype, product.a, product.b, batch, Output((dtype,)), tile)
    return WeightGradient(spec, turned, target)


def _check(dtype: DType) -> None:
    if dtype not in (float32, float64):
        raise UnsupportedError(f"convolutions of {dtype}")


def _placed(product: Product, rows: dict[str, Row]) -> tuple[dict[str, int], dict[str, Buffer]]:
    """Return the words and the buffers of results and operands."""
    words, buffers = dict(product.words), {}
    for name, row in rows.items():
        offset, strides = product.pixels(row.far)
        words |= {f"{name}_{level}": stride for level, stride in strides.items()}
        words[f"{name}_batch0"] = product.channels * row.channel
        buffers[name] = row.buffer._replace(offset_bytes=offset * row.dtype.itemsize)
    return words, buffers


# Products and launches.


def _products(g: Geometry, is_gradient: bool, columns: int, may_be_plain: bool) -> list[Product]:
    if is_gradient:
        return input_grad(g, columns, may_be_plain)
    return [forward(g, columns, may_be_plain)]


def _direct_launch(
    spec: Direct, part: DirectProduct, words: dict[str, int], buffers: dict[str, Buffer]
) -> Launch:
    filled: dict[str, int | Buffer] = {**words, **part.words, **buffers}
    arguments = {name: filled[name] for name in direct_slots(spec)}
    flops = 2 * part.product.extents.m * part.words["channels"] * part.words["inner"]
    flops *= part.words["taps_y"] * part.words["taps_x"]
    return Launch(spec.name, arguments, part.chunks, part.cost_ns, flops)


def _weight_launch(spec: Contraction, g: Geometry, made: Buffer) -> Launch:
    product = weight_grad(g)
    extents = product.extents
    words = dict(product.words)
    for name in ("partial", "result0"):
        words |= {f"{name}_stride": extents.n, f"{name}_batch0": extents.m * extents.n}
    sources = {"a": Buffer("operand", 1), "b": Buffer("operand", 0)}
    buffers = {**sources, "result0": made, "partial": made}
    return product_launch(spec, extents, words, buffers)


def _tap_launch(spec: DepthwiseGradient, g: Geometry, made: Buffer) -> Launch:
    buffers = {"x": Buffer("operand", 0), "dy": Buffer("operand", 1), "dw": made}
    filled: dict[str, int | Buffer] = {**depthwise_weight_grad(g), **buffers}
    arguments = {name: filled[name] for name in GRADIENT_SLOTS}
    products = math.prod(g.window) * g.channels * g.places
    chunks, cost_ns = -(-g.channels // spec.width), int(products * _GRADIENT_NS)
    return Launch(spec.name, arguments, chunks, cost_ns, 2 * products)
