"""PyTorch's `jit` on top of `tracegraph.trace`, `save` and `load`.

There is no compiler of Python source: what `script` would translate is traced instead.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from typing import Final as Final

from tracegraph import _jit_internal
from tracegraph._jit_internal import _overload as _overload
from tracegraph._jit_internal import _overload_method as _overload_method
from tracegraph._jit_internal import export as export
from tracegraph._jit_internal import ignore as ignore
from tracegraph._jit_internal import is_scripting as is_scripting
from tracegraph._jit_internal import unused as unused
from tracegraph.capture.tracing import Traced
from tracegraph.capture.tracing import trace as _trace
from tracegraph.eager import modes
from tracegraph.errors import TraceError
from tracegraph.files import archive, saving
from tracegraph.module_names import also_named
from tracegraph.nn.modules.module import Module

F = TypeVar("F")


class ScriptModule(Module):
    """A module that runs as Python, like any other."""


RecursiveScriptModule = ScriptModule
ScriptFunction = Traced


class TracerWarning(UserWarning):
    """PyTorch's warning about values that a trace froze; here such values are errors."""


def trace(
    func: Callable[..., Any], example_inputs: Any = None, optimize: Any = None,
    check_trace: bool = True, check_inputs: Any = None, check_tolerance: float = 1e-5,
    strict: bool = True, example_kwarg_inputs: dict[str, Any] | None = None, **options: Any,
) -> Traced:  # fmt: skip
    """Return `tracegraph.trace(func, example_inputs)`, with its self-check unless it is not wanted.

    Raises:
        BakeError: a tensor's value would be frozen.
        TraceError: the function cannot be traced truthfully.
    """
    inputs = () if example_inputs is None else example_inputs
    return _trace(func, inputs, example_kwarg_inputs, check=None if check_trace else False)


def script(obj: F, *args: Any, **kwargs: Any) -> F:
    """Return a function or class as it is: it runs as Python, and is traced with its caller.

    Raises:
        TraceError: `obj` is a module, of which a script could be saved; trace it instead.
    """
    if isinstance(obj, Module):
        raise TraceError(
            f"jit.script cannot translate {type(obj).__name__}: use "
            "tracegraph.trace(module, example_inputs), and save what it returns"
        )
    return obj


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """Save a traced function; see `tracegraph.save`."""
    saving.save(m, f)


def load(f: Any, map_location: Any = None, _extra_files: Any = None, **options: Any) -> Any:
    """Load a saved trace; see `tracegraph.load`."""
    return archive.load(f, map_location=map_location)


class Future:
    """The result of a `fork`, which is there at once."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def wait(self) -> Any:
        """Return the result."""
        return self._result

    value = wait


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """Call the function; `wait` returns what it returned."""
    return Future(func(*args, **kwargs))


def wait(future: Future) -> Any:
    """Return the result of a `fork`."""
    return future.wait()


@contextmanager
def optimized_execution(should_optimize: bool) -> Iterator[None]:
    """Change nothing: Python runs as it is written."""
    yield


def is_tracing() -> bool:
    """Whether a trace is running in this context."""
    return modes.recording > 0 and modes.RECORDER.get() is not None


script_method = script_if_tracing = _script_if_tracing = unused


def Attribute(value: F, type: Any) -> F:  # noqa: N802
    """Return the value."""
    return value


def _unwrap_optional(x: F | None) -> F:
    if x is None:
        raise AssertionError("Unwrapping null optional")
    return x


def annotate(the_type: Any, the_value: F) -> F:
    """Return the value."""
    return the_value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Whether a value is of a type."""
    return builtins.isinstance(obj, target_type)


def freeze(mod: F, *args: Any, **kwargs: Any) -> F:
    """Return the traced module: constants are folded when it is compiled."""
    return mod


def optimize_for_inference(mod: F, *args: Any, **kwargs: Any) -> F:
    """Return the traced module: it is optimised when it is compiled."""
    return mod


also_named(__name__, "annotations", _jit_internal)
