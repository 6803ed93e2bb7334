"""Arrays of State as programs get them: some are computed of others when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Early(dict[str, Any]):
    """What a prologue makes: `make(name)` gives an array that is read, and others with it."""

    def __init__(self, make: Callable[[str], Mapping[str, Any]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Any:
        self.update(self._make(name))
        return self[name]


class States(dict[str, Any]):
    """The arrays of State, and what a prologue makes of it."""

    def __init__(self, arrays: Mapping[str, Any], early: Early) -> None:
        super().__init__(arrays)
        self._early = early

    def __missing__(self, name: str) -> Any:
        return self._early[name]

    def let_go(self, name: str) -> None:
        """Hold an array no longer that a prologue made; it is made again where it is read again."""
        self._early.pop(name, None)
