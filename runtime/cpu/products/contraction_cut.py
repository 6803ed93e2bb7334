"""How a contraction is cut into units and chunks: by its sizes alone, so that results are too."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.products.contraction import (
    STAGED_PANELS,
    STAGED_ROWS,
    Contraction,
    Extents,
)

# What a block of B may take of the second cache, in bytes.
_BLOCK_BYTES: Final = 1 << 19
# How the model of `_cut` counts: multiplications a ns and lane; bytes of B a ns; the part of a
# tile's time that copying A takes if one panel uses it, and that fetching B takes if one sliver
# does, by how B lies; what a unit costs besides; threads that share the work.
_LANE_RATE: Final = 3.4
_STREAM_RATE: Final = 60.0
_COPY: Final = 0.12
_FETCH: Final = {"panels": 0.06, "rows": 0.6, "columns": 0.6, "windows": 1.0}
_UNIT_NS: Final = 100.0
_THREADS: Final = 4
# Panels of a unit of one sliver: few, each read from one end to the other, all k, which memory
# answers fastest (8 to 12 % of the time); and two units at least.
_STREAMS: Final = (4, 2)
# Units are put together until a chunk takes so long.
_CHUNK_NS: Final = 3000


class Launch(NamedTuple):
    """How one contraction is run: words of the argument block, chunks, and about what it takes."""

    words: dict[str, int]
    chunks: int
    cost_ns: int


@lru_cache(4096)
def schedule(spec: Contraction, extents: Extents) -> Launch:
    """Return how to run a contraction; the words are for reading only."""
    tile, (batch, m, n, k) = spec.tile, extents
    k_blocks = max(1, -(-k // spec.k_block))
    k_block = max(1, -(-k // k_blocks))
    cut = _cut(spec, extents, k_block)
    slivers, panels = -(-m // tile.heights[0]), -(-n // tile.columns)
    row_blocks, panel_blocks = -(-slivers // cut.slivers), -(-panels // cut.panels)
    units = math.prod(batch) * row_blocks * panel_blocks
    chunk = units_in_chunk(units, cut.unit_ns, _CHUNK_NS)
    words = {
        "m": m, "n": n, "k": k, "k_block": k_block, "k_blocks": k_blocks,
        "row_block": cut.slivers * tile.heights[0], "row_blocks": row_blocks,
        "panel_block": cut.panels, "panel_blocks": panel_blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    if spec.a == "windows":
        words["a_stride"] = 0
    if spec.b in ("panels", "windows"):
        words["b_stride"] = k * tile.columns if spec.b == "panels" else 0
    words |= {f"extent{d}": size for d, size in enumerate(batch)}
    return Launch(words, -(-units // chunk), int(cut.total_ns))


class _Cut(NamedTuple):
    """Slivers and panels of a unit, about what one takes, and what all take."""

    slivers: int
    panels: int
    unit_ns: float
    total_ns: float


def _cut(spec: Contraction, extents: Extents, k_block: int) -> _Cut:
    """Return the cut for which a few threads take the least time, by a rough model."""
    tile, (batch, m, n, k) = spec.tile, extents
    slivers, panels = max(1, -(-m // tile.heights[0])), max(1, -(-n // tile.columns))
    size = spec.dtype.itemsize
    rows = max(1, min(m, tile.heights[0]))
    row_ns = max(rows / (_LANE_RATE * tile.width), size / _STREAM_RATE)
    tile_ns = max(1, k) * tile.columns * row_ns
    count = max(1, math.prod(batch)) * slivers * panels
    if spec.b == "dots":
        unit_ns = tile_ns * (1 + _FETCH["panels"]) + _UNIT_NS
        return _Cut(slivers, 1, unit_ns, count * unit_ns)
    group, tallest = STAGED_PANELS[spec.b], slivers
    if spec.b != "panels":
        tallest = min(slivers, STAGED_ROWS // tile.heights[0])
    held = max(group, _BLOCK_BYTES // (k_block * tile.columns * size))
    cuts = []
    wide = [p for p in _steps(min(panels, held)) if p % group == 0 or p == panels]
    fetch = _FETCH[spec.b]
    if spec.b == "panels" and slivers == 1:
        wide = [next((p for p in _STREAMS if 2 * p <= panels), 1)]
    elif spec.b == "rows" and m == 1:  # B is read where it is: the longer the rows the better
        wide = [p for p in wide if p <= max(group, panels // _THREADS)][-1:]
        fetch = _FETCH["panels"]
    for s in _steps(tallest):
        for p in wide:
            each = tile_ns * (1 + _COPY / p + fetch / s)
            unit_ns, total_ns = s * p * each + _UNIT_NS, count * (each + _UNIT_NS / (s * p))
            cuts.append((total_ns / _THREADS + unit_ns / 2, _Cut(s, p, unit_ns, total_ns)))
    return min(cuts)[1]


def _steps(most: int) -> list[int]:
    """Return the powers of two up to a number, and the number."""
    return sorted({1 << i for i in range(most.bit_length())} | {most})
