"""Gradient clipping, parameter vectors, weight and spectral norm, wrappers, against PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_oracle import compare, copy_weights, draw, pair, same


def _with_gradients(scale: float = 3.0) -> tuple[Any, Any]:
    """Return two equal modules with equal gradients."""
    import torch

    ours, theirs = pair("Linear", (4, 3))
    for i, (p, q) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
        values = np.random.default_rng(i).normal(size=p.shape).astype(np.float32) * scale
        p.grad, q.grad = tg.tensor(values), torch.tensor(values)
    return ours, theirs


@pytest.mark.oracle
@pytest.mark.parametrize("kind", [1, 2.0, 3, float("inf")])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_grad_norm(kind: float, limit: float) -> None:
    import torch

    ours, theirs = _with_gradients()
    before = tg.nn.utils.clip_grad_norm_(ours.parameters(), limit, norm_type=kind)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit, norm_type=kind)
    same(before, expected, "norm")
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad, "gradient")
    total = tg.nn.utils.get_total_norm([p.grad for p in ours.parameters()], kind)
    assert total.item() <= limit * (1 + 1e-5)


@pytest.mark.oracle
def test_clip_grad_value_and_edge_cases() -> None:
    import torch

    ours, theirs = _with_gradients()
    tg.nn.utils.clip_grad_value_(ours.parameters(), 0.7)
    torch.nn.utils.clip_grad_value_(theirs.parameters(), 0.7)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad, "gradient")
    assert tg.nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
    lone = tg.nn.Parameter(tg.ones(2))
    assert tg.nn.utils.clip_grad_norm_(lone, 1.0).item() == 0.0
    lone.grad = tg.tensor([3.0, 4.0])
    assert tg.nn.utils.clip_grad_norm_(lone, 1.0).item() == 5.0
    lone.grad = tg.tensor([float("inf"), 4.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        tg.nn.utils.clip_grad_norm_(lone, 1.0, error_if_nonfinite=True)


def test_clipping_can_be_traced() -> None:
    w = tg.nn.Parameter(tg.ones(3))

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return tg.nn.utils.clip_grad_norm_([w], 1.0), w.grad

    traced = tg.trace(step, (tg.tensor([1.0, 2.0, 3.0]),))
    norm, grad = traced(tg.tensor([0.0, 6.0, 8.0]))
    assert norm.item() == pytest.approx(10.0)
    assert grad.tolist() == pytest.approx([0.0, 0.6, 0.8])


def test_parameters_as_a_vector_and_back() -> None:
    net = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.Linear(3, 1))
    vector = tg.nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (13,)
    assert vector.requires_grad
    tg.nn.utils.vector_to_parameters(tg.arange(13.0), net.parameters())
    assert net[0].weight.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert net[1].bias.tolist() == [12.0]
    net(tg.ones(1, 2)).sum().backward()
    assert net[0].weight.grad is not None
    with pytest.raises(TypeError):
        tg.nn.utils.vector_to_parameters([1.0], net.parameters())


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "ConvTranspose2d"])
def test_weight_norm(kind: str, dim: int | None) -> None:
    import torch

    args = (4, 3) if kind == "Linear" else (4, 3, 2)
    ours, theirs = pair(kind, args)
    assert tg.nn.utils.weight_norm(ours, dim=dim) is ours
    torch.nn.utils.weight_norm(theirs, dim=dim)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_weights(theirs, ours)
    shape = {"Linear": (5, 4), "Conv1d": (2, 4, 6), "ConvTranspose2d": (2, 4, 3, 3)}[kind]
    compare(ours, theirs, (draw(shape),))
    tg.nn.utils.remove_weight_norm(ours)
    torch.nn.utils.remove_weight_norm(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    compare(ours, theirs, (draw(shape),))
    with pytest.raises(ValueError, match="not found"):
        tg.nn.utils.remove_weight_norm(ours)
    tg.nn.utils.weight_norm(ours)
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        tg.nn.utils.weight_norm(ours)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose1d"])
def test_spectral_norm(kind: str) -> None:
    import torch

    args = (4, 3) if kind == "Linear" else (4, 3, 2)
    ours, theirs = pair(kind, args)
    tg.nn.utils.spectral_norm(ours, n_power_iterations=2)
    torch.nn.utils.spectral_norm(theirs, n_power_iterations=2)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    copy_weights(theirs, ours)
    shape = {"Linear": (5, 4), "Conv2d": (2, 4, 4, 4), "ConvTranspose1d": (2, 4, 3)}[kind]
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        ours.zero_grad()
        theirs.zero_grad()
        compare(ours, theirs, (draw(shape),))
    for _ in range(30):
        ours.train()(draw(shape))
    matrix = ours.weight.detach().numpy()
    matrix = np.moveaxis(matrix, 1 if "Transpose" in kind else 0, 0)
    norm = np.linalg.svd(matrix.reshape(len(matrix), -1), compute_uv=False)[0]
    assert norm == pytest.approx(1.0, abs=1e-3)
    tg.nn.utils.remove_spectral_norm(ours)
    assert sorted(ours.state_dict()) == ["bias", "weight"]
    with pytest.raises(ValueError, match="not found"):
        tg.nn.utils.remove_spectral_norm(ours)


def test_data_parallel_passes_on_and_names_parameters() -> None:
    inner = tg.nn.Linear(2, 1)
    for wrapper in (tg.nn.DataParallel(inner, [0]), tg.nn.parallel.DistributedDataParallel(inner)):
        assert list(wrapper.state_dict()) == ["module.weight", "module.bias"]
        x = tg.ones(3, 2)
        assert wrapper(x).tolist() == inner(x).tolist()
    with tg.nn.attention.sdpa_kernel(tg.nn.attention.SDPBackend.MATH):
        pass
    with pytest.raises(TypeError), tg.nn.attention.sdpa_kernel("fast"):
        pass


def _symmetric(torch: Any) -> Any:
    class Symmetric(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, x: Any) -> Any:
            return x.triu()

    return Symmetric()


@pytest.mark.oracle
def test_parametrisations_compute_tensors_when_they_are_read() -> None:
    import torch
    from torch.nn.utils import parametrize as torch_parametrize

    parametrize = tg.nn.utils.parametrize
    ours, theirs = pair("Linear", (3, 3))
    assert parametrize.register_parametrization(ours, "weight", _symmetric(tg)) is ours
    torch_parametrize.register_parametrization(theirs, "weight", _symmetric(torch))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert isinstance(ours, tg.nn.Linear)
    copy_weights(theirs, ours)
    compare(ours, theirs, (draw((2, 3)),))
    ours.weight = tg.ones(3, 3) * 2
    theirs.weight = torch.ones(3, 3) * 2
    same(ours.parametrizations.weight.original, theirs.parametrizations.weight.original, "set")
    with parametrize.cached():
        assert ours.weight is ours.weight
    assert ours.weight is not ours.weight
    copied = copy.deepcopy(ours)
    parametrize.register_parametrization(copied, "bias", tg.nn.Identity())
    assert not parametrize.is_parametrized(ours, "bias")
    assert copied.weight.tolist() == ours.weight.tolist()
    parametrize.register_parametrization(ours, "weight", tg.nn.Identity())
    assert len(ours.parametrizations.weight) == 2
    for leave in (True, False):
        module = copy.deepcopy(ours)
        value = module.weight if leave else module.parametrizations.weight.original
        expected = value.detach().tolist()
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=leave)
        assert type(module) is tg.nn.Linear
        assert list(module.state_dict()) == ["bias", "weight"]
        assert module.weight.tolist() == expected
        assert module.weight.requires_grad
    for name, function in (("none", tg.nn.Identity()), ("bias", tg.nn.Unflatten(0, (3, 1)))):
        with pytest.raises(ValueError, match="parametriz"):
            parametrize.register_parametrization(ours, name, function)
    with pytest.raises(ValueError, match="does not have a parametrization"):
        parametrize.remove_parametrizations(ours, "bias")


@pytest.mark.oracle
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("kind", ["Linear", "ConvTranspose1d"])
def test_norms_as_parametrisations(kind: str, norm: str) -> None:
    import torch

    args = (4, 3) if kind == "Linear" else (4, 3, 2)
    ours, theirs = pair(kind, args)
    getattr(tg.nn.utils.parametrizations, norm)(ours)
    getattr(torch.nn.utils.parametrizations, norm)(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy_weights(theirs, ours)
    shape = (5, 4) if kind == "Linear" else (2, 4, 3)
    for training in (True, False):
        for module in (ours, theirs):
            module.train(training).zero_grad()
        compare(ours, theirs, (draw(shape),))
    if kind != "Linear":
        return
    getattr(tg.nn.utils.parametrizations, norm)(ours, "bias")
    getattr(torch.nn.utils.parametrizations, norm)(theirs, "bias")
    copy_weights(theirs, ours)
    for module in (ours, theirs):
        module.zero_grad()
    compare(ours, theirs, (draw(shape),))


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
@pytest.mark.parametrize("kind", [None, "matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("from_here", [True, False])
def test_orthogonal_parametrisation(shape: Any, kind: Any, from_here: bool) -> None:
    import torch

    ours, theirs = pair("Linear", shape[::-1])
    for T, layer in ((tg, ours), (torch, theirs)):
        T.nn.utils.parametrizations.orthogonal(layer, "weight", kind, use_trivialization=from_here)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        theirs.parametrizations.weight.original.add_(torch.eye(*shape) * 0.3 + 0.1)
        copy_weights(theirs, ours)
    compare(ours, theirs, (draw((2, shape[1])),))
    if kind != "householder" and (kind or shape[0] == shape[1]):
        w = ours.weight.detach()
        gram = w @ w.mT if shape[0] < shape[1] else w.mT @ w
        np.testing.assert_allclose(gram.numpy(), np.eye(min(shape)), atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_an_orthogonal_weight_can_be_set_where_it_starts(shape: Any) -> None:
    layer = tg.nn.utils.parametrizations.orthogonal(tg.nn.Linear(*shape[::-1]))
    wanted = tg.nn.init.orthogonal_(tg.empty(shape))
    layer.weight = wanted
    np.testing.assert_allclose(layer.weight.detach().numpy(), wanted.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        layer.weight = tg.ones(2, 2)
    for bad in (lambda: tg.nn.utils.parametrizations.orthogonal(tg.nn.Linear(2, 2), "bias"),
                lambda: tg.nn.utils.parametrizations.orthogonal(tg.nn.Linear(2, 2), "none"),
                lambda: tg.nn.utils.parametrizations.orthogonal(
                    tg.nn.Linear(2, 2), orthogonal_map="other")):  # fmt: skip
        with pytest.raises(ValueError):
            bad()


def test_orthogonal_init_is_traced_and_orthogonal() -> None:
    for shape in ((4, 4), (6, 3), (3, 2, 4)):
        w = tg.nn.init.orthogonal_(tg.empty(shape), gain=2.0).reshape(shape[0], -1)
        gram = (w @ w.mT if w.shape[0] < w.shape[1] else w.mT @ w).numpy()
        np.testing.assert_allclose(gram, 4 * np.eye(min(w.shape)), atol=1e-5)
    traced = tg.trace(lambda x: x + tg.nn.init.orthogonal_(tg.empty(2, 2)), (tg.zeros(2, 2),))
    drawn = [traced(tg.zeros(2, 2)).numpy() for _ in range(2)]
    np.testing.assert_allclose(drawn[0] @ drawn[0].T, np.eye(2), atol=1e-6)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_is_folded_into_the_layer_before_it(kind: str, bias: bool) -> None:
    args = (3, 4) if kind == "Linear" else (3, 4, 2)
    layer, norm = getattr(tg.nn, kind)(*args, bias=bias), tg.nn.BatchNorm2d(4)
    if kind == "Linear":
        norm = tg.nn.BatchNorm1d(4)
    for t in (norm.weight, norm.bias, norm.running_mean):
        t.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = tg.randn(2, 3) if kind == "Linear" else tg.randn(2, 3, 5, 5)
    fuse = tg.nn.utils.fuse_conv_bn_eval
    options: Any = {"transpose": True} if "Transpose" in kind else {}
    if kind == "Linear":
        fuse = tg.nn.utils.fuse_linear_bn_eval
    with pytest.raises(AssertionError):
        fuse(layer, norm, **options)
    fused = fuse(layer.eval(), norm.eval(), **options)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), norm(layer(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    assert fused.weight.requires_grad and (layer.bias is None) == (not bias)
    assert tg.nn.utils.skip_init(tg.nn.Linear, 2, 3).weight.shape == (3, 2)
