"""What a recorder finds out about the operands of an op: Values, and numbers beside tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.capture.rows import RowValue
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor, dtype_of_data
from tracegraph.tensor_type import TensorType


class Operands:
    """The part of a Recorder that finds the Values that an op reads.

    `_scalars` are the constants for numbers, `_beside` the same by the dtype of the array beside,
    where equal numbers are one.
    """

    token: object
    graded: dict[Storage, Tensor]
    ungraded: set[int]
    value_of: Any
    read: Any
    _constant: Any

    def __init__(self) -> None:
        self._scalars: dict[Any, RowValue] = {}
        self._beside: dict[Any, dict[Any, RowValue]] = {}

    def _inputs(self, args: Sequence[Any], graded: bool) -> tuple[RowValue, ...]:
        """Return the Values that an op reads.

        A fresh result of this trace beside a number or tensor, as in a chain of arithmetic, goes
        first: no list and no loop are a tenth of what recording such an op takes.
        """
        if len(args) == 2:
            a, b = args
            if a.__class__ is Tensor and a._lineage is None and not a._chain:
                storage = a._storage
                note = None if storage is None else storage.entry
                if note.__class__ is tuple and note[0] is self.token:
                    value: RowValue = note[1]
                    if not graded or value[0] not in self.ungraded:
                        if b.__class__ is float:
                            known = self._beside.get(a._data.dtype)
                            if known is not None and b in known:
                                return value, known[b]
                        elif b.__class__ is Tensor:
                            return value, self._known(b, graded) or self._read(b, graded)
        found = []
        for a in args:
            if a.__class__ is Tensor:
                found.append(self._known(a, graded) or self._read(a, graded))
            elif a.__class__ is float or not isinstance(a, Tensor):
                if a is not None:
                    peer = args[0]
                    near = peer.__class__ is Tensor and self._beside.get(peer._data.dtype)
                    found.append((near and near.get(a)) or self._scalar(a, args))
            else:
                found.append(self._read(a, graded))
        return tuple(found)

    def _known(self, t: Tensor, graded: bool) -> RowValue | None:
        """Return the Value of a whole if this trace has met it, and it is read as it is."""
        storage = t._storage
        if storage is None or t._lineage is not None or t._chain:
            return None
        note = storage.entry
        value: RowValue
        if note.__class__ is tuple:
            token, value = note
        elif note is None or note.origin is not None:
            return None
        else:
            token, value = note.token, note.value
            if graded and t._node is None and storage in self.graded:
                return None
        if token is not self.token or (graded and value[0] in self.ungraded):
            return None
        return value

    def _read(self, t: Tensor, graded: bool) -> RowValue:
        value: RowValue = self.value_of(t)
        return self.read(t, value) if graded else value

    def _scalar(self, x: Any, args: Sequence[Any]) -> RowValue:
        """Return the Value of a Python number beside tensors, which has their dtype."""
        peer = args[0]
        if not isinstance(peer, Tensor):
            peer = next(a for a in args if isinstance(a, Tensor))
        dtype = dtype_of_data(peer._data)
        number = float(x) if dtype.kind == FLOAT_KIND else x
        # By value, but the numbers that are equal to others; those by text.
        is_plain = number and number == number
        key = (number.__class__, number if is_plain else repr(number), dtype)
        if key not in self._scalars:
            array = np.asarray(number, dtype=dtype.np)
            self._scalars[key] = self._constant(array, TensorType(dtype, ()))
        if is_plain and dtype.kind == FLOAT_KIND and peer._data.__class__ is np.ndarray:
            self._beside.setdefault(peer._data.dtype, {})[x] = self._scalars[key]
        return self._scalars[key]
