"""Further names of modules: PyTorch has more and smaller ones, and programs import from them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _ModuleOfFunction(ModuleType):
    """A module named as a function of its package: where it takes that place, calls reach it."""

    def __init__(self, name: str, module: ModuleType, function: Any) -> None:
        super().__init__(name, module.__doc__)
        self.__dict__.update(_module=module, _function=function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def also_named(package: str, names: str, module: ModuleType | None = None) -> None:
    """Let a module be imported by `names` below a package as well; None: the package itself.

    Where the package has a function or class of that name, its attribute stays.
    """
    place, module = vars(sys.modules[package]), module or sys.modules[package]
    for name in names.split():
        held, full = place.get(name), f"{package}.{name}"
        if callable(held) and not isinstance(held, ModuleType):
            sys.modules[full] = module
            stands_for(full, held)
        else:
            sys.modules[full] = place[name] = module


def stands_for(name: str, function: Any) -> None:
    """Let the loaded module `name` be called as the function that its package has by that name.

    What gives this package another name (an alias that programs import) imports modules anew,
    which puts them where the functions were.
    """
    sys.modules[name] = _ModuleOfFunction(name, sys.modules[name], function)
