"""Probability distributions with PyTorch's names."""

from tracegraph.distributions import (
    bernoulli,
    bounded,
    categorical,
    constraint_registry,
    constraints,
    continuous,
    counts,
    distribution,
    gamma,
    halves,
    heavy_tails,
    independent,
    kl,
    lowrank_multivariate_normal,
    mixture_same_family,
    multivariate_normal,
    normal,
    relaxed,
    transformed_distribution,
    transforms,
    utils,
)
from tracegraph.distributions.bernoulli import Bernoulli, Geometric, Poisson
from tracegraph.distributions.bounded import (
    ContinuousBernoulli,
    Kumaraswamy,
    LogisticNormal,
    VonMises,
)
from tracegraph.distributions.categorical import (
    Categorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from tracegraph.distributions.constraint_registry import biject_to, transform_to
from tracegraph.distributions.continuous import Cauchy, Exponential, Gumbel, Laplace, Uniform
from tracegraph.distributions.counts import Binomial, Multinomial, NegativeBinomial
from tracegraph.distributions.distribution import Distribution, ExponentialFamily
from tracegraph.distributions.gamma import Beta, Chi2, Dirichlet, Gamma
from tracegraph.distributions.halves import HalfCauchy, HalfNormal
from tracegraph.distributions.heavy_tails import (
    FisherSnedecor,
    GeneralizedPareto,
    InverseGamma,
    Pareto,
    StudentT,
    Weibull,
)
from tracegraph.distributions.independent import Independent
from tracegraph.distributions.kl import kl_divergence, register_kl
from tracegraph.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from tracegraph.distributions.mixture_same_family import MixtureSameFamily
from tracegraph.distributions.multivariate_normal import MultivariateNormal
from tracegraph.distributions.normal import LogNormal, Normal
from tracegraph.distributions.relaxed import (
    ExpRelaxedCategorical,
    LogitRelaxedBernoulli,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
)
from tracegraph.distributions.transformed_distribution import TransformedDistribution
from tracegraph.distributions.transforms import *  # noqa: F403
from tracegraph.distributions.transforms import __all__ as _TRANSFORMS
from tracegraph.module_names import also_named

__all__ = [
    "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ContinuousBernoulli",
    "Dirichlet", "Distribution", "ExpRelaxedCategorical", "Exponential", "ExponentialFamily",
    "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy",
    "HalfNormal", "Independent", "InverseGamma", "Kumaraswamy", "Laplace", "LogNormal",
    "LogisticNormal", "LogitRelaxedBernoulli", "LowRankMultivariateNormal", "MixtureSameFamily",
    "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical",
    "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "RelaxedBernoulli",
    "RelaxedOneHotCategorical", "StudentT", "TransformedDistribution", "Uniform", "VonMises",
    "Weibull", "bernoulli", "biject_to", "categorical", "constraint_registry", "constraints",
    "distribution", "independent", "kl", "kl_divergence", "lowrank_multivariate_normal",
    "mixture_same_family", "multivariate_normal", "normal", "register_kl", "transform_to",
    "transformed_distribution", "transforms", "utils", *_TRANSFORMS,
]  # fmt: skip

# PyTorch has a module for each distribution; programs import from them.
_MODULES = {
    bernoulli: "geometric poisson",
    bounded: "continuous_bernoulli kumaraswamy logistic_normal von_mises",
    categorical: "one_hot_categorical",
    continuous: "cauchy exponential gumbel laplace uniform",
    counts: "binomial multinomial negative_binomial",
    distribution: "exp_family",
    gamma: "beta chi2 dirichlet",
    halves: "half_cauchy half_normal",
    heavy_tails: "fishersnedecor generalized_pareto inverse_gamma pareto studentT weibull",
    normal: "log_normal",
    relaxed: "relaxed_bernoulli relaxed_categorical",
}
for _module, _names in _MODULES.items():
    also_named(__name__, _names, _module)
