"""`func`: derivatives of functions, maps over a dim, modules as functions of their tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
import tracegraph.func as F
from tests.test_distributions import assert_same
from tracegraph import nn
from tracegraph.errors import OpError


def libraries() -> list[Any]:
    """Ours and PyTorch's, each with `func` and `nn`."""
    import torch
    import torch.func

    mine = SimpleNamespace(tensor=tg.tensor, func=F, nn=nn, T=tg)
    return [mine, SimpleNamespace(tensor=torch.tensor, func=torch.func, nn=torch.nn, T=torch)]


def derivatives(L: Any) -> list[Any]:
    x, y = L.tensor([0.0, 0.5, 1.0]), L.tensor([-1.0, 0.0, 1.0])

    def f(x: Any, y: Any) -> Any:
        return (x.sin() * y.exp()).sum()

    def curves(x: Any) -> Any:
        return {"square": x**2, "sum": (x.sum(), x[0] * x[1])}

    value, pull = L.func.vjp(lambda x: (x * 2, (x**3).sum()), x)
    aux = L.func.grad(lambda x: ((x**3).sum(), x * 2), has_aux=True)
    return [
        L.func.grad(f)(x, y),
        L.func.grad(f, argnums=(0, 1))(x, y),
        L.func.grad_and_value(f, argnums=1)(x, y),
        aux(x),
        L.func.grad(L.func.grad(L.func.grad(lambda z: z**4)))(L.tensor(2.0)),
        L.func.jacrev(lambda x: x**2)(x),
        list(L.func.jacfwd(curves)(x).values()),
        L.func.jacrev(lambda p: p["a"] * p["b"].sum())({"a": x, "b": y})["b"],
        L.func.hessian(lambda x: (x**3).sum() + x.prod())(x),
        value,
        pull((L.tensor([1.0, 2.0, 3.0]), L.tensor(3.0))),
        L.func.jvp(lambda x, y: (x * y, x.sum()), (x, y), (y, x)),
        L.func.jvp(lambda x: (x**2, x), (x,), (y,), has_aux=True),
        L.func.jvp(lambda x: L.tensor([1.0, 2.0]), (x,), (y,)),
    ]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_derivatives_follow_pytorch() -> None:
    found = [derivatives(L) for L in libraries()]
    for i, (ours, theirs) in enumerate(zip(*found, strict=True)):
        assert_same(ours, theirs, f"case {i}")


def maps(L: Any) -> list[Any]:
    T, vmap = L.T, L.func.vmap
    m = T.arange(6.0).reshape(2, 3)
    return [
        vmap(lambda a, b: a @ b, in_dims=(0, None))(T.eye(3), T.ones(3)),
        vmap(L.func.grad(lambda z: z**3))(T.arange(4.0)),
        vmap(lambda a: (a, a.sum()), in_dims=1, out_dims=(1, 0))(m),
        vmap(lambda d, k: d["x"] * k, in_dims=({"x": 0, "y": None}, None))({"x": m, "y": m}, 2.0),
        vmap(vmap(lambda a, b: a * b, (0, None)), (None, 0))(T.arange(3.0), T.arange(2.0)),
        vmap(lambda a, *, scale: a * scale)(m, scale=T.arange(3.0)),
        vmap(lambda a: a.sum(), in_dims=-1)(m),
    ]


@pytest.mark.oracle
def test_maps_follow_pytorch() -> None:
    found = [maps(L) for L in libraries()]
    for i, (ours, theirs) in enumerate(zip(*found, strict=True)):
        assert_same(ours, theirs, f"case {i}")


