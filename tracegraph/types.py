"""Names of types for annotations, as in `torch.types`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.devices import Device as _DeviceClass
from tracegraph.dtypes import DType
from tracegraph.eager.tensors import Size, Tensor

Number = int | float | bool
Device = _DeviceClass | str | int | None
FileLike = Any
_TensorOrTensors = Tensor | Sequence[Tensor]
_dtype = DType
_device = _DeviceClass
_size = Size | list[int] | tuple[int, ...]
_int, _float, _bool = int, float, bool
