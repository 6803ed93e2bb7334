"""Weights of convolutions by `winograd`, transformed and packed into panels.

They become [panel, place, channel, column]; columns that the last panel has too many repeat the
last output channel. Transformed in float64, and rounded once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType, float64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import KERNEL_PARAMETERS, METADATA, Word, Writer, function
from tracegraph.runtime.cpu.products.contraction_tiles import Tile
from tracegraph.runtime.cpu.products.winograd import transforms
from tracegraph.runtime.cpu.products.winograd_algebra import Algebra

# Words: pointers, extents, and strides of the source in elements; a chunk is a panel.
WEIGHT_SLOTS: Final = (
    "source", "panels", "n", "channels", "n_stride", "channel_stride", "y_stride", "x_stride",
)  # fmt: skip


class WinogradWeights(NamedTuple):
    """What the code depends on: the tiles of registers and of pixels."""

    dtype: DType
    tile: Tile
    size: int

    @property
    def name(self) -> str:
        """The name of the kernel."""
        shape = f"{self.dtype.code}x{self.tile.width}x{self.tile.vectors}"
        return f"winograd_weights_{self.size}_{shape}"


def winograd_weights_text(spec: WinogradWeights, target: Target) -> str:
    """Return the kernel."""
    code = _Weights(spec, target)
    code.w.loop("%end", code.panel, start="%begin")
    return "\n".join((function(spec.name, KERNEL_PARAMETERS, code.w, "nounwind"), METADATA))


class _Weights:
    """Writes the loops: panels, channels, vectors of columns."""

    def __init__(self, spec: WinogradWeights, target: Target) -> None:
        self.spec, self.w, self.kind = spec, Writer(), element_type(spec.dtype)
        w, self.width, self.columns = self.w, spec.tile.width, spec.tile.columns
        self.algebra = Algebra(w, float64, self.width, Abilities.of(target).fma)
        self.words = {
            name: w.load("ptr" if i < 2 else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(WEIGHT_SLOTS)
        }
        self.vector = f"<{self.width} x {self.kind}>"
        self.taps = w.let(f"alloca [{9 * self.width} x {self.kind}], align 64")

    def panel(self, number: str) -> None:
        """Write the loops over a panel."""
        w, words, spec, places = self.w, self.words, self.spec, (self.spec.size + 2) ** 2
        count = w.mul(words["channels"], self.columns)
        start = w.at(words["panels"], w.mul(number, w.mul(count, places)), self.kind)

        def channel(c: str) -> None:
            source = w.at(words["source"], w.mul(c, words["channel_stride"]), self.kind)

            def group(v: str) -> None:
                grid = self._gathered(source, w.add(w.mul(number, self.columns), v))
                made = self.algebra.in_two_dims(transforms(spec.size).weight, grid)
                to = w.at(w.at(start, w.mul(c, self.columns), self.kind), v, self.kind)
                for place, value in enumerate(x for row in made for x in row):
                    self._store(value, w.at(to, w.mul(count, place), self.kind))

            w.loop(self.columns, group, step=self.width)

        w.loop(words["channels"], channel)

    def _gathered(self, source: str, column: Word) -> list[list[str]]:
        """Return the weights of the columns of a vector, by taps."""
        w, words, kind, size = self.w, self.words, self.kind, self.spec.dtype.itemsize

        def lane(number: str) -> None:
            own = w.least(w.add(column, number), w.sub(words["n"], 1))
            place = w.at(source, w.mul(own, words["n_stride"]), kind)
            for tap in range(9):
                far = w.add(w.mul(words["y_stride"], tap // 3), w.mul(words["x_stride"], tap % 3))
                value = w.load(kind, w.at(place, far, kind), size)
                to = w.at(w.at(self.taps, number, kind), tap * self.width, kind)
                w.store(kind, value, to, size)

        w.loop(self.width, lane)
        found = []
        for tap in range(9):
            value = w.load(self.vector, w.at(self.taps, tap * self.width, kind), size)
            if kind != "double":
                value = w.let(f"fpext {self.vector} {value} to {self.algebra.vector}")
            found.append(value)
        return [found[:3], found[3:6], found[6:]]

    def _store(self, value: str, to: str) -> None:
        if self.kind != "double":
            value = self.w.let(f"fptrunc {self.algebra.vector} {value} to {self.vector}")
        self.w.store(self.vector, value, to, self.spec.dtype.itemsize)
