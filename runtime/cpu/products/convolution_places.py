"""Where the results of convolutions, and what their epilogues read, lie: images in NHWC order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.products.contraction_epilogue import Extent, Operand, Output
from tracegraph.runtime.cpu.products.convolution import Geometry, dense
from tracegraph.runtime.cpu.products.launches import PLAIN, Array, Buffer, Epilogue


class Row(NamedTuple):
    """Where images lie: the strides of an image, a line and a pixel, and of a channel."""

    buffer: Buffer
    far: tuple[int, int, int]
    channel: int
    dtype: DType


def result_shape(g: Geometry, is_gradient: bool) -> tuple[int, tuple[int, int], int]:
    """Return images, size and channels of the result."""
    if is_gradient:
        return g.images, g.size, g.channels
    return g.images, g.out_size, g.out_channels


def strides_of(g: Geometry, is_gradient: bool, x: Array) -> tuple[int, int, int, int]:
    """Return the strides of an operand of the epilogue over the result."""
    images, size, channels = result_shape(g, is_gradient)
    own = zip(x.shape, x.strides, (images, *size, channels), strict=True)
    image, line, pixel, channel = (0 if n == 1 and to != 1 else far for n, far, to in own)
    return image, line, pixel, channel


def is_plain(g: Geometry, is_gradient: bool, x: Array) -> bool:
    """Whether the lines of an operand follow each other, so that pixels are rows of a matrix."""
    _, size, _ = result_shape(g, is_gradient)
    image, line, pixel, _ = strides_of(g, is_gradient, x)
    return (image, line) == (size[0] * size[1] * pixel, size[1] * pixel)


def output_of(
    g: Geometry, is_gradient: bool, results: Sequence[DType], operands: Sequence[Array],
    epilogue: Epilogue | None,
) -> Output:  # fmt: skip
    """Return what becomes of sums.

    Raises:
        UnsupportedError: an operand has channels that are not side by side.
    """
    used = []
    for x in operands:
        *far, channel = strides_of(g, is_gradient, x)
        if channel not in (0, 1) and result_shape(g, is_gradient)[2] != 1:
            raise UnsupportedError(
                "an operand of a convolution whose channels are not side by side"
            )
        varies = any(far)
        extents: tuple[Extent, Extent] = ("row", "place") if varies else ("scalar", "column")
        used.append(Operand(extents[channel == 1], x.dtype))
    return Output(tuple(results), tuple(used), epilogue or PLAIN)


def rows_of(
    output: Output, g: Geometry, is_gradient: bool, operands: Sequence[Array]
) -> dict[str, Row]:
    """Return where results and operands of the epilogue lie, by their names."""
    _, size, channels = result_shape(g, is_gradient)
    found = {
        f"result{i}": Row(Buffer("result", i), dense(size, channels), 1, dtype)
        for i, dtype in enumerate(output.results)
    }
    for i, x in enumerate(operands):
        image, line, pixel, channel = strides_of(g, is_gradient, x)
        here = Buffer("operand", 2 + i)
        found[f"operand{i}"] = Row(here, (image, line, pixel), int(channel == 1), x.dtype)
    return found
