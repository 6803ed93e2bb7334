"""What `tracegraph.compile` makes of a module."""

from __future__ import annotations

from typing import Any

from tracegraph.nn.modules.module import Module


def is_module(value: Any) -> bool:
    """Whether a value is a Module."""
    return isinstance(value, Module)


class OptimizedModule(Module):
    """A module by whose name its attributes are reached, and that is `_orig_mod` in state dicts."""

    def __init__(self, mod: Module, compiled: Any) -> None:
        super().__init__()
        self._orig_mod = mod
        self.__dict__["compiled"] = compiled
        self.training = mod.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module, by replay where that can be."""
        return self.compiled(*args, **kwargs)

    def explain(self) -> str:
        """Say what was traced, replayed and run eagerly, and why."""
        return str(self.compiled.explain())

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return super().__getattr__(name)
        return getattr(self._orig_mod, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name == "_orig_mod" or "_orig_mod" not in self.__dict__.get("_modules", {})
        if own or name in self.__dict__ or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._orig_mod, name)
