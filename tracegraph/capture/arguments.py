"""The arguments of a traced function: their names, leaves and the paths to these."""

from __future__ import annotations

import inspect
import types
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


def _parameters(function: Any) -> tuple[Sequence[str], str]:
    """Return the names of what a function takes by place, and of the rest, if there is one."""
    if hasattr(function, "__tracegraph_state__"):
        function = getattr(function, "forward", function)
    plain = function.__func__ if function.__class__ is types.MethodType else function
    if plain.__class__ is types.FunctionType and not plain.__dict__:  # as `inspect`, without it
        code = plain.__code__
        names, count = code.co_varnames, code.co_argcount
        rest = count + code.co_kwonlyargcount
        has_rest = code.co_flags & inspect.CO_VARARGS
        return names[plain is not function : count], names[rest] if has_rest else "args"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return (), "args"
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rests = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return [p.name for p in parameters if p.kind in by_place], rests[-1] if rests else "args"


def named(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], list[Any]]:
    """Return argument names (positional first, then by keyword) and values."""
    plain, rest = _parameters(function)
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
