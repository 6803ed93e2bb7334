"""Convolutions by Winograd's minimal filtering: fewer multiplications, more additions.

A tile of size × size results is made of a patch of (size + 2)² pixels and 3 × 3 weights d and g as

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

(Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", arXiv:1509.09308), where
⊙, summed over channels, is one matrix product over tiles for each of the (size + 2)² places. So a
result takes 4 multiplications of a channel at size 2, and 2.25 at size 4, instead of 9.

The matrices are those of Toom and Cook for the points 0, ±p, .., infinity. Pairs of points make
them sparse: rows of B and of G for ±p are the sum and the difference of an even and an odd row, and
columns of A for ±p are of even and of odd powers. So a transform is a small matrix and a step of
sums and differences.

Errors: the points 0, ±5/8, ±3/2 make those of size 4 about half as large as 0, ±1, ±2 would. All
numbers but those of G are exact in binary. Measured on normal random numbers, in
eps · sqrt(9 · channels) · (product of standard deviations), where plain sums have 3 and at most 25
(root mean square, and the largest of a million):

    size 2: 0.7 + 0.25 · sqrt(channels), at most  8 + 1.5 · sqrt(channels)
    size 4: 2   + 0.7  · sqrt(channels), at most 24 + 9   · sqrt(channels)

A NaN or an infinity in a patch may make NaN of all of its tile, and sums of the numbers of a patch
may overflow where those of the results would not, if they are within a thousandth of the range.

The words of the argument block:

    a, b                                   pointers: images, weights in panels
    out_height, out_width, tiles           tiles of an image, and of all
    y_size, x_size                         pixels of a result
    y_start, x_start                       the first pixel of the first patch (-padding)
    height, width, image, line, pixel      of the images: pixels, and strides
    channels, n                            of the images, of results
    panels, panel_block, row_blocks, units, chunk
                                           how the work is cut
    result<i>, operand<i>                  pointers
    <name>_image, <name>_line, <name>_stride
                                           strides of an image, a line, a pixel, of what has them

A unit is some tiles × some panels of output channels; patches are transformed anew for each, which
costs less than to read what another core has written.

There must be `LEAST_CHANNELS`, and at most `most_channels`, of the images. A kernel takes up to
720 KiB of the stack at size 2, and 940 KiB at size 4.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_tiles import Tile

# The pairs of points, by the size of tiles.
_POINTS: Final = {2: (Fraction(1),), 4: (Fraction(5, 8), Fraction(3, 2))}
# Tiles of registers, by the bytes of a vector: a block of patches is one of the tallest.
_HEIGHTS: Final = {64: (14, 7, 2, 1), 32: (6, 2, 1), 16: (4, 2, 1)}
# So many patches that are left over are done with those before: weights are read once less.
SPARE: Final = 2
# The fewest channels that there is a kernel for (a vector), and the most bytes of them, by the size
# of tiles: all transformed patches of a unit are on the stack.
LEAST_CHANNELS: Final = 16
_MOST_BYTES: Final = {2: 2048, 4: 1024}

Matrix = tuple[tuple[float, ...], ...]


class Transforms(NamedTuple):
    """Matrices; at places 1 and 2, 3 and 4, .. are the even and the odd part of ±p."""

    patch: Matrix
    weight: Matrix
    result: Matrix


@cache
def transforms(size: int) -> Transforms:
    """Return the matrices for tiles of a size, 2 or 4."""
    points, length = _POINTS[size], size + 2
    whole = _product(points)
    patch, weight = [whole], [[1 / whole[0]]]
    result = [[Fraction(int(k == 0)) for k in range(size)]]
    for p in points:
        rest = _product([q for q in points if q != p])
        scale = 2 * p * p
        for q in points:
            scale *= p * p - q * q if q != p else Fraction(1)
        patch += [[Fraction(0)] * 2 + rest, [Fraction(0)] + [p * x for x in rest]]
        weight += [[1 / scale, Fraction(0), p * p / scale], [Fraction(0), p / scale]]
        result += [[p**k if k % 2 == odd else Fraction(0) for k in range(size)] for odd in (0, 1)]
    patch.append([Fraction(0), *whole])
    weight.append([Fraction(0), Fraction(0), Fraction(1)])
    result.append([Fraction(int(k == size - 1)) for k in range(size)])
    columns = zip(*result, strict=True)
    return Transforms(
        _filled(patch, length), _filled(weight, 3), tuple(tuple(map(float, x)) for x in columns)
    )


def _product(points: list[Fraction] | tuple[Fraction, ...]) -> list[Fraction]:
    """Return the coefficients of the product of all x² - p², of x⁰ first."""
    found = [Fraction(1)]
    for p in points:
        zeros = [Fraction(0), Fraction(0)]
        found = [x - p * p * y for x, y in zip(zeros + found, found + zeros, strict=True)]
    return found


def _filled(rows: list[list[Fraction]], length: int) -> Matrix:
    return tuple(tuple(map(float, row)) + (0.0,) * (length - len(row)) for row in rows)


class Winograd(NamedTuple):
    """What the code of a kernel depends on; `size`: of tiles; `is_late`: see the weights.

    `blocks`: of patches of a unit; twice as many of half as many channels.
    """

    dtype: DType
    output: Output
    tile: Tile
    size: int
    is_late: bool = False
    blocks: int = 1

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return f"winograd_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def places(self) -> int:
        """How many pixels a patch has, and how many products there are."""
        return (self.size + 2) ** 2

    @property
    def rows(self) -> int:
        """Patches of a unit, but of the last one, which takes what is left if that is `SPARE`."""
        return self.tile.heights[0] * self.blocks

    @property
    def arrays(self) -> dict[str, DType]:
        """The pointers of the argument block, and the dtypes of what they point to."""
        results = {f"result{i}": dtype for i, dtype in enumerate(self.output.results)}
        operands = {f"operand{i}": x.dtype for i, x in enumerate(self.output.operands)}
        return {"a": self.dtype, "b": self.dtype, **results, **operands}


def most_channels(dtype: DType, size: int) -> int:
    """Return the number of channels that there is room for with tiles of a size."""
    return _MOST_BYTES[size] // dtype.itemsize


def winograd_tile(target: Target, dtype: DType) -> Tile:
    """Return the tile of registers."""
    return Tile(_HEIGHTS[target.vector_bytes], 2, target.vector_bytes // dtype.itemsize)


_SHARED: Final = (
    "a", "b", "out_height", "out_width", "tiles", "y_start", "x_start", "height", "width", "image",
    "line", "pixel", "channels", "panels", "panel_block", "row_blocks", "units", "chunk",
)  # fmt: skip
_OWN: Final = ("y_size", "x_size", "n")


def nest_slots() -> tuple[str, ...]:
    """Return the first words, which do not depend on the output."""
    return _SHARED


@lru_cache(1024)
def winograd_slots(spec: Winograd) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    arrays = [name for name in spec.arrays if name not in ("a", "b")]
    varying = [
        f"operand{i}" for i, x in enumerate(spec.output.operands) if x.extent in ("row", "place")
    ]
    rows = [*(f"result{i}" for i in range(len(spec.output.results))), *varying]
    strides = [f"{name}_{level}" for name in rows for level in ("stride", "line", "image")]
    return (*_SHARED, *_OWN, *arrays, *strides)
