"""Dim: what a user says about a dim of an input."""

from __future__ import annotations

import keyword
import re
from typing import Any, Final

from tracegraph.dims.functions import MAX, MIN

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = frozenset((MIN, MAX))
_MAX_SIZE: Final = 1 << 48
_MAX_NAME: Final = 200


class Dim:
    """A dim of an input that replays may give another size: `Dim("batch", min=1, max=64)`.

    Dims of one name have one size. Sizes 0 and 1 are like any other.
    """

    def __init__(self, name: str, *, min: int = 0, max: int | None = None) -> None:
        check_symbol(name, min, max)
        self.declared = True  # False: it became dynamic because examples differ there
        self.name = name
        self.min = min
        self.max = max

    def __repr__(self) -> str:
        most = "" if self.max is None else f", max={self.max}"
        return f"Dim({self.name!r}, min={self.min}{most})"


def check_symbol(name: Any, least: Any, most: Any) -> None:
    """Refuse what cannot be the name and bounds of a size.

    Raises:
        ValueError: no identifier, or bounds that are not whole numbers from 0 in order.
    """
    plain = isinstance(name, str) and _NAME.fullmatch(name) and not keyword.iskeyword(name)
    if not plain or name in _RESERVED or len(name) > _MAX_NAME:
        raise ValueError(f"a dim needs a name like a Python variable's, not {name!r:.80}")
    numbers = all(type(n) is int and 0 <= n <= _MAX_SIZE for n in (least, most) if n is not None)
    if least is None or not numbers or (most is not None and most < least):
        raise ValueError(f"dim {name!r}: min={least!r}, max={most!r} are no bounds of a size")
