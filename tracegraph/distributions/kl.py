"""Kullback-Leibler divergences in closed form, found by the types of the two distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.distributions.bernoulli import Bernoulli, Geometric, Poisson
from tracegraph.distributions.categorical import Categorical, OneHotCategorical
from tracegraph.distributions.continuous import (
    EULER,
    Cauchy,
    Exponential,
    Gumbel,
    Laplace,
    Uniform,
)
from tracegraph.distributions.counts import Binomial
from tracegraph.distributions.gamma import Beta, Dirichlet, Gamma
from tracegraph.distributions.halves import HalfNormal
from tracegraph.distributions.heavy_tails import Pareto
from tracegraph.distributions.independent import Independent, sum_last
from tracegraph.distributions.multivariate_normal import MultivariateNormal, mahalanobis
from tracegraph.distributions.normal import Normal
from tracegraph.distributions.transformed_distribution import TransformedDistribution
from tracegraph.eager.tensors import Tensor

Rule = Callable[[Any, Any], Any]

_RULES: dict[tuple[type, type], Rule] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Rule], Rule]:
    """Return a decorator that enters the rule for two types."""

    def enter(rule: Rule) -> Rule:
        _RULES[type_p, type_q] = rule
        return rule

    return enter


def kl_divergence(p: Any, q: Any) -> Tensor:
    """Return the divergence of q from p, for each place of the batch.

    Raises:
        NotImplementedError: no closed form is known here for the two types.
    """
    for left in type(p).__mro__:
        for right in type(q).__mro__:
            if (left, right) in _RULES:
                out: Tensor = _RULES[left, right](p, q)
                return out
    raise NotImplementedError(
        f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
    )


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio, shift = p.scale / q.scale, (p.loc - q.loc) / q.scale
    square = ratio * ratio
    return 0.5 * (square + shift * shift - 1 - square.log())


def _times_log(p: Any, ratio: Any) -> Any:
    """Return p·log(ratio), 0 where p is 0."""
    return where(p == 0, 0.0, p * ratio.log())


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    gained = p.probs * ((-q.logits).exp().log1p() - (-p.logits).exp().log1p())
    lost = (1 - p.probs) * (q.logits.exp().log1p() - p.logits.exp().log1p())
    return gained + lost


@register_kl(Categorical, Categorical)
@register_kl(OneHotCategorical, OneHotCategorical)
def _categorical(p: Any, q: Any) -> Any:
    gained = p.probs * (p.logits - q.logits)
    gained = where((q.probs == 0).expand(gained.shape), math.inf, gained)
    gained = where((p.probs == 0).expand(gained.shape), 0.0, gained)
    return gained.sum(-1)


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    inside = (q.low <= p.low) & (q.high >= p.high)
    return where(inside, ((q.high - q.low) / (p.high - p.low)).log(), math.inf)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, apart = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + apart / q.scale + ratio * (-apart / p.scale).exp() - 1


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    shapes = b.lgamma() - a.lgamma() + (a - b) * a.digamma()
    return b * (p.rate / q.rate).log() + shapes + (q.rate - p.rate) * (a / p.rate)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    volumes = total.lgamma() - b.sum(-1).lgamma() + (b.lgamma() - a.lgamma()).sum(-1)
    return volumes + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return _times_log(p.rate, p.rate / q.rate) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: Any, q: Any) -> Any:
    n = p.event_shape[0]
    shapes = q.half_log_determinant() - p.half_log_determinant()
    shape = q._extended_shape(p.batch_shape[: len(p.batch_shape) - len(q.batch_shape)])
    left = p.scale_tril.expand((*shape, n))
    # tr(Σq⁻¹ Σp) = |Lq⁻¹ Lp|², column by column.
    spread = mahalanobis(q.scale_tril.expand((*shape, n)).unsqueeze(-3), left.mT).sum(-1)
    return shapes + 0.5 * (spread + mahalanobis(q.scale_tril, q.loc - p.loc) - n)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("the two Independents take different numbers of dims")
    return sum_last(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("the two are made by different maps")
    extra = len(p.event_shape) - len(p.base_dist.event_shape)
    return sum_last(kl_divergence(p.base_dist, q.base_dist), max(extra, 0))


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    """Chyzak & Nielsen 2019, arXiv:1905.10965."""
    spread = (p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2
    return spread.log() - (4 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio, there, here = p.scale / q.scale, q.loc / q.scale, p.loc / q.scale
    shape = (there + (1 + ratio).lgamma() - here).exp()
    return -ratio.log() - there + here + ratio * EULER + shape - (1 + EULER)


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    scales, alphas = p.scale / q.scale, q.alpha / p.alpha
    known = q.alpha * scales.log() - alphas.log() + alphas - 1
    return where(p.scale < q.scale, math.inf, known)


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    """Of equal numbers of trials, that many times the divergence of one; infinite for more."""
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("KL of binomials where q has more trials than p")
    known = p.total_count * _bernoulli(p, q)
    return where(p.total_count > q.total_count, math.inf, known)
