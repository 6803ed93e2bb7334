"""What copies of PyTorch's own functions import for a compiler of Python; types and no-ops here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Dict, Final, List, Optional, Tuple, Union  # noqa: UP035

from tracegraph.jit import _overload, _overload_method, export, ignore, is_scripting, unused

__all__ = [
    "Any", "BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Dict", "Final", "List",
    "Optional", "Tuple", "Union", "_overload", "_overload_method", "boolean_dispatch", "export",
    "ignore", "is_scripting", "unused",
]  # fmt: skip

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list


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
