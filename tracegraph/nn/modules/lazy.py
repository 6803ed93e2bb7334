"""Lazy modules: sizes that the first input tells."""

from __future__ import annotations

from typing import Any

from tracegraph.nn.modules.module import Module, has_lazy


class LazyModule(Module):
    """Mixed into a module class: takes missing sizes from the first input, then becomes `final`."""

    final: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first = self.register_forward_pre_hook(_first_call, with_kwargs=True)

    def has_uninitialized_params(self) -> bool:
        """Whether the module waits for its first input."""
        return has_lazy(self)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters their shapes; subclasses write this."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )


def _first_call(module: Any, args: Any, kwargs: Any) -> None:
    if has_lazy(module):
        module.initialize_parameters(*args, **kwargs)
    module._first.remove()
    del module._first
    module.__class__ = module.final
