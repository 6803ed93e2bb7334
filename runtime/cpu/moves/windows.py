"""Sliding windows over the last dims of an array, each folded to one element, as data.

Along pooled dim d, window o covers the elements o * step - pad + t * dilation for taps t; those
outside of the array do not count. The lanes are either a dim before the pooled ones, so that all
lanes have the same windows (channels side by side), or the windows along the last dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.nests.nest import Dim, Lane, lane_of, merged, ordered

# `places`: the row-major position of the first largest element.
Kind = Literal["amax", "sum", "places"]

_VECTOR_NS: Final = 1.2
_LANES: Final = 1024
# Steps up to here are loaded as a run, of which a part is taken.
_MOST_STEPS: Final = 4


class Dimension(NamedTuple):
    """A pooled dim: elements, windows, taps, how windows lie; the strides of both arrays."""

    size: int
    windows: int
    taps: int
    step: int
    pad: int
    dilation: int
    x_stride: int
    y_stride: int


class Windows(NamedTuple):
    """What the code depends on.

    `step`: that of windows in the lanes, 0 where the lanes are another dim, -1 where it is large;
    `result`: how the result is walked along the lanes; `free`: loops around the pooled dims.
    """

    kind: Kind
    dtype: DType
    result_dtype: DType
    step: int
    result: Lane
    pooled: int
    free: int

    @property
    def is_across(self) -> bool:
        """Whether the lanes are a dim that is not pooled."""
        return self.step == 0


class Cut(NamedTuple):
    """Windows with the words of their argument block (but for pointers), chunks and cost."""

    windows: Windows
    words: dict[str, int]
    chunks: int
    cost_ns: int


def slots(windows: Windows) -> tuple[str, ...]:
    """Return the names of the words of the argument block, in order."""
    names = ["x", "y", "lanes", "block", "blocks", "units", "chunk", "y_lane"]
    for d in range(windows.free):
        names += [f"free{d}", f"x_free{d}", f"y_free{d}"]
    for d in range(windows.pooled):
        names += [f"{field}{d}" for field in Dimension._fields]
    return tuple(names)


def make_windows(
    kind: Kind, dtypes: tuple[DType, DType], shape: Sequence[int],
    strides: tuple[Sequence[int], Sequence[int]], pooled: Sequence[Dimension], vector_bytes: int,
) -> Cut:  # fmt: skip
    """Return the windows of arrays whose dims before the pooled ones have some shape and strides.

    Either the last pooled dim of x has stride 1, or one of the dims before.
    """
    given = zip(shape, *strides, strict=True)
    free = merged(ordered([Dim(n, (y, x), False) for n, x, y in given if n != 1], 0))
    if free and free[-1].strides == (1, 1):
        lane, result, step = free.pop().extent, 1, 0
    else:
        last = pooled[-1]
        lane, result = last.windows, last.y_stride
        step = last.step if last.step <= _MOST_STEPS else -1
    spec = Windows(kind, *dtypes, step, lane_of(result), len(pooled), len(free))
    block = min(lane, _LANES)
    blocks = -(-lane // block)
    rows = math.prod(d.windows for d in pooled[:-1])
    units = blocks * rows * math.prod(d.extent for d in free)
    across = max(1, vector_bytes // dtypes[0].compute.itemsize)
    turns = math.prod(d.taps for d in pooled) * (pooled[-1].windows if step == 0 else 1)
    unit_ns = 10 + turns * _VECTOR_NS * (-(-block // across)) * (1 if step in (0, 1) else 3)
    chunk = units_in_chunk(units, unit_ns)
    words = {
        "lanes": lane, "block": block, "blocks": blocks, "units": units, "chunk": chunk,
        "y_lane": result,
    }  # fmt: skip
    for i, dim in enumerate(free):
        words |= {
            f"free{i}": dim.extent,
            f"y_free{i}": dim.strides[0],
            f"x_free{i}": dim.strides[1],
        }
    for i, d in enumerate(pooled):
        words |= {f"{name}{i}": number for name, number in d._asdict().items()}
    return Cut(spec, words, -(-units // chunk), int(units * unit_ns))
