"""Where State is held: what can be rebound, and is read before each replay."""

from __future__ import annotations

import types
from typing import Any, Final, NamedTuple

from tracegraph.eager.tensors import Tensor

_CELL: Final = "a closure variable"


def cell_contents(cell: types.CellType) -> dict[str, Any]:
    """What a closure cell holds; nothing before the variable is bound."""
    try:
        return {_CELL: cell.cell_contents}
    except ValueError:
        return {}


class Place(NamedTuple):
    """Where a tensor is held: a key of a dict or list, a closure cell, the gradient of a tensor."""

    container: Any
    key: Any

    def read(self) -> Any:
        """What is held there now; None if nothing."""
        container = self.container
        if isinstance(container, Tensor):
            return container._grad
        if isinstance(container, Part):
            return container.read()
        if isinstance(container, types.CellType):
            return cell_contents(container).get(_CELL)
        try:
            return container[self.key]
        except LookupError:
            return None

    def write(self, t: Tensor) -> None:
        """Hold another tensor there."""
        if isinstance(self.container, Tensor):
            self.container._grad = t
        elif isinstance(self.container, types.CellType):
            self.container.cell_contents = t
        else:
            self.container[self.key] = t


class Part(NamedTuple):
    """A sparse tensor, or where it is held, whose part of a name is State.

    `fixed` is what it has besides its parts.
    """

    whole: Any
    name: str
    fixed: dict[str, Any]

    def read(self) -> Any:
        """The part of what is held there now; None if that differs in more than its parts."""
        whole = self.whole.read() if isinstance(self.whole, Place) else self.whole
        if not isinstance(whole, Tensor) or not whole.is_sparse:
            return None
        parts = whole.__tracegraph_parts__()
        alike = all(parts[name] == value for name, value in self.fixed.items())
        return parts[self.name] if alike else None


# A child of what a walk visits: its name, itself, and where it is held, if that can be rebound.
Child = tuple[str, Any, Place | None]


def parts_of(sparse: Any, place: Place | None) -> list[Child]:
    """The tensors that a sparse one is made of."""
    parts = sparse.__tracegraph_parts__()
    tensors = {name: t for name, t in parts.items() if isinstance(t, Tensor)}
    fixed = {name: value for name, value in parts.items() if name not in tensors}
    whole = sparse if place is None else place
    return [(name, t, Place(Part(whole, name, fixed), name)) for name, t in tensors.items()]
