"""Storage and Lineage: what tensors that share memory have in common.

A Storage is a piece of memory. Tensors that view it name their place by a chain of view ops from
its whole. A Lineage is the gradient history that differentiable views share: `detach` starts a
new Lineage on the same Storage. Both are made only when a tensor is first viewed or written.
"""

from __future__ import annotations

from typing import Any

from tracegraph.ops.core import Op
from tracegraph.tensor_type import TensorType

ViewStep = tuple[Op, tuple[tuple[str, Any], ...]]
Chain = tuple[ViewStep, ...]


class Storage:
    """Memory with a version that counts writes.

    `array` is the whole, `entry` is the active recorder's note of its present Value.
    """

    __slots__ = ("__weakref__", "array", "entry", "version")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.version = 0
        self.entry: Any = None


class Lineage:
    """Gradient history of a base and its differentiable views.

    `node`/`index` give the present history of the base, which is the tensor `depth` view steps
    below the Storage's whole, and whose array is `base`; `version` counts changes of that history.
    Where `counted` is False (`x.data`), writes do not count as new versions of the Storage.
    """

    __slots__ = ("base", "counted", "depth", "index", "node", "version")

    def __init__(self, node: Any, index: int, depth: int, base: Any) -> None:
        self.node = node
        self.index = index
        self.depth = depth
        self.base = base
        self.counted = True
        self.version = 0


class AbstractArray:
    """A shape and dtype without data: ops on it run their type rules only."""

    __slots__ = ("type",)

    def __init__(self, type: TensorType) -> None:
        self.type = type

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.type.shape

    @property
    def dtype(self) -> None:
        """None: no array dtype, so that no fast path takes this for an array."""
        return None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.type.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.type.size
