"""`compile` and what surrounds it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from tracegraph.eager import modes
from tracegraph.errors import OpError

F = TypeVar("F")


def compile(
    model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None,
    backend: Any = "inductor", mode: str | None = None, options: Any = None, disable: bool = False,
    limit: int = 64,
) -> Any:  # fmt: skip
    """Return a function (or module) that is traced as it is called, and replays what it traced.

    Each kind of arguments gets a graph: nesting, dtypes, Python values. Dims that differ from call
    to call are dynamic from the second size on. What the graph relied on is checked at each call: a
    path not seen before, or a Python value that changed, makes the graph wider or new. What cannot
    be traced runs eagerly. `f.explain()` tells what happened and why, `f.reset()` forgets it.

    Args:
        model: a function or module; without it a decorator is returned.
        fullgraph: raise the error of what cannot be traced instead of running it eagerly.
        dynamic: False gives each size a graph of its own.
        backend: `"eager"` runs everything as it is; other names are accepted.
        mode: accepted.
        options: accepted.
        disable: return the model as it is.
        limit: how many graphs are kept, the newest.

    Raises:
        OpError: both `mode` and `options` are given, as in PyTorch.
    """
    if mode is not None and options is not None:
        raise OpError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if model is None:
        return functools.partial(
            compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode,
            options=options, disable=disable, limit=limit,
        )  # fmt: skip
    if disable or backend == "eager":
        return model
    from tracegraph.capture.compiled import CompiledFunction
    from tracegraph.nn.modules.optimized import OptimizedModule, is_module

    compiled = CompiledFunction(model, fullgraph, limit, dynamic is not False)
    return OptimizedModule(model, compiled) if is_module(model) else as_function(compiled)


def as_function(compiled: Any) -> Any:
    """Return a compiled function as a Python function, so that it can be a method."""

    @functools.wraps(compiled.function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled(*args, **kwargs)

    made: Any = call
    made.explain, made.reset = compiled.explain, compiled.reset
    return made


def is_compiling() -> bool:
    """Whether a graph is being made of what runs."""
    return modes.recording > 0 and modes.RECORDER.get() is not None


is_dynamo_compiling = is_exporting = is_compiling


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Return the function as it is; with or without parentheses."""
    return _same if fn is None else fn


def _same(function: F) -> F:
    return function


allow_in_graph = assume_constant_result = _same


def reset() -> None:
    """Forget what was compiled: nothing."""


def cudagraph_mark_step_begin() -> None:
    """Do nothing."""


def set_stance(stance: str = "default", **options: Any) -> None:
    """Do nothing: all that is not traced runs eagerly."""


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """Names of compilers that `compile` knows: none."""
    return []


def substitute_in_graph(original_fn: Any, **options: Any) -> Callable[[F], F]:
    """Return a decorator that changes nothing: no Python source is translated."""
    return _same
