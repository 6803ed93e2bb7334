"""Activation checkpointing, by PyTorch's names: the function simply runs.

PyTorch trades time for memory here. The results and gradients are the same without that, also for
functions with random numbers, and a trace needs no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def checkpoint(
    function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
    context_fn: Any = None, determinism_check: str = "default", debug: bool = False,
    preserve_rng_state: bool = True, **kwargs: Any,
) -> Any:  # fmt: skip
    """Return `function(*args, **kwargs)`; the options are accepted and change nothing."""
    return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Iterable[Callable[[Any], Any]], segments: int, input: Any,
    use_reentrant: bool | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Return the input passed through the functions one after the other."""
    for function in functions:
        input = function(input)
    return input
