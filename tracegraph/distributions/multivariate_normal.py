"""The normal distribution of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.linear_algebra import cholesky, inv, solve_triangular
from tracegraph.api.random import randn
from tracegraph.api.rearrangement import broadcast_shapes
from tracegraph.distributions import constraints
from tracegraph.distributions.distribution import Distribution
from tracegraph.eager.tensors import Tensor


class MultivariateNormal(Distribution):
    """The normal distribution with mean `loc` [..., n] and a covariance [..., n, n].

    The covariance is given as it is, as its inverse, or as its lower Cholesky factor.

    Raises:
        ValueError: not exactly one of the three forms.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Any

    def __init__(
        self, loc: Tensor, covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        forms = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        given = [(name, value) for name, value in forms.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        ((name, matrix),) = given
        if loc.ndim < 1 or matrix.ndim < 2:
            raise ValueError("loc must be at least one-dimensional, its matrix two-dimensional")
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        matrix = matrix.expand((*batch, *matrix.shape[-2:]))
        self.loc = loc.expand((*batch, loc.shape[-1]))
        vars(self)[name] = matrix
        super().__init__(batch, self.loc.shape[-1:], validate_args)

    def __getattr__(self, name: str) -> Any:
        # The other forms of the covariance, computed and kept when they are first asked for.
        given = vars(self)
        if name == "covariance_matrix" and "scale_tril" in given:
            given[name] = given["scale_tril"] @ given["scale_tril"].mT
        elif name == "covariance_matrix" and "precision_matrix" in given:
            given[name] = inv(given["precision_matrix"])
        elif name == "precision_matrix":
            given[name] = inv(self.covariance_matrix)
        elif name == "scale_tril" and "loc" in given:
            given[name] = cholesky(self.covariance_matrix)
        else:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return given[name]

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    mode = mean

    @property
    def variance(self) -> Tensor:
        """The variance of each element."""
        factor = self.scale_tril
        return (factor * factor).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return loc + L·z with standard normal z."""
        shape = self._extended_shape(sample_shape)
        z = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ z.unsqueeze(-1)).squeeze(-1)

    def half_log_determinant(self) -> Any:
        """Return half of the log determinant of the covariance."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        self._validate_sample(value)
        distance = mahalanobis(self.scale_tril, value - self.loc)
        constant = self._event_shape[0] * math.log(2 * math.pi)
        return -0.5 * (constant + distance) - self.half_log_determinant()

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        constant = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi))
        return self.half_log_determinant() + constant


def mahalanobis(factor: Any, difference: Any) -> Any:
    """Return |L⁻¹·x|² for lower triangular L [..., n, n] and x [..., n]."""
    shape = (*difference.shape[:-1], *factor.shape[-2:])
    scaled = solve_triangular(factor.expand(shape), difference.unsqueeze(-1), upper=False)
    return (scaled * scaled).sum(-1).sum(-1)
