"""How inputs and State lie in memory, where a trace relied on it.

Whether `reshape` shares memory with its operand depends on the order of the operand's elements, and
a write tells the two apart. An order is written as the dims from the outermost to the innermost one
in memory, "1,0" of a transposed matrix; "|" stands behind a dim whose steps skip elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tracegraph.eager.storage import AbstractArray, bare
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import GuardError
from tracegraph.replay.signature import LeafSpec


class LayoutError(GuardError):
    """An input lies in another order than in the trace, which relied on it."""


class Layout(NamedTuple):
    """What a trace relied on for one input or State.

    The `orders` that examples had, whether skipped elements matter (`exact`), and the `place` where
    memory was written.
    """

    orders: tuple[str, ...]
    exact: bool
    place: str

    def refusal(self, array: Any) -> str | None:
        """Say how an array lies otherwise than the trace relied on; None if it does not."""
        array = bare(array)
        if array.__class__ is AbstractArray or array.size < 2:
            return None
        shape, order = array.shape, order_of(array)
        if not self.exact:
            shape = [n if s else 1 for n, s in zip(shape, array.strides, strict=True)]
        wanted = [_inside(known, shape, self.exact) for known in self.orders]
        if _inside(order, shape, self.exact) in wanted:
            return None
        return (
            "in memory in another order than when it was traced: its dims lie as "
            f"{order}, in the trace as {' or '.join(self.orders)} (from the outermost), and what "
            f"is written at {self.place} depends on it, since reshape, flatten and contiguous() "
            "give views or copies by it"
        )


def order_of(array: Any) -> str:
    """Return the order in which the elements of an array lie; that of rows names all dims."""
    if array.flags.c_contiguous:
        return ",".join(map(str, range(array.ndim)))
    strides = array.strides
    dims = [d for d, n in enumerate(array.shape) if n > 1]
    dims.sort(key=lambda d: (-abs(strides[d]), d))
    text, step = "", array.dtype.itemsize
    for d in reversed(dims):
        text = f"{d}{'' if strides[d] == step else '|'},{text}"
        step = strides[d] * array.shape[d]
    return text[:-1]


def orders_of(specs: Iterable[LeafSpec], tensors: Iterable[Tensor]) -> dict[str, str]:
    """Return the orders of input tensors by name."""
    names = [spec.name for spec in specs if spec.type is not None]
    return {n: order_of(bare(t._data)) for n, t in zip(names, tensors, strict=True)}


def _inside(order: str, shape: Sequence[int], exact: bool) -> str:
    """An order of the dims that have several elements."""
    found: list[str] = []
    for item in order.split(",") if order else ():
        dim = item.rstrip("|")
        if shape[int(dim)] > 1:
            found.append(item if exact else dim)
        elif exact and item != dim and found and found[-1][-1] != "|":
            found[-1] += "|"
    return ",".join(found)


def check_layouts(layouts: Mapping[str, Layout], given: Mapping[str, Any]) -> None:
    """Refuse inputs that lie in another order than a trace relied on.

    Raises:
        LayoutError: naming the input, the line that relied on it, and the remedy.
    """
    for name, layout in layouts.items():
        leaf = given[name]
        array = leaf._data if isinstance(leaf, Tensor) else leaf
        why = layout.refusal(array)
        if why is not None:
            rows = ",".join(map(str, range(array.ndim))) in layout.orders
            remedy = f"give {name}.contiguous()" if rows else "give one in that order"
            raise LayoutError(
                f"input {name!r} lies {why}; {remedy}, or trace with an example that lies so"
            )
