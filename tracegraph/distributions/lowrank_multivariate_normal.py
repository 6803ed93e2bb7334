"""The normal distribution of vectors whose covariance is of low rank plus a diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.linear_algebra import cholesky
from tracegraph.api.matrices import diag_embed
from tracegraph.api.promotion import identity
from tracegraph.api.random import randn
from tracegraph.api.rearrangement import broadcast_shapes
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution
from tracegraph.distributions.multivariate_normal import mahalanobis
from tracegraph.eager.tensors import Tensor


class LowRankMultivariateNormal(Distribution):
    """Mean `loc` [..., n], covariance W·Wᵀ + diag(D) with W [..., n, rank] and D [..., n].

    Determinant and distances by the matrix of size rank: Woodbury's identity.

    Raises:
        ValueError: shapes that do not fit.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Any
    cov_factor: Any
    cov_diag: Any

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.ndim < 1 or cov_factor.ndim < 2:
            raise ValueError("loc must be at least one-dimensional, cov_factor two-dimensional")
        n = loc.shape[-1]
        if cov_factor.shape[-2] != n or cov_diag.shape[-1] != n:
            raise ValueError(f"cov_factor and cov_diag must be for vectors of {n} elements")
        batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc = loc.expand((*batch, n))
        self.cov_factor = cov_factor.expand((*batch, *cov_factor.shape[-2:]))
        self.cov_diag = cov_diag.expand((*batch, n))
        super().__init__(batch, (n,), validate_args)

    @property
    def _inner(self) -> Any:
        """The Cholesky factor of I + Wᵀ·D⁻¹·W."""
        w = self.cov_factor
        return cholesky(identity(w, w.shape[-1]) + w.mT @ (w / self.cov_diag.unsqueeze(-1)))

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    mode = mean

    @property
    def variance(self) -> Tensor:
        """The variance of each element."""
        return (self.cov_factor * self.cov_factor).sum(-1) + self.cov_diag

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.cov_factor @ self.cov_factor.mT + diag_embed(self.cov_diag)

    @property
    def scale_tril(self) -> Tensor:
        """Its lower Cholesky factor."""
        return cholesky(self.covariance_matrix)

    @property
    def precision_matrix(self) -> Tensor:
        """Its inverse."""
        return self.covariance_matrix.inverse()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return loc + W·z + sqrt(D)·e with standard normal z and e."""
        shape = self._extended_shape(sample_shape)
        like = {"dtype": self.loc.dtype, "device": self.loc.device}
        z = randn((*shape[:-1], self.cov_factor.shape[-1]), **like)
        e = randn(shape, **like)
        low = (self.cov_factor @ z.unsqueeze(-1)).squeeze(-1)
        return self.loc + low + self.cov_diag.sqrt() * e

    def _log_determinant(self) -> Any:
        inner = self._inner.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 2 * inner + self.cov_diag.log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        apart = value - self.loc
        scaled = apart / self.cov_diag
        seen = (self.cov_factor.mT @ scaled.unsqueeze(-1)).squeeze(-1)
        distance = (apart * scaled).sum(-1) - mahalanobis(self._inner, seen)
        size = self._event_shape[0] * math.log(2 * math.pi) + self._log_determinant()
        return -0.5 * (size + distance)

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        constant = self._event_shape[0] * (1.0 + math.log(2 * math.pi))
        return 0.5 * (constant + self._log_determinant())
