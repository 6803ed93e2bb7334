"""What programs ask of PyTorch's exporter: whether it runs. Files here are tracegraph's own."""

from __future__ import annotations

from typing import Any

from tracegraph.api.creation import tensor
from tracegraph.dtypes import int64
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.module_names import also_named


def is_in_onnx_export() -> bool:
    """Whether a model is being exported: never."""
    return False


def export(model: Any, *args: Any, **options: Any) -> Any:
    """Refuse: no such file is written here.

    Raises:
        OpError: always; says what to do instead.
    """
    raise OpError("no ONNX files are written here: save what tracegraph.trace returns")


def shape_as_tensor(x: Tensor) -> Tensor:
    """Return the sizes as an int64 tensor."""
    return tensor(list(x.shape), dtype=int64)


def reshape_from_tensor_shape(x: Tensor, shape: Tensor) -> Tensor:
    """Return the elements under sizes that a tensor holds."""
    return x.reshape(shape.tolist())


also_named(__name__, "operators")
