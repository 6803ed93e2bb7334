"""Channels in another order. Zhang et al. 2017, arXiv:1707.01083."""

from __future__ import annotations

from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module


class ChannelShuffle(Module):
    """One channel of each group in turn."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """Reorder the channels of `input`: f[batch, channels, ...]."""
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        """The number of groups."""
        return f"groups={self.groups}"
