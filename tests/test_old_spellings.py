"""Old constructors, functions below the public ones, and modules that stand for functions."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.module_names import stands_for
from tracegraph.nn import functional as F

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_size_is_a_shape_where_other_sequences_are_data() -> None:
    x = tg.tensor(X)
    for made in (x.new(x.shape), x.new(x.size()), tg.Tensor(x.shape), tg.FloatTensor(x.shape)):
        assert made.shape == (2, 3)
    assert tg.LongTensor(x.shape).dtype is tg.int64
    assert x.new([2, 3]).tolist() == x.new((2, 3)).tolist() == tg.Tensor([2, 3]).tolist() == [2, 3]
    assert x.new(tg.Size([])).shape == ()
    assert x.new(size=(2, 3)).shape == tg.Tensor(np.int64(2), 3).shape == (2, 3)
    with pytest.raises(TypeError):
        tg.Tensor(3.0)
    with pytest.raises(TypeError):
        tg.FloatTensor(tg.ones(2, dtype=tg.int64))


def test_a_tensor_given_to_a_constructor_is_viewed() -> None:
    x = tg.zeros(3)
    tg.FloatTensor(x).fill_(5)
    assert x.tolist() == [5, 5, 5]
    assert tg.Tensor(tg.zeros(2, dtype=tg.float64)).dtype is tg.float64


def test_type_of_the_class_is_the_default_dtype() -> None:
    assert (tg.tensor(X) < 3).type(tg.Tensor).dtype is tg.float32


@pytest.mark.oracle
@pytest.mark.parametrize("make", [
    lambda t, x: x.new(x.shape).shape, lambda t, x: x.new().shape, lambda t, x: x.new(()).shape,
    lambda t, x: x.new(2, 3).shape, lambda t, x: x.new(np.int64(3), 2).shape,
    lambda t, x: x.new(np.ones(3)).tolist(), lambda t, x: x.new(range(3)).tolist(),
    lambda t, x: t.Tensor(data=[1, 2]).tolist(), lambda t, x: t.Tensor(size=(2,)).shape,
    lambda t, x: t.LongTensor([1.5, 2.5]).tolist(), lambda t, x: t.Tensor(x).requires_grad,
    lambda t, x: x.new(1.5), lambda t, x: t.Tensor(None), lambda t, x: t.Tensor(True),
    lambda t, x: x.new(t.tensor(3)), lambda t, x: t.LongTensor(t.ones(2)),
])  # fmt: skip
def test_constructors_agree(make: Any) -> None:
    torch = pytest.importorskip("torch")

    def outcome(t: Any) -> Any:
        x = t.tensor(X, requires_grad=True)
        try:
            made = make(t, x)
        except TypeError:
            return TypeError
        return tuple(made) if hasattr(made, "numel") else made

    assert outcome(tg) == outcome(torch)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", [
    lambda t, v: t.norm_except_dim(v, 2, 1), lambda t, v: t.norm_except_dim(v, 2, -1),
    lambda t, v: t.norm_except_dim(v[0], 2, 0), lambda t, v: t._weight_norm(v, t.ones(2, 1), 0),
    lambda t, v: t.frobenius_norm(v, []), lambda t, v: t.frobenius_norm(v, (1,), True),
    lambda t, v: t.nuclear_norm(v), lambda t, v: t.nuclear_norm(v, True),
    lambda t, v: t._softmax(v, 1, False) * t.arange(3.0),
    lambda t, v: t._log_softmax(v, -1, False) * t.arange(3.0),
    lambda t, v: t._softmax_backward_data(v, t.softmax(v.detach(), 1), 1, t.float32),
    lambda t, v: t._log_softmax_backward_data(v, t.log_softmax(v.detach(), 1), 1, t.float32),
])  # fmt: skip
def test_inner_functions_agree(call: Any) -> None:
    torch, got = pytest.importorskip("torch"), []
    for t in (tg, torch):
        v = t.tensor(X * 0.3 - 1, requires_grad=True)
        out = call(t, v)
        out.pow(2).sum().backward()
        got.append((out.detach().numpy(), v.grad.numpy()))
    for a, b in zip(*got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_gradients_of_softmax_as_functions() -> None:
    x, g = tg.tensor(X, requires_grad=True), tg.tensor([[1.0, 0, 2], [0, 3, -1]])
    for forward, back in (
        (tg.softmax, tg._softmax_backward_data), (tg.log_softmax, tg._log_softmax_backward_data),
    ):  # fmt: skip
        y = forward(x, 1)
        (wanted,) = tg.autograd.grad(y, x, g)
        assert tg.allclose(back(g, y.detach(), 1, tg.float32), wanted, atol=1e-6)


def test_modules_stand_for_the_functions_of_their_name() -> None:
    module: Any = importlib.import_module("tracegraph.nn.utils.spectral_norm")
    assert module.spectral_norm is tg.nn.utils.spectral_norm
    assert isinstance(module(tg.nn.Linear(2, 2)), tg.nn.Linear)
    check: Any = importlib.import_module("tracegraph.autograd.gradcheck")
    x = tg.ones(2, dtype=tg.float64, requires_grad=True)
    assert check(lambda x: x * x, (x,)) and tg.autograd.gradcheck(lambda x: x * x, (x,))
    parallel: Any = importlib.import_module("tracegraph.nn.parallel.data_parallel")
    assert parallel(lambda x: x + 1, (1,)) == 2
    stands_for("tracegraph.version", int)
    try:
        assert importlib.import_module("tracegraph.version").__version__ == tg.__version__
    finally:
        sys.modules["tracegraph.version"] = tg.version


def test_the_compiled_part_tells_of_traces() -> None:
    def f(x: Any) -> Any:
        return x + 1 if tg._C._get_tracing_state() else x + 2

    x = tg.ones(1)
    assert f(x).item() == 3 and tg.trace(f, (x,))(x).item() == 2
    assert tg._C._nn is F and tg._VF.softmax is tg.softmax


def test_one_device_gets_what_is_broadcast() -> None:
    functions: Any = importlib.import_module("tracegraph.nn.parallel._functions")
    x = tg.ones(2)
    assert functions.Broadcast.apply([0], x) == (x,)
    assert functions.ReduceAddCoalesced.apply(0, 1, x) == (x,)


def test_a_size_is_found_by_the_oldest_node_that_has_it() -> None:
    """A gradient is expanded to a size of data, by nodes that stand before those of the mask."""
    first, second = tg.nn.Linear(2, 4), tg.nn.Linear(4, 2)
    rest = [*first.parameters(), *second.parameters()]
    optimizer = tg.optim.SGD(rest, lr=0.1)
    mask, wanted = tg.tensor([1, 1, 0, 0, 1, 1]), tg.tensor(np.arange(12.0).reshape(6, 2)).float()

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        made = second(first(x))[mask > 0]
        loss = ((made - wanted[mask > 0]) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x = tg.tensor(np.linspace(-1, 1, 12).reshape(6, 2)).float()
    step(x)
    traced = tg.trace(step, (x,))
    before = [p.detach().clone() for p in rest]
    replayed = [float(traced(x).detach()) for _ in range(2)]
    with tg.no_grad():
        for p, old in zip(rest, before, strict=True):
            p.copy_(old)
    assert replayed == [float(step(x).detach()) for _ in range(2)]


def test_sizes_may_be_given_one_by_one() -> None:
    v = tg.tensor([0.0, 1, 2])
    assert tg.equal(v.broadcast_to(2, 3), v.broadcast_to((2, 3)))
    assert v.broadcast_to(size=(2, 3)).shape == tg.broadcast_to(v, (2, 3)).shape == (2, 3)
    x = tg.zeros(1, 3, 1, 2)
    assert x.squeeze(0, 2).shape == x.squeeze((0, 2)).shape == (3, 2)
    assert x.squeeze(0, 1).shape == (3, 1, 2) and x.squeeze(dim=2).shape == (1, 3, 2)
    assert x.clone().squeeze_(0, 2).shape == (3, 2)


def test_reversed_turns_all_dims_round() -> None:
    x = tg.tensor(X)
    assert tg.equal(reversed(x), x.flip(0, 1))


def test_storages_tell_of_memory() -> None:
    x = tg.zeros(3, 4)
    view = x[1]
    assert view.storage().data_ptr() == x.untyped_storage().data_ptr() == x.data_ptr()
    assert len(view.storage()) == view.storage().size() == 12
    assert view.untyped_storage().nbytes() == len(x.storage().untyped()) == 48
    assert x.storage().dtype is tg.float32 and x.storage().device == x.device
    assert isinstance(x.storage(), tg.TypedStorage) and not x.storage().is_cuda


def test_sizes_as_tensors() -> None:
    operators: Any = importlib.import_module("tracegraph.onnx.operators")
    x = tg.tensor(X)
    sizes = operators.shape_as_tensor(x)
    assert sizes.tolist() == [2, 3] and sizes.dtype is tg.int64
    assert operators.reshape_from_tensor_shape(x, tg.tensor([3, 2])).shape == (3, 2)


def test_batch_norms_without_statistics() -> None:
    net = tg.nn.Sequential(tg.nn.BatchNorm1d(3), tg.nn.Linear(3, 2))
    assert tg.func.replace_all_batch_norm_modules_(net) is net
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    x = tg.tensor(X)
    assert tg.allclose(net.eval()[0](x).mean(0), tg.zeros(3), atol=1e-6)


def test_linearize_gives_the_value_and_its_derivative() -> None:
    x = tg.tensor([1.0, 2, 3])
    value, along = tg.func.linearize(lambda x: (x * x).sum(), x)
    assert value.item() == 14 and along(tg.tensor([1.0, 0, 2])).item() == 14


def test_what_asks_for_all_cuda_devices_finds_none() -> None:
    if tg.cuda.is_available():
        pytest.skip("there is one")
    assert tg.cuda.get_rng_state_all() == [] and tg.cuda.memory_stats() == {}
    tg.cuda.set_rng_state_all([])
    tg.cuda.seed()
    tg.cuda.seed_all()
    assert tg.cuda.memory_cached() == tg.cuda.max_memory_cached() == 0


def test_a_custom_function_may_run_a_backward_pass_of_its_own() -> None:
    class Again(tg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            assert tg.autograd._is_checkpoint_valid()
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with tg.enable_grad():
                tg.autograd.backward(x**3, g)
            return x.grad

    x = tg.tensor([2.0], requires_grad=True)
    Again.apply(x).backward()
    assert x.grad.item() == 12
