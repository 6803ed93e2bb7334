"""Optimizers and schedulers: against PyTorch, against closed forms, and in traces."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.capture.tracing import trace
from tracegraph.capture.trie import same_row
from tracegraph.errors import BakeError
from tracegraph.optim import lr_scheduler, rule
from tracegraph.optim.rule import RuleOptimizer

SHAPES = ((4, 3), (3,), ())

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.01}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adafactor", {"weight_decay": 0.1}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Rprop", {"lr": 0.01}),
    ("ASGD", {"t0": 3, "lambd": 0.1, "weight_decay": 0.1}),
]
NAMES = [f"{name} {' '.join(options)}".strip() for name, options in CASES]


class Problem:
    """Least squares in a library `T`, with an optimizer; `step(x)` trains once."""

    def __init__(self, T: Any, name: str, options: dict[str, Any], dtype: str = "float32") -> None:
        rng = np.random.default_rng(0)
        data = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]
        self.params = [T.tensor(a, requires_grad=True) for a in data]
        self.optimizer = getattr(T.optim, name)(self.params, **options)

    def loss(self, x: Any) -> Any:
        w, b, s = self.params
        return ((x @ w + b * s) ** 2).mean()

    def step(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        return loss


def batches(T: Any, dtype: str = "float32", count: int = 10) -> list[Any]:
    rng = np.random.default_rng(1)
    return [T.tensor(rng.standard_normal((5, 4)).astype(dtype)) for _ in range(count)]


def values(tensors: Any) -> list[Any]:
    return [t.detach().numpy() for t in tensors]


def slots(optimizer: Any, params: Any) -> dict[str, Any]:
    return {
        f"{i}.{name}": t.numpy()
        for i, p in enumerate(params)
        for name, t in optimizer.state[p].items()
        if t is not None
    }


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_ten_steps_follow_pytorch(name: str, options: dict[str, Any], dtype: str) -> None:
    import torch

    tolerance = {"rtol": 2e-4, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-6, "atol": 1e-9}
    ours, theirs = (Problem(T, name, options, dtype) for T in (tg, torch))
    for x, y in zip(batches(tg, dtype), batches(torch, dtype), strict=True):
        ours.step(x)
        theirs.step(y)
    for a, b in zip(values(ours.params), values(theirs.params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **tolerance)
    mine = slots(ours.optimizer, ours.params)
    for key, slot in slots(theirs.optimizer, theirs.params).items():
        assert mine[key].dtype == slot.dtype and mine[key].shape == slot.shape
        np.testing.assert_allclose(mine[key], slot, **tolerance)
    defaults = {k: v for k, v in theirs.optimizer.param_groups[0].items() if k != "params"}
    assert {k: v for k, v in ours.optimizer.param_groups[0].items() if k != "params"} == defaults
    assert repr(ours.optimizer) == repr(theirs.optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_a_replayed_step_equals_an_eager_one(
    name: str, options: dict[str, Any], dtype: str
) -> None:
    """From a fresh optimizer, bit for bit, also where the learning rate changes in between."""
    eager, replayed = (Problem(tg, name, options, dtype) for _ in range(2))
    xs = batches(tg, dtype)
    traced = trace(replayed.step, (xs[0],))
    for i, x in enumerate(xs):
        if i == 6:
            for problem in (eager, replayed):
                problem.optimizer.param_groups[0]["lr"] *= 0.5
        np.testing.assert_array_equal(*values((eager.step(x), traced(x))))
    for a, b in zip(values(eager.params), values(replayed.params), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = slots(eager.optimizer, eager.params)
    got = slots(replayed.optimizer, replayed.params)
    assert expected.keys() == got.keys()
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key], err_msg=key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_large_parameters_are_noted_as_small_ones_are(
    name: str, options: dict[str, Any], dtype: str, monkeypatch: Any
) -> None:
    """A trace lets arrays update large parameters: the same rows, lines and bits as Tensors."""
    found = []
    for small in (0, 1 << 40):
        monkeypatch.setattr(rule, "_SMALL", small)
        rng = np.random.default_rng(0)
        x = tg.tensor(rng.standard_normal((5, 4)), dtype=getattr(tg, dtype))
        w = tg.tensor(rng.standard_normal((4, 3)), dtype=x.dtype, requires_grad=True)
        optimizer = getattr(tg.optim, name)([w], **options)

        def step(x: Any, w: Any = w, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (x @ w).square().mean()
            loss.backward()
            optimizer.step()
            return loss, w.sum()  # what is read after the write

        rows = trace(step, (x,), check=True)._examples[0].path.rows
        bits = [t.detach()._data.tobytes() for t in (*step(x), *step(x), w)]
        found.append((list(rows), bits))
    (mine, bits), (theirs, others) = found
    assert bits == others and len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a[:2] == b[:2] and same_row(a, b) and a.scope == b.scope


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_materialised_slots_change_nothing(name: str, options: dict[str, Any]) -> None:
    plain, early = (Problem(tg, name, options) for _ in range(2))
    early.optimizer.__tracegraph_materialize__()
    for x in batches(tg, count=3):
        plain.step(x)
        early.step(x)
    for a, b in zip(values(plain.params), values(early.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_state_is_saved_and_loaded(name: str, options: dict[str, Any]) -> None:
    whole, first = (Problem(tg, name, options) for _ in range(2))
    xs = batches(tg)
    for x in xs:
        whole.step(x)
    for x in xs[:5]:
        first.step(x)
    second = Problem(tg, name, options)
    state = pickle.loads(pickle.dumps(first.optimizer.state_dict()))
    second.optimizer.load_state_dict(state)
    with tg.no_grad():
        for p, q in zip(second.params, first.params, strict=True):
            p.copy_(q)
    for x in xs[5:]:
        second.step(x)
    for a, b in zip(values(whole.params), values(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] != "Adafactor"])
def test_a_state_of_pytorch_is_resumed(name: str, options: dict[str, Any]) -> None:
    import torch

    theirs, ours = Problem(torch, name, options), Problem(tg, name, options)
    pairs = list(zip(batches(torch), batches(tg), strict=True))
    for y, _ in pairs[:5]:
        theirs.step(y)

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return tg.tensor(value.numpy()) if isinstance(value, torch.Tensor) else value

    ours.optimizer.load_state_dict(convert(theirs.optimizer.state_dict()))
    with tg.no_grad():
        for p, q in zip(ours.params, theirs.params, strict=True):
            p.copy_(tg.tensor(q.detach().numpy()))
    for y, x in pairs[5:]:
        theirs.step(y)
        ours.step(x)
    for a, b in zip(values(ours.params), values(theirs.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_loading_keeps_the_memory_of_slots() -> None:
    """A trace made before `load_state_dict` goes on with the loaded state."""
    trained, problem = (Problem(tg, "Adam", {}) for _ in range(2))
    xs = batches(tg)
    traced = trace(problem.step, (xs[0],))
    for x in xs[:5]:
        trained.step(x)
    problem.optimizer.load_state_dict(trained.optimizer.state_dict())
    with tg.no_grad():
        for p, q in zip(problem.params, trained.params, strict=True):
            p.copy_(q)
    for x in xs[5:]:
        trained.step(x)
        traced(x)
    for a, b in zip(values(trained.params), values(problem.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sgd_and_adam_by_hand() -> None:
    p = tg.tensor([1.0, -2.0], dtype=tg.float64, requires_grad=True)
    sgd = tg.optim.SGD([p], lr=0.1, momentum=0.5)
    for gradient in (1.0, 3.0):
        p.grad = tg.full((2,), gradient, dtype=tg.float64)
        sgd.step()
    # Velocities 1 and 3.5.
    np.testing.assert_allclose(p.detach().numpy(), np.array([1.0, -2.0]) - 0.1 * 4.5, rtol=1e-15)
    p = tg.tensor([1.0], dtype=tg.float64, requires_grad=True)
    adam = tg.optim.Adam([p], lr=0.1)
    p.grad = tg.tensor([5.0], dtype=tg.float64)
    adam.step()
    # The first step of Adam is lr · sign(g), up to eps.
    np.testing.assert_allclose(p.item(), 1 - 0.1 * 5 / (5 + 1e-8), rtol=1e-12)
    assert adam.state[p]["step"].item() == 1.0 and adam.state[p]["step"].shape == ()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_large_parameters_are_updated_in_pieces(name: str, monkeypatch: Any) -> None:
    """Arrays in pieces, arrays that are not contiguous, and Tensors give the same bits."""
    rng = np.random.default_rng(0)
    data, gradient = (rng.standard_normal((300, 7)).astype(np.float32) for _ in range(2))
    results = []
    for way in ("whole", "pieces", "strided", "tensors"):
        monkeypatch.setattr("tracegraph.optim.rule._PIECE", 100 if way == "pieces" else 1 << 17)
        monkeypatch.setattr(RuleOptimizer, "_elementwise", way != "tensors")
        p = tg.tensor(data, requires_grad=True)
        if way == "strided":
            p = tg.from_numpy(np.asfortranarray(data)).requires_grad_()
        optimizer = getattr(tg.optim, name)(
            [p], lr=0.1, **({"momentum": 0.9} if name == "SGD" else {})
        )
        for _ in range(3):
            p.grad = tg.tensor(gradient)
            optimizer.step()
        results.append(p.detach().numpy().copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_groups_closures_hooks_and_missing_gradients() -> None:
    p, q, unused = (tg.ones(2, requires_grad=True) for _ in range(3))
    optimizer = tg.optim.SGD([{"params": [p]}, {"params": q, "lr": 1.0}], lr=0.5)
    optimizer.add_param_group({"params": [unused]})
    seen: list[str] = []
    before = optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (p + q).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert (p.tolist(), q.tolist(), unused.tolist()) == ([0.5] * 2, [0.0] * 2, [1.0] * 2)
    before.remove()
    optimizer.step()
    assert seen == ["before", "after", "after"] and unused not in optimizer.state
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None
    assert optimizer.state_dict()["param_groups"][1]["params"] == [1]


def test_the_step_changes_the_version_of_parameters() -> None:
    p = tg.ones(2, requires_grad=True)
    optimizer = tg.optim.SGD([p], lr=0.1)
    loss = (p * p).sum()
    p.grad = tg.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError):
        loss.backward()


def test_tensors_as_learning_rates() -> None:
    lr = tg.tensor(0.1)
    p, q = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    for optimizer, t in ((tg.optim.SGD([p], lr=lr), p), (tg.optim.SGD([q], lr=0.1), q)):
        t.grad = tg.ones(2)
        optimizer.step()
    np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_names_of_state_and_hyper_parameters_in_a_trace() -> None:
    problem = Problem(tg, "Adam", {})
    problem.optimizer.add_param_group({"params": [tg.ones(1, requires_grad=True)], "lr": 0.5})
    traced = trace(problem.step, (batches(tg)[0],))
    names = {h.name for h in traced.hypers}
    assert {n.rpartition("optimizer.")[2] for n in names} == {"lr", "eps", "betas.0", "betas.1"}
    assert any("exp_avg_sq" in name for name in traced.graph.states)


@pytest.mark.parametrize("options", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}])
@pytest.mark.parametrize("shape", [(6, 4), (3, 8)])
def test_muon(shape: tuple[int, int], options: dict[str, Any]) -> None:
    """Near PyTorch's bfloat16 iteration, near an orthogonal matrix, and the same in a trace."""
    rng = np.random.default_rng(0)
    start, gradient = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))

    def made() -> tuple[Any, Callable[[], None]]:
        p = tg.tensor(start, requires_grad=True)
        optimizer = tg.optim.Muon([p], lr=0.1, weight_decay=0.0, **options)

        def step() -> None:
            optimizer.zero_grad()
            (p * tg.tensor(gradient)).sum().backward()
            optimizer.step()

        return p, step

    p, step = made()
    step()
    size = 0.2 * max(shape) ** 0.5 if options else max(1, shape[0] / shape[1]) ** 0.5
    moved = np.linalg.svd((start - p.detach().numpy()) / (0.1 * size))[1]
    assert (moved > 0.6).all() and (moved < 1.3).all()
    q, other = made()
    traced = trace(other, ())
    traced()
    np.testing.assert_array_equal(q.detach().numpy(), p.detach().numpy())
    with pytest.raises(ValueError, match="2D"):
        tg.optim.Muon([tg.ones(2)])


