"""What is refused of places that hold other tensors after a traced call than before it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tracegraph.capture.places import Part, Place
from tracegraph.eager.storage import Storage, bare
from tracegraph.eager.tensors import Tensor, storage_of, type_of
from tracegraph.errors import TraceError


def check_views(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Refuse places that hold another view of the memory that they held."""
    for path, t in before.items():
        now = after.get(path, t)
        if now is t or storage_of(now) is not storage_of(t) or _layout(now) == _layout(t):
            continue
        raise TraceError(
            f"{path} holds another view of its own memory after the traced call: a replay "
            "could not follow it; clone() the view"
        )


def _layout(t: Tensor) -> Any:
    """Where the elements of a tensor lie."""
    x = bare(t._data)
    first = x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else x.data.ptr
    return type_of(t), [s for s, n in zip(x.strides, x.shape, strict=True) if n > 1], first


def check_sharing(tensors: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> None:
    """Refuse places that come to share memory, or cease to, where a replay could not follow."""
    remedy = "write to it in place (copy_), or clone() what should not be shared"
    homes: dict[Storage, tuple[str, Storage]] = {}
    origins: dict[Storage, tuple[str, Storage]] = {}
    for path, t in tensors.items():
        before, after = storage_of(t), storage_of(moved.get(path, t))
        other, home = homes.setdefault(before, (path, after))
        if home is not after:
            path, other = (path, other) if path in moved else (other, path)
            raise TraceError(
                f"{path} holds another tensor after the traced call, but {other} does not: "
                f"they shared memory; {remedy}"
            )
        other, origin = origins.setdefault(after, (path, before))
        if origin is not before:
            raise TraceError(
                f"{path} and {other} share memory after the traced call, which they did not "
                f"before it: a write to one of them would change both; {remedy}"
            )


def check_gradients(tensors: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> None:
    """Refuse tensors with a gradient in places that held none with one: replays put none there."""
    for path, now in moved.items():
        if now._grad is not None and f"{path}.grad" not in tensors:
            raise TraceError(
                f"{path} holds a tensor with a .grad after the traced call, and held one without: "
                "a replay would not give it one. Set it to None, or call the function once before "
                "you trace it"
            )


def check_parts(path: str, place: Place | None) -> None:
    """Refuse another sparse tensor in the place of one: a replay puts tensors there, no parts.

    Raises:
        TraceError: the place is that of a sparse tensor's part.
    """
    if place is not None and isinstance(place.container, Part):
        raise TraceError(
            f"{path} is of another sparse tensor after the traced call, which a replay would not "
            "put there: write to its values() in place, or return the new one"
        )


class Left(NamedTuple):
    """A place that holds another tensor after the call, `now`.

    A replay writes the new value into the memory that it left if that `is_kept`.
    """

    path: str
    before: Tensor
    now: Tensor
    is_kept: bool


def check_left_behind(known: Iterable[Tensor], places: Iterable[Left]) -> None:
    """Refuse memory that places left where others look at it, and a replay would not do the same.

    If it is not kept, the call has written into it.
    """
    ids = {id(t) for t in known}
    for path, before, now, is_kept in places:
        holders = (r for r in gc.get_referrers(storage_of(before)) if isinstance(r, Tensor))
        others = {id(holder) for holder in holders} - ids
        if not others or others <= _on_tape(now):
            continue
        told = "a replay writes the new value there" if is_kept else "a replay does not write there"
        raise TraceError(
            f"{path} holds another tensor after the traced call, and a tensor that the function "
            f"does not know shares the memory that it left: {told}. Write the new value in place "
            "(copy_), or let nothing else share that memory (clone())"
        )


def _on_tape(t: Tensor) -> set[int]:
    """The ids of the tensors that the gradient history of a tensor keeps."""
    found: set[int] = set()
    nodes, stack = set(), [t._node]
    while stack:
        node = stack.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        stack += [edge[0] for edge in node.edges if edge is not None]
        for kept in getattr(node, "saved", None) or ():
            found.update(map(id, kept if isinstance(kept, (tuple, list)) else (kept,)))
    return found
