"""Convolutions and their gradients, with the elementwise ops that follow them as epilogues.

Images are computed with channels side by side (NHWC) whatever order their dims have: results lie
so, and so does what is computed from them elementwise. An operand that lies otherwise is copied.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.fused import Body
from tracegraph.runtime.cpu.lowering.fused_products import program_of
from tracegraph.runtime.cpu.lowering.places import Place, row_major
from tracegraph.runtime.cpu.products.convolution import Geometry
from tracegraph.runtime.cpu.products.convolution_products import (
    convolution,
    convolution_input_grad,
    convolution_weight_grad,
)
from tracegraph.runtime.cpu.products.launches import Array
from tracegraph.tensor_type import TensorType

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.lowering.lowering import Lowering


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of [images, channels, *size] with channels side by side."""
    images, channels, *size = shape
    image, *space, channel = row_major((images, *size, channels))
    return (image, channel, *space)


def lower_convolution(low: Lowering, node: Node, product: Node, body: Body | None) -> None:
    """Lower a convolution, or the gradient of its input, and what follows it."""
    is_gradient = product.op == "convolution_input_grad"
    x, weight = (low.place(v) for v in product.inputs)
    out = product.out.type.shape
    image, outcome = (out, x.shape) if is_gradient else (x.shape, out)
    g = _geometry(image, weight.shape, outcome, product.attrs)
    g = g.apart if is_gradient else g
    program = program_of(low, product.out, None, body)
    last = channels_last(out)
    results = [low.new_as(v, last) for _, v in program.results]
    if 0 in out:
        return
    dtype, ahead = x.dtype.compute, low.is_lasting(weight)
    x = low.laid(x, channels_last(x.shape), dtype)
    weight = low.prepared(weight, row_major(weight.shape), dtype)
    others = [_beside(low, p, last) for p in program.operands]
    make = convolution_input_grad if is_gradient else convolution
    arrays = [_images(p) for p in others]
    dtypes = [p.dtype for p in results]
    made = make(
        g, dtype, dtypes, arrays, program.epilogue(), target=low.target, ahead=ahead,
    )  # fmt: skip
    operands = [x, weight, *others]
    steps = made.steps(g, arrays)
    low.run_steps(made.kernels, steps, operands, results, node, product.op + program.what)


def lower_weight_grad(low: Lowering, node: Node) -> None:
    """Lower the gradient of a convolution's weight."""
    x, dy = (low.place(v) for v in node.inputs)
    g = _geometry(x.shape, node.out.type.shape, dy.shape, node.attrs)
    result = low.new(node.out)
    if 0 in node.out.type.shape:
        return
    if 0 in x.shape or 0 in dy.shape:
        raise UnsupportedError("the gradient of a weight by no images")
    dtype = x.dtype.compute
    x, dy = (low.laid(p, channels_last(p.shape), dtype) for p in (x, dy))
    wide = result if result.dtype is dtype else low.fresh(TensorType(dtype, result.shape))
    made = convolution_weight_grad(g, dtype, target=low.target)
    low.run_steps(made.kernels, made.steps(g), [x, dy], [wide], node, node.op)
    if wide is not result:
        low.copy(wide, result, node)


def _geometry(
    image: tuple[int, ...], weight: tuple[int, ...], outcome: tuple[int, ...], attrs: Any
) -> Geometry:
    if len(image) not in (3, 4):
        raise UnsupportedError(f"convolutions over {len(image) - 2} dims")
    groups = attrs["groups"]
    if 0 in image or 0 in weight or 0 in outcome:
        raise UnsupportedError("a convolution of no images")

    def pair(values: Any, filler: Any = 1) -> Any:
        return tuple(values) if len(values) == 2 else (filler, *values)

    return Geometry(
        image[0], pair(image[2:]), image[1], weight[0], pair(weight[2:]), pair(attrs["stride"]),
        pair(attrs["padding"], (0, 0)), pair(attrs["dilation"]), groups,
    )  # fmt: skip


def _images(place: Place) -> Array:
    """Return a place over [images, channels, *size] as an array over NHWC."""
    order = (0, *range(2, len(place.shape)), 1)
    shape = [place.shape[d] for d in order]
    strides = [place.strides[d] for d in order]
    if len(shape) == 3:
        shape.insert(1, 1)
        strides.insert(1, 0)
    return Array(tuple(shape), tuple(strides), place.dtype)


def _beside(low: Lowering, place: Place, last: tuple[int, ...]) -> Place:
    """Return an operand of an epilogue whose channels are side by side, or all the same."""
    if place.strides[1] in (0, 1) or place.shape[1] == 1:
        return place
    if math.prod(place.shape) * place.dtype.itemsize > place.buffer.bytes:
        raise UnsupportedError("an operand of a convolution that is repeated, channels apart")
    return low.laid(place, last)
