"""Evenly spaced numbers. `dtype` defaults as in PyTorch."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api.creation import count_up, finish, full_like, tensor
from tracegraph.devices import device_of
from tracegraph.dims.symint import SymInt, as_size, fix, larger
from tracegraph.dtypes import DType, dtype_of, float64, get_default_dtype, int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError


def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Return start, start+step, ... below `end`: ceil((end − start) / step) values.

    Raises:
        OpError: a step of 0 or one that leads away from `end`.
    """
    if end is None:
        start, end = 0, start
    start, end, step = _counts(start, end, step)
    if step == 0 or (end - start) * step < 0:
        raise OpError("upper bound and lower bound inconsistent with step sign or step is 0")
    floating = any(isinstance(x, float) for x in (start, end, step))
    if floating and not all(map(math.isfinite, (start, end, step))):
        raise OpError(f"unsupported range: {start} -> {end}")
    wanted = dtype_of(dtype) if dtype is not None else get_default_dtype() if floating else int64
    size = math.ceil((end - start) / step) if floating else -as_size((start - end) // step)
    return finish(count_up(size, start, step, wanted, device), requires_grad)


def _counts(*numbers: Any) -> list[Any]:
    """Return what a range is made of as numbers; symbolic sizes stay so among whole numbers."""
    plain = [x.item() if isinstance(x, Tensor) else x for x in numbers]
    floating = any(isinstance(x, float) for x in plain)
    return [fix(x) if floating and x.__class__ is SymInt else x for x in plain]


def _between(start: Any, end: Any, steps: int, dtype: DType) -> Tensor:
    """`linspace` with 0-d tensors as ends, computed in float64."""
    ends = [x if isinstance(x, Tensor) else tensor(x) for x in (start, end)]
    if any(x.ndim for x in ends):
        raise OpError("linspace only supports 0-dimensional start and end tensors")
    first, last = (front.cast(x, dtype=float64) for x in ends)
    places = count_up(steps, 0, 1, float64, device_of(first._data))
    step = (last - first) / larger(steps - 1, 1)
    low, high = first + places * step, last - (steps - 1 - places) * step
    t: Tensor = front.where(places < (steps + 1) // 2, low, high)
    return front.cast(t, dtype=dtype)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: DType | None = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Return `steps` evenly spaced values from start to end, both included."""
    if steps < 0:
        raise OpError("number of steps must be non-negative")
    wanted = dtype_of(dtype) if dtype is not None else get_default_dtype()
    if any(isinstance(x, (Tensor, SymInt)) for x in (start, end, steps)):
        return finish(_between(start, end, steps, wanted), requires_grad)
    start, end = float(start), float(end)
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    half = (steps + 1) // 2
    low = count_up(half, start, step, wanted, device)
    high = count_up(steps - half, end - step * (steps - half - 1), step, wanted, device)
    t: Tensor = front.cat(low, high, dim=0) if steps > 1 else low
    return finish(t, requires_grad)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: DType | None = None,
    device: Any = None, requires_grad: bool = False, layout: Any = None,
) -> Tensor:  # fmt: skip
    """Return base to the powers of `steps` evenly spaced exponents, both ends included."""
    wanted = dtype_of(dtype) if dtype is not None else get_default_dtype()
    powers = linspace(start, end, steps, dtype=float64, device=device)
    t: Tensor = front.cast(front.exp2(powers * math.log2(base)), dtype=wanted)
    if base <= 0:
        t = front.cast(full_like(powers, base) ** powers, dtype=wanted)
    return finish(t, requires_grad)


def range(
    start: Any = 0, end: Any = None, step: Any = 1, *, dtype: DType | None = None,
    device: Any = None, requires_grad: bool = False, layout: Any = None,
) -> Tensor:  # fmt: skip
    """Return start, start+step, ... up to and with `end`, as floats by default."""
    start, end, step = _counts(start, end, step)
    whole = not any(isinstance(x, float) for x in (start, end, step))
    size = ((end - start) // step if whole else math.floor((end - start) / step)) + 1
    wanted = dtype_of(dtype) if dtype is not None else get_default_dtype()
    return finish(count_up(size, start, step, wanted, device), requires_grad)
