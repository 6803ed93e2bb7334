"""`repr` of tensors, laid out as PyTorch does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegraph.devices import device_of
from tracegraph.dtypes import COMPLEX_KIND, FLOAT_KIND, bool_, get_default_dtype, int64
from tracegraph.eager.dispatch import refresh
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tape import AccumulateGrad
from tracegraph.eager.tensors import Tensor, type_of


class _Options:
    precision = 4
    threshold = 1000
    edgeitems = 3
    linewidth = 80


def set_printoptions(
    precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """Set digits after the point, the size that is summarised, its edge, and the line width."""
    for name, value in (
        ("precision", precision), ("threshold", threshold), ("edgeitems", edgeitems),
        ("linewidth", linewidth),
    ):  # fmt: skip
        if value is not None:
            setattr(_Options, name, value)


def _number_format(values: Any) -> Any:
    """Return a function from number to text for all shown values of a float tensor."""
    finite = np.abs(values[np.isfinite(values) & (values != 0)]).astype(np.float64)
    digits = _Options.precision
    if finite.size == 0:
        return lambda v: f"{v:.0f}." if math.isfinite(v) else str(float(v))
    whole = bool(np.all(finite == np.ceil(finite)))
    high, low = float(finite.max()), float(finite.min())
    if high / low > 1000.0 or high > 1.0e8 or (not whole and low < 1.0e-4):
        return lambda v: f"{v:.{digits}e}" if math.isfinite(v) else str(float(v))
    if whole:
        return lambda v: f"{v:.0f}." if math.isfinite(v) else str(float(v))
    return lambda v: f"{v:.{digits}f}" if math.isfinite(v) else str(float(v))


def _complex_format(values: Any) -> tuple[Any, int]:
    """Return a function from complex number to text, whose parts have each their own format.

    And the width that lines are broken by: as in PyTorch, without the sign between the parts.
    """
    real, imag = (_number_format(part) for part in (values.real, values.imag))
    width, rest = (
        max((len(show(v)) for v in part.tolist() if v and math.isfinite(v)), default=1)
        for show, part in ((real, values.real), (imag, values.imag))
    )

    def show(v: complex) -> str:
        end = imag(v.imag)
        return real(v.real).rjust(width) + ("" if end.startswith("-") else "+") + end + "j"

    return show, width + rest + 1


def _summarised(array: Any) -> Any:
    """The elements that are shown, flat."""
    edge = _Options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            keep = np.r_[0:edge, n - edge : n]
            array = np.take(array, keep, axis=axis)
    return array


def _lines(array: Any, show: Any, indent: int, summarise: bool, width: int) -> str:
    if array.ndim == 0:
        return str(show(array.item()))
    edge = _Options.edgeitems
    cut = summarise and array.shape[0] > 2 * edge
    if array.ndim == 1:
        items = [show(v) for v in (array if not cut else array[:edge]).tolist()]
        if cut:
            items += [" ..."] + [show(v) for v in array[-edge:].tolist()]
        return _wrap_items(items, indent, width)

    def inner(parts: Any) -> list[str]:
        return [_lines(a, show, indent + 1, summarise, width) for a in parts]

    rows = inner(array[:edge] if cut else array)
    if cut:
        rows += ["...", *inner(array[-edge:])]
    gap = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return "[" + gap.join(rows) + "]"


def _wrap_items(items: list[str], indent: int, width: int) -> str:
    """Break a row of numbers at the line width."""
    if not items:
        return "[]"
    per_line = max(1, (_Options.linewidth - indent) // (width + 2))
    chunks = [items[i : i + per_line] for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(", ".join(c) for c in chunks) + "]"


def tensor_text(t: Tensor, prefix: str = "tensor(") -> str:
    """Return the numbers of a tensor as PyTorch prints them."""
    array = t._data.get() if hasattr(t._data, "get") else t._data
    kind = type_of(t).dtype.kind
    summarise = array.size > _Options.threshold
    if kind == FLOAT_KIND:
        shown = (_summarised(array) if summarise else array).astype(np.float64)
        show = _number_format(shown.reshape(-1))
        array = array.astype(np.float64)
    elif kind == COMPLEX_KIND:
        shown = (_summarised(array) if summarise else array).astype(np.complex128)
        show, width = _complex_format(shown.reshape(-1))
        return _lines(array.astype(np.complex128), show, len(prefix), summarise, width)
    else:
        show = str
        shown = _summarised(array) if summarise else array
    width = max((len(show(v)) for v in shown.reshape(-1).tolist()), default=0)
    pad = (lambda v: show(v).rjust(width)) if array.ndim else show
    return _lines(array, pad, len(prefix), summarise, width)


def tensor_repr(t: Tensor) -> str:
    """Return `tensor([4., 9.], grad_fn=<PowBackward0>)` and the like."""
    refresh(t)
    known = type_of(t)
    if t._data.__class__ is AbstractArray:
        return f"tensor(..., shape={tuple(known.shape)}, dtype={known.dtype})"
    body = tensor_text(t)
    notes = []
    if known.size == 0 and known.ndim != 1:
        body = "[]"
        notes.append(f"size={tuple(known.shape)}")
    device = device_of(t._data)
    if device.type != "cpu":
        notes.append(f"device='{device}'")
    usual = (get_default_dtype(), get_default_dtype().to_complex(), int64, bool_)
    if known.dtype not in usual or (known.size == 0 and known.dtype is not get_default_dtype()):
        notes.append(f"dtype={known.dtype}")
    if t._node.__class__ is AccumulateGrad:
        notes.append("requires_grad=True")
    elif t._node is not None:
        notes.append(f"grad_fn=<{t._node.name()}>")
    return f"tensor({', '.join([body, *notes])})"
