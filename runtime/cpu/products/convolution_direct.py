"""Direct convolution, for few weights: lanes are output channels (images NHWC).

    y[place, c] = epilogue(sum over taps and i of x[.., i of the group of c] · weight[i, tap, c])

Some places of a line are summed at a time, for the channels of a vector: weights are loaded once
for all of them, and nothing is copied first, as it is for a product over windows. A vector is of
one group, and each input channel is repeated in all lanes; or of several groups: then a vector of
input channels is loaded, and its lanes are shuffled to where they are wanted. Depthwise
convolution, groups of one channel, is the plainest case. The gradient of the input is the same
kernel over the products of `convolution.input_grad`: each is a convolution without stride. Taps
outside of an image are skipped, not multiplied by 0. The words of the argument block, in order:

    a, b, result<i>, operand<i>            pointers: images, weights [inner, taps, channels]
    units, chunk, segment, segments        parts of output lines, their places, those of a line
    channels, sources                      output and input channels
    blocks, parts, inner, outer            vectors of lanes, those of a group; channels of a group
    taps_y, taps_x, weight_y, weight_x, weight_i      weights of tap (y, x) are that far apart
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
    "units", "chunk", "segment", "segments", "channels", "sources", "blocks", "parts", "inner",
    "outer", "taps_y", "taps_x", "weight_y", "weight_x", "weight_i", "out_height", "out_width",
    "y_step", "x_step", "y_start", "x_start", "y_spread", "x_spread", "y_size", "x_size", "image",
    "line", "pixel", "x_inner", "x_inner_end",
)  # fmt: skip
# Places that are summed at a time, so that weights are loaded once for all of them, and whether
# some of their taps may be outside of the image; the first that fits is taken.
_GROUPS: Final = ((8, False), (4, True), (2, True), (1, True))
_LOOPED_GROUPS: Final = ((8, False), (4, False), (1, True))


class Direct(NamedTuple):
    """What the code of a kernel depends on; `width`: elements of a vector.

    `inner`, `outer`: input and output channels of a group, of which vectors have several; 0 where
    all lanes are of one group. `taps`: how many a line of the window has, pixels from place to
    place, and from tap to tap, where the code may depend on it.
    """

    dtype: DType
    output: Output
    width: int
    inner: int
    outer: int
    taps: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"direct_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def arrays(self) -> dict[str, DType]:
        """The pointers of the argument block, and the dtypes of what they point to."""
        results = {f"result{i}": dtype for i, dtype in enumerate(self.output.results)}
        operands = {f"operand{i}": x.dtype for i, x in enumerate(self.output.operands)}
        return {"a": self.dtype, "b": self.dtype, **results, **operands}

    @property
    def together(self) -> int:
        """How many groups a vector has: their input channels fit into one as well."""
        return self.width // max(self.inner, self.outer) if self.inner else 1


def direct_slots(spec: Direct) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    operands = enumerate(spec.output.operands)
    rowwise = [f"result{i}" for i in range(len(spec.output.results))]
    rowwise += [f"operand{i}" for i, x in operands if x.extent in ("row", "place")]
    strides = [f"{name}_{level}" for name in rowwise for level in ("stride", "line", "image")]
    return (*spec.arrays, *_SIZES, *strides)


def direct_text(spec: Direct, target: Target) -> str:
    """Return the forward kernel; a chunk is some output lines, or parts of one.

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

    images: str  # the input channels, in the image
    weights: str  # the channels
    image: Word
    y: Word
    channel: Word
    mask: str | None  # of channels
    source_mask: str | None  # of input channels
    tap: Word
    tap_end: Word


class _InLine(Grid):
    """Places of one line."""

    def following(self, place: Sequence[str]) -> list[Word]:
        """Return the place after this one."""
        image, y, x = place
        return [image, y, self.w.add(x, 1)]


class _Taps(NamedTuple):
    """A line of taps: its first pixel, and the weights of an input channel of the group."""

    line: _Line
    source: str
    weights: str
    channel: Word


