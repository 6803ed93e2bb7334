"""Probability distributions with PyTorch's names."""

from tracegraph.distributions import (
    bernoulli,
    categorical,
    constraints,
    distribution,
    independent,
    kl,
    multivariate_normal,
    normal,
)
from tracegraph.distributions.bernoulli import Bernoulli, Geometric, Poisson
from tracegraph.distributions.categorical import (
    Categorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from tracegraph.distributions.continuous import Cauchy, Exponential, Gumbel, Laplace, Uniform
from tracegraph.distributions.distribution import Distribution, ExponentialFamily
from tracegraph.distributions.gamma import Beta, Chi2, Dirichlet, Gamma
from tracegraph.distributions.independent import Independent
from tracegraph.distributions.kl import kl_divergence, register_kl
from tracegraph.distributions.multivariate_normal import MultivariateNormal
from tracegraph.distributions.normal import LogNormal, Normal

__all__ = [
    "Bernoulli", "Beta", "Categorical", "Cauchy", "Chi2", "Dirichlet", "Distribution",
    "Exponential", "ExponentialFamily", "Gamma", "Geometric", "Gumbel", "Independent", "Laplace",
    "LogNormal", "MultivariateNormal", "Normal", "OneHotCategorical",
    "OneHotCategoricalStraightThrough", "Poisson", "Uniform", "bernoulli", "categorical",
    "constraints", "distribution", "independent", "kl", "kl_divergence", "multivariate_normal",
    "normal", "register_kl",
]  # fmt: skip
