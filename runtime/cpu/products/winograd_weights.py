"""Weights of convolutions by `winograd`, packed into panels of output channels, and transformed.

A panel is [channel, tap, column], and transformed [place, channel, column]. Columns that the last
panel has too many repeat the last output channel. Weights are transformed when they are packed,
but for large ones of few tiles (`is_late`): each unit transforms what it reads, on the stack. That
takes a layer 12 to 16 % more time, and the memory of 9 numbers in place of 16 or 36.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_tiles import Tile
from tracegraph.runtime.cpu.products.winograd import Winograd, transforms
from tracegraph.runtime.cpu.products.winograd_algebra import Algebra

# Words: pointers, extents, and strides of the source in elements; a chunk is a panel.
WEIGHT_SLOTS: Final = (
    "source", "panels", "n", "channels", "n_stride", "channel_stride", "y_stride", "x_stride",
)  # fmt: skip


TAPS: Final = 9


class WinogradWeights(NamedTuple):
    """What the code depends on: the tiles of registers and of pixels, and when it transforms."""

    dtype: DType
    tile: Tile
    size: int
    is_late: bool

    @classmethod
    def of(cls, spec: Winograd) -> WinogradWeights:
        """Return those that a kernel reads."""
        return cls(spec.dtype, spec.tile, spec.size, spec.is_late)

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"winograd_{'taps' if self.is_late else 'weights'}_{self._shape}"

    @property
    def transform(self) -> str:
        """The name of the function that transforms."""
        return f"winograd_weights_of_{self._shape}"

    @property
    def _shape(self) -> str:
        return f"{self.size}_{self.dtype.code}x{self.tile.width}x{self.tile.vectors}"

    @property
    def numbers(self) -> int:
        """How many numbers there are for a weight's 9: of taps or of places."""
        return TAPS if self.is_late else (self.size + 2) ** 2

    def bytes(self, channels: int, n: int) -> int:
        """Return the size of all panels."""
        panels = -(-n // self.tile.columns)
        return panels * self.numbers * channels * self.tile.columns * self.dtype.itemsize


def winograd_weights_text(spec: WinogradWeights, target: Target) -> str:
    """Return the kernel that packs."""
    code = _Packing(spec)
    code.w.loop("%end", code.panel, start="%begin")
    kernel = function(spec.name, KERNEL_PARAMETERS, code.w, "nounwind")
    return "\n".join((*([] if spec.is_late else [transform_text(spec, target)]), kernel, METADATA))


def transform_text(spec: WinogradWeights, target: Target) -> str:
    """Return the function (taps, to, channels, far) that transforms some channels of a panel.

    Element (place, channel, column) becomes to[place · far + channel · columns + column].
    """
    w, width, columns = Writer(), spec.tile.width, spec.tile.columns
    kind, size = element_type(spec.dtype), spec.dtype.itemsize
    algebra = Algebra(w, spec.dtype, width, Abilities.of(target).fma)

    def channel(c: str) -> None:
        taps = w.at("%taps", w.mul(c, TAPS * columns), kind)
        to = w.at("%to", w.mul(c, columns), kind)

        def vector(v: str) -> None:
            def tap(i: int) -> str:
                return w.load(algebra.vector, w.at(taps, w.add(v, i * columns), kind), size)

            grid = [[tap(3 * y + x) for x in range(3)] for y in range(3)]
            made = algebra.in_two_dims(transforms(spec.size).weight, grid)
            for place, value in enumerate(x for row in made for x in row):
                far = w.add(v, w.mul("%far", place))
                w.store(algebra.vector, value, w.at(to, far, kind), size)

        w.loop(columns, vector, step=width)

    w.loop("%channels", channel)
    parameters = ("ptr noalias %taps", "ptr noalias %to", "i64 %channels", "i64 %far")
    return function(spec.transform, parameters, w, "nounwind noinline", "linkonce_odr hidden")


class _Packing:
    """Writes the loops: panels, channels, columns."""

    def __init__(self, spec: WinogradWeights) -> None:
        self.spec, self.w, self.kind = spec, Writer(), element_type(spec.dtype)
        w, self.columns = self.w, spec.tile.columns
        self.words = {
            name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(WEIGHT_SLOTS)
        }
        if not spec.is_late:
            self.taps = w.let(f"alloca [{TAPS * self.columns} x {self.kind}], align 64")

    def panel(self, number: str) -> None:
        """Write the loops over a panel."""
        w, words = self.w, self.words
        far = w.mul(words["channels"], self.columns)
        start = w.at(words["panels"], w.mul(number, w.mul(far, self.spec.numbers)), self.kind)
        column = w.mul(number, self.columns)

        def channel(c: str) -> None:
            source = w.at(words["source"], w.mul(c, words["channel_stride"]), self.kind)
            if self.spec.is_late:
                to = w.at(start, w.mul(c, TAPS * self.columns), self.kind)
                self._gather(source, column, to)
                return
            self._gather(source, column, self.taps)
            to = w.at(start, w.mul(c, self.columns), self.kind)
            given = f"ptr {self.taps}, ptr {to}, i64 1, i64 {far}"
            w.do(f"call void @{self.spec.transform}({given})")

        w.loop(words["channels"], channel)

    def _gather(self, source: str, column: Word, to: str) -> None:
        """Write the taps of the columns of a panel."""
        w, words, kind, size = self.w, self.words, self.kind, self.spec.dtype.itemsize

        def one(number: str) -> None:
            own = w.least(w.add(column, number), w.sub(words["n"], 1))
            place = w.at(source, w.mul(own, words["n_stride"]), kind)
            for tap in range(TAPS):
                far = w.add(w.mul(words["y_stride"], tap // 3), w.mul(words["x_stride"], tap % 3))
                value = w.load(kind, w.at(place, far, kind), size)
                w.store(kind, value, w.at(w.at(to, number, kind), tap * self.columns, kind), size)

        w.loop(self.columns, one)
