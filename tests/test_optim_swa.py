"""Averages of models, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.optim import swa_utils


def averaged(T: Any, kind: str) -> list[Any]:
    """Train a little; return rates, and the averaged model's state after its statistics."""
    utils = T.optim.swa_utils
    options: dict[str, Any] = {
        "mean": {}, "mean of buffers": {"use_buffers": True},
        "ema": {"multi_avg_fn": utils.get_ema_multi_avg_fn(0.9)},
        "ema, one by one": {"avg_fn": utils.get_ema_avg_fn(0.9)},
        "swa": {"multi_avg_fn": utils.get_swa_multi_avg_fn()},
    }[kind]  # fmt: skip
    model = T.nn.Sequential(T.nn.Linear(3, 2), T.nn.BatchNorm1d(2))
    with T.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(T.linspace(-1, 1, p.numel()).reshape(p.shape) * (i + 1))
    optimizer = T.optim.SGD(model.parameters(), lr=0.1)
    average = utils.AveragedModel(model, **options)
    strategy = "linear" if kind == "mean" else "cos"
    schedule = utils.SWALR(optimizer, swa_lr=0.5, anneal_epochs=3, anneal_strategy=strategy)
    x, rates = T.arange(12.0).reshape(4, 3).sin(), []
    for _ in range(5):
        optimizer.zero_grad()
        (model(x) ** 2 * T.arange(2.0)).sum().backward()
        optimizer.step()
        average.update_parameters(model)
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    before = {k: v.clone() for k, v in average.state_dict().items()}
    utils.update_bn([x, (x * 2, None)], average)
    state = average.state_dict()
    return [rates, average.training, average(x), *before.items(), *state.items()]


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["mean", "mean of buffers", "ema", "ema, one by one", "swa"])
def test_averages_follow_pytorch(kind: str) -> None:
    import torch
    import torch.optim.swa_utils

    (rates, mode, out, *ours), (lrs, theirs_mode, expected, *theirs) = (
        averaged(T, kind) for T in (tg, torch)
    )
    assert rates == pytest.approx(lrs) and mode == theirs_mode
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-4)
    for (name, value), (wanted, t) in zip(ours, theirs, strict=True):
        assert name == wanted
        np.testing.assert_allclose(value.numpy(), t.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_first_model_is_copied_and_the_second_averaged_in() -> None:
    model = tg.nn.Linear(1, 1, bias=False)
    average = swa_utils.AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.25))
    for value in (8.0, 4.0):
        model.weight.data.fill_(value)
        average.update_parameters(model)
    assert average.module.weight.item() == 0.25 * 8 + 0.75 * 4
    assert average.n_averaged.item() == 2 and model.weight.item() == 4


def test_an_average_is_traced() -> None:
    model = tg.nn.Linear(1, 1, bias=False)
    average = swa_utils.AveragedModel(model)

    def step(x: Any) -> Any:
        model.weight.data.copy_(x)
        average.update_parameters(model)
        return average.module.weight * 1

    traced = tg.trace(step, (tg.zeros(1, 1),))
    found = [traced(tg.full((1, 1), value)).item() for value in (1.0, 2.0, 6.0)]
    assert found == [1.0, 1.5, 3.0]


def test_what_cannot_be_averaged_is_refused() -> None:
    model = tg.nn.Linear(1, 1)
    average = swa_utils.get_swa_avg_fn()
    with pytest.raises(AssertionError):
        swa_utils.AveragedModel(model, avg_fn=average, multi_avg_fn=average)
    with pytest.raises(ValueError):
        swa_utils.get_ema_multi_avg_fn(2.0)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    for options in ({"anneal_strategy": "step"}, {"anneal_epochs": -1}):
        with pytest.raises(ValueError):
            swa_utils.SWALR(optimizer, 0.5, **options)  # type: ignore[arg-type]
    swa_utils.update_bn([], tg.nn.Linear(1, 1))
