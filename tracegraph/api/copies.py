"""`view_copy`, `expand_copy`, ...: views as fresh memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.api import rearrangement, selection, shape
from tracegraph.eager.engine import clone
from tracegraph.eager.storage import ROWS


def _copying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def copying(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, (tuple, list)):
            return type(result)([clone(x, ROWS) for x in result])
        return clone(result, ROWS)

    copying.__name__ = f"{name}_copy"
    copying.__doc__ = f"Return what `{name}` does, in fresh memory and in rows."
    return copying


as_strided_copy = _copying("as_strided", rearrangement.as_strided)
diagonal_copy = _copying("diagonal", shape.diagonal)
expand_copy = _copying("expand", shape.expand)
narrow_copy = _copying("narrow", selection.narrow)
permute_copy = _copying("permute", shape.permute)
split_copy = _copying("split", shape.split)
split_with_sizes_copy = _copying("split_with_sizes", shape.split_with_sizes)
squeeze_copy = _copying("squeeze", shape.squeeze)
t_copy = _copying("t", shape.t)
transpose_copy = _copying("transpose", shape.transpose)
unbind_copy = _copying("unbind", shape.unbind)
unfold_copy = _copying("unfold", rearrangement.unfold)
unsqueeze_copy = _copying("unsqueeze", shape.unsqueeze)
view_copy = _copying("view", shape.reshape)
alias_copy = _copying("alias", lambda input: input)
