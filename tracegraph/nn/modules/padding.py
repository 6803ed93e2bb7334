"""Padding of the last one, two or three dims."""

from __future__ import annotations

from typing import Any, ClassVar

from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module
from tracegraph.nn.modules.utils import _ntuple


class _PadNd(Module):
    """Padding by `padding`: one width, or (left, right, top, bottom, ...), the last dim first."""

    mode: ClassVar[str]
    dims: ClassVar[int]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = _ntuple(2 * self.dims)(padding)

    def forward(self, input: Tensor) -> Tensor:
        """Pad `input`."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    """Padding with a value."""

    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """Pad `input`."""
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The widths and the value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Padding of f[..., length] with a value."""

    dims = 1


class ConstantPad2d(_ConstantPadNd):
    """Padding of f[..., height, width] with a value."""

    dims = 2


class ConstantPad3d(_ConstantPadNd):
    """Padding of f[..., depth, height, width] with a value."""

    dims = 3


class _ZeroPadNd(_ConstantPadNd):
    """Padding with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class ZeroPad1d(_ZeroPadNd, ConstantPad1d):
    """Padding of f[..., length] with zeros."""


class ZeroPad2d(_ZeroPadNd, ConstantPad2d):
    """Padding of f[..., height, width] with zeros."""


class ZeroPad3d(_ZeroPadNd, ConstantPad3d):
    """Padding of f[..., depth, height, width] with zeros."""


class _ReflectionPadNd(_PadNd):
    """Padding with the mirror image, without the edge itself."""

    mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Padding of f[..., length] with its mirror image."""

    dims = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Padding of f[..., height, width] with its mirror image."""

    dims = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Padding of f[..., depth, height, width] with its mirror image."""

    dims = 3


class _ReplicationPadNd(_PadNd):
    """Padding with the value at the edge."""

    mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Padding of f[..., length] with its edge."""

    dims = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Padding of f[..., height, width] with its edge."""

    dims = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Padding of f[..., depth, height, width] with its edge."""

    dims = 3


class _CircularPadNd(_PadNd):
    """Padding with what stands at the other end."""

    mode = "circular"


class CircularPad1d(_CircularPadNd):
    """Padding of f[..., length] as if it went round."""

    dims = 1


class CircularPad2d(_CircularPadNd):
    """Padding of f[..., height, width] as if it went round."""

    dims = 2


class CircularPad3d(_CircularPadNd):
    """Padding of f[..., depth, height, width] as if it went round."""

    dims = 3
