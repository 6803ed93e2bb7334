"""`tracegraph.compile`: replays where it can, eager where it must, never a wrong answer."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.errors import BakeError, TraceError


def test_a_function_is_traced_once_per_kind_of_arguments() -> None:
    calls = []

    @tg.compile
    def f(x: Any, scale: float = 1.0) -> Any:
        seen.add(tuple(x.shape))
        return x * scale + 1

    seen: set[Any] = set()
    del calls
    for _ in range(3):
        assert f(tg.ones(2)).tolist() == [2, 2]
        assert f(tg.ones(3), 2.0).tolist() == [3, 3, 3]
        assert f(tg.ones(3), scale=3.0).tolist() == [4, 4, 4]
    assert "f: 9 calls" in f.explain()


def test_replays_do_not_run_python() -> None:
    runs = [0]

    def f(x: Any) -> Any:
        runs[0] = runs[0] + 0  # read only
        return x + 1

    compiled = tg.compile(f)
    for _ in range(5):
        compiled(tg.ones(2))
    assert "5 replayed, 0 eager" in compiled.explain()


def test_branches_widen_the_graph() -> None:
    @tg.compile
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    for sign in (1, -1, 1, -1):
        assert f(sign * tg.ones(2)).tolist() == ([2, 2] if sign > 0 else [-2, -2])
    assert "4 replayed, 0 eager" in f.explain()
    assert "x.sum() > 0" in f.explain()


class Scaled(tg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = tg.nn.Linear(3, 2), 2.0

    def forward(self, x: Any) -> Any:
        return self.fc(x) * self.scale


def test_a_changed_attribute_makes_the_graph_again() -> None:
    model = Scaled()
    compiled = tg.compile(model)
    x = tg.randn(4, 3)
    with tg.no_grad():
        for scale in (2.0, 2.0, 3.0, 3.0):
            model.scale = scale
            assert np.allclose(compiled(x).numpy(), model(x).numpy())
    assert "made again: self.scale" in compiled.explain()
    assert "0 eager" in compiled.explain()


def test_modes_share_one_graph() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(3, 3), tg.nn.Dropout(0.5))
    compiled = tg.compile(model)
    x = tg.randn(4, 3)
    for train in (True, False, True, False):
        model.train(train)
        tg.manual_seed(1)
        right = model(x)
        tg.manual_seed(1)
        assert np.allclose(compiled(x).numpy(force=True), right.numpy(force=True))
    assert "0 eager" in compiled.explain()


def test_training_through_a_compiled_module_and_a_compiled_step() -> None:
    losses = []
    for kind in ("eager", "module", "step"):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(3, 8), tg.nn.Tanh(), tg.nn.Linear(8, 1))
        optimizer = tg.optim.Adam(model.parameters(), lr=0.05)
        net = tg.compile(model) if kind == "module" else model

        def step(x: Any, y: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = ((net(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = tg.compile(step) if kind == "step" else step
        x, y = tg.randn(16, 3), tg.randn(16, 1)
        losses.append([run(x, y).item() for _ in range(10)])
        if kind != "eager":
            assert ", 0 eager" in (net if kind == "module" else run).explain()
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["item", "print", "list", "object", "random"])
def test_what_cannot_be_replayed_runs_eagerly_and_says_why(kind: str, capsys: Any) -> None:
    kept: list[Any] = []

    def item(x: Any) -> Any:
        return x * x.sum().item()

    def prints(x: Any) -> Any:
        print("here")
        return x

    def appends(x: Any) -> Any:
        kept.append(1)
        return x

    def draws(x: Any) -> Any:
        return x * random.random()

    table = {"item": item, "print": prints, "list": appends, "object": lambda x, o: x,
             "random": draws}  # fmt: skip
    f = tg.compile(table[kind])
    args = (tg.ones(2), object()) if kind == "object" else (tg.ones(2),)
    results = [f(*args) for _ in range(4)]
    why = {"item": "BakeError", "print": "it prints", "list": "changes Python objects",
           "object": "no graph can take", "random": "random"}[kind]  # fmt: skip
    if kind == "random":
        assert len({r.tolist()[0] for r in results}) == 4, f.explain()
    assert why in f.explain() and "0 replayed" in f.explain()
    if kind == "list":
        assert len(kept) == 4
    if kind == "print":
        assert capsys.readouterr().out == "here\n" * 4


def test_fullgraph_raises_instead() -> None:
    with pytest.raises(BakeError):
        tg.compile(lambda x: x * x.sum().item(), fullgraph=True)(tg.ones(2))
    with pytest.raises(TraceError, match="object among the arguments"):
        tg.compile(lambda x: x, fullgraph=True)(object())


def test_errors_of_the_function_are_its_own() -> None:
    @tg.compile
    def f(x: Any) -> Any:
        if x.shape[0] != 2:
            raise KeyError("two rows only")
        return x

    f(tg.ones(2))
    with pytest.raises(KeyError, match="two rows only"):
        f(tg.ones(3))


def test_the_number_of_graphs_is_bounded() -> None:
    f = tg.compile(lambda x: x + 1, limit=4, dynamic=False)
    for n in range(10):
        assert f(tg.ones(n)).shape == (n,)
    assert "6 graphs were dropped" in f.explain()
    f.reset()
    assert "0 calls" in f.explain()


def softmax_of_products(x: Any, y: Any) -> Any:
    return (x @ y).softmax(-1)


def by_size(x: Any, y: Any) -> Any:
    if x.shape[0] > 3:
        return x.sum(0)
    return x.flip(0).cumsum(0)[-1:].sum(0) * y.shape[-1]


def unrolled(x: Any, y: Any) -> Any:
    total = y.sum()
    for i in range(x.shape[0]):
        total = total + x[i].sum() * i
    return total


def in_pairs(x: Any, y: Any) -> Any:
    return x.reshape(-1, 2).sum(1) if x.numel() % 2 == 0 else x.sum()


@pytest.mark.parametrize("function", [softmax_of_products, by_size, unrolled, in_pairs])
@pytest.mark.oracle
def test_one_graph_serves_all_sizes(function: Any) -> None:
    torch = pytest.importorskip("torch")
    f = tg.compile(function)
    rng = np.random.default_rng(3)
    for _ in range(60):
        a, b, c = rng.integers(1, 9, size=3)
        x, y = (rng.normal(size=s).astype(np.float32) for s in ((a, b), (b, c)))
        right = function(torch.from_numpy(x), torch.from_numpy(y))
        given = f(tg.from_numpy(x), tg.from_numpy(y))
        assert given.shape == tuple(right.shape)
        np.testing.assert_allclose(given.numpy(), right.numpy(), rtol=1e-4, atol=1e-5)
    told = f.explain()
    assert "60 replayed, 0 eager" in told and told.count("for (") == 1, told


def test_no_rows_and_one_row_are_sizes_like_others() -> None:
    f = tg.compile(lambda x: x.relu().sum(1))
    for n in (1, 0, 7, 1, 0):
        assert f(tg.ones(n, 3)).tolist() == [3.0] * n
    assert f.explain().count("for (") == 1


def test_sizes_that_one_graph_cannot_serve_have_their_own() -> None:
    table = tg.arange(6.0).reshape(3, 2)

    def f(x: Any) -> Any:
        return x + table  # three rows, or one

    compiled = tg.compile(f)
    for n in (3, 1, 3, 1, 3):
        assert compiled(tg.ones(n, 2)).tolist() == f(tg.ones(n, 2)).tolist()
    with pytest.raises(RuntimeError, match="must match"):
        compiled(tg.ones(2, 2))
    assert compiled(tg.ones(3, 2)).tolist() == f(tg.ones(3, 2)).tolist()
    assert "6 replayed" in compiled.explain()


def test_without_dynamic_each_size_has_its_graph() -> None:
    f = tg.compile(lambda x: x * 2, dynamic=False)
    for n in (2, 3, 2, 3):
        assert f(tg.ones(n)).tolist() == [2.0] * n
    assert f.explain().count("for (") == 2 and "4 replayed" in f.explain()


def test_a_training_step_takes_batches_of_any_size() -> None:
    def weights(compiled: bool) -> Any:
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(3, 8), tg.nn.BatchNorm1d(8), tg.nn.Linear(8, 1))
        optimizer = tg.optim.Adam(model.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = tg.compile(step) if compiled else step
        tg.manual_seed(1)
        for n in (16, 5, 16, 7, 3):
            run(tg.randn(n, 3), tg.randn(n, 1))
        if compiled:
            assert "5 replayed, 0 eager" in run.explain() and run.explain().count("for (") == 1
        return [p.detach().numpy() for p in model.parameters()]

    for mine, right in zip(weights(True), weights(False), strict=True):
        np.testing.assert_allclose(mine, right, rtol=2e-4, atol=1e-6)


def test_threads_with_sizes_of_their_own_share_a_graph() -> None:
    f = tg.compile(lambda x: x.cumsum(0) * x.shape[0])
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            n = int(rng.integers(1, 50))
            if not np.allclose(f(tg.ones(n)).numpy(), np.arange(1, n + 1) * n):
                failures.append(str(n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert "160 calls, 160 replayed" in f.explain() and f.explain().count("for (") == 1


def test_a_thousand_sizes_stay_within_the_bound() -> None:
    kinds = {
        "one graph": tg.compile(lambda x: x.softmax(-1).sum(0), limit=4),
        "a graph for each size": tg.compile(lambda x: x.sum(0), limit=4, dynamic=False),
        "no graph": tg.compile(lambda x: x * float(x.sum()), limit=4),
    }
    rng = random.Random(0)
    for _ in range(1000):
        x = tg.ones(rng.randrange(300), 2)
        for f in kinds.values():
            f(x)
    told = {name: f.explain() for name, f in kinds.items()}
    assert max(text.count("for (") for text in told.values()) <= 4
    assert "1000 replayed" in told["one graph"] and "dropped" not in told["one graph"]
    assert "1000 calls" not in told["a graph for each size"]  # counts go with what is dropped


def test_a_value_that_always_changes_ends_in_eager() -> None:
    state = {"n": 0.0}

    def f(x: Any) -> Any:
        return x * state["n"]

    compiled = tg.compile(f)
    for n in range(20):
        state["n"] = float(n)
        assert compiled(tg.ones(1)).item() == n
    assert "runs eagerly: its graph was made 8 times" in compiled.explain()


def test_compiled_functions_are_inlined_in_a_trace() -> None:
    inner = tg.compile(lambda x: x * 2)
    traced = tg.trace(lambda x: inner(x) + 1, (tg.ones(2),))
    assert traced(tg.full((2,), 3.0)).tolist() == [7, 7]


def test_many_threads_share_a_compiled_function() -> None:
    f = tg.compile(lambda x: x.exp() if x.sum() > 0 else x * 3)
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            x = rng.normal(size=3).astype(np.float32)
            right = np.exp(x) if x.sum() > 0 else x * 3
            if not np.allclose(f(tg.tensor(x)).numpy(), right, rtol=1e-5):
                failures.append(str(x))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert "120 calls, 120 replayed" in f.explain()
