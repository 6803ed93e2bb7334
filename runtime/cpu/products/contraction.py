"""Contractions as native kernels: C[.., m, n] = epilogue(sum over k of A[.., m, k] · B[.., k, n]).

A `Contraction` says what the code depends on: dtype, how the operands lie in memory, the epilogue
and the tile. Extents and strides are words of the argument block, so one kernel serves every shape
and every batch size. To run one:

    spec = Contraction(float32, "rows", "panels", 0, output, tile_for(target, float32))
    text = contraction_text(spec, target)              # contraction_code: LLVM IR of `spec.name`
    launch = schedule(spec, Extents((), m, n, k))      # contraction_cut: words, chunks, cost_ns
    names = slots(spec)                                # what each word of the block means

The caller fills in the words that `launch` does not have: pointers and strides, in elements.

    a, b, result<i>, operand<i>            pointers
    partial                                pointer: where sums over blocks of k are kept until the
                                           last one; may be result0 if that has the dtype of sums
    m, n, k                                extents
    k_block, k_blocks, row_block, row_blocks, panel_block, panel_blocks, units, chunk
                                           how the work is cut, from `schedule`
    a_stride                               of a row ("rows"), of a step of k ("columns"), or 0
    b_stride                               of a panel ("panels"), of a step of k ("rows"), or of a
                                           column ("columns", "dots"), or 0
    result<i>_stride, operand<i>_stride    of a row; of an operand only where it varies by rows
    partial_stride                         of a row
    extent<d>, <pointer>_batch<d>          for each batch dim; a stride of 0 repeats an operand

B in "panels" is packed, see `packing`. "dots" are columns, by which a few rows of A are multiplied
with both where they are: sums are those of the lanes of vectors, see `dots_text`. Results are
stored in rows, and alias nothing that is read.

"windows" are those of a convolution over images[image, y, x, channel] (NHWC), read as a matrix
without writing it: its rows are the places of windows, (image, y, x); its columns the elements
of one, (tap y, tap x, channel). Such an operand has these words and no stride:

    out_height, out_width                  places of windows in an image
    y_step, x_step, y_start, x_start       pixels from place to place, and of the first (-padding)
    y_spread, x_spread                     pixels from tap to tap (dilation)
    height, width                          of an image: lines, and elements of a line
    image, line, pixel                     strides
    run, runs                              columns that follow each other in memory, and how many
                                           such runs a line of the window has: (channels, taps)
                                           in general, (taps · channels, 1) without dilation

What lies outside an image is 0. Where A is windows, results and operands that vary by rows are
images too, and have <name>_image and <name>_line besides <name>_stride, which is of a pixel.

A kernel takes 40 KiB of the stack, and 460 KiB where B is not packed.

Sums over k are cut into blocks, each summed in order, then added: what an element of C is does not
depend on the extents m and n, on the place of the element, or on threads.
"""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_tiles import Tile

ALayout = Literal["rows", "columns", "windows"]
BLayout = Literal["panels", "rows", "columns", "windows", "dots"]

# Panels of B, 48 KiB each, that are copied to the stack at a time where they are not packed: more
# of windows, so that finding a place of them serves a longer run.
STAGED_PANELS: Final = {"panels": 1, "rows": 2, "columns": 2, "windows": 4}
# Rows of A that are copied to the stack at a time where B is not packed: 260 KiB. Else a sliver.
STAGED_ROWS: Final = 168
_K_BLOCK_BYTES: Final = 1536

_SHARED: Final = ("a", "b", "partial")
_SIZES: Final = (
    "m", "n", "k", "k_block", "k_blocks", "row_block", "row_blocks", "panel_block",
    "panel_blocks", "units", "chunk", "a_stride", "b_stride",
)  # fmt: skip
_WINDOWS: Final = (
    "out_height", "out_width", "y_step", "x_step", "y_start", "x_start", "y_spread", "x_spread",
    "height", "width", "image", "line", "pixel", "run", "runs",
)  # fmt: skip


class Contraction(NamedTuple):
    """What the code of a kernel depends on: equal ones are compiled once.

    `a`, `b`: which index is contiguous in memory, the last one ("rows") or the first ("columns");
    `batch`: the number of batch dims.
    """

    dtype: DType
    a: ALayout
    b: BLayout
    batch: int
    output: Output
    tile: Tile

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"contraction_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def k_block(self) -> int:
        """The longest run of k that is summed at a time: its rows of A stay in the first cache."""
        return sys.maxsize if self.b == "dots" else k_block(self.dtype)

    @property
    def arrays(self) -> dict[str, DType]:
        """The pointers of the argument block, and the dtypes of what they point to."""
        results = {f"result{i}": dtype for i, dtype in enumerate(self.output.results)}
        operands = {f"operand{i}": x.dtype for i, x in enumerate(self.output.operands)}
        own = dict.fromkeys(("a", "b", "partial"), self.dtype)
        return {**own, **results, **operands}

    @property
    def rowwise(self) -> list[str]:
        """The pointers to what has a stride of rows: results, and operands that vary by rows."""
        operands = enumerate(self.output.operands)
        varying = [f"operand{i}" for i, x in operands if x.extent in ("row", "place")]
        return [*(f"result{i}" for i in range(len(self.output.results))), *varying]


class Extents(NamedTuple):
    """The sizes of one contraction."""

    batch: tuple[int, ...]
    m: int
    n: int
    k: int


def k_block(dtype: DType) -> int:
    """Return the longest run of k that is summed at a time."""
    return _K_BLOCK_BYTES // dtype.itemsize


@lru_cache(1024)
def slots(spec: Contraction) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    arrays = [name for name in spec.arrays if name not in _SHARED]
    levels = ("stride", "line", "image") if spec.a == "windows" else ("stride",)
    strides = [f"{name}_{level}" for name in spec.rowwise for level in levels]
    batches = [f"{array}_batch{d}" for d in range(spec.batch) for array in arrays]
    return (*shared_slots(spec.a, spec.b, spec.batch), *arrays, *strides, *batches)


def shared_slots(a: ALayout, b: BLayout, batch: int) -> tuple[str, ...]:
    """Return the first words, which do not depend on the output."""
    levels = ("stride", "line", "image") if a == "windows" else ("stride",)
    batches = [
        name
        for d in range(batch)
        for name in (f"extent{d}", *(f"{array}_batch{d}" for array in _SHARED))
    ]
    first = window_slots() if "windows" in (a, b) else (*_SHARED, *_SIZES)
    return (*first, *(f"partial_{level}" for level in levels), *batches)


def window_slots() -> tuple[str, ...]:
    """Return the first words where one of the operands is windows."""
    return (*_SHARED, *_SIZES, *_WINDOWS)