@pytest.mark.oracle
def test_gradients_per_sample_follow_pytorch() -> None:
    found = []
    for L in libraries():
        model = L.nn.Linear(3, 2)
        weights = {"weight": L.T.arange(6.0).reshape(2, 3), "bias": L.T.ones(2)}

        def loss(w: Any, x: Any, y: Any, model: Any = model, L: Any = L) -> Any:
            return ((L.func.functional_call(model, w, (x,)) - y) ** 2).sum()

        x, y = L.T.arange(12.0).reshape(4, 3), L.T.ones(4, 2)
        per_sample = L.func.vmap(L.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
        found.append(list(per_sample.values()))
    assert_same(*found, "per sample")


def test_results_have_a_history_only_where_something_outside_does() -> None:
    x = tg.ones(3)
    assert not F.grad(lambda x: (x**2).sum())(x).requires_grad
    assert not F.jacrev(lambda x: x**2)(x).requires_grad
    weight = tg.ones(3, requires_grad=True)
    slope = F.grad(lambda x: (weight * x**2).sum())(x)
    slope.sum().backward()
    assert weight.grad.tolist() == [2.0] * 3
    outer = tg.ones(3, requires_grad=True)
    F.grad(lambda x: (x**3).sum())(outer).sum().backward()
    assert outer.grad.tolist() == [6.0] * 3


def test_what_cannot_be_differentiated_or_mapped_is_refused() -> None:
    x = tg.ones(2)
    for bad in (lambda x: x, lambda x: 1.0):
        with pytest.raises(OpError):
            F.grad(bad)(x)
    with pytest.raises(OpError):
        F.grad(lambda x: x.sum(), argnums=1)(x)
    with pytest.raises(ValueError):
        F.grad(lambda x: x.sum())(1.0)
    calls = {
        "sizes": lambda: F.vmap(lambda a, b: a)(tg.ones(2), tg.ones(3)),
        "none": lambda: F.vmap(lambda a: a, in_dims=(None,))(x),
        "number": lambda: F.vmap(lambda a: a)(2.0),
        "dims": lambda: F.vmap(lambda a: a, in_dims=2)(x),
        "out": lambda: F.vmap(lambda a: 1)(x),
        "empty": lambda: F.vmap(lambda a: a)(tg.ones(0)),
        "nesting": lambda: F.vmap(lambda a: a, in_dims=(0, 0))(x),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError):
            call()
            raise AssertionError(name)


def test_a_functional_call_leaves_the_module_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    given = {"0.weight": tg.eye(2), "1.running_mean": tg.ones(2), "unknown": tg.ones(1)}
    F.functional_call(model, given, (tg.randn(4, 2),))
    for name, value in model.state_dict().items():
        if name != "1.num_batches_tracked" and name != "1.running_var":
            assert (value == before[name]).all(), name
    assert (given["1.running_mean"] != 1).any()  # what the call has written
    assert isinstance(model[0].weight, nn.Parameter)
    with pytest.raises(OpError):
        F.functional_call(model, given, (tg.randn(4, 2),), strict=True)
    with pytest.raises(ValueError):
        F.functional_call(model, ({"0.bias": tg.ones(2)}, {"0.bias": tg.ones(2)}), (tg.ones(2, 2),))


def test_tied_parameters_are_replaced_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(tg.ones(1))
            self.b = self.a

        def forward(self, x: Any) -> Any:
            return self.a * x + self.b

    model = Tied()
    five = tg.tensor([5.0])
    assert F.functional_call(model, {"a": five}, (five,)).item() == 30
    assert F.functional_call(model, {"a": five}, (five,), tie_weights=False).item() == 26
    with pytest.raises(ValueError):
        F.functional_call(model, {"a": five, "b": tg.ones(1)}, (five,))
    older = nn.utils.stateless.functional_call
    assert older(model, {"b": five}, five).item() == 30


def test_states_of_models_are_stacked() -> None:
    models = [nn.BatchNorm1d(2) for _ in range(3)]
    learnt, kept = F.stack_module_state(models)
    assert learnt["weight"].shape == (3, 2) and learnt["weight"].requires_grad
    assert learnt["weight"].is_leaf and kept["running_var"].shape == (3, 2)
    for bad in ([], [nn.Linear(1, 1), nn.ReLU()], [models[0], nn.BatchNorm1d(2).eval()]):
        with pytest.raises(OpError):
            F.stack_module_state(bad)


def test_a_traced_function_of_weights_replays() -> None:
    model = nn.Linear(2, 1)

    def step(weight: Any, x: Any) -> Any:
        return F.grad(lambda w: F.functional_call(model, {"weight": w}, (x,)).sum())(weight)

    traced = tg.trace(step, (tg.ones(1, 2), tg.ones(3, 2)))
    x = tg.tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert traced(tg.ones(1, 2), x).tolist() == [[6.0, 9.0]]


@pytest.mark.oracle
def test_gradients_of_several_weightings_at_once() -> None:
    found = []
    for L in libraries():
        x = L.T.arange(3.0).requires_grad_()
        y, unused = x**2, L.T.ones(2, requires_grad=True)
        weights = L.T.eye(3)
        (rows,) = L.T.autograd.grad(y, x, weights, retain_graph=True, is_grads_batched=True)
        both = L.T.autograd.grad(
            y, (x, unused), weights, is_grads_batched=True, allow_unused=True, retain_graph=True
        )
        value = L.T.autograd.functional.vhp(lambda x: (x**3).sum(), x.detach(), L.T.ones(3))
        found.append([rows, both, value])
    assert_same(*found, "batched")
