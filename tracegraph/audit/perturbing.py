"""Other inputs of the same types: what the self-check calls a traced function with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from tracegraph.devices import device_of
from tracegraph.dims.symint import hint_of
from tracegraph.dtypes import BOOL_KIND, BY_NUMPY, COMPLEX_KIND, FLOAT_KIND, as_pairs, from_pairs
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap

_AMOUNT: Final = 0.1
_FLIPPED: Final = 0.25


class Perturbed:
    """Makes leaves of inputs into others: floats moved by a tenth within the range seen, integers
    in another order, some bools flipped. Memory that leaves share stays shared.

    `resized` maps the path of a leaf to new sizes by axis; such a leaf is repeated or cut.
    """  # noqa: D205

    def __init__(
        self, resized: Mapping[str, Mapping[int, int]] | None = None, seed: int = 0
    ) -> None:
        self._draw = np.random.default_rng(seed)
        self._resized = resized or {}
        self._wholes: dict[int, tuple[Any, Any]] = {}

    def leaf(self, x: Any, path: str) -> Any:
        """Return another leaf for one of the inputs; Python scalars stay as they are."""
        if isinstance(x, Tensor):
            made = wrap(self._tensor_data(x, path))
            return made.requires_grad_() if x.requires_grad else made
        if isinstance(x, np.ndarray) or hasattr(x, "__cuda_array_interface__"):
            return self._moved(self._sized(x, path))
        return x

    def _tensor_data(self, t: Tensor, path: str) -> Any:
        data = t._data
        whole = storage_of(t).array
        if path in self._resized:
            return self._moved(self._sized(data, path))
        if not isinstance(whole, np.ndarray) or not whole.flags.c_contiguous:
            return self._moved(data)
        known = self._wholes.get(id(whole))
        if known is None:
            known = self._wholes[id(whole)] = (whole, self._moved(whole))
        offset = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return np.ndarray(data.shape, data.dtype, known[1], offset, data.strides)

    def _sized(self, data: Any, path: str) -> Any:
        for axis, size in self._resized.get(path, {}).items():
            if data.shape[axis]:
                data = data.take(np.arange(size) % data.shape[axis], axis)
            else:
                shape = list(data.shape)
                shape[axis] = size
                data = np.ones(shape, data.dtype)
        return data

    def _moved(self, data: Any) -> Any:
        """Return other numbers of the same kind, as a fresh row-major array."""
        if not isinstance(data, np.ndarray):
            return device_of(data).place(self._moved(data.get()))
        kind = type_of(wrap(data)).dtype.kind
        if kind == FLOAT_KIND:
            return self._moved_floats(data)
        if kind == COMPLEX_KIND:
            return from_pairs(self._moved_floats(as_pairs(data)), BY_NUMPY[data.dtype])
        if kind == BOOL_KIND:
            return data ^ (self._draw.random(data.shape) < _FLIPPED)
        return self._draw.permutation(data.reshape(-1)).reshape(data.shape)

    def _moved_floats(self, data: Any) -> Any:
        values = np.asarray(data, np.float64)
        finite = values[np.isfinite(values)]
        amount = self._draw.uniform(-_AMOUNT, _AMOUNT, values.shape)
        if not finite.any():  # all zero, or nothing
            return np.where(values == 0, np.abs(amount), values).astype(data.dtype)
        low, high = finite.min(), finite.max()
        if low == high:
            moved = values * (1 - np.abs(amount))
        else:
            moved = np.clip(values * (1 + amount), low, high)
        return np.ascontiguousarray(np.where(np.isfinite(values), moved, values), data.dtype)


def other_sizes(
    declared: Mapping[str, Mapping[int, Any]], shapes: Mapping[str, Sequence[int]]
) -> list[dict[str, dict[int, int]]]:
    """Return other sizes of dynamic dims by input and axis, several to try one after another."""
    names = {d.name: d for axes in declared.values() for d in axes.values()}
    if not names:
        return []
    seen = {d.name: hint_of(shapes[path][axis]) for path, axes in declared.items()
            for axis, d in axes.items()}  # fmt: skip
    tries = []
    for factor, step in ((1, 1), (2, 0), (1, -1), (0.5, 0)):
        sizes = {}
        for name, dim in names.items():
            size = max(int(seen[name] * factor) + step, dim.min)
            sizes[name] = size if dim.max is None else min(size, dim.max)
        if sizes != seen and sizes not in tries:
            tries.append(sizes)
    return [{path: {axis: sizes[d.name] for axis, d in axes.items()}
             for path, axes in declared.items()} for sizes in tries]  # fmt: skip
