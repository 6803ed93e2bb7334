"""The nests of loops of contractions: what their code depends on. Kernels have them in common."""

from __future__ import annotations

from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.products.contraction import (
    STAGED_ROWS,
    ALayout,
    BLayout,
    Contraction,
    k_block,
)
from tracegraph.runtime.cpu.products.contraction_tiles import TOGETHER, DotsCode, Tile, TileCode

WIDEST: Final = 16  # elements of the widest vector


class Nest(NamedTuple):
    """What the code of a nest of loops depends on."""

    dtype: DType
    a: ALayout
    b: BLayout
    batch: int
    tile: Tile
    has_fma: bool
    has_masks: bool

    @classmethod
    def of(cls, spec: Contraction, target: Target) -> Nest:
        """Return that of a contraction."""
        has_fma, has_masks = Abilities.of(target).fma, target.vector_bytes == 64
        return cls(spec.dtype, spec.a, spec.b, spec.batch, spec.tile, has_fma, has_masks)

    @property
    def name(self) -> str:
        """A name that tells it from others of a target."""
        shape = f"{self.dtype.code}x{self.tile.width}x{self.tile.vectors}"
        return f"nest_{self.a}_{self.b}_{self.batch}_{shape}"

    @property
    def a_strides(self) -> tuple[int, int]:
        """The strides of copied rows, of a row and of a step of k.

        No power of two where that matters: see `contraction_staging`.
        """
        width = self.tile.width
        if self.a == "columns":
            rows = self.tile.heights[0] if self.b == "panels" else STAGED_ROWS
            return 1, -(-rows // WIDEST) * WIDEST
        return k_block(self.dtype) + width, 1

    @property
    def spread(self) -> list[TileCode]:
        """The tiles that read rows of B where they are, for a row of A that is alone."""
        counts = (1, TOGETHER[1]) if self.b == "rows" else ()
        return [self.tile_code(1, count)._replace(is_spread=True) for count in counts]

    @property
    def dots(self) -> DotsCode:
        """What the code of dot products depends on."""
        return DotsCode(self.tile.width, self.dtype, self.has_fma)

    def tile_code(self, height: int, panels: int) -> TileCode:
        """Return what the code of a tile depends on."""
        shape = (height, self.tile.vectors, self.tile.width)
        return TileCode(*shape, self.dtype, *self.a_strides, self.has_fma, panels)
