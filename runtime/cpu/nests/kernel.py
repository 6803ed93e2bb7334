"""A loop nest as a kernel: its name, its words, its text when it is asked for."""

from __future__ import annotations

from functools import cache

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.nests.nest import Nest, slots


class NestKernel:
    """The kernel of a nest for a target."""

    __slots__ = ("name", "nest", "slots", "target")

    def __init__(self, nest: Nest, target: Target) -> None:
        self.nest, self.target = nest, target
        self.name, self.slots = _described(nest)

    def text(self) -> str:
        """Return the LLVM IR.

        Raises:
            UnsupportedError: a value has no native form.
        """
        from tracegraph.runtime.cpu.nests.code import nest_text

        return nest_text(self.nest, self.name, self.target)


@cache
def _described(nest: Nest) -> tuple[str, tuple[str, ...]]:
    return name_of("nest", nest), slots(nest)
