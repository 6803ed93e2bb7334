"""The gradient of the weight of a depthwise convolution.

dw[tap, c] = sum over places of dy[place, c] · x[.., c]: lanes are channels, a chunk is a vector of
them. One line of places after the other is gone through, once for each line of taps that it
reaches: with all taps of the line at a time where all are inside of the image, else tap by tap.
The words of the argument block, in order: `GRADIENT_SLOTS`, as in `convolution_direct`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.convolution_direct import taps_inside

GRADIENT_SLOTS: Final = (
    "x", "dy", "dw", "images", "channels", "out_height", "out_width", "y_step", "x_step",
    "y_start", "x_start", "y_spread", "x_spread", "y_size", "x_size", "image", "line", "pixel",
    "dy_image", "dy_line", "dy_pixel", "x_inner", "x_inner_end",
)  # fmt: skip
# Chains of FMA that hide its latency.
_CHAINS: Final = 8
# Taps of a line for which there are registers; longer lines are done tap by tap.
_MOST_TAPS: Final = 8


class DepthwiseGradient(NamedTuple):
    """What the code depends on; `width`: elements of a vector; `window`: taps (vertical, ..)."""

    dtype: DType
    width: int
    window: tuple[int, int]

    @property
    def name(self) -> str:
        """The name of the kernel."""
        taps = "x".join(map(str, self.window))
        return f"depthwise_gradient_{taps}_{self.dtype.code}x{self.width}"


def gradient_text(spec: DepthwiseGradient, target: Target) -> str:
    """Return the kernel; a chunk is a vector of channels."""
    gradient = _Gradient(spec, target)
    gradient.write()
    text = function(spec.name, KERNEL_PARAMETERS, gradient.w, "nounwind")
    return f"{text}\n{METADATA}"


class _Line(NamedTuple):
    """A line of places and of taps: where place 0 reads from at tap 0, and where sums are."""

    x: str
    dy: str
    sums: str
    mask: str | None


class _Gradient:
    """Writes the loops: images, lines of places, lines of taps, places."""

    def __init__(self, spec: DepthwiseGradient, target: Target) -> None:
        self.spec, self.w, self.kind = spec, Writer(), element_type(spec.dtype)
        self.vector = f"<{spec.width} x {self.kind}>"
        self.has_fma = Abilities.of(target).fma

    def write(self) -> None:
        """Write the whole body."""
        w, (taps_y, taps_x) = self.w, self.spec.window
        size = taps_y * taps_x * self.spec.width
        self.sums = w.let(f"alloca [{size} x {self.kind}], align 64")
        self.words = {
            name: w.load("ptr" if i < 3 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(GRADIENT_SLOTS)
        }
        w.loop("%end", self._chunk, start="%begin")

    def _chunk(self, number: str) -> None:
        w, words, width = self.w, self.words, self.spec.width
        taps = self.spec.window[0] * self.spec.window[1]
        channel = w.mul(number, width)
        (mask,) = w.masks(w.sub(words["channels"], channel), width, 1)
        w.loop(taps, lambda tap: self._put("zeroinitializer", self._sum(self.sums, tap)))

        def image(number: str) -> None:
            x = w.at(words["x"], w.add(w.mul(number, words["image"]), channel), self.kind)
            dy = w.at(words["dy"], w.add(w.mul(number, words["dy_image"]), channel), self.kind)
            w.loop(words["out_height"], lambda y: self._places(x, dy, y, mask))

        w.loop(words["images"], image)

        def store(tap: str) -> None:
            place = w.at(words["dw"], w.add(w.mul(tap, words["channels"]), channel), self.kind)
            w.store_lanes(self.kind, width, self._get(self._sum(self.sums, tap)), place, mask)

        w.loop(taps, store)

    def _places(self, x: str, dy: str, y: str, mask: str | None) -> None:
        """Do a line of places, for each line of taps that reaches inside of the image."""
        w, words, (taps_y, taps_x) = self.w, self.words, self.spec.window
        start = w.add(w.mul(y, words["y_step"]), words["y_start"])
        first, end = taps_inside(w, start, words["y_spread"], words["y_size"], taps_y)
        dy = w.at(dy, w.mul(y, words["dy_line"]), self.kind)
        x = w.at(x, w.mul(words["x_start"], words["pixel"]), self.kind)

        def taps(tap_y: str) -> None:
            far = w.add(start, w.mul(tap_y, words["y_spread"]))
            source = w.at(x, w.mul(far, words["line"]), self.kind)
            sums = self._sum(self.sums, w.mul(tap_y, taps_x))
            line = _Line(source, dy, sums, mask)
            if 1 < taps_x <= _MOST_TAPS:
                inner, inner_end = words["x_inner"], words["x_inner_end"]
                self._over_taps(line, lambda begin, end: (begin, w.least(end, inner)))
                self._inside(line, inner, inner_end)
                outer = w.most(inner, inner_end)
                self._over_taps(line, lambda begin, end: (w.most(begin, outer), end))
            else:
                self._over_taps(line, lambda begin, end: (begin, end))

        w.loop(end, taps, start=first)

    def _inside(self, line: _Line, first: Word, end: Word) -> None:
        """Do places all of whose taps are inside, several at a time, then those left."""
        taps = list(range(self.spec.window[1]))
        self._run(line, first, end, taps, max(1, _CHAINS // len(taps)))

    def _over_taps(self, line: _Line, part: Callable[[Word, Word], tuple[Word, Word]]) -> None:
        """Do a part of the places that each tap reaches."""
        w, words = self.w, self.words

        def tap(number: str) -> None:
            far = w.mul(number, words["x_spread"])
            start = w.add(words["x_start"], far)
            # A place moves a tap by a step as a tap moves a window by its spread.
            inside = taps_inside(w, start, words["x_step"], words["x_size"], words["out_width"])
            x = w.at(line.x, w.mul(far, words["pixel"]), self.kind)
            moved = line._replace(x=x, sums=self._sum(line.sums, number))
            self._run(moved, *part(*inside), [0], 4)

        w.loop(self.spec.window[1], tap)

    def _run(self, line: _Line, first: Word, end: Word, taps: list[int], places: int) -> None:
        """Add the products of some places for some taps, `places` of them side by side."""
        w, words = self.w, self.words
        tap_far = w.mul(words["x_spread"], words["pixel"])
        offsets = [w.mul(tap_far, tap) for tap in taps]
        step = w.mul(words["x_step"], words["pixel"])

        def added(place: Word, sums: list[str]) -> list[str]:
            x = w.at(line.x, w.mul(place, step), self.kind)
            dy = self._load(w.at(line.dy, w.mul(place, words["dy_pixel"]), self.kind), line)
            return [
                w.multiply_add(
                    self.kind, self.spec.width, self.has_fma,
                    self._load(w.at(x, offset, self.kind), line), dy, total,
                )
                for offset, total in zip(offsets, sums, strict=True)
            ]  # fmt: skip

        def several(values: list[str]) -> list[Word]:
            place, *sums = values
            made: list[Word] = []
            for i in range(places):
                made += added(w.add(place, i), sums[i * len(taps) : (i + 1) * len(taps)])
            return [w.add(place, places), *made]

        zeros = [(self.vector, "zeroinitializer")] * len(taps) * places
        place, *sums = w.repeat(
            [("i64", first), *zeros], lambda v: w.compare("sle", w.add(v[0], places), end), several
        )

        def one(values: list[str]) -> list[Word]:
            return [w.add(values[0], 1), *added(values[0], values[1:])]

        start = [(self.vector, x) for x in sums[: len(taps)]]
        _, *ends = w.repeat([("i64", place), *start], lambda v: w.compare("slt", v[0], end), one)
        for tap, total in zip(taps, ends, strict=True):
            for other in sums[tap + len(taps) :: len(taps)]:
                total = self._added(total, other)
            here = self._sum(line.sums, tap)
            self._put(self._added(self._get(here), total), here)

    def _sum(self, sums: str, tap: Word) -> str:
        return self.w.at(sums, self.w.mul(tap, self.spec.width), self.kind)

    def _get(self, place: str) -> str:
        return self.w.load(self.vector, place, self.spec.dtype.itemsize)

    def _put(self, value: str, place: str) -> None:
        self.w.store(self.vector, value, place, self.spec.dtype.itemsize)

    def _load(self, place: str, line: _Line) -> str:
        return self.w.load_lanes(self.kind, self.spec.width, place, line.mask)

    def _added(self, x: str, y: str) -> str:
        return self.w.let(f"fadd {self.vector} {x}, {y}")
