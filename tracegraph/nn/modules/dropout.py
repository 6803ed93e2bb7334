"""Dropout: what is zeroed at random in training; nothing changes in evaluation."""

from __future__ import annotations

from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module


class _DropoutNd(Module):
    """What all dropouts share: the probability `p` of zeroing."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """Zeroes elements, and scales the rest by 1 / (1 − p). Hinton et al. 2012, arXiv:1207.0580."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of `input`."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_DropoutNd):
    """Zeroes whole channels of f[batch, channels, length]."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels of `input`."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_DropoutNd):
    """Zeroes whole channels of f[batch, channels, height, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels of `input`."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_DropoutNd):
    """Zeroes whole channels of f[batch, channels, depth, height, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels of `input`."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_DropoutNd):
    """Dropout that keeps mean and variance after SELU. Klambauer et al. 2017, arXiv:1706.02515."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of `input`."""
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_DropoutNd):
    """AlphaDropout of whole channels."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels of `input`."""
        return F.feature_alpha_dropout(input, self.p, self.training)
