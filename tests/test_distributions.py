"""Distributions: against PyTorch and SciPy, samples by statistics, divergences, traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import tracegraph as tg
from tests.both_modules import T  # noqa: F401
from tests.conftest import SEED
from tracegraph import distributions as D
from tracegraph.capture.tracing import trace

RNG = np.random.default_rng(3)


def reals(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def positives(*shape: int) -> Any:
    return (np.abs(RNG.standard_normal(shape)) + 0.3).astype(np.float32)


def chances(*shape: int) -> Any:
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


def counts(high: int, *shape: int) -> Any:
    return RNG.integers(0, high, shape).astype(np.float32)


def covariance(n: int) -> Any:
    a = RNG.standard_normal((n, n))
    return (a @ a.T + np.eye(n)).astype(np.float32)


# Name, parameters, values.
CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("Normal", {"loc": reals(3, 1), "scale": positives(4)}, reals(5, 3, 4)),
    ("LogNormal", {"loc": reals(3), "scale": positives(3)}, positives(5, 3)),
    ("Uniform", {"low": np.float32([-1, 0]), "high": np.float32([1, 3])}, np.float32([0.0, 1.5])),
    ("Exponential", {"rate": positives(4)}, positives(2, 4)),
    ("Laplace", {"loc": reals(4), "scale": positives(4)}, reals(2, 4)),
    ("Cauchy", {"loc": reals(4), "scale": positives(4)}, reals(2, 4)),
    ("Gumbel", {"loc": reals(4), "scale": positives(4)}, reals(2, 4)),
    ("Gamma", {"concentration": positives(4), "rate": positives(4)}, positives(3, 4)),
    ("Chi2", {"df": positives(4)}, positives(3, 4)),
    ("Beta", {"concentration1": positives(4), "concentration0": positives(4)}, chances(2, 4)),
    ("Dirichlet", {"concentration": positives(2, 4)},
     RNG.dirichlet(np.ones(4), 2).astype(np.float32)),
    ("Bernoulli", {"probs": chances(4)}, counts(2, 3, 4)),
    ("Bernoulli", {"logits": reals(4) * 20}, counts(2, 3, 4)),
    ("Geometric", {"probs": chances(4)}, counts(9, 3, 4)),
    ("Geometric", {"logits": reals(4)}, counts(9, 3, 4)),
    ("Poisson", {"rate": positives(4) * 5}, counts(9, 3, 4)),
    ("Categorical", {"logits": reals(3, 5)}, counts(5, 2, 3)),
    ("Categorical", {"probs": positives(3, 5)}, counts(5, 2, 3)),
    ("OneHotCategorical", {"logits": reals(3, 5)}, np.eye(5, dtype=np.float32)[[[0, 3, 2]]]),
    ("MultivariateNormal", {"loc": reals(2, 3), "covariance_matrix": covariance(3)},
     reals(4, 2, 3)),
    ("MultivariateNormal", {"loc": reals(3), "precision_matrix": covariance(3)}, reals(4, 3)),
    ("MultivariateNormal", {"loc": reals(3), "scale_tril": np.linalg.cholesky(covariance(3))},
     reals(2, 3)),
]  # fmt: skip
NAMES = [f"{name} {next(iter(parameters))}" for name, parameters, _ in CASES]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tg.manual_seed(SEED)


def described(T: Any, name: str, parameters: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return everything deterministic that a library says of a distribution, as arrays."""
    given = {k: T.tensor(v, requires_grad=True) for k, v in parameters.items()}
    made = getattr(T.distributions, name)(**given)
    x, quantile = T.tensor(value), T.tensor(np.float32(0.3))
    log_prob = made.log_prob(x)
    found: dict[str, Any] = {"log_prob": log_prob, "entropy": None}
    found["batch"], found["event"] = tuple(made.batch_shape), tuple(made.event_shape)
    for key, argument in (("cdf", x), ("icdf", quantile)):
        try:
            found[key] = getattr(made, key)(argument)
        except NotImplementedError:
            found[key] = None
    for key in ("mean", "variance", "stddev", "mode", "entropy", "enumerate_support"):
        try:
            result = getattr(made, key)
            found[key] = result() if callable(result) else result
        except NotImplementedError:
            found[key] = None
    found["gradients"] = T.autograd.grad(log_prob.sum(), list(given.values()), allow_unused=True)
    found["sample"] = tuple(made.sample((2, 3)).shape), str(made.sample().dtype).rpartition(".")[2]
    wide = made.expand((7, *made.batch_shape))
    found["expanded"] = tuple(wide.batch_shape), tuple(wide.sample().shape)
    return found


