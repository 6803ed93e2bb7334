"""Maps to vectors that sum to 1, and to triangular and positive definite matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.linear_algebra import cholesky
from tracegraph.api.matrices import diag_embed
from tracegraph.api.ranges import arange
from tracegraph.distributions import constraints
from tracegraph.distributions.transform import Transform
from tracegraph.dtypes import finfo
from tracegraph.eager.tensors import Size
from tracegraph.nn.functional import logsigmoid, pad, softmax, softplus


class SoftmaxTransform(Transform):
    """Real vectors to vectors that sum to 1; not injective."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Any) -> Any:
        return softmax(x, -1)

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def _key(self) -> Any:
        return ()


class StickBreakingTransform(Transform):
    """Real vectors to vectors with one more element that sum to 1, by breaking a stick."""

    domain, codomain, bijective = constraints.real_vector, constraints.simplex, True

    @staticmethod
    def _shifted(x: Any) -> Any:
        n = x.shape[-1]
        return x - (n - arange(n, dtype=x.dtype, device=x.device)).log()

    def _call(self, x: Any) -> Any:
        share = self._shifted(x).sigmoid()
        left = (1 - share).cumprod(-1)
        return pad(share, [0, 1], value=1) * pad(left, [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        n = y.shape[-1] - 1
        first = y[..., :n]
        left = (1 - first.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return first.log() - left.log() + (n - arange(n, dtype=y.dtype, device=y.device)).log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return the log determinant for each vector."""
        x = self._shifted(x)
        return (-x + logsigmoid(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """Return the shape with one more element."""
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """Return the shape with one element less."""
        return Size((*shape[:-1], shape[-1] - 1))

    def _key(self) -> Any:
        return ()


class LowerCholeskyTransform(Transform):
    """Matrices to lower triangular ones with a positive diagonal, exp of the old one."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + diag_embed(x.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + diag_embed(y.diagonal(dim1=-2, dim2=-1).log())

    def _key(self) -> Any:
        return ()


class PositiveDefiniteTransform(Transform):
    """Matrices to positive definite ones: L·Lᵀ of `LowerCholeskyTransform`."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Any) -> Any:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Any) -> Any:
        return LowerCholeskyTransform().inv(cholesky(y))

    def _key(self) -> Any:
        return ()


def _from_vector(x: Any, diagonal: int) -> Any:
    """The lower triangle of a matrix, row by row, from a vector."""
    n = round(((1 + 8 * x.shape[-1]) ** 0.5 - 1) / 2) - diagonal
    rows = arange(n, device=x.device).unsqueeze(1)
    columns = arange(n, device=x.device)
    kept = columns <= rows + diagonal
    place = ((rows + diagonal) * (rows + diagonal + 1) // 2 + columns).clamp(max=x.shape[-1] - 1)
    return x[..., place.clamp(min=0)] * kept.to(x.dtype)


class CorrCholeskyTransform(Transform):
    """Vectors of n(n−1)/2 to Cholesky factors of correlation matrices [n, n].

    tanh of the vector gives partial correlations, row by row (Lewandowski et al. 2009).
    """

    domain, codomain, bijective = constraints.real_vector, constraints.corr_cholesky, True

    def _call(self, x: Any) -> Any:
        eps = finfo(x.dtype).eps
        r = _from_vector(x.tanh().clamp(-1 + eps, 1 - eps), -1)
        left = (1 - r * r).sqrt().cumprod(-1)
        unit = r + diag_embed(r.new_ones(r.shape[:-1]))
        return unit * pad(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        below = 1 - (y * y).cumsum(-1)
        left = pad(below[..., :-1], [1, 0], value=1)
        n = y.shape[-1]
        places = [(i, j) for i in range(n) for j in range(i)]
        rows, columns = [i for i, _ in places], [j for _, j in places]
        t = y[..., rows, columns] / left[..., rows, columns].sqrt()
        return (t.log1p() - (-t).log1p()) / 2

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return the log determinant for each vector."""
        below = 1 - (y * y).cumsum(-1)
        n = y.shape[-1]
        places = [(i, j) for i in range(n) for j in range(i)]
        inner = [(i, j) for i, j in places if j < i - 1]
        logs = below[..., [i for i, _ in inner], [j for _, j in inner]].log().sum(-1) / 2
        return logs - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """Return the shape of the matrices.

        Raises:
            ValueError: no n has n(n−1)/2 elements.
        """
        n = round((0.25 + 2 * shape[-1]) ** 0.5 + 0.5)
        if n * (n - 1) // 2 != shape[-1]:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """Return the shape of the vectors."""
        n = shape[-1]
        return Size((*shape[:-2], n * (n - 1) // 2))
