"""Mixed precision, by PyTorch's names, without effect: everything is computed in its own dtype.

Programs that use autocast and a gradient scaler run unchanged, in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tracegraph.dtypes import DType, bfloat16, float16
from tracegraph.eager.tensors import Tensor
from tracegraph.module_names import also_named


class autocast:  # noqa: N801
    """A context manager and decorator that changes nothing."""

    def __init__(
        self, device_type: str = "cuda", dtype: DType | None = None, enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:  # fmt: skip
        self.device = device_type
        self.fast_dtype = dtype or (bfloat16 if device_type == "cpu" else float16)

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is."""
        return function


class GradScaler:
    """Scales by 1: `step` is the optimizer's own step."""

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        self._enabled = enabled

    def scale(self, outputs: Any) -> Any:
        """Return the outputs."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Leave the gradients as they are."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Return `optimizer.step(...)`."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Leave the scale at 1."""

    def get_scale(self) -> float:
        """Return 1."""
        return 1.0

    def is_enabled(self) -> bool:
        """Whether the program asked for scaling."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take any saved state; there is nothing to keep."""


def custom_fwd(function: Any = None, *, device_type: str = "cuda", cast_inputs: Any = None) -> Any:
    """Return the forward method of a user's Function; with `cast_inputs`, its floats are cast."""
    if function is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    if cast_inputs is None:
        return function

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        cast = [
            a.to(cast_inputs) if isinstance(a, Tensor) and a.is_floating_point() else a
            for a in args
        ]
        return function(*cast, **kwargs)

    return wrapped


def custom_bwd(function: Any = None, *, device_type: str = "cuda") -> Any:
    """Return the backward method of a user's Function."""
    return functools.partial(custom_bwd, device_type=device_type) if function is None else function


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast can be entered: always."""
    return True


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast changes dtypes: never."""
    return False


def get_autocast_dtype(device_type: str = "cuda") -> DType:
    """Return the dtype that PyTorch would compute in."""
    return bfloat16 if device_type == "cpu" else float16


def get_autocast_gpu_dtype() -> DType:
    """Return the dtype that PyTorch would compute in on a GPU."""
    return float16


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast changes dtypes: never."""
    return False


def is_autocast_cache_enabled() -> bool:
    """Whether casts of Parameters are kept: there are none."""
    return False


def get_autocast_cpu_dtype() -> DType:
    """Return the dtype that PyTorch would compute in on a CPU."""
    return bfloat16


# PyTorch has a module for each of the two classes.
also_named(__name__, "autocast_mode grad_scaler")
