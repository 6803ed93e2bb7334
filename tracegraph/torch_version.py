"""Versions that compare by their numbers, not by their letters."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["TorchVersion"]

_PARTS = re.compile(r"(\d+(?:\.\d+)*)([^+]*)(.*)")


def _rank(version: Any) -> tuple[list[int], bool, str]:
    """Return the numbers without zeros at the end, whether it is released, and the local part."""
    text = version if isinstance(version, str) else ".".join(map(str, version))
    parts = _PARTS.match(text)
    if parts is None:
        return [], False, text
    numbers = [int(n) for n in parts[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers, not parts[2], parts[3]


class TorchVersion(str):
    """A str that compares with other versions, and with tuples of their numbers."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (str, tuple, list)) and _rank(self) == _rank(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return _rank(self) < _rank(other)

    def __le__(self, other: Any) -> bool:
        return _rank(self) <= _rank(other)

    def __gt__(self, other: Any) -> bool:
        return _rank(self) > _rank(other)

    def __ge__(self, other: Any) -> bool:
        return _rank(self) >= _rank(other)
