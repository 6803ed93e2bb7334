"""Storage and Lineage: what tensors that share memory have in common.

A Storage is a piece of memory. Tensors that view it name their place by a chain of view ops from
its whole. A Lineage is the gradient history that differentiable views share: `detach` starts a
new Lineage on the same Storage. Both are made only when a tensor is first viewed or written.

What is computed from memory may be kept as long as its `stamp` stays the same. Memory can also
change without a new version, which `Unseen` keeps account of.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

import numpy as np

from tracegraph.dims.shapes import mentions
from tracegraph.ops.core import Op
from tracegraph.ops.memory_order import copy_as
from tracegraph.tensor_type import TensorType

ViewStep = tuple[Op, tuple[tuple[str, Any], ...]]
Chain = tuple[ViewStep, ...]


def extended(chain: Chain, depth: int, op: Op, attrs: dict[str, Any]) -> Chain:
    """Return the chain of a view of a view.

    A step after another of its kind is one step, from `depth` steps on: a chain of many views stays
    short.
    """
    if len(chain) > depth and chain[-1][0] is op and op.name in _JOINED:
        (attribute, before), *rest = chain[-1][1]
        joined = None if rest or mentions(before) else _JOINED[op.name](before, attrs[attribute])
        if joined is not None:
            return (*chain[:-1], (op, ((attribute, joined),)))
    return (*chain, (op, tuple(attrs.items())))


def _permuted(before: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([before[d] for d in dims])


def _sliced(before: tuple[Any, ...], index: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Two basic indices as one; None where sizes are symbolic."""
    if mentions(index):
        return None
    inner = iter(index)
    joined: list[Any] = []
    for item in before:
        if not isinstance(item, tuple):
            joined.append(item)
            continue
        first, _, step = item
        then = next(inner)
        if not isinstance(then, tuple):
            joined.append(first + then * step)
            continue
        count = -(-(then[1] - then[0]) // then[2])
        start, step = first + then[0] * step, step * then[2]
        stop = start + (count - 1) * step + 1
        joined.append((start, stop, step) if count else (first, first, 1))
    return tuple(joined)


_JOINED: dict[str, Any] = {
    "reshape": lambda before, shape: shape,
    "permute": _permuted,
    "slice": _sliced,
}


class Storage:
    """Memory with a version that counts writes.

    `array` is the whole, `entry` is the active recorder's note of its present Value, `unseen` how
    it may change without a new version (None: not at all so far).
    """

    __slots__ = ("__weakref__", "array", "entry", "unseen", "version")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.version = 0
        self.entry: Any = None
        self.unseen: Unseen | None = None


class Unseen:
    """How memory changes without a new version of its Storage.

    `count` of the times that it was, or may have been, written so; `loans` of its memory as
    arrays that somebody holds; whether it is `borrowed`, memory that others made and may write to.
    """

    __slots__ = ("borrowed", "count", "loans")

    def __init__(self) -> None:
        self.borrowed = False
        self.count = 0
        self.loans: weakref.WeakSet[Loan] = weakref.WeakSet()


class Loan:
    """What an array that was lent has as its base: it lives as long as any array over it."""

    __slots__ = ("__array_interface__", "__weakref__", "array")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


def unseen_of(storage: Storage) -> Unseen:
    """Return the account of a Storage's unseen changes, made at first need."""
    unseen = storage.unseen
    if unseen is None:
        unseen = storage.unseen = Unseen()
    return unseen


def lend(storage: Storage, array: Any) -> Any:
    """Return a NumPy array (a view of a Storage's whole) for others, who may write to it."""
    unseen = unseen_of(storage)
    loan = Loan(array)
    unseen.count += 1
    unseen.loans.add(loan)
    lent = np.asarray(loan)
    return lent if lent.dtype == array.dtype else lent.view(array.dtype)  # bfloat16 comes as void


def stamp(storage: Storage) -> tuple[Any, ...] | None:
    """Return what stays equal as long as the memory does; None where that cannot be known."""
    unseen = storage.unseen
    if unseen is None:
        return weakref.ref(storage), storage.version, 0
    if unseen.borrowed or unseen.loans:
        return None
    return weakref.ref(storage), storage.version, unseen.count


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


class SymbolicArray:
    """An array in a trace that serves other sizes too: its shape is that of its type.

    What computes takes the `array`, which has the sizes of the example; all else sees symbolic
    ones, so that none can be frozen unseen.
    """

    __slots__ = ("array", "type")

    def __init__(self, type: TensorType, array: Any) -> None:
        self.type = type
        self.array = array

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an array whose sizes are symbolic was used as a NumPy array")

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array[key] = bare(value)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, symbolic."""
        return self.type.shape

    @property
    def dtype(self) -> Any:
        """NumPy's dtype."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.type.shape)

    @property
    def size(self) -> int:
        """Number of elements, symbolic."""
        return self.type.size

    @property
    def flags(self) -> Any:
        """As the array's."""
        return self.array.flags

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, symbolic."""
        return self.type.size_bytes

    @property
    def ctypes(self) -> Any:
        """As the array's."""
        return self.array.ctypes

    def copy(self, order: str = "C") -> SymbolicArray:
        """Return the same in fresh memory."""
        return SymbolicArray(self.type, self.array.copy(order=order))

    def item(self) -> Any:
        """The only element."""
        return self.array.item()


def bare(data: Any) -> Any:
    """Return what computes: the array of a SymbolicArray, other arrays themselves."""
    return data.array if data.__class__ is SymbolicArray else data


def sized(known: TensorType, array: Any) -> Any:
    """Return an array as one of a type, which may be symbolic."""
    return SymbolicArray(known, array) if mentions(known.shape) else array


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


ROWS: Final = "rows"


def fresh(data: Any, like: Any = None) -> Any:
    """Return a copy of an array that lies as it does, as the array `like` does, or in `ROWS`."""
    if data.__class__ is AbstractArray:
        return data
    array = bare(data)
    if like is ROWS:
        made = array.copy(order="C")
    else:
        made = copy_as(array, array if like is None else bare(like))
    return SymbolicArray(data.type, made) if data.__class__ is SymbolicArray else made
