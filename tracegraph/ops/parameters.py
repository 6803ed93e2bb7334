"""Names of parameters, read from a function's code: `inspect.signature` takes 60 times as long.

At import they are asked for of every op, gradient rule and public function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any


def parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of all parameters, in the order of `inspect.signature`."""
    plain = _plain(function)
    if plain is None:
        return tuple(inspect.signature(function).parameters)
    code = plain.__code__
    names, plainly = code.co_varnames, code.co_argcount
    end = plainly + code.co_kwonlyargcount
    more = end + bool(code.co_flags & inspect.CO_VARARGS)
    last = more + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return (*names[:plainly], *names[end:more], *names[plainly:end], *names[more:last])


def keyword_only_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that are given by name alone."""
    plain = _plain(function)
    if plain is None:
        parameters = inspect.signature(function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    code = plain.__code__
    return code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]


def _plain(function: Any) -> FunctionType | None:
    """Return the function that one wraps, or itself; None if it is something else."""
    while function.__class__ is FunctionType:
        inner = function.__dict__.get("__wrapped__")
        if inner is None:
            return None if "__signature__" in function.__dict__ else function
        function = inner
    return None
