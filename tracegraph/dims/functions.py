"""The functions of sizes that are no polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

FLOORDIV: Final = "//"
MOD: Final = "%"
MIN: Final = "min"
MAX: Final = "max"

FUNCTIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    FLOORDIV: lambda a, b: a // b,
    MOD: lambda a, b: a % b,
    MIN: min,
    MAX: max,
}
