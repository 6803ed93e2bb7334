"""The public functions, collected from the family modules of `tracegraph.api`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from tracegraph.api import creation, pointwise, random, reduction, shape


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Public functions that a family module defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ in (module.__name__, "tracegraph.operators")
        and name not in ("unary_method",)
    }


FAMILIES: Final = (creation, pointwise, random, reduction, shape)
_INNER: Final = frozenset(("finish", "note_constant", "shape_of", "legacy_tensor", "infer_shape",
                           "slice_dim"))  # fmt: skip

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: function
    for family in FAMILIES
    for name, function in functions_of(family).items()
    if name not in _INNER
}
