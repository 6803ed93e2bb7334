"""What copies of PyTorch's own functions import for a compiler of Python; types and no-ops here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Dict, Final, List, Optional, Tuple, TypeVar, Union  # noqa: UP035

__all__ = [
    "Any", "BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Dict", "Final", "List",
    "Optional", "Tuple", "Union", "_overload", "_overload_method", "boolean_dispatch", "export",
    "ignore", "is_scripting", "unused",
]  # fmt: skip

F = TypeVar("F")

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list


def is_scripting() -> bool:
    """Whether source is being translated: never."""
    return False


def ignore(drop: Any = False, **options: Any) -> Any:
    """Return the function as it is; with or without parentheses."""
    return drop if callable(drop) else unused


def unused(function: F) -> F:
    """Return the function as it is."""
    return function


export = _overload = _overload_method = unused


def boolean_dispatch(
    arg_name: str, arg_index: int, default: bool, if_true: Callable[..., Any],
    if_false: Callable[..., Any], module_name: str, func_name: str,
) -> Callable[..., Any]:  # fmt: skip
    """Return a function that calls one of two, as one of its arguments is true or false."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        given = args[arg_index] if arg_index < len(args) else kwargs.get(arg_name, default)
        return (if_true if given else if_false)(*args, **kwargs)

    chosen.__name__ = func_name
    return chosen
