"""Helpers for tests: comparing tensors, and making them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tracegraph.api.complex_numbers import view_as_complex
from tracegraph.api.creation import as_tensor, empty
from tracegraph.api.random import rand, randint
from tracegraph.dtypes import (
    BOOL_KIND,
    FLOAT_KIND,
    DType,
    bfloat16,
    complex128,
    float16,
    float32,
    float64,
)
from tracegraph.eager.tensors import Tensor, type_of

_TOLERANCES: dict[DType, tuple[float, float]] = {
    float16: (1e-3, 1e-5),
    bfloat16: (1.6e-2, 1e-5),
    float32: (1.3e-6, 1e-5),
    float64: (1e-7, 1e-7),
}


def assert_close(
    actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
    atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
    check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:  # fmt: skip
    """Raise unless two tensors, numbers, or nestings of them are close.

    |actual − expected| ≤ atol + rtol·|expected|, with tolerances that follow the dtype.

    Raises:
        AssertionError: saying how many elements differ, and where they differ most.
        ValueError: only one of `rtol` and `atol` is given.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified")
    fault = _difference(actual, expected, (rtol, atol), equal_nan, check_dtype, check_device, "")
    if fault:
        raise AssertionError(msg(fault) if callable(msg) else msg or fault)


def _difference(
    a: Any, b: Any, tolerance: Any, equal_nan: bool, check_dtype: bool, check_device: bool,
    path: str,
) -> str:  # fmt: skip
    """Return what differs, or an empty string."""
    rest = (tolerance, equal_nan, check_dtype, check_device)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            return f"The keys differ{path}: {sorted(map(str, a))} and {sorted(map(str, b))}"
        return next(filter(None, (_difference(a[k], b[k], *rest, f"{path}[{k!r}]") for k in a)), "")
    if _is_sequence(a) and _is_sequence(b):
        if len(a) != len(b):
            return f"The lengths differ{path}: {len(a)} and {len(b)}"
        pairs = enumerate(zip(a, b, strict=True))
        return next(
            filter(None, (_difference(x, y, *rest, f"{path}[{i}]") for i, (x, y) in pairs)), ""
        )
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        check_dtype = False
    x, y = (v.detach() if isinstance(v, Tensor) else as_tensor(v) for v in (a, b))
    place = f" at {path}" if path else ""
    if x.shape != y.shape:
        return f"The shapes differ{place}: {tuple(x.shape)} and {tuple(y.shape)}"
    if check_dtype and x.dtype is not y.dtype:
        return f"The dtypes differ{place}: {x.dtype} and {y.dtype}"
    if check_device and x.device != y.device:
        return f"The devices differ{place}: {x.device} and {y.device}"
    return _values(x, y, tolerance, equal_nan, place)


def _is_sequence(x: Any) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, (str, bytes))


def _tolerance(x: Tensor, y: Tensor, given: Any) -> tuple[float, float]:
    if given[0] is not None:
        return float(given[0]), float(given[1])
    found = [_TOLERANCES.get(type_of(t).dtype.to_real(), (0.0, 0.0)) for t in (x, y)]
    return max(r for r, _ in found), max(a for _, a in found)


def _values(x: Tensor, y: Tensor, given: Any, equal_nan: bool, place: str) -> str:
    rtol, atol = _tolerance(x, y, given)
    exact = max(type_of(x).dtype.kind, type_of(y).dtype.kind) < FLOAT_KIND
    wide = complex128 if x.is_complex() or y.is_complex() else float64
    a, b = (t.cpu().to(None if exact else wide).numpy() for t in (x, y))
    if a.dtype == np.bool_:
        a, b = a.astype(np.int64), b.astype(np.int64)
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
        close = (a == b) | (np.isfinite(b) & (gap <= atol + rtol * np.abs(b)))
        if equal_nan and not exact:
            close |= np.isnan(a) & np.isnan(b)
        if close.all():
            return ""
        worst = np.unravel_index(np.argmax(np.where(close, -1, np.nan_to_num(gap, nan=np.inf))),
                                 a.shape)  # fmt: skip
    return (
        f"Tensor-likes are not close{place}!\n\n"
        f"Mismatched elements: {int((~close).sum())} / {a.size}\n"
        f"Greatest absolute difference: {gap[worst]} at index {tuple(map(int, worst))} "
        f"(up to {atol} + {rtol} * |expected| allowed): {a[worst]} and {b[worst]}"
    )


def assert_allclose(actual: Any, expected: Any, rtol: Any = None, atol: Any = None) -> None:
    """Raise unless values are close, of whatever dtypes."""
    assert_close(actual, expected, rtol=rtol, atol=atol, check_dtype=False, equal_nan=True)


def make_tensor(
    *shape: Any, dtype: DType, device: Any = None, low: float | None = None,
    high: float | None = None, requires_grad: bool = False, noncontiguous: bool = False,
    exclude_zero: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Return random values of [low, high): [-9, 9) by default, [0, 10) for unsigned integers."""
    size = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if noncontiguous and size:
        size = (*size[:-1], size[-1] * 2)
    unsigned = dtype.kind < FLOAT_KIND and not dtype.is_signed
    low = (0 if unsigned else -9) if low is None else low
    high = (10 if unsigned else 9) if high is None else high
    if dtype.kind == BOOL_KIND:
        t = randint(0, 2, size, device=device).to(dtype)
    elif dtype.is_complex:
        pairs = make_tensor(*size, 2, dtype=dtype.to_real(), device=device, low=low, high=high)
        t = view_as_complex(pairs)
    elif dtype.kind == FLOAT_KIND:
        t = (rand(size, dtype=float64, device=device) * (high - low) + low).to(dtype)
    else:
        t = randint(int(low), int(high), size, device=device).to(dtype)
    if noncontiguous and size:
        wide = empty(size, dtype=dtype, device=device)
        wide.copy_(t)
        t = wide[..., ::2]
    if exclude_zero:
        t[t == 0] = 1
    return t.requires_grad_() if requires_grad else t
