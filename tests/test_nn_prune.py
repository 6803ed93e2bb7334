"""Pruning: against PyTorch where it is not random, and by counts where it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph import nn
from tracegraph.nn.utils import prune

CASES: dict[str, Any] = {
    "l1": lambda p, m: p.l1_unstructured(m[0], "weight", amount=0.4),
    "l1 of a count": lambda p, m: p.l1_unstructured(m[0], "bias", amount=2),
    "nothing": lambda p, m: p.identity(m[2], "weight"),
    "ln": lambda p, m: p.ln_structured(m[0], "weight", amount=2, n=2, dim=0),
    "largest": lambda p, m: p.ln_structured(m[0], "weight", 0.5, float("inf"), 1),
    "twice": lambda p, m: [p.l1_unstructured(m[0], "weight", amount=a) for a in (0.3, 0.5)],
    "slices, then elements": lambda p, m: [
        p.ln_structured(m[0], "weight", amount=1, n=1, dim=1),
        p.ln_structured(m[0], "weight", amount=1, n=1, dim=0),
        p.l1_unstructured(m[0], "weight", amount=2),
    ],
    "global": lambda p, m: [
        p.global_unstructured(
            [(m[0], "weight"), (m[2], "weight")], pruning_method=p.L1Unstructured, amount=a
        )
        for a in (0.5, 3)
    ],
    "removed": lambda p, m: p.remove(p.l1_unstructured(m[0], "weight", amount=3), "weight"),
}


def library(T: Any, p: Any) -> Any:
    return SimpleNamespace(T=T, nn=T.nn, prune=p)


def model_of(L: Any) -> Any:
    model = L.nn.Sequential(L.nn.Linear(4, 3), L.nn.ReLU(), L.nn.Linear(3, 2))
    with L.T.no_grad():
        for i, p in enumerate(model.parameters()):
            values = np.sin(np.arange(p.numel()) * 1.7 + i).reshape(tuple(p.shape))
            p.copy_(L.T.tensor(values.astype(np.float32)))
    return model


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_pruned_models_follow_pytorch(name: str) -> None:
    import torch
    import torch.nn.utils.prune as theirs

    found = []
    for L in (library(tg, prune), library(torch, theirs)):
        model = model_of(L)
        CASES[name](L.prune, model)
        out = model(L.T.ones(2, 4))
        out.sum().backward()
        found.append((
            {k: v.tolist() for k, v in model.state_dict().items()},
            [n for n, _ in model.named_parameters()], [n for n, _ in model.named_buffers()],
            L.prune.is_pruned(model), {n: p.grad for n, p in model.named_parameters()},
            out.detach().numpy(),
        ))  # fmt: skip
    ours, theirs_found = found
    assert ours[:4] == theirs_found[:4]
    np.testing.assert_allclose(ours[5], theirs_found[5], rtol=1e-5, atol=1e-6)
    for key, grad in theirs_found[4].items():
        np.testing.assert_allclose(ours[4][key].numpy(), grad.numpy(), rtol=1e-5, atol=1e-6)


def test_random_pruning_takes_as_many_as_it_is_told() -> None:
    model = model_of(library(tg, prune))
    prune.random_unstructured(model[0], "weight", 0.5)
    assert model[0].weight_mask.sum().item() == 6
    prune.random_structured(model[2], "weight", 1, dim=1)
    mask = model[2].weight_mask
    assert sorted(mask.sum(0).tolist()) == [0, 2, 2]
    assert (model[2].weight == model[2].weight_orig * mask).all()


def test_a_method_of_ones_own() -> None:
    class EveryOther(prune.BasePruningMethod):
        def compute_mask(self, t: Any, default_mask: Any) -> Any:
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    model = model_of(library(tg, prune))
    EveryOther.apply(model[0], "weight")
    assert model[0].weight_mask.flatten().tolist() == [0.0, 1.0] * 6
    prune.custom_from_mask(model[0], "weight", tg.zeros(3, 4))
    assert not model[0].weight.any()
    assert len(model[0]._forward_pre_hooks) == 1


def test_scores_say_what_is_least_important() -> None:
    model = model_of(library(tg, prune))
    scores = tg.arange(12.0).reshape(3, 4)
    prune.l1_unstructured(model[0], "weight", 3, importance_scores=scores)
    assert model[0].weight_mask.flatten().tolist() == [0.0] * 3 + [1.0] * 9
    assert EveryKept().prune(tg.ones(2)).tolist() == [1.0, 1.0]


class EveryKept(prune.Identity):
    pass


def test_bad_amounts_and_names_are_refused() -> None:
    layer = nn.Linear(4, 3)
    for amount in (-1, 1.5, 100):
        with pytest.raises(ValueError):
            prune.l1_unstructured(layer, "weight", amount)
    with pytest.raises(TypeError):
        prune.l1_unstructured(layer, "weight", "half")
    with pytest.raises(ValueError):
        prune.remove(nn.Linear(1, 1), "weight")
    with pytest.raises(TypeError):
        prune.global_unstructured([(layer, "weight")], prune.LnStructured, amount=1, n=1)
    with pytest.raises(TypeError):
        prune.PruningContainer(prune.Identity.apply(layer, "bias")).add_pruning_method(1)
