"""Depthwise convolution: each channel alone, lanes are channels (images NHWC).

    forward       y[place, c]  = epilogue(sum over taps of x[.., c] · weight[tap, c])
    weight grad   dw[tap, c]   = sum over places of dy[place, c] · x[.., c]

The gradient of the input is the forward kernel over the products of `convolution.input_grad`: each
is a convolution without stride. Taps are in the order of (y, x); those outside of an image are
skipped, not multiplied by 0. The words of the argument block, in order:

    a, b, result<i>, operand<i>            pointers: images, weights [taps, channels], as `arrays`
    lines, line_block                      output lines of all images, and of a chunk
    channels, taps_y, taps_x, weight_y, weight_x      weights of tap (y, x) are that far apart
    out_height, out_width, y_step, x_step, y_start, x_start, y_spread, x_spread
    y_size, x_size, image, line, pixel     of the images, as in `contraction`
    x_inner, x_inner_end                   places whose taps are all inside of a line
    <name>_stride, <name>_line, <name>_image          of results and operands, as in `contraction`
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import (
    KERNEL_PARAMETERS,
    METADATA,
    Word,
    Writer,
    element_bytes,
    function,
)
from tracegraph.runtime.cpu.products.contraction_epilogue import Output, define_epilogue
from tracegraph.runtime.cpu.products.contraction_places import Grid
from tracegraph.runtime.cpu.products.contraction_results import Area, Form, store_area

_SIZES: Final = (
    "lines", "line_block", "channels", "taps_y", "taps_x", "weight_y", "weight_x", "out_height",
    "out_width", "y_step", "x_step", "y_start", "x_start", "y_spread", "x_spread", "y_size",
    "x_size", "image", "line", "pixel", "x_inner", "x_inner_end",
)  # fmt: skip
# Places that are summed at a time, so that weights are loaded once for all of them.
_PLACES: Final = 8


class Depthwise(NamedTuple):
    """What the code of a forward kernel depends on; `width`: elements of a vector."""

    dtype: DType
    output: Output
    width: int

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"depthwise_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def arrays(self) -> dict[str, DType]:
        """The pointers of the argument block, and the dtypes of what they point to."""
        results = {f"result{i}": dtype for i, dtype in enumerate(self.output.results)}
        operands = {f"operand{i}": x.dtype for i, x in enumerate(self.output.operands)}
        return {"a": self.dtype, "b": self.dtype, **results, **operands}


def depthwise_slots(spec: Depthwise) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    operands = enumerate(spec.output.operands)
    rowwise = [f"result{i}" for i in range(len(spec.output.results))]
    rowwise += [f"operand{i}" for i, x in operands if x.extent in ("row", "place")]
    strides = [f"{name}_{level}" for name in rowwise for level in ("stride", "line", "image")]
    return (*spec.arrays, *_SIZES, *strides)


def depthwise_text(spec: Depthwise, target: Target) -> str:
    """Return the forward kernel; a chunk is some output lines.

    Raises:
        UnsupportedError: a step of the epilogue has no native form.
    """
    library = new_library(target)
    define_epilogue(library, spec.output, spec.dtype, spec.width)
    kernel = _Forward(spec, target)
    kernel.write()
    text = function(spec.name, KERNEL_PARAMETERS, kernel.w, "nounwind")
    return "\n".join((library.text(), text, METADATA))


class _Line(NamedTuple):
    """An output line, some channels of it, and the taps that reach inside of the images."""

    images: str  # the channels, in the image
    weights: str  # the channels
    image: Word
    y: Word
    channel: Word
    mask: str | None
    tap: Word
    tap_end: Word


class _Forward:
    """Writes the loops: lines, vectors of channels, places, taps."""

    def __init__(self, spec: Depthwise, target: Target) -> None:
        self.spec, self.w = spec, Writer()
        self.kinds = {x: element_type(stored_dtype(d)) for x, d in spec.arrays.items()}
        self.kind, self.width = self.kinds["a"], spec.width
        self.vector = f"<{spec.width} x {self.kind}>"
        self.has_fma, self.has_masks = Abilities.of(target).fma, target.vector_bytes == 64

    def write(self) -> None:
        """Write the whole body."""
        w = self.w
        self.sums = w.let(f"alloca [{_PLACES * self.width} x {self.kind}], align 64")
        self.words = words = {
            name: w.load("ptr" if name in self.kinds else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(depthwise_slots(self.spec))
        }
        self.grid = Grid(w, words)
        block = words["line_block"]
        w.loop(w.least(w.mul("%end", block), words["lines"]), self._line, w.mul("%begin", block))

    def _line(self, number: str) -> None:
        w, words = self.w, self.words
        image, y = w.divmod(number, words["out_height"])
        start = w.add(w.mul(y, words["y_step"]), words["y_start"])
        first, end = taps_inside(w, start, words["y_spread"], words["y_size"], words["taps_y"])
        images = w.at(words["a"], w.mul(image, words["image"]), self.kind)
        images = w.at(images, w.mul(start, words["line"]), self.kind)

        def channels(channel: str) -> None:
            left = w.sub(words["channels"], channel)
            there, weights = (w.at(x, channel, self.kind) for x in (images, words["b"]))

            def line(mask: str | None) -> None:
                self._places(_Line(there, weights, image, y, channel, mask, first, end))

            def partial() -> None:
                line(*w.masks(left, self.width, 1))

            if self.has_masks:
                return partial()
            is_whole = w.compare("sge", left, self.width)
            return w.either(is_whole, lambda: line(None), partial)

        w.loop(words["channels"], channels, step=self.width)

    def _places(self, line: _Line) -> None:
        """Do a line: several places at a time where all taps are inside, else one."""
        w, words = self.w, self.words

        def places(values: list[str]) -> list[Word]:
            (x,) = values
            after = w.add(x, _PLACES)
            is_inner = w.compare("sge", x, words["x_inner"])
            fits = w.compare("sle", after, words["x_inner_end"])
            several = w.choose(w.let(f"and i1 {is_inner}, {fits}"), _PLACES, 1)
            w.switch(several, (_PLACES, 1), lambda count: self._sum(line, x, count))
            masks = [line.mask]
            area = Area(
                words, self.grid, [line.image, line.y, x], several, line.channel, masks, self.sums
            )
            store_area(w, Form(self.spec.output, self.width, 1, self.kinds), area)
            return [w.add(x, several)]

        w.repeat([("i64", 0)], lambda v: w.compare("slt", v[0], words["out_width"]), places)

    def _sum(self, line: _Line, x: str, count: int) -> None:
        """Sum over the taps of one place, or of several whose taps are all inside."""
        w, words = self.w, self.words
        start = w.add(w.mul(x, words["x_step"]), words["x_start"])
        first, end = (
            taps_inside(w, start, words["x_spread"], words["x_size"], words["taps_x"])
            if count == 1
            else (0, words["taps_x"])
        )
        here = w.at(line.images, w.mul(start, words["pixel"]), self.kind)
        far = [w.mul(w.mul(words["x_step"], words["pixel"]), i) for i in range(count)]
        y_far, x_far = (
            w.mul(words["y_spread"], words["line"]),
            w.mul(words["x_spread"], words["pixel"]),
        )

        def tap_line(values: list[str]) -> list[Word]:
            tap_y, *sums = values
            source = w.at(here, w.mul(tap_y, y_far), self.kind)
            weights = w.at(line.weights, w.mul(tap_y, words["weight_y"]), self.kind)

            def tap(values: list[str]) -> list[Word]:
                tap_x, *sums = values
                pixel = w.at(source, w.mul(tap_x, x_far), self.kind)
                weight = self._load(w.at(weights, w.mul(tap_x, words["weight_x"]), self.kind), line)
                places = [self._load(w.at(pixel, offset, self.kind), line) for offset in far]
                added = [
                    w.multiply_add(self.kind, self.width, self.has_fma, place, weight, total)
                    for place, total in zip(places, sums, strict=True)
                ]
                return [w.add(tap_x, 1), *added]

            _, *sums = self._over(first, end, sums, tap)
            return [w.add(tap_y, 1), *sums]

        _, *sums = self._over(line.tap, line.tap_end, ["zeroinitializer"] * count, tap_line)
        for i, total in enumerate(sums):
            place = w.at(self.sums, i * self.width, self.kind)
            w.store(self.vector, total, place, self.width * element_bytes(self.kind))

    def _over(
        self, first: Word, end: Word, sums: Sequence[str], body: Callable[[list[str]], list[Word]]
    ) -> list[str]:
        start: list[tuple[str, Word]] = [("i64", first), *((self.vector, x) for x in sums)]
        return self.w.repeat(start, lambda v: self.w.compare("slt", v[0], end), body)

    def _load(self, place: str, line: _Line) -> str:
        return self.w.load_lanes(self.kind, self.width, place, line.mask)


def taps_inside(w: Writer, start: Word, spread: Word, size: Word, taps: Word) -> tuple[Word, Word]:
    """Return the first tap, and the end of the taps, for which 0 <= start + tap · spread < size."""
    rounding = w.sub(spread, 1)
    first = w.div(w.add(w.most(w.sub(0, start), 0), rounding), spread)
    end = w.div(w.add(w.most(w.sub(size, start), 0), rounding), spread)
    return first, w.least(end, taps)
