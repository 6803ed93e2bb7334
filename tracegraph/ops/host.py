"""Calls of Python functions that a graph cannot hold: they are named by import path.

A function runs only if this process was told of it, by `host_call` itself or by `load(...,
allow_host_calls=[...])`; what a file says is never imported or called for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import numpy as np

from tracegraph.dtypes import FLOAT_KIND, DType
from tracegraph.errors import AutogradError, OpError
from tracegraph.ops.core import EFFECT, Joint, define
from tracegraph.tensor_type import TensorType

Types = tuple[tuple[DType, tuple[int, ...]], ...]

_KNOWN: Final[dict[str, Callable[..., Any]]] = {}


def path_of(function: Callable[..., Any]) -> str:
    """Return `module:qualname` of a function that can be imported, and note that it may run.

    Raises:
        OpError: it is a lambda, a closure, a method or of the script that runs.
    """
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    path = f"{module}:{name}"
    if (
        module in (None, "__main__")
        or name is None
        or _KNOWN.get(path, _find(path)) is not function
    ):
        raise OpError(
            f"{function!r} cannot be named by an import path: give a function at the top of a "
            "module that can be imported, no lambda, closure, method or function of the script "
            "that runs"
        )
    _KNOWN[path] = function
    return path


def _find(path: str) -> Any:
    """Import what a path names; None if there is no such thing."""
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return None if isinstance(found, ModuleType) else found


def permit(path: str) -> None:
    """Let graphs call the function at an import path; imports its module.

    Raises:
        OpError: there is no such function.
    """
    function = _find(path)
    if not callable(function):
        raise OpError(f"{path!r} is no function that can be imported (as 'module:name')")
    _KNOWN[path] = function


def call(path: str, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Call a function on host arrays that it cannot write to; returns fresh arrays.

    Raises:
        OpError: this process was not told of it.
    """
    function = _KNOWN.get(path)
    if function is None:
        raise OpError(
            f"the graph calls the Python function {path}, which was not allowed: load the file "
            f"with allow_host_calls=[{path!r}] if you trust it"
        )
    given = []
    for array in arrays:
        host = array.get() if hasattr(array, "get") else np.asarray(array).view()
        host.flags.writeable = False
        given.append(host)
    results = function(*given)
    many = results if isinstance(results, (tuple, list)) else (results,)
    return tuple(np.array(r, order="C") for r in many)


def _type(*xs: TensorType, function: str, types: Types, vjp: Any) -> tuple[TensorType, ...]:
    if not isinstance(vjp, (str, type(None))):
        raise OpError(f"vjp is an import path or None, not {vjp!r:.60}")
    for item in types:
        if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], DType):
            raise OpError(f"a result type is a dtype with a shape, not {item!r:.60}")
    return tuple(TensorType(dtype, shape) for dtype, shape in types)


def _kernel(xp: Any, *xs: Any, function: str, types: Types, vjp: Any) -> tuple[Any, ...]:
    results = call(function, xs)
    if len(results) != len(types):
        raise OpError(f"{function} returned {len(results)} results, not {len(types)}")
    for result, (dtype, shape) in zip(results, types, strict=True):
        if result.dtype != dtype.np or result.shape != tuple(shape):
            raise OpError(
                f"{function} returned {result.dtype}{list(result.shape)}, not "
                f"{TensorType(dtype, tuple(shape))}"
            )
    return tuple(map(xp.asarray, results))


def _vjp(
    m: Any, g: Any, xs: tuple[Any, ...], xs_type: tuple[TensorType, ...], needs: Any,
    function: str, types: Types, vjp: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The gradients that the function at `vjp` gives: one for each operand of floats."""
    if vjp is None:
        raise AutogradError(
            f"{function} has no gradient: give host_call(..., vjp=function), or detach() its "
            "operands"
        )
    floats = [dtype.kind == FLOAT_KIND for dtype, _ in types]
    gradients = g if isinstance(g, (tuple, list)) else (g,)
    arriving = [x for x, is_float in zip(gradients, floats, strict=True) if is_float]
    wanted = tuple((t.dtype, t.shape) for t in xs_type if t.dtype.kind == FLOAT_KIND)
    found = iter(m.host_call(*xs, *arriving, function=vjp, types=wanted, vjp=None))
    return tuple(next(found) if t.dtype.kind == FLOAT_KIND else None for t in xs_type)


host_call = define(
    "host_call(*xs) -> *ys", type=_type, kernel=_kernel, vjp=Joint(_vjp), traits=(EFFECT,),
    doc="What a Python function, named `module:qualname`, makes of host arrays; runs each time.",
)  # fmt: skip
