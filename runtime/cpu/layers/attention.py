"""Attention as a native kernel: softmax(score(q · kᵀ)) · v, of which no score is ever in memory.

Keys come in blocks. Of a row, only the greatest score so far, the sum of exp(score - greatest) and
the sum of v times that are kept; what was summed before is scaled down where a block has a greater
score (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022,
"FlashAttention"). Panels of keys that a mask hides from all rows of a tile are passed over, but for
the product with v where that has infinities or NaNs: 0 times these is NaN. A unit has some rows of
one matrix and all keys; how rows are cut depends on sizes alone, so results do not depend on
threads.

Words of the argument block, strides in elements:

    q, k, v, y, operand<i>, dead           pointers; where `dead` holds, a row of the result is 0
    rows, keys, row_block, row_blocks, units, chunk
    q_row, k_far, v_row, y_row, operand<i>_row, dead_row
                                           k_far: of a key, or of an element where keys are near
    extent<d>, <pointer>_batch<d>          for each batch dim; a stride of 0 repeats an operand
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_tiles import Tile

# Vectors of keys in a block.
KEY_VECTORS: Final = 8
# Rows of a unit at most: their sums are on the stack.
_MOST_ROWS: Final = 140
_WANTED_UNITS: Final = 8
# About what things cost: multiplications a ns and lane, a vector of scores, a row of a unit.
_LANE_RATE: Final = 2.8
_VECTOR_NS: Final = 8.0
_ROW_NS: Final = 20.0


class Attention(NamedTuple):
    """What the code depends on: equal ones are compiled once.

    `depth`, `width`: of q and of v; `keys`: whether a key is contiguous ("rows"), or what keys have
    of one element of q is ("columns"); `dead`: for which value of `dead` a row is 0; `hides`: the
    number of an operand, and the value for which it makes a score -inf.
    """

    dtype: DType
    depth: int
    width: int
    keys: Literal["rows", "columns"]
    batch: int
    score: Output
    dead: bool | None
    hides: tuple[int, bool] | None
    tile: Tile

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return name_of("attention", self)

    @property
    def block(self) -> int:
        """Keys of a block, whole panels of a tile."""
        return KEY_VECTORS * self.tile.width

    @property
    def row_stride(self) -> int:
        """The stride of copied rows of q and of scores: no power of two, with room to spare."""
        depth = -(-self.depth // self.tile.width) * self.tile.width
        return max(depth, self.block) + self.tile.width

    @property
    def pointers(self) -> tuple[str, ...]:
        """The names of the pointers."""
        operands = [f"operand{i}" for i in range(len(self.score.operands))]
        return ("q", "k", "v", "y", *operands, *(("dead",) if self.dead is not None else ()))


@lru_cache(256)
def slots(spec: Attention) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = [*spec.pointers, "rows", "keys", "row_block", "row_blocks", "units", "chunk"]
    names += [f"{x}_row" if x != "k" else "k_far" for x in spec.pointers]
    for d in range(spec.batch):
        names += [f"extent{d}", *(f"{x}_batch{d}" for x in spec.pointers)]
    return tuple(names)


class Cut(NamedTuple):
    """Words, chunks, and about what all takes."""

    words: dict[str, int]
    chunks: int
    cost_ns: int


def cut(spec: Attention, batch: tuple[int, ...], rows: int, keys: int) -> Cut:
    """Return how to cut an attention into units and chunks."""
    matrices = math.prod(batch)
    blocks = max(-(-rows // _MOST_ROWS), min(-(-_WANTED_UNITS // matrices), rows // 32), 1)
    tall = spec.tile.heights[0]
    row_block = -(-rows // blocks)
    if blocks > 1:
        row_block = -(-row_block // tall) * tall
    row_blocks = -(-rows // row_block)
    lanes = (spec.depth + spec.width) / _LANE_RATE + _VECTOR_NS
    unit_ns = row_block * (_ROW_NS + -(-keys // spec.tile.width) * lanes)
    units = matrices * row_blocks
    chunk = units_in_chunk(units, unit_ns)
    words = {"rows": rows, "keys": keys, "row_block": row_block, "row_blocks": row_blocks,
             "units": units, "chunk": chunk}  # fmt: skip
    words |= {f"extent{d}": size for d, size in enumerate(batch)}
    return Cut(words, -(-units // chunk), int(units * unit_ns))
