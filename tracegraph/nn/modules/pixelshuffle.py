"""Channels to pixels and back. Shi et al. 2016, arXiv:1609.05158."""

from __future__ import annotations

from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module


class PixelShuffle(Module):
    """f[..., c r², h, w] as f[..., c, h r, w r]."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Spread channels of `input` over pixels."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """f[..., c, h r, w r] as f[..., c r², h, w]."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Gather pixels of `input` in channels."""
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"
