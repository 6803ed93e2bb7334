"""The gradient of the weight of a depthwise convolution.

dw[tap, c] = sum over places of dy[place, c] · x[.., c]: lanes are channels. Each tap is a chunk of
its own for each vector of channels: its sum goes over all places that it reaches, a line after the
other; the sums of lines are added. The words of the argument block, in order: `GRADIENT_SLOTS`, as
in `convolution_depthwise`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.convolution_depthwise import taps_inside
from tracegraph.runtime.cpu.llvm import Target
from tracegraph.runtime.cpu.scalars import Abilities
from tracegraph.runtime.cpu.values import element_type
from tracegraph.runtime.cpu.writer import METADATA, Word, Writer, function

GRADIENT_SLOTS: Final = (
    "x", "dy", "dw", "images", "channels", "taps_x", "out_height", "out_width", "y_step", "x_step",
    "y_start", "x_start", "y_spread", "x_spread", "y_size", "x_size", "image", "line", "pixel",
    "dy_image", "dy_line", "dy_pixel",
)  # fmt: skip
# Places that are summed side by side: enough to hide the latency of FMA.
_PLACES: Final = 4


class DepthwiseGradient(NamedTuple):
    """What the code depends on; `width`: elements of a vector."""

    dtype: DType
    width: int

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"depthwise_gradient_{self.dtype.code}x{self.width}"


def gradient_text(spec: DepthwiseGradient, target: Target) -> str:
    """Return the kernel; chunk number tap · vectors of channels + vector is one of dw[tap, c]."""
    gradient = _Gradient(spec, target)
    gradient.write()
    parameters = ("ptr noalias %arguments", "ptr %frame", "i64 %begin", "i64 %end")
    text = function(spec.name, parameters, gradient.w, "nounwind")
    return f"{text}\n{METADATA}"


class _Sources(NamedTuple):
    """Where a line of places reads from, and how far apart places are."""

    x: str
    x_far: Word
    dy: str
    dy_far: Word
    mask: str | None


class _Gradient:
    """Writes the loops: images, lines, places."""

    def __init__(self, spec: DepthwiseGradient, target: Target) -> None:
        self.spec, self.w, self.kind = spec, Writer(), element_type(spec.dtype)
        self.vector = f"<{spec.width} x {self.kind}>"
        self.has_fma = Abilities.of(target).fma

    def write(self) -> None:
        """Write the whole body."""
        w = self.w
        self.words = {
            name: w.load("ptr" if i < 3 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(GRADIENT_SLOTS)
        }
        w.loop("%end", self._chunk, start="%begin")

    def _chunk(self, number: str) -> None:
        w, words, width = self.w, self.words, self.spec.width
        vectors = w.div(w.add(words["channels"], width - 1), width)
        tap, part = w.divmod(number, vectors)
        tap_y, tap_x = w.divmod(tap, words["taps_x"])
        channel = w.mul(part, width)
        (mask,) = w.masks(w.sub(words["channels"], channel), width, 1)
        y_start = w.add(words["y_start"], w.mul(tap_y, words["y_spread"]))
        x_start = w.add(words["x_start"], w.mul(tap_x, words["x_spread"]))
        # A place moves a tap by a step as a tap moves a window by its spread.
        ys = taps_inside(w, y_start, words["y_step"], words["y_size"], words["out_height"])
        xs = taps_inside(w, x_start, words["x_step"], words["x_size"], words["out_width"])

        def image(values: list[str]) -> list[Word]:
            number, total = values
            x = w.at(words["x"], w.add(w.mul(number, words["image"]), channel), self.kind)
            x = w.at(x, w.mul(x_start, words["pixel"]), self.kind)
            dy = w.at(words["dy"], w.add(w.mul(number, words["dy_image"]), channel), self.kind)

            def line(values: list[str]) -> list[Word]:
                y, total = values
                far = w.add(w.mul(y, words["y_step"]), y_start)
                sources = _Sources(
                    w.at(x, w.mul(far, words["line"]), self.kind),
                    w.mul(words["x_step"], words["pixel"]),
                    w.at(dy, w.mul(y, words["dy_line"]), self.kind),
                    words["dy_pixel"],
                    mask,
                )
                return [w.add(y, 1), self._added(total, self._line(sources, *xs))]

            start: list[tuple[str, Word]] = [("i64", ys[0]), (self.vector, total)]
            _, total = w.repeat(start, lambda v: w.compare("slt", v[0], ys[1]), line)
            return [w.add(number, 1), total]

        start: list[tuple[str, Word]] = [("i64", 0), (self.vector, "zeroinitializer")]
        _, total = w.repeat(start, lambda v: w.compare("slt", v[0], words["images"]), image)
        place = w.at(words["dw"], w.add(w.mul(tap, words["channels"]), channel), self.kind)
        w.store_lanes(self.kind, width, total, place, mask)

    def _line(self, sources: _Sources, first: Word, end: Word) -> str:
        """Return the sum over the places of a line: of four at a time, then of those left."""
        w = self.w

        def several(values: list[str]) -> list[Word]:
            place, *sums = values
            added = [self._product(sources, w.add(place, i), x) for i, x in enumerate(sums)]
            return [w.add(place, _PLACES), *added]

        start: list[tuple[str, Word]] = [("i64", first)]
        start += [(self.vector, "zeroinitializer")] * _PLACES
        place, *sums = w.repeat(
            start, lambda v: w.compare("sle", w.add(v[0], _PLACES), end), several
        )

        def one(values: list[str]) -> list[Word]:
            return [w.add(values[0], 1), self._product(sources, values[0], values[1])]

        start = [("i64", place), (self.vector, sums[0])]
        _, last = w.repeat(start, lambda v: w.compare("slt", v[0], end), one)
        return self._added(self._added(last, sums[1]), self._added(sums[2], sums[3]))

    def _product(self, sources: _Sources, place: Word, total: str) -> str:
        w, width = self.w, self.spec.width
        x = w.at(sources.x, w.mul(place, sources.x_far), self.kind)
        dy = w.at(sources.dy, w.mul(place, sources.dy_far), self.kind)
        left, right = (w.load_lanes(self.kind, width, p, sources.mask) for p in (x, dy))
        return w.multiply_add(self.kind, width, self.has_fma, left, right, total)

    def _added(self, x: str, y: str) -> str:
        return self.w.let(f"fadd {self.vector} {x}, {y}")
