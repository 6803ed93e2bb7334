"""Activation checkpointing, by PyTorch's names: the function simply runs.

PyTorch trades time for memory here. The results and gradients are the same without that, also for
functions with random numbers, and a trace needs no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from tracegraph import cuda
from tracegraph.eager.tensors import Tensor


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


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs, tensors among them without their history."""
    return tuple(
        x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs
    )


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """Return the CUDA devices of the tensors, and their random states."""
    devices = sorted({x.device.index or 0 for x in args if isinstance(x, Tensor) and x.is_cuda})
    return devices, [cuda.get_rng_state(device) for device in devices]


def set_device_states(
    devices: Sequence[int], states: Sequence[Tensor], *, device_type: str | None = None
) -> None:
    """Put back what `get_device_states` returned."""
    for device, state in zip(devices, states, strict=True):
        cuda.set_rng_state(state, device)


def noop_context_fn() -> tuple[Any, Any]:
    """Return two contexts that do nothing."""
    return nullcontext(), nullcontext()


@contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Change nothing: nothing is computed again."""
    yield


@contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Change nothing: nothing is computed again."""
    yield
