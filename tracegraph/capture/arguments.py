"""The arguments of a traced function: their names, leaves and the paths to these."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph import pytree
from tracegraph.dims.symint import SymInt
from tracegraph.eager.tensors import Tensor

SCALARS = (bool, int, float, str)


def is_leaf(value: Any) -> bool:
    """Whether a value is a leaf of nested inputs or outputs."""
    return isinstance(value, (Tensor, np.ndarray, np.generic, SymInt, *SCALARS))


def as_arguments(example_inputs: Any) -> tuple[Any, ...]:
    """Return example inputs as a tuple of arguments; one tensor is one argument."""
    if isinstance(example_inputs, (tuple, list)) and not hasattr(example_inputs, "_fields"):
        return tuple(example_inputs)
    return (example_inputs,)


def name_of(function: Any) -> str:
    """Return the name of a function, or of a module's class."""
    return getattr(function, "__name__", type(function).__name__)


def _parameters(function: Any) -> list[inspect.Parameter]:
    if hasattr(function, "__tracegraph_state__"):
        function = getattr(function, "forward", function)
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def named(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], list[Any]]:
    """Return argument names (positional first, then by keyword) and values."""
    names: list[str] = []
    rest = "args"
    plain = []
    for p in _parameters(function):
        if p.kind is p.VAR_POSITIONAL:
            rest = p.name
        elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            plain.append(p.name)
    for i in range(len(args)):
        names.append(plain[i] if i < len(plain) else f"{rest}{i - len(plain)}")
    return [*names, *kwargs], [*args, *kwargs.values()]


def leaf_paths(names: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Return a readable path for every leaf of the inputs, in order."""
    paths: list[str] = []

    def descend(tree: pytree.Tree, path: str) -> None:
        if "leaf" in tree:
            paths.append(path)
        elif "dict" in tree:
            for key, child in tree["dict"]:
                descend(child, f"{path}.{key}")
        elif "items" in tree:
            for field, child in zip(tree["fields"], tree["items"], strict=True):
                descend(child, f"{path}.{field}")
        else:
            for i, child in enumerate(tree.get("tuple") or tree.get("list") or ()):
                descend(child, f"{path}.{i}")

    for name, value in zip(names, values, strict=True):
        _, tree = pytree.flatten(value, is_leaf, name)
        descend(tree, name)
    return paths
