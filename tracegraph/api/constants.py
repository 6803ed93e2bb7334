"""Numbers, memory formats and layouts that PyTorch has names for at its top level.

`contiguous_format` is row-major order, which is also what one gets who asks for channels last.
"""

from __future__ import annotations

import math
from typing import Final

pi: Final = math.pi
e: Final = math.e
inf: Final = math.inf
nan: Final = math.nan
newaxis: Final = None


class memory_format:
    """How the elements of an image batch might lie in memory."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"tracegraph.{self._name}"


class layout(memory_format):
    """How elements are kept: strided, or as the sparse ones with their places."""


contiguous_format: Final = memory_format("contiguous_format")
preserve_format: Final = memory_format("preserve_format")
channels_last: Final = memory_format("channels_last")
channels_last_3d: Final = memory_format("channels_last_3d")
strided: Final = layout("strided")
sparse_coo: Final = layout("sparse_coo")
sparse_csr: Final = layout("sparse_csr")
sparse_csc: Final = layout("sparse_csc")

CONSTANTS: Final = {
    "pi": pi, "e": e, "inf": inf, "nan": nan, "newaxis": newaxis, "memory_format": memory_format,
    "layout": layout, "contiguous_format": contiguous_format, "preserve_format": preserve_format,
    "channels_last": channels_last, "channels_last_3d": channels_last_3d, "strided": strided,
    "sparse_coo": sparse_coo, "sparse_csr": sparse_csr, "sparse_csc": sparse_csc,
}  # fmt: skip
