"""The arguments of a traced function: their names, leaves and the paths to these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tracegraph import pytree
from tracegraph.dims.symint import SymInt
from tracegraph.eager.tensors import Tensor
from tracegraph.ops.parameters import positional_names

SCALARS = (bool, int, float, str)
_LEAVES: Final = (Tensor, np.ndarray, np.generic, SymInt, *SCALARS)


def is_leaf(value: Any) -> bool:
    """Whether a value is a leaf of nested inputs or outputs."""
    return isinstance(value, _LEAVES)


def as_arguments(example_inputs: Any) -> tuple[Any, ...]:
    """Return example inputs as a tuple of arguments; one tensor is one argument."""
    if isinstance(example_inputs, (tuple, list)) and not hasattr(example_inputs, "_fields"):
        return tuple(example_inputs)
    return (example_inputs,)


def name_of(function: Any) -> str:
    """Return the name of a function, or of a module's class."""
    return getattr(function, "__name__", type(function).__name__)


def named(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], list[Any]]:
    """Return argument names (positional first, then by keyword) and values."""
    if hasattr(function, "__tracegraph_state__"):
        function = getattr(function, "forward", function)
    try:
        plain, rest = positional_names(function)
    except (TypeError, ValueError):
        plain, rest = (), "args"
    more = [f"{rest}{i}" for i in range(len(args) - len(plain))]
    return [*plain[: len(args)], *more, *kwargs], [*args, *kwargs.values()]


def leaf_paths(names: Sequence[str], tree: pytree.Tree) -> list[str]:
    """Return a readable path for every leaf of the inputs, a tuple with these names, in order."""
    paths: list[str] = []
    for name, child in zip(names, tree["tuple"], strict=True):
        _add_paths(child, name, paths)
    return paths


def _add_paths(tree: pytree.Tree, path: str, paths: list[str]) -> None:
    if "leaf" in tree:
        paths.append(path)
    elif "dict" in tree:
        for key, child in tree["dict"]:
            _add_paths(child, f"{path}.{key}", paths)
    elif "items" in tree:
        for field, child in zip(tree["fields"], tree["items"], strict=True):
            _add_paths(child, f"{path}.{field}", paths)
    else:
        for i, child in enumerate(tree.get("tuple") or tree.get("list") or ()):
            _add_paths(child, f"{path}.{i}", paths)
