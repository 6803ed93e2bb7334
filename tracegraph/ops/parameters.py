"""Names of parameters, read from a function's code: `inspect.signature` takes 60 times as long.

At import they are asked for of every op, gradient rule and public function, and by each trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
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


def positional_names(function: Callable[..., Any]) -> tuple[tuple[str, ...], str]:
    """Return the names of what may be given by place, and what to call the rest ("args" if none).

    Raises:
        TypeError: this cannot be called.
        ValueError: nothing tells its parameters.
    """
    is_bound = function.__class__ is MethodType
    plain = _plain(function.__func__ if is_bound else function)  # type: ignore[attr-defined]
    if plain is not None:
        code = plain.__code__
        names, count = code.co_varnames, code.co_argcount
        has_rest = code.co_flags & inspect.CO_VARARGS
        rest = names[count + code.co_kwonlyargcount] if has_rest else "args"
        return names[is_bound:count], rest
    parameters = inspect.signature(function).parameters.values()
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    return tuple(p.name for p in parameters if p.kind in by_place), rest


def _plain(function: Any) -> FunctionType | None:
    """Return the function that one wraps, or itself; None if it is something else."""
    while function.__class__ is FunctionType:
        inner = function.__dict__.get("__wrapped__")
        if inner is None:
            return None if "__signature__" in function.__dict__ else function
        function = inner
    return None