class _Forward:
    """Writes the loops: lines, vectors of channels, places, lines of taps, input channels, taps."""

    def __init__(self, spec: Direct, target: Target) -> None:
        self.spec, self.w = spec, Writer()
        self.kinds = {x: element_type(stored_dtype(d)) for x, d in spec.arrays.items()}
        self.kind, self.width = self.kinds["a"], spec.width
        self.vector = f"<{spec.width} x {self.kind}>"
        self.has_fma, self.has_masks = Abilities.of(target).fma, target.vector_bytes == 64

    def write(self) -> None:
        """Write the whole body."""
        w = self.w
        self.sums = w.let(f"alloca [{_GROUPS[0][0] * self.width} x {self.kind}], align 64")
        self.words = words = {
            name: w.load("ptr" if name in self.kinds else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(direct_slots(self.spec))
        }
        self.grid = _InLine(w, words)
        chunk = words["chunk"]
        w.loop(w.least(w.mul("%end", chunk), words["units"]), self._unit, w.mul("%begin", chunk))

    def _unit(self, number: str) -> None:
        w, words = self.w, self.words
        row, segment = w.divmod(number, words["segments"])
        image, y = w.divmod(row, words["out_height"])
        x = w.mul(segment, words["segment"])
        span = (x, w.least(w.add(x, words["segment"]), words["out_width"]))
        start = w.add(w.mul(y, words["y_step"]), words["y_start"])
        first, end = taps_inside(w, start, words["y_spread"], words["y_size"], words["taps_y"])
        images = w.at(words["a"], w.mul(image, words["image"]), self.kind)
        images = w.at(images, w.mul(start, words["line"]), self.kind)

        def block(number: str) -> None:
            (source, sources), (channel, channels) = self._block(number)
            there = w.at(images, source, self.kind)
            weights = w.at(words["b"], channel, self.kind)

            def line(mask: str | None, source_mask: str | None) -> None:
                masks = (mask, source_mask)
                line = _Line(there, weights, image, y, channel, *masks, first, end)
                self._places(line, *span)

            def partial() -> None:
                line(*w.masks(channels, self.width, 1), *w.masks(sources, self.width, 1))

            if self.has_masks:
                return partial()
            least = w.least(channels, sources) if self.spec.inner else channels
            is_whole = w.compare("sge", least, self.width)
            return w.either(is_whole, lambda: line(None, None), partial)

        w.loop(words["blocks"], block)

    def _block(self, number: str) -> tuple[tuple[Word, Word], tuple[Word, Word]]:
        """Return the first input channel of a block and how many, the same of channels."""
        w, words, spec = self.w, self.words, self.spec
        if spec.inner:
            spans = []
            for each, all_ in ((spec.inner, words["sources"]), (spec.outer, words["channels"])):
                first = w.mul(number, each * spec.together)
                spans.append((first, w.least(w.sub(all_, first), each * spec.together)))
            return spans[0], spans[1]
        group, part = w.divmod(number, words["parts"])
        lane = w.mul(part, self.width)
        channel = w.add(w.mul(group, words["outer"]), lane)
        source = w.mul(group, words["inner"])
        return (source, words["inner"]), (channel, w.sub(words["outer"], lane))

    def _places(self, line: _Line, start: Word, end: Word) -> None:
        """Do places of a line: several at a time where all taps are inside, else one."""
        w, words = self.w, self.words

        def places(values: list[str]) -> list[Word]:
            (x,) = values
            is_inner = w.compare("sge", x, words["x_inner"])
            groups = _GROUPS if self.spec.taps else _LOOPED_GROUPS
            case: Word = len(groups) - 1
            several: Word = 1
            for number, (count, is_edge) in reversed(list(enumerate(groups[:-1]))):
                stop = end if is_edge else w.least(words["x_inner_end"], end)
                fits = w.compare("sle", w.add(x, count), stop)
                fits = fits if is_edge else w.let(f"and i1 {is_inner}, {fits}")
                case, several = w.choose(fits, number, case), w.choose(fits, count, several)
            w.switch(case, range(len(groups)), lambda number: self._sum(line, x, *groups[number]))
            masks = [line.mask]
            area = Area(
                words, self.grid, [line.image, line.y, x], several, line.channel, masks, self.sums
            )
            store_area(w, Form(self.spec.output, self.width, 1, self.kinds), area)
            return [w.add(x, several)]

        w.repeat([("i64", start)], lambda v: w.compare("slt", v[0], end), places)

    def _sum(self, line: _Line, x: str, count: int, is_edge: bool) -> None:
        """Sum over the taps of some places; `is_edge`: those inside of the image."""
        w, words = self.w, self.words
        start = w.add(w.mul(x, words["x_step"]), words["x_start"])
        reach: tuple[Word, Word] = (0, words["taps_x"])
        if is_edge:
            reach = taps_inside(w, start, words["x_spread"], words["x_size"], words["taps_x"])
        here = w.at(line.images, w.mul(start, words["pixel"]), self.kind)
        y_far = w.mul(words["y_spread"], words["line"])
        first = start if is_edge else None

        def tap_line(values: list[str]) -> list[Word]:
            tap_y, *sums = values
            source = w.at(here, w.mul(tap_y, y_far), self.kind)
            weights = w.at(line.weights, w.mul(tap_y, words["weight_y"]), self.kind)

            def channel(i: Word, sums: list[str]) -> list[str]:
                taps = _Taps(line, source, w.at(weights, w.mul(i, words["weight_i"]), self.kind), i)
                if self.spec.taps:
                    return self._unrolled(taps, first, sums)
                return self._looped(taps, reach, sums)

            return [w.add(tap_y, 1), *self._channels(channel, sums)]

        zeros = ["zeroinitializer"] * count
        _, *sums = self._over(line.tap, line.tap_end, zeros, tap_line)
        for i, total in enumerate(sums):
            place = w.at(self.sums, i * self.width, self.kind)
            w.store(self.vector, total, place, self.width * element_bytes(self.kind))

    def _channels(
        self, channel: Callable[[Word, list[str]], list[str]], sums: list[str]
    ) -> list[str]:
        """Add what each input channel of a group gives."""
        if self.spec.inner:
            for i in range(self.spec.inner):
                sums = channel(i, sums)
            return sums
        return self._over(
            0, self.words["inner"], sums,
            lambda values: [self.w.add(values[0], 1), *channel(values[0], values[1:])],
        )[1:]  # fmt: skip

    def _unrolled(self, taps: _Taps, first: Word | None, sums: list[str]) -> list[str]:
        """Add the products of a line of taps: a pixel is loaded once for all places.

        `first`: where the first tap of the first place is; if given, taps outside are skipped.
        """
        w, words = self.w, self.words
        assert self.spec.taps is not None
        count, step, spread = self.spec.taps
        known: dict[int, tuple[str, str]] = {}

        def added(number: int, factor: str, total: str) -> str:
            if number not in known:
                pixel, inside = w.at(taps.source, w.mul(words["pixel"], number), self.kind), ""
                if first is not None:
                    inside = w.compare("ult", w.add(first, number), words["x_size"])
                    pixel = w.let(f"select i1 {inside}, ptr {pixel}, ptr {words['a']}")
                known[number] = self._lanes(pixel, taps), inside
            lanes, inside = known[number]
            made = self._added(lanes, factor, total)
            if not inside:
                return made
            return w.let(f"select i1 {inside}, {self.vector} {made}, {self.vector} {total}")

        for tap in range(count):
            factor = self._weight(taps, tap)
            sums = [
                added(place * step + tap * spread, factor, total)
                for place, total in enumerate(sums)
            ]
        return sums

    def _looped(self, taps: _Taps, reach: tuple[Word, Word], sums: list[str]) -> list[str]:
        """Add the products of some taps of a line, one after the other."""
        w, words = self.w, self.words
        x_far = w.mul(words["x_spread"], words["pixel"])
        step = w.mul(words["x_step"], words["pixel"])

        def tap(values: list[str]) -> list[Word]:
            number, *sums = values
            pixel = w.at(taps.source, w.mul(number, x_far), self.kind)
            factor = self._weight(taps, number)
            added = []
            for place, total in enumerate(sums):
                lanes = self._lanes(w.at(pixel, w.mul(step, place), self.kind), taps)
                added.append(self._added(lanes, factor, total))
            return [w.add(number, 1), *added]

        return self._over(*reach, sums, tap)[1:]

    def _weight(self, taps: _Taps, tap: Word) -> str:
        far = self.w.mul(tap, self.words["weight_x"])
        return self._load(self.w.at(taps.weights, far, self.kind), taps.line.mask)

    def _added(self, x: str, y: str, total: str) -> str:
        return self.w.multiply_add(self.kind, self.width, self.has_fma, x, y, total)

    def _lanes(self, pixel: str, taps: _Taps) -> str:
        """Return the input channel of each lane's group, of a pixel."""
        w, spec = self.w, self.spec
        if not spec.inner:
            place = w.at(pixel, taps.channel, self.kind)
            one = w.load(self.kind, place, element_bytes(self.kind))
            return w.splat(one, self.kind, self.width)
        loaded = self._load(pixel, taps.line.source_mask)
        if spec.inner == spec.outer == 1:
            return loaded
        assert isinstance(taps.channel, int)
        return self._spread(loaded, taps.channel)

    def _spread(self, loaded: str, i: int) -> str:
        """Return input channel i of its group in every lane."""
        w, spec = self.w, self.spec
        wanted = [lane // spec.outer * spec.inner + i for lane in range(self.width)]
        lanes = ", ".join(f"i32 {x if x < self.width else 0}" for x in wanted)
        kinds = f"{self.vector} {loaded}, {self.vector} poison, <{self.width} x i32> <{lanes}>"
        return w.let(f"shufflevector {kinds}")

    def _over(
        self, first: Word, end: Word, sums: Sequence[str], body: Callable[[list[str]], list[Word]]
    ) -> list[str]:
        start: list[tuple[str, Word]] = [("i64", first), *((self.vector, x) for x in sums)]
        return self.w.repeat(start, lambda v: self.w.compare("slt", v[0], end), body)

    def _load(self, place: str, mask: str | None) -> str:
        return self.w.load_lanes(self.kind, self.width, place, mask)


def taps_inside(w: Writer, start: Word, spread: Word, size: Word, taps: Word) -> tuple[Word, Word]:
    """Return the first tap, and the end of the taps, for which 0 <= start + tap · spread < size."""
    rounding = w.sub(spread, 1)
    first = w.div(w.add(w.most(w.sub(0, start), 0), rounding), spread)
    end = w.div(w.add(w.most(w.sub(size, start), 0), rounding), spread)
    return first, w.least(end, taps)
