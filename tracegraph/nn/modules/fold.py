"""Windows as columns, and columns summed back into windows."""

from __future__ import annotations

from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module


class _Windows(Module):
    """A window over the spatial dims."""

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def extra_repr(self) -> str:
        """The window."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Unfold(_Windows):
    """Every window of f[batch, channels, *size] as a column: f[batch, channels · size, windows]."""

    def forward(self, input: Tensor) -> Tensor:
        """Take the windows of `input`."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Windows):
    """Columns summed into the windows that `Unfold` takes them from."""

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
        stride: Any = 1,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """Sum the columns of `input`."""
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        """The size and the window."""
        return f"output_size={self.output_size}, {super().extra_repr()}"
