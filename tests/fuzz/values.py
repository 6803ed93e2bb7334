"""Values of either module: flattened to compare, and who shares memory with whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import tracegraph as tg
from tests.fuzz.program import Box

Flat = dict[str, Any]


def array_of(t: Any) -> np.ndarray:
    return np.array(t._data if isinstance(t, tg.Tensor) else t.detach().numpy())


def _is_tensor(x: Any) -> bool:
    return hasattr(x, "requires_grad") and hasattr(x, "shape")


def flat(value: Any, path: str = "", grads: bool = False, into: Flat | None = None) -> Flat:
    """Return {path: leaf} of nested values; tensors as (array, requires_grad)."""
    into = {} if into is None else into
    if _is_tensor(value):
        into[path] = (array_of(value), value.requires_grad)
        if grads and value.is_leaf and value.grad is not None:
            flat(value.grad, path + ".grad", False, into)
    elif isinstance(value, Box):
        flat(vars(value), path, grads, into)
    elif isinstance(value, dict):
        into[path + "{}"] = list(value)
        for k, v in value.items():
            flat(v, f"{path}.{k}", grads, into)
    elif dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        into[path + "()"] = type(value).__name__  # a loaded dataclass is a namedtuple
        for name in getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]:
            flat(getattr(value, name), f"{path}.{name}", grads, into)
    elif isinstance(value, (list, tuple)):
        into[path + "[]"] = (type(value).__name__, len(value))
        for i, v in enumerate(value):
            flat(v, f"{path}.{i}", grads, into)
    else:
        into[path] = value
    return into


def difference(a: Flat, b: Flat, exact: bool, flags: bool, skip: str = "\0") -> str | None:
    """Say where two flat values differ (`flags`: requires_grad too, if not of nothing), or None."""
    scale = max(
        [1.0, *(float(np.max(np.abs(x[0]), initial=0, where=np.isfinite(x[0])))
                for x in (*a.values(), *b.values())
                if isinstance(x, tuple) and isinstance(x[0], np.ndarray)
                and x[0].dtype.kind == "f")]
    )  # fmt: skip
    for path in dict.fromkeys((*a, *b)):
        if skip in path:
            continue
        x, y = a.get(path, "nothing"), b.get(path, "nothing")
        if not (isinstance(x, tuple) and isinstance(x[0], np.ndarray)):
            if type(x) is not type(y) or x != y:
                return f"{path}: {_shown(x)} against {_shown(y)}"
            continue
        if not (isinstance(y, tuple) and isinstance(y[0], np.ndarray)):
            return f"{path}: {_shown(x)} against {_shown(y)}"
        if flags and x[1] != y[1] and x[0].size:
            return f"{path}: requires_grad {x[1]} against {y[1]}"
        if not _same(x[0], y[0], exact, scale):
            return f"{path}: {_shown(x)} against {_shown(y)}"
    return None


def _shown(x: Any) -> str:
    if isinstance(x, tuple) and isinstance(x[0], np.ndarray):
        return f"{x[0].dtype}{list(x[0].shape)} {np.array2string(x[0], threshold=20)}"
    return repr(x)


def _same(x: np.ndarray, y: np.ndarray, exact: bool, scale: float) -> bool:
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if exact:
        return bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))
    with np.errstate(all="ignore"):
        return bool(np.allclose(x, y, rtol=1e-7, atol=1e-9 * scale, equal_nan=True))


def share(a: Any, b: Any) -> bool:
    return bool(a._data.size) and np.may_share_memory(a._data, b._data)


def leaves(value: Any, grads: bool = True) -> list[Any]:
    """The tensors of nested values."""
    if _is_tensor(value):
        gradient = value.grad if grads and value.is_leaf else None
        return [value] if gradient is None else [value, gradient]
    if isinstance(value, Box):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if dataclasses.is_dataclass(value):
        value = [getattr(value, f.name) for f in dataclasses.fields(value)]
    return [t for v in value for t in leaves(v, grads)] if isinstance(value, (list, tuple)) else []


def identities(value: Any) -> list[int]:
    """Which objects hold State, gradients left out."""
    return [id(t) for t in leaves(value, grads=False)]
