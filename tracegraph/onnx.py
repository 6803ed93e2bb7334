"""What programs ask of PyTorch's exporter: whether it runs. Files here are tracegraph's own."""

from __future__ import annotations

from typing import Any

from tracegraph.errors import OpError


def is_in_onnx_export() -> bool:
    """Whether a model is being exported: never."""
    return False


def export(model: Any, *args: Any, **options: Any) -> Any:
    """Refuse: no such file is written here.

    Raises:
        OpError: always; says what to do instead.
    """
    raise OpError("no ONNX files are written here: save what tracegraph.trace returns")