@pytest.mark.oracle
def test_muon_is_near_pytorch() -> None:
    import torch

    rng = np.random.default_rng(0)
    start, gradient = (rng.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
    found = []
    for T in (tg, torch):
        p = T.tensor(start, requires_grad=True)
        optimizer = T.optim.Muon([p], lr=0.1)
        for _ in range(3):
            p.grad = T.tensor(gradient)
            optimizer.step()
        found.append(p.detach().numpy())
    # PyTorch's bfloat16 has 8 bits; three steps of 0.1 each.
    np.testing.assert_allclose(found[0], found[1], atol=0.3 * 2**-5)


def test_lbfgs_does_not_trace() -> None:
    problem = Problem(tg, "LBFGS", {})

    def step(x: Any) -> Any:
        def closure() -> Any:
            problem.optimizer.zero_grad()
            loss = problem.loss(x)
            loss.backward()
            return loss

        return problem.optimizer.step(closure)

    with pytest.raises(BakeError):
        trace(step, (batches(tg)[0],))


def rosenbrock(T: Any, line_search: str | None, lr: float) -> tuple[list[float], float]:
    x = T.tensor([-1.5, 2.0], dtype=T.float64, requires_grad=True)
    optimizer = T.optim.LBFGS([x], lr=lr, max_iter=30, line_search_fn=line_search, history_size=4)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    return x.detach().tolist(), closure().item()


def test_lbfgs_finds_the_minimum() -> None:
    found, loss = rosenbrock(tg, "strong_wolfe", 1.0)
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-5)
    assert loss < 1e-10