def assert_same(a: Any, b: Any, what: str) -> None:
    if b is None or isinstance(b, (int, str)) or (isinstance(b, tuple) and not b):
        assert a == b, what
    elif isinstance(b, (tuple, list)):
        assert len(a) == len(b), what
        for x, y in zip(a, b, strict=True):
            assert_same(x, y, what)
    else:
        x, y = a.detach().numpy(), b.detach().numpy()
        assert x.shape == y.shape and x.dtype == y.dtype, what
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5, err_msg=what)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "parameters", "value"), CASES, ids=NAMES)
def test_distributions_follow_pytorch(name: str, parameters: dict[str, Any], value: Any) -> None:
    import torch

    ours, theirs = (described(T, name, parameters, value) for T in (tg, torch))
    for key, expected in theirs.items():
        assert_same(ours[key], expected, f"{name}.{key}")


CONTINUOUS: dict[str, tuple[Callable[[], Any], Any]] = {
    "Normal": (lambda: D.Normal(1.0, 2.0), stats.norm(1, 2)),
    "LogNormal": (lambda: D.LogNormal(0.5, 0.3), stats.lognorm(0.3, scale=np.exp(0.5))),
    "Uniform": (lambda: D.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "Exponential": (lambda: D.Exponential(2.0), stats.expon(scale=0.5)),
    "Laplace": (lambda: D.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    "Cauchy": (lambda: D.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    "Gumbel": (lambda: D.Gumbel(1.0, 2.0), stats.gumbel_r(1, 2)),
    "Gamma": (lambda: D.Gamma(3.0, 2.0), stats.gamma(3, scale=0.5)),
    "Gamma below 1": (lambda: D.Gamma(0.3, 1.0), stats.gamma(0.3)),
    "Chi2": (lambda: D.Chi2(5.0), stats.chi2(5)),
    "Beta": (lambda: D.Beta(2.0, 0.7), stats.beta(2, 0.7)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions_and_their_samples_follow_scipy(name: str) -> None:
    make, expected = CONTINUOUS[name]
    made = make()
    drawn = made.sample((4000,))
    assert not drawn.requires_grad
    x = drawn.numpy().astype(np.float64)
    assert stats.kstest(x, expected.cdf).pvalue > 1e-5
    # Keep off the ends of the beta distribution, where float32 has no digits left.
    inside = x[(x > 1e-3) & (np.abs(x - 1) > 1e-3)][:50]
    got = made.log_prob(tg.tensor(inside.astype(np.float32))).numpy()
    np.testing.assert_allclose(got, expected.logpdf(inside), rtol=1e-3, atol=1e-3)


DISCRETE: dict[str, tuple[Callable[[], Any], Any, int]] = {
    "Bernoulli": (lambda: D.Bernoulli(0.3), stats.bernoulli(0.3), 2),
    "Geometric": (lambda: D.Geometric(0.4), stats.geom(0.4, loc=-1), 8),
    "Poisson": (lambda: D.Poisson(3.5), stats.poisson(3.5), 9),
    "Categorical": (
        lambda: D.Categorical(tg.tensor([0.1, 0.6, 0.3])),
        stats.rv_discrete(values=([0, 1, 2], [0.1, 0.6, 0.3])), 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions_and_their_samples_follow_scipy(name: str) -> None:
    make, expected, kinds = DISCRETE[name]
    made, values = make(), np.arange(kinds)
    got = made.log_prob(tg.arange(kinds).float()).exp().numpy()
    np.testing.assert_allclose(got, expected.pmf(values), rtol=1e-5)
    drawn = made.sample((4000,)).numpy().astype(np.int64)
    masses = np.append(expected.pmf(values), expected.sf(kinds - 1))
    seen = np.append(np.bincount(drawn[drawn < kinds], minlength=kinds), (drawn >= kinds).sum())
    kept = masses > 1e-9
    assert stats.chisquare(seen[kept], masses[kept] / masses.sum() * 4000).pvalue > 1e-5


def test_multivariate_samples() -> None:
    sigma = covariance(3)
    made = D.MultivariateNormal(tg.tensor([1.0, 2.0, 3.0]), tg.tensor(sigma))
    drawn = made.sample((20000,)).numpy()
    np.testing.assert_allclose(drawn.mean(0), [1, 2, 3], atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), sigma, atol=0.2)
    expected = stats.multivariate_normal([1, 2, 3], sigma.astype(np.float64)).logpdf(drawn[:5])
    np.testing.assert_allclose(made.log_prob(tg.tensor(drawn[:5])).numpy(), expected, rtol=1e-4)
    counts = D.Categorical(logits=tg.zeros(2, 4)).sample((8000,)).numpy()
    assert counts.shape == (8000, 2)
    assert np.abs(np.corrcoef(counts.T)[0, 1]) < 0.05


PAIRS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (name, parameters, {k: v * 0.9 if "probs" not in k else v * 0.8 for k, v in parameters.items()})
    for name, parameters, _ in CASES
    if name not in ("Uniform", "Chi2", "MultivariateNormal")
] + [
    ("Uniform", {"low": np.float32([0, 0]), "high": np.float32([1, 2])},
     {"low": np.float32([-1, 0.5]), "high": np.float32([2, 2])}),
    ("MultivariateNormal", {"loc": reals(2, 3), "covariance_matrix": covariance(3)},
     {"loc": reals(3), "covariance_matrix": covariance(3)}),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "left", "right"), PAIRS, ids=[p[0] for p in PAIRS])
def test_divergences_follow_pytorch(name: str, left: dict[str, Any], right: dict[str, Any]) -> None:
    import torch

    found = []
    for module in (tg, torch):
        p, q = (
            getattr(module.distributions, name)(**{k: module.tensor(v) for k, v in given.items()})
            for given in (left, right)
        )
        found.append(
            (module.distributions.kl_divergence(p, q), module.distributions.kl_divergence(p, p))
        )
    assert_same(found[0], found[1], name)


def test_divergences_by_hand() -> None:
    p, q = D.Normal(tg.zeros(2), 1.0), D.Normal(tg.ones(2), 1.0)
    assert D.kl_divergence(p, q).tolist() == [0.5, 0.5]
    assert D.kl_divergence(D.Independent(p, 1), D.Independent(q, 1)).item() == 1.0
    with pytest.raises(NotImplementedError):
        D.kl_divergence(p, D.Cauchy(0.0, 1.0))


def test_independent() -> None:
    base = D.Normal(tg.zeros(4, 3), tg.ones(4, 3))
    made = D.Independent(base, 1)
    x = made.rsample((2,))
    assert made.batch_shape == (4,) and made.event_shape == (3,) and x.shape == (2, 4, 3)
    np.testing.assert_allclose(
        made.log_prob(x).numpy(), base.log_prob(x).sum(-1).numpy(), rtol=1e-6
    )
    assert made.entropy().shape == (4,) and made.expand((5, 4)).sample().shape == (5, 4, 3)
    assert D.Independent(base, 0).log_prob(x).shape == (2, 4, 3)


def test_rsample_lets_gradients_through_and_sample_does_not() -> None:
    loc, scale = tg.zeros(3, requires_grad=True), tg.ones(3, requires_grad=True)
    tg.manual_seed(1)
    x = D.Normal(loc, scale).rsample()
    x.sum().backward()
    assert loc.grad.tolist() == [1.0] * 3
    np.testing.assert_allclose(scale.grad.numpy(), x.detach().numpy(), rtol=1e-6)
    assert not D.Normal(loc, scale).sample().requires_grad
    assert not D.Gamma(scale, scale).sample().requires_grad
    with pytest.raises(NotImplementedError, match="sample"):
        D.Bernoulli(0.5).rsample()


@pytest.mark.parametrize("concentration", [0.3, 2.0, 30.0])
def test_gamma_samples_move_with_their_concentration(concentration: float) -> None:
    """The mean of x is a, so that of dx/da is 1; and F(x + h·dx/da; a + h) stays F(x; a)."""
    a = tg.full((4000,), concentration, dtype=tg.float64, requires_grad=True)
    x = D.Gamma(a, 1.0).rsample()
    (slope,) = tg.autograd.grad(x.sum(), a)
    assert abs(slope.mean().item() - 1) < 0.1
    drawn, step = x.detach().numpy()[:200], 1e-6 * concentration
    moved = drawn + step * slope.numpy()[:200]
    shares = stats.gamma(concentration).cdf(drawn), stats.gamma(concentration + step).cdf(moved)
    np.testing.assert_allclose(*shares, rtol=1e-6, atol=1e-9)


BAD: dict[str, Callable[[], Any]] = {
    "scale": lambda: D.Normal(0.0, -1.0),
    "nan": lambda: D.Normal(float("nan"), 1.0),
    "probs": lambda: D.Bernoulli(1.5),
    "both": lambda: D.Categorical(tg.ones(2), tg.ones(2)),
    "neither": lambda: D.Bernoulli(),
    "negative": lambda: D.Categorical(tg.tensor([-1.0, 2.0])),
    "covariance": lambda: D.MultivariateNormal(tg.zeros(2), tg.tensor([[1.0, 2.0], [0.0, 1.0]])),
    "support": lambda: D.Uniform(0.0, 1.0).log_prob(tg.tensor(2.0)),
    "category": lambda: D.Categorical(tg.ones(2)).log_prob(tg.tensor(2)),
    "event": lambda: D.MultivariateNormal(tg.zeros(2), tg.eye(2)).log_prob(tg.zeros(3)),
    "transforms": lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), [abs]),
    "mixture": lambda: D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(0.0, 1.0)),
    "dims": lambda: D.Independent(D.Normal(0.0, 1.0), 1),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        BAD[name]()


def test_checks_can_be_switched_off() -> None:
    D.Normal(0.0, -1.0, validate_args=False)
    D.Distribution.set_default_validate_args(False)
    try:
        assert D.Uniform(0.0, 1.0).log_prob(tg.tensor(2.0)).item() == -np.inf
    finally:
        D.Distribution.set_default_validate_args(True)


def test_policies_trace() -> None:
    """Sampling an action and its log probability replays as it runs eagerly."""

    def act(logits: Any) -> Any:
        policy, noise = D.Categorical(logits=logits), D.Normal(logits, 1.0)
        action = policy.sample()
        moved = D.Independent(noise, 1).rsample()
        return action, policy.log_prob(action), policy.entropy(), moved, noise.log_prob(moved)

    logits = tg.tensor(reals(4, 3))
    traced = trace(act, (logits,))
    for other in (logits, logits * 2):
        found = []
        for function in (act, traced):
            tg.manual_seed(2)
            found.append([t.tolist() for t in function(other)])
        assert found[0] == found[1]


# Distributions of one's own.


@pytest.mark.parametrize("args", [None, {"is_discrete": False, "event_dim": 0}])
def test_a_distribution_of_ones_own_may_have_constraints_that_depend(T: Any, args: Any) -> None:
    constraints, utils = T.distributions.constraints, T.distributions.utils
    mark = (
        constraints.dependent_property if args is None else constraints.dependent_property(**args)
    )

    class Above(T.distributions.Distribution):  # type: ignore[misc, name-defined]
        arg_constraints = {"low": constraints.dependent}

        def __init__(self, low: Any) -> None:
            (self.low,) = utils.broadcast_all(low)
            super().__init__(self.low.shape)

        @mark
        def support(self) -> Any:
            return constraints.greater_than(self.low)

        @utils.lazy_property
        def doubled(self) -> Any:
            calls.append(1)
            return self.low * 2

        def log_prob(self, value: Any) -> Any:
            self._validate_sample(value)
            return self.low - value

    calls: list[int] = []
    known = Above(T.tensor([1.0, 2.0]))
    assert constraints.is_dependent(vars(Above)["support"]) and not constraints.is_dependent(
        known.support
    )
    assert known.log_prob(T.tensor([2.0, 3.0])).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="support"):
        known.log_prob(T.tensor([0.0, 3.0]))
    assert known.doubled.tolist() == known.doubled.tolist() == [2, 4] and calls == [1]
    assert known._get_checked_instance(Above).__class__ is Above
    with pytest.raises(NotImplementedError, match="custom __init__"):
        known._get_checked_instance(T.distributions.Distribution)


def test_a_constraint_of_ones_own_defines_check(T: Any) -> None:
    constraints = T.distributions.constraints

    class _Even(constraints.Constraint):  # type: ignore[misc, name-defined]
        is_discrete = True

        def check(self, value: Any) -> Any:
            return value % 2 == 0

    even = _Even()
    assert even.check(T.tensor([1, 2])).tolist() == [False, True]
    assert even.is_discrete and even.event_dim == 0 and repr(even) == "Even()"
    with pytest.raises(ValueError, match="dependent"):
        constraints.dependent.check(T.ones(1))


@pytest.mark.parametrize("binary", [False, True])
def test_logits_and_probabilities(T: Any, binary: bool) -> None:
    utils = T.distributions.utils
    given = T.tensor([0.0, 0.25, 0.75], dtype=T.float64)
    logits = utils.probs_to_logits(given, is_binary=binary)
    assert logits.isfinite().all()
    T.testing.assert_close(utils.logits_to_probs(logits, is_binary=binary), given)
    assert utils._sum_rightmost(T.ones(2, 3, 4), 2).tolist() == [12, 12]
    assert utils._sum_rightmost(T.ones(2), 0).shape == (2,)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("lower_triangular", [[1.0, 0.0], [2.0, 3.0]], True),
        ("lower_triangular", [[1.0, 1.0], [2.0, 3.0]], False),
        ("square", [[1.0, 1.0]], False),
        ("symmetric", [[1.0, 2.0], [2.0, 1.0]], True),
        ("positive_semidefinite", [[1.0, 2.0], [2.0, 1.0]], False),
        ("positive_semidefinite", [[2.0, 2.0], [2.0, 2.0]], True),
    ],
)
def test_constraints_of_matrices(T: Any, name: str, rows: Any, expected: bool) -> None:
    checked = getattr(T.distributions.constraints, name).check(T.tensor(rows, dtype=T.float64))
    assert bool(checked.all()) is expected
