"""Softmax over many classes, rare ones in clusters. Grave et al. 2016, arXiv:1609.04309."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tracegraph.api import shape
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn import functional as F
from tracegraph.nn.modules.container import ModuleList, Sequential
from tracegraph.nn.modules.linear import Linear
from tracegraph.nn.modules.module import Module


class _ASMoutput(NamedTuple):
    """The log-probability of each target, and the mean loss."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """log p of classes sorted by frequency: a head for the frequent, a tail of clusters.

    Raises:
        ValueError: cutoffs that are not rising numbers of classes.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        rising = all(a < b for a, b in pairwise(cutoffs))
        if not rising or cutoffs[0] <= 0 or cutoffs[-1] > n_classes - 1 or any(
            int(c) != c for c in cutoffs
        ):  # fmt: skip
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing "
                "order, where each value is between 1 and n_classes-1"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, width, bias=False, **made),
                    Linear(width, size, bias=False, **made),
                )
            )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """Return (log p of each target, mean loss) of f[batch, in_features] and i64[batch].

        Every cluster is computed for every row, so that no shape depends on the targets.

        Raises:
            OpError: sizes that do not fit.
        """
        if input_.ndim != target_.ndim + 1 or target_.ndim > 1:
            raise OpError("0D or 1D target tensor expected, multi-target not supported")
        single = target_.ndim == 0
        x, target = (input_.unsqueeze(0), target_.unsqueeze(0)) if single else (input_, target_)
        if x.shape[0] != target.shape[0]:
            raise OpError("Input and target should have the same size in the batch dimension.")
        out = self.log_prob(x).gather(1, target.unsqueeze(1)).squeeze(1)
        loss = (-out).mean()
        return _ASMoutput(out.squeeze(0) if single else out, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """Return log p of all classes: f[batch, n_classes]."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            chosen = head[:, self.shortlist_size + i]
            parts.append(F.log_softmax(cluster(input), dim=1) + chosen.unsqueeze(1))
        return shape.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """Return the likeliest class of each row: i64[batch]."""
        out: Tensor = self.log_prob(input).argmax(1)
        return out
