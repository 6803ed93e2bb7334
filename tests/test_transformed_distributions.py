"""Transforms, and the distributions that are made of others: against PyTorch and by statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import tracegraph as tg
from tests.conftest import SEED
from tests.test_distributions import (
    assert_same,
    chances,
    counts,
    described,
    positives,
    reals,
)
from tracegraph import distributions as D
from tracegraph.distributions.utils import broadcast_all

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tg.manual_seed(SEED)


def simplex(*shape: int) -> Any:
    return RNG.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("HalfNormal", {"scale": positives(4)}, positives(3, 4)),
    ("HalfCauchy", {"scale": positives(4)}, positives(3, 4)),
    ("StudentT", {"df": positives(4) * 4, "loc": reals(4), "scale": positives(4)}, reals(3, 4)),
    ("StudentT", {"df": np.float32([0.5, 1.5, 3]), "loc": reals(3), "scale": positives(3)},
     reals(3)),
    ("FisherSnedecor", {"df1": positives(4) * 5, "df2": positives(4) * 7}, positives(3, 4)),
    ("InverseGamma", {"concentration": positives(4) * 2, "rate": positives(4)}, positives(3, 4)),
    ("Pareto", {"scale": positives(4), "alpha": positives(4) * 2}, positives(3, 4) + 4),
    ("Weibull", {"scale": positives(4), "concentration": positives(4) * 2}, positives(3, 4)),
    ("Kumaraswamy", {"concentration1": positives(4), "concentration0": positives(4)},
     chances(3, 4)),
    ("GeneralizedPareto", {"loc": np.zeros(3, np.float32), "scale": positives(3),
                           "concentration": np.float32([-0.3, 0.1, 0.3])}, positives(3) * 0.3),
    ("ContinuousBernoulli", {"probs": np.float32([0.1, 0.4995, 0.5, 0.9])}, chances(3, 4)),
    ("ContinuousBernoulli", {"logits": reals(4)}, chances(3, 4)),
    ("VonMises", {"loc": reals(4), "concentration": positives(4) * 3}, reals(3, 4)),
    ("LogisticNormal", {"loc": reals(2, 3), "scale": positives(2, 3)}, simplex(5, 2, 4)),
    ("NegativeBinomial", {"total_count": positives(4) * 4, "probs": chances(4)}, counts(8, 3, 4)),
    ("NegativeBinomial", {"total_count": positives(4) * 4, "logits": reals(4)}, counts(8, 3, 4)),
    ("RelaxedBernoulli", {"temperature": np.float32(0.7), "probs": chances(4)}, chances(3, 4)),
    ("RelaxedOneHotCategorical", {"temperature": np.float32(0.7), "logits": reals(2, 4)},
     simplex(3, 2, 4)),
    ("LowRankMultivariateNormal",
     {"loc": reals(2, 4), "cov_factor": reals(4, 2), "cov_diag": positives(4)}, reals(3, 2, 4)),
]  # fmt: skip
# Where PyTorch is wrong: it gives NaN for parameters that have a mode.
NOT_COMPARED = {("Kumaraswamy", "mode")}


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "parameters", "value"), CASES, ids=[c[0] for c in CASES])
def test_more_distributions_follow_pytorch(
    name: str, parameters: dict[str, Any], value: Any
) -> None:
    import torch

    ours, theirs = (described(T, name, parameters, value) for T in (tg, torch))
    for key, expected in theirs.items():
        if (name, key) not in NOT_COMPARED:
            assert_same(ours[key], expected, f"{name}.{key}")


SAMPLED: dict[str, tuple[Callable[[], Any], Any]] = {
    "StudentT": (lambda: D.StudentT(5.0, 1.0, 2.0), stats.t(5, 1, 2)),
    "FisherSnedecor": (lambda: D.FisherSnedecor(4.0, 7.0), stats.f(4, 7)),
    "InverseGamma": (lambda: D.InverseGamma(3.0, 2.0), stats.invgamma(3, scale=2)),
    "Pareto": (lambda: D.Pareto(2.0, 3.0), stats.pareto(3, scale=2)),
    "Weibull": (lambda: D.Weibull(2.0, 1.5), stats.weibull_min(1.5, scale=2)),
    "HalfNormal": (lambda: D.HalfNormal(2.0), stats.halfnorm(scale=2)),
    "HalfCauchy": (lambda: D.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
    "VonMises": (lambda: D.VonMises(0.0, 2.0), stats.vonmises(2)),
    "VonMises, flat": (lambda: D.VonMises(0.0, 1e-4), stats.vonmises(1e-4)),
    "GeneralizedPareto": (lambda: D.GeneralizedPareto(1.0, 2.0, 0.3), stats.genpareto(0.3, 1, 2)),
    "Exp": (
        lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), [D.ExpTransform()]),
        stats.lognorm(1),
    ),
    "Mixture": (
        lambda: D.MixtureSameFamily(
            D.Categorical(tg.ones(1)), D.Normal(tg.ones(1), tg.ones(1) * 2)
        ),
        stats.norm(1, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_more_distributions_follow_scipy(name: str) -> None:
    make, expected = SAMPLED[name]
    made = make()
    x = made.sample((4000,)).numpy().astype(np.float64)
    assert stats.kstest(x, expected.cdf).pvalue > 1e-5
    got = made.log_prob(tg.tensor(x[:50].astype(np.float32))).numpy()
    np.testing.assert_allclose(got, expected.logpdf(x[:50]), rtol=1e-3, atol=1e-3)


COUNTED: dict[str, tuple[Callable[[], Any], Any]] = {
    "Binomial": (lambda: D.Binomial(6, tg.tensor(0.3)), stats.binom(6, 0.3)),
    "NegativeBinomial": (lambda: D.NegativeBinomial(3, tg.tensor(0.4)), stats.nbinom(3, 0.6)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_follow_scipy(name: str) -> None:
    make, expected = COUNTED[name]
    made, values = make(), np.arange(7)
    got = made.log_prob(tg.arange(7).float()).exp().numpy()
    np.testing.assert_allclose(got, expected.pmf(values), rtol=1e-5)
    drawn = made.sample((4000,)).numpy().astype(np.int64)
    seen = np.append(np.bincount(drawn[drawn < 7], minlength=7), (drawn >= 7).sum())
    masses = np.append(expected.pmf(values), expected.sf(6))
    kept = masses > 1e-9
    assert stats.chisquare(seen[kept], masses[kept] / masses.sum() * 4000).pvalue > 1e-5


@pytest.mark.oracle
def test_binomial_and_multinomial_follow_pytorch() -> None:
    import torch

    found = []
    for T in (tg, torch):
        logits = T.tensor([[0.0, 0.5], [-1.0, 2.0]], requires_grad=True)
        b = T.distributions.Binomial(4, logits=logits)
        value = T.tensor([[0.0, 3.0], [4.0, 1.0]])
        b.log_prob(value).sum().backward()
        m = T.distributions.Multinomial(5, T.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]]))
        found.append([
            b.log_prob(value), b.mean, b.variance, b.mode, b.entropy(), logits.grad,
            b.enumerate_support(), m.mean, m.variance,
            m.log_prob(T.tensor([[1.0, 2.0, 2.0], [5.0, 0.0, 0.0]])), m.expand((3, 2)).mean,
        ])  # fmt: skip
        assert bool((m.sample((20,)).sum(-1) == 5).all())
    for ours, theirs in zip(*found, strict=True):
        assert_same(ours, theirs, "counts")


def maps(T: Any) -> list[tuple[Any, Any]]:
    """Transforms with an argument for each."""
    rng = np.random.default_rng(1)
    D, t = T.distributions, T.distributions.transforms
    c = D.constraints

    def real(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        (t.ExpTransform(), real(3)),
        (t.PowerTransform(T.tensor(2.0)), np.abs(real(3)) + 0.1),
        (t.SigmoidTransform(), real(3)),
        (t.SoftplusTransform(), real(3)),
        (t.TanhTransform(), real(3)),
        (t.AffineTransform(T.tensor([1.0, 2.0]), T.tensor([-2.0, 0.5])), real(4, 2)),
        (t.AffineTransform(1.0, 2.0, event_dim=1), real(4, 2)),
        (t.StickBreakingTransform(), real(2, 3)),
        (t.CorrCholeskyTransform(), real(2, 6)),
        (t.CorrCholeskyTransform(), real(1)),
        (t.ComposeTransform([t.AffineTransform(0.0, 2.0), t.StickBreakingTransform()]), real(2, 3)),
        (t.ComposeTransform([t.StickBreakingTransform(), t.AffineTransform(0.0, 2.0)]), real(2, 3)),
        (t.IndependentTransform(t.ExpTransform(), 1), real(2, 3)),
        (t.ReshapeTransform((2, 3), (6,)), real(4, 2, 3)),
        (t.CatTransform([t.ExpTransform(), t.SigmoidTransform()], 1, [2, 1]), real(2, 3)),
        (t.StackTransform([t.ExpTransform(), t.AffineTransform(1.0, 2.0)], 1), real(3, 2)),
        (t.CumulativeDistributionTransform(D.Normal(0.0, 1.0)), real(3)),
        (t.SigmoidTransform().inv, np.float32([0.2, 0.7])),
        (t.ComposeTransform([t.ExpTransform(), t.SigmoidTransform()]).inv, np.float32([0.6, 0.9])),
        (D.biject_to(c.positive), real(3)),
        (D.biject_to(c.simplex), real(2, 3)),
        (D.biject_to(c.interval(-1.0, 3.0)), real(3)),
        (D.transform_to(c.greater_than(2.0)), real(3)),
        (D.transform_to(c.less_than(2.0)), real(3)),
        (D.biject_to(c.real), real(3)),
    ]


def moved(T: Any, t: Any, value: Any) -> dict[str, Any]:
    x = T.tensor(value, requires_grad=True)
    y = t(x)
    size = t.log_abs_det_jacobian(x, y)
    (slope,) = T.autograd.grad((y * y).sum() + size.sum(), x)
    return {
        "y": y, "size": size, "slope": slope, "back": t.inv(y), "allowed": t.codomain.check(y),
        "inverse size": t.inv.log_abs_det_jacobian(y, x), "shape": tuple(t.forward_shape(x.shape)),
        "inverse shape": tuple(t.inverse_shape(y.shape)),
        "dims": (t.domain.event_dim, t.codomain.event_dim),
    }  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("place", range(len(maps(tg))))
def test_transforms_follow_pytorch(place: int) -> None:
    import torch

    ours, theirs = (moved(T, *maps(T)[place]) for T in (tg, torch))
    for key, expected in theirs.items():
        assert_same(ours[key], expected, f"{maps(tg)[place][0]}: {key}")


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Softmax", "LowerCholesky", "PositiveDefinite", "Abs"])
def test_transforms_without_a_determinant_follow_pytorch(name: str) -> None:
    import torch

    x, found = reals(2, 3, 3), []
    for T in (tg, torch):
        t = getattr(T.distributions, f"{name}Transform")()
        y = t(T.tensor(x))
        found.append((y, t.inv(y), t.codomain.check(y)))
    assert_same(*found, name)


def test_the_cache_keeps_the_argument_that_tanh_cannot_give_back() -> None:
    policy = D.TransformedDistribution(D.Normal(20.0, 1.0), D.TanhTransform(cache_size=1))
    action = policy.rsample()
    assert action.item() == 1.0 and np.isfinite(policy.log_prob(action).item())
    t = D.TanhTransform(cache_size=1)
    x = tg.tensor([20.0])
    assert t.inv(t(x)) is x and t.with_cache(0).inv(t(x)) is not x
    assert D.TanhTransform() == D.TanhTransform() != D.ExpTransform()


@pytest.mark.oracle
def test_transformed_distributions_follow_pytorch() -> None:
    import torch

    found = []
    for T in (tg, torch):
        D = T.distributions
        base = D.Normal(T.zeros(3), T.ones(3))
        falls = D.TransformedDistribution(base, [D.AffineTransform(1.0, -2.0), D.TanhTransform()])
        x = T.tensor([0.1, -0.2, 0.3])
        whole = D.TransformedDistribution(base, D.StickBreakingTransform())
        vectors = whole.log_prob(T.tensor([[0.1, 0.2, 0.3, 0.4]]))
        kl = D.kl_divergence(falls, falls.expand((3,)))
        found.append((
            falls.log_prob(x), falls.cdf(x), falls.icdf(T.tensor([0.2, 0.3, 0.4])), vectors, kl,
            tuple(whole.batch_shape), tuple(whole.event_shape), falls.support.check(x),
            tuple(falls.expand((2, 3)).rsample((4,)).shape),
        ))  # fmt: skip
    assert_same(*found, "transformed")


@pytest.mark.oracle
def test_mixtures_follow_pytorch() -> None:
    import torch

    found = []
    for T in (tg, torch):
        D = T.distributions
        weights = T.tensor([0.2, 0.3, 0.5], requires_grad=True)
        parts = D.Normal(T.tensor([-1.0, 0.0, 2.0]), T.tensor([0.5, 1.0, 2.0]))
        m = D.MixtureSameFamily(D.Categorical(weights), parts)
        x = T.tensor([[0.1, 3.0]])
        slope = T.autograd.grad(m.log_prob(x).sum(), weights)
        wide = D.MixtureSameFamily(
            D.Categorical(T.ones(2, 3)),
            D.Independent(D.Normal(T.zeros(2, 3, 4), T.ones(2, 3, 4)), 1),
        )
        found.append((
            m.log_prob(x), m.mean, m.variance, m.cdf(x), slope, wide.log_prob(T.ones(2, 4)),
            wide.mean, tuple(wide.sample((5,)).shape), tuple(wide.batch_shape),
            tuple(wide.expand((6, 2)).sample().shape),
        ))  # fmt: skip
    assert_same(*found, "mixture")


@pytest.mark.oracle
def test_more_divergences_follow_pytorch() -> None:
    import torch

    def pairs(T: Any) -> list[Any]:
        D, f = T.distributions, T.tensor
        return [
            D.kl_divergence(p, q)
            for p, q in [
                (D.HalfNormal(f(1.0)), D.HalfNormal(f(2.0))),
                (D.Cauchy(f(1.0), f(2.0)), D.Cauchy(f(0.0), f(1.0))),
                (D.Gumbel(f(1.0), f(2.0)), D.Gumbel(f(0.0), f(1.0))),
                (D.Pareto(f([2.0, 1.0]), f(2.0)), D.Pareto(f([1.0, 2.0]), f(1.0))),
                (D.Binomial(4, f(0.3)), D.Binomial(4, f(0.6))),
            ]
        ]

    assert_same(pairs(tg), pairs(torch), "divergences")
    with pytest.raises(NotImplementedError):
        D.kl_divergence(D.Binomial(3, tg.tensor(0.3)), D.Binomial(4, tg.tensor(0.6)))


def test_gradients_at_logits_of_zero() -> None:
    """The log probability is smooth there: the slope is value − 1/2."""
    z = tg.zeros(3, requires_grad=True)
    D.Bernoulli(logits=z).log_prob(tg.tensor([0.0, 1.0, 1.0])).sum().backward()
    assert z.grad.tolist() == [-0.5, 0.5, 0.5]
    z = tg.zeros(3, requires_grad=True)
    D.Binomial(3, logits=z).log_prob(tg.tensor([0.0, 1.0, 3.0])).sum().backward()
    assert z.grad.tolist() == [-1.5, -0.5, 1.5]


def test_low_rank_covariance_is_that_of_the_full_matrix() -> None:
    loc, w, d = (tg.tensor(x) for x in (reals(4), reals(4, 2), positives(4)))
    low = D.LowRankMultivariateNormal(loc, w, d)
    full = D.MultivariateNormal(loc, low.covariance_matrix)
    x = tg.tensor(reals(5, 4))
    np.testing.assert_allclose(low.log_prob(x).numpy(), full.log_prob(x).numpy(), rtol=1e-4)
    np.testing.assert_allclose(low.entropy().numpy(), full.entropy().numpy(), rtol=1e-5)
    drawn = low.rsample((20000,)).numpy()
    np.testing.assert_allclose(np.cov(drawn.T), low.covariance_matrix.numpy(), atol=0.4)


def test_modules_of_distributions_have_pytorch_s_names() -> None:
    from tracegraph.distributions.beta import Beta
    from tracegraph.distributions.uniform import Uniform

    assert Beta is D.Beta and Uniform is D.Uniform
    assert [t.dtype for t in broadcast_all(1, tg.ones(2, dtype=tg.float64))] == [tg.float64] * 2
