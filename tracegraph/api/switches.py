"""Global switches by PyTorch's names. What is computed here is the same with and without them.

Results are always deterministic and float32 products never use fewer bits, so these keep what a
program says and give it back.
"""

from __future__ import annotations

import os
from typing import Any

from tracegraph.api.legacy import TYPES
from tracegraph.dtypes import FLOAT_KIND, DType, set_default_dtype
from tracegraph.errors import OpError

_PRECISIONS = ("highest", "high", "medium")
_DEBUG_MODES = ("default", "warn", "error")


class _Said:
    deterministic = False
    warn_only = False
    precision = "highest"
    warn_always = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for deterministic algorithms: there are no others here."""
    _Said.deterministic, _Said.warn_only = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms(True)` was called."""
    return _Said.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether the program asked for warnings only."""
    return _Said.deterministic and _Said.warn_only


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Say the same as `use_deterministic_algorithms` by a number or a word.

    Raises:
        OpError: neither "default", "warn", "error" nor 0, 1, 2.
    """
    if debug_mode not in (*_DEBUG_MODES, 0, 1, 2):
        raise OpError(f"invalid value of debug_mode, expected default, warn, error, {debug_mode!r}")
    level = _DEBUG_MODES.index(debug_mode) if isinstance(debug_mode, str) else debug_mode
    use_deterministic_algorithms(level > 0, warn_only=level == 1)


def get_deterministic_debug_mode() -> int:
    """Return 0, 1 or 2: off, warnings, errors."""
    return _Said.deterministic * (1 if _Said.warn_only else 2)


def set_float32_matmul_precision(precision: str) -> None:
    """Set how exact float32 products must be at least; they are always computed in float32.

    Raises:
        OpError: neither "highest", "high" nor "medium".
    """
    if precision not in _PRECISIONS:
        raise OpError(f"{precision!r} is not one of {_PRECISIONS}")
    _Said.precision = precision


def get_float32_matmul_precision() -> str:
    """Return what `set_float32_matmul_precision` was told."""
    return _Said.precision


def set_flush_denormal(mode: bool) -> bool:
    """Return False: subnormal numbers are always kept."""
    return False


def set_warn_always(b: bool, /) -> None:
    """Set whether warnings of PyTorch repeat; none are given here."""
    _Said.warn_always = bool(b)


def is_warn_always_enabled() -> bool:
    """Return what `set_warn_always` was told."""
    return _Said.warn_always


def set_num_interop_threads(count: int, /) -> None:
    """Do nothing: programs of a graph share one pool of threads."""


def get_num_interop_threads() -> int:
    """Number of processors."""
    return os.cpu_count() or 1


def set_default_tensor_type(t: Any, /) -> None:
    """Make the dtype of `FloatTensor`, `DoubleTensor`, ... the default one.

    Raises:
        TypeError: `t` is no such type, or not one of floats.
    """
    kind = TYPES.get(t.removeprefix("torch.")) if isinstance(t, str) else t
    dtype = getattr(kind, "dtype", None)
    if not isinstance(dtype, DType) or dtype.kind != FLOAT_KIND:
        raise TypeError(f"only floating-point types are supported as the default type, got {t!r}")
    set_default_dtype(dtype)
