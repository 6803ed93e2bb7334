"""The nest of loops of kernels by `winograd`: its names and sizes, and the functions it calls."""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import Writer, function
from tracegraph.runtime.cpu.products.contraction_tiles import Tile, TileCode
from tracegraph.runtime.cpu.products.winograd import SPARE, Winograd, most_channels, transforms
from tracegraph.runtime.cpu.products.winograd_algebra import Algebra
from tracegraph.runtime.cpu.products.winograd_weights import WinogradWeights

SHARED: Final = "linkonce_odr hidden"


class Nest(NamedTuple):
    """What its code depends on."""

    dtype: DType
    tile: Tile
    size: int
    is_late: bool
    blocks: int
    has_fma: bool

    @classmethod
    def of(cls, spec: Winograd, target: Target) -> Nest:
        """Return that of a kernel."""
        has_fma = Abilities.of(target).fma
        return cls(spec.dtype, spec.tile, spec.size, spec.is_late, spec.blocks, has_fma)

    @property
    def name(self) -> str:
        """A name that tells it from others of a target."""
        late = "late_" if self.is_late else ""
        return f"winograd_nest_{late}{self._shape}_{self.rows}x{self.tile.vectors}"

    @property
    def _shape(self) -> str:
        return f"{self.size}_{self.dtype.code}x{self.tile.width}"

    @property
    def back(self) -> str:
        """The name of the function that transforms a vector of sums to one of results."""
        return f"winograd_back_{self._shape}_{self.rows}x{self.tile.vectors}"

    @property
    def to(self) -> str:
        """The name of the function that transforms a patch."""
        return f"winograd_to_{self._shape}_{self.rows}"

    @property
    def zeros(self) -> str:
        """The name of a pixel of zeros."""
        return f"winograd_zeros_{self._shape}_{self.rows}"

    @property
    def rows(self) -> int:
        """Patches of a unit at most."""
        return self.tile.heights[0] * self.blocks + SPARE

    @property
    def edge(self) -> int:
        """Pixels of a line of a patch."""
        return self.size + 2

    @property
    def kind(self) -> str:
        """The element type."""
        return element_type(self.dtype)

    @property
    def patch_stride(self) -> int:
        """Elements from a transformed patch to the next; no power of two: see contractions."""
        return most_channels(self.dtype, self.size) // self.blocks + self.tile.width

    @property
    def late_channels(self) -> int:
        """Of so many channels late weights are transformed at once: they stay in the cache."""
        return {2: 64, 4: 32}[self.size]

    @property
    def weight_stride(self) -> int:
        """Elements from late weights of a place to those of the next; no power of two either."""
        return self.late_channels * self.tile.columns + self.tile.width

    def tile_code(self, height: int) -> TileCode:
        """Return what the code of a tile depends on."""
        shape = (height, self.tile.vectors, self.tile.width)
        return TileCode(
            *shape, self.dtype, self.patch_stride, 1, self.has_fma, goes_on=self.is_late
        )

    @property
    def weights(self) -> WinogradWeights:
        """What the weights are."""
        return WinogradWeights(self.dtype, self.tile, self.size, self.is_late)


def patch_text(nest: Nest) -> str:
    """Return the function that transforms all channels of a patch: (table, to, channels)."""
    w, width, size = Writer(), nest.tile.width, nest.dtype.itemsize
    algebra = Algebra(w, nest.dtype, width, nest.has_fma)
    edges = range(nest.edge)

    def vector(start: str) -> None:
        # The last vector goes back so far that it is whole.
        channel = w.least(start, w.sub("%channels", width))

        def pixel(i: int, j: int) -> str:
            place = w.load("ptr", w.at("%table", i * nest.edge + j, "ptr"), 8)
            return w.load(algebra.vector, w.at(place, channel, nest.kind), size)

        patch = [[pixel(i, j) for j in edges] for i in edges]
        made = algebra.in_two_dims(transforms(nest.size).patch, patch)
        to = w.at("%to", channel, nest.kind)
        for i in edges:
            for j in edges:
                far = (i * nest.edge + j) * nest.rows * nest.patch_stride
                w.store(algebra.vector, made[i][j], w.at(to, far, nest.kind), size)

    w.loop("%channels", vector, step=width)
    parameters = ("ptr noalias %table", "ptr noalias %to", "i64 %channels")
    return function(nest.to, parameters, w, "nounwind noinline", SHARED)


def back_text(nest: Nest) -> str:
    """Return the function that transforms a vector of sums: (sums, to)[pixel, column]."""
    w, width, columns = Writer(), nest.tile.width, nest.tile.columns
    algebra, bytes_each = Algebra(w, nest.dtype, width, nest.has_fma), width * nest.dtype.itemsize

    def total(i: int, j: int) -> str:
        far = (i * nest.edge + j) * nest.rows * columns
        return w.load(algebra.vector, w.at("%sums", far, nest.kind), bytes_each)

    sums = [[total(i, j) for j in range(nest.edge)] for i in range(nest.edge)]
    made = algebra.in_two_dims(transforms(nest.size).result, sums, is_result=True)
    for i in range(nest.size):
        for j in range(nest.size):
            to = w.at("%to", (i * nest.size + j) * columns, nest.kind)
            w.store(algebra.vector, made[i][j], to, bytes_each)
    parameters = ("ptr noalias %sums", "ptr noalias %to")
    return function(nest.back, parameters, w, "nounwind noinline", SHARED)
