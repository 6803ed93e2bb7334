"""`vmap`: a function of slices, called once for each, its results stacked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tracegraph.api.shape import select, stack
from tracegraph.eager.tensors import Tensor
from tracegraph.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


def _spread(axes: Any, spec: TreeSpec, what: str) -> list[Any]:
    """Return one axis per leaf: `axes` is nested like the leaves, or ends sooner.

    Raises:
        ValueError: it is nested in another way.
    """
    if axes is None or isinstance(axes, int):
        return [axes] * spec.num_leaves
    if spec.is_leaf() or len(axes) != len(spec.children):
        raise ValueError(f"vmap: {what} is not compatible with the structure of the values")
    named = isinstance(axes, dict) and isinstance(spec.context, list)
    parts = [axes[key] for key in spec.context] if named else list(axes)
    return [axis for part, child in zip(parts, spec.children, strict=True)
            for axis in _spread(part, child, what)]  # fmt: skip


def _batch_size(leaves: list[Any], axes: list[Any]) -> int:
    sizes = set()
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            continue
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap: Got in_dim={axis} for an input but the input is of type {type(leaf)}. We "
                "cannot vmap over non-Tensor arguments, please use None as the in_dim instead"
            )
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ValueError(f"vmap: Got in_dim={axis} for a tensor of dimension {leaf.ndim}")
        sizes.add(leaf.shape[axis])
    if not sizes:
        raise ValueError("vmap: at least one input must have an in_dim that is not None")
    if len(sizes) > 1:
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{sorted(sizes)} for the mapped dimension"
        )
    return int(next(iter(sizes)))


def _stacked(rows: list[list[Any]], axes: list[Any]) -> list[Any]:
    columns = []
    for column, axis in zip(zip(*rows, strict=True), axes, strict=True):
        if not all(isinstance(t, Tensor) for t in column):
            raise ValueError(
                f"vmap: the function must only return Tensors, got type {type(column[0])}. Did you "
                "mean to set out_dims= to None for output?"
            )
        columns.append(column[0] if axis is None else stack(column, axis))
    return columns


def vmap(
    func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """Return `func` mapped over a dim of its arguments (None, and named ones: whole each time).

    The function is called once per slice, so that it costs as much as a loop.

    Raises:
        ValueError: from the result, when dims and arguments do not fit.
    """

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten(args)
        axes = _spread(in_dims, spec, "in_dims")
        rows: list[list[Any]] = []
        out_spec: Any = None
        for i in range(_batch_size(leaves, axes)):
            items = [x if axis is None else select(x, axis, i)
                     for x, axis in zip(leaves, axes, strict=True)]  # fmt: skip
            row, out_spec = tree_flatten(func(*tree_unflatten(items, spec), **kwargs))
            rows.append(row)
        if not rows:
            raise ValueError("vmap: the mapped dimension has size 0")
        outs = _stacked(rows, _spread(out_dims, out_spec, "out_dims"))
        return tree_unflatten(outs, out_spec)

    return mapped