@pytest.mark.oracle
@pytest.mark.parametrize(("line_search", "lr"), [("strong_wolfe", 1.0), (None, 0.05)])
def test_lbfgs_follows_pytorch(line_search: str | None, lr: float) -> None:
    import torch

    ours, theirs = (rosenbrock(T, line_search, lr) for T in (tg, torch))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


BAD: dict[str, Callable[[Any], Any]] = {
    "no parameters": lambda p: tg.optim.SGD([], lr=0.1),
    "lr": lambda p: tg.optim.SGD([p], lr=-0.1),
    "beta": lambda p: tg.optim.Adam([p], betas=(1.0, 0.9)),
    "eps": lambda p: tg.optim.Adam([p], eps=-1),
    "weight decay": lambda p: tg.optim.RMSprop([p], weight_decay=-1),
    "nesterov": lambda p: tg.optim.SGD([p], nesterov=True),
    "two groups": lambda p: tg.optim.SGD([{"params": [p]}, {"params": [p]}]),
    "no leaf": lambda p: tg.optim.SGD([p * 2]),
    "etas": lambda p: tg.optim.Rprop([p], etas=(1.5, 1.2)),
    "groups of LBFGS": lambda p: tg.optim.LBFGS([{"params": [p]}, {"params": [tg.ones(1)]}]),
    "loaded groups": lambda p: tg.optim.SGD([p]).load_state_dict({"state": {}, "param_groups": []}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        BAD[name](tg.ones(2, requires_grad=True))
    with pytest.raises(TypeError):
        tg.optim.SGD(tg.ones(2))
    with pytest.raises(TypeError):
        tg.optim.SGD([1.0])


def test_a_users_optimizer() -> None:
    class Signs(tg.optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @tg.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["last"] = p.grad.clone()
                    p.add_(p.grad.sign(), alpha=-group["lr"])

    p = tg.tensor([1.0, 2.0], requires_grad=True)
    optimizer = Signs([p], lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    (p * tg.tensor([3.0, -4.0])).sum().backward()
    optimizer.step()
    scheduler.step()
    assert p.tolist() == [0.5, 2.5] and optimizer.state[p]["last"].tolist() == [3.0, -4.0]
    assert [(n, t.tolist()) for n, _, t in optimizer.__tracegraph_state__()] == [
        ("last", [3.0, -4.0])
    ]


# Schedulers.


def schedulers(S: Any) -> dict[str, Callable[[Any], Any]]:
    return {
        "StepLR": lambda o: S.StepLR(o, 3, 0.5),
        "MultiStepLR": lambda o: S.MultiStepLR(o, [2, 5, 5, 9], 0.3),
        "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
        "ConstantLR": lambda o: S.ConstantLR(o, 0.25, 4),
        "LinearLR": lambda o: S.LinearLR(o, 0.1, 0.8, 6),
        "PolynomialLR": lambda o: S.PolynomialLR(o, 8, 2.0),
        "LambdaLR": lambda o: S.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)]),
        "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda e: 0.95),
        "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 5, 0.01),
        "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 3, 2, 0.001),
        "OneCycleLR": lambda o: S.OneCycleLR(o, [0.5, 1.0], total_steps=15),
        "OneCycleLR of three phases": lambda o: S.OneCycleLR(
            o, 0.5, epochs=3, steps_per_epoch=5, three_phase=True, anneal_strategy="linear"
        ),
        "CyclicLR": lambda o: S.CyclicLR(o, 0.01, 0.2, 4, 2, mode="triangular2"),
        "CyclicLR exp_range": lambda o: S.CyclicLR(
            o, [0.01, 0.02], 0.2, 3, mode="exp_range", gamma=0.9, cycle_momentum=False
        ),
        "SequentialLR": lambda o: S.SequentialLR(
            o, [S.ConstantLR(o, 0.1, 3), S.ExponentialLR(o, 0.9), S.StepLR(o, 2)], [3, 8]
        ),
        "ChainedScheduler": lambda o: S.ChainedScheduler(
            [S.ConstantLR(o, 0.1, 3), S.ExponentialLR(o, 0.9)]
        ),
    }


def groups(T: Any, name: str = "SGD") -> Any:
    p, q = (T.ones(2, requires_grad=True) for _ in range(2))
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(T.optim, name)([{"params": [p]}, {"params": [q], "lr": 0.2}], lr=0.1, **options)


def rates(optimizer: Any, scheduler: Any, steps: int) -> list[Any]:
    found = []
    for _ in range(steps):
        momentum = [g.get("momentum", g.get("betas")) for g in optimizer.param_groups]
        found.append([[g["lr"] for g in optimizer.param_groups], momentum, scheduler.get_last_lr()])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.oracle
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", schedulers(lr_scheduler))
def test_schedules_follow_pytorch(name: str, optimizer: str) -> None:
    import torch

    found = []
    for T, S in ((tg, lr_scheduler), (torch, torch.optim.lr_scheduler)):
        made = groups(T, optimizer)
        found.append(rates(made, schedulers(S)[name](made), 14))
    flat = [np.hstack([np.hstack(part) for row in rows for part in row]) for rows in found]
    np.testing.assert_allclose(flat[0], flat[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", schedulers(lr_scheduler))
def test_schedulers_are_saved_and_loaded(name: str) -> None:
    whole = groups(tg)
    scheduler = schedulers(lr_scheduler)[name](whole)
    expected = rates(whole, scheduler, 12)[7:]
    first = groups(tg)
    scheduler = schedulers(lr_scheduler)[name](first)
    rates(first, scheduler, 7)
    second = groups(tg)
    resumed = schedulers(lr_scheduler)[name](second)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    second.load_state_dict(first.state_dict())
    assert rates(second, resumed, 5) == expected


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{"patience": 1}, {"mode": "max", "cooldown": 2, "patience": 0,
                                     "threshold_mode": "abs", "min_lr": [0.01, 0.05]}])  # fmt: skip
def test_reduce_on_plateau_follows_pytorch(options: dict[str, Any]) -> None:
    import torch

    metrics = [1.0, 0.9, 0.9, 0.95, 0.9, 0.5, 0.6, 0.7, 0.6, 0.4, 0.4, 0.4, 0.4]
    found = []
    for T in (tg, torch):
        optimizer = groups(T)
        scheduler = T.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        for metric in metrics:
            scheduler.step(T.tensor(metric))
            found.append([g["lr"] for g in optimizer.param_groups] + list(scheduler.get_last_lr()))
    np.testing.assert_allclose(found[: len(metrics)], found[len(metrics) :], rtol=1e-12)


def test_schedules_by_hand() -> None:
    optimizer = groups(tg)
    scheduler = lr_scheduler.StepLR(optimizer, 2, 0.1)
    found = [row[0][0] for row in rates(optimizer, scheduler, 5)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001])
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        lr_scheduler.StepLR(groups(tg), 2).step()
    with warnings.catch_warnings(), pytest.raises(ValueError):
        lr_scheduler.LambdaLR(groups(tg), [lambda e: 1.0])


def test_a_scheduler_moves_a_replayed_step() -> None:
    found = []
    for way in ("eager", "traced"):
        problem = Problem(tg, "SGD", {"lr": 0.1, "momentum": 0.9})
        xs = batches(tg)
        step = problem.step if way == "eager" else trace(problem.step, (xs[0],))
        scheduler = lr_scheduler.OneCycleLR(problem.optimizer, 0.5, total_steps=len(xs))
        for x in xs:
            step(x)
            scheduler.step()
        found.append(values(problem.params))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
