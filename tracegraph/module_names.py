"""Further names of modules: PyTorch has more and smaller ones, and programs import from them."""

from __future__ import annotations

import sys
from types import ModuleType


def also_named(package: str, names: str, module: ModuleType | None = None) -> None:
    """Let a module be imported by `names` below a package as well; None: the package itself.

    Where the package has a function or class of that name, its attribute stays.
    """
    place, module = vars(sys.modules[package]), module or sys.modules[package]
    for name in names.split():
        sys.modules[f"{package}.{name}"] = module
        if not callable(place.get(name)):
            place[name] = module
