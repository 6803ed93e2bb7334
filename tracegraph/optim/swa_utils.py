"""Averages of models along training: stochastic weight averaging and moving averages.

Izmailov et al. 2018, arXiv:1803.05407.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tracegraph.api.creation import tensor
from tracegraph.api.pointwise import where
from tracegraph.autograd import no_grad
from tracegraph.dtypes import int64
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.nn.modules.batchnorm import _BatchNorm
from tracegraph.nn.modules.module import Module
from tracegraph.optim.optimizer import Optimizer
from tracegraph.optim.schedules import LRScheduler

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip

Average = Callable[[Any, Any, Any], Any]


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1].")


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """Return f(average, new, count) = decay · average + (1 − decay) · new.

    Raises:
        ValueError: `decay` is outside of [0, 1].
    """
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Average:
    """Return f(average, new, count), the mean of count + 1 values."""

    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def _for_each(average: Average) -> Average:
    def update(averages: Iterable[Tensor], news: Iterable[Tensor], num_averaged: Any) -> None:
        for old, new in zip(averages, news, strict=True):
            moves = type_of(old).dtype.is_floating_point
            old.copy_(average(old, new, num_averaged) if moves else new)

    return update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Average:
    """Return `get_ema_avg_fn` for lists of tensors, which are changed in place.

    Raises:
        ValueError: `decay` is outside of [0, 1].
    """
    return _for_each(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Average:
    """Return `get_swa_avg_fn` for lists of tensors, which are changed in place."""
    return _for_each(get_swa_avg_fn())


class AveragedModel(Module):
    """A copy of a model whose Parameters are averages of those seen by `update_parameters`."""

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Average | None = None,
        multi_avg_fn: Average | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged model."""
        return self.module(*args, **kwargs)

    def _average(self, old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        count = self.n_averaged
        if self.multi_avg_fn is not None:
            moved = [t.clone() for t in old]
            self.multi_avg_fn(moved, new, count)
            return moved
        average = self.avg_fn or get_swa_avg_fn()
        return [average(a, b, count) for a, b in zip(old, new, strict=True)]

    def update_parameters(self, model: Module) -> None:
        """Take the model's present Parameters into the averages; the first ones are copied."""
        ours, theirs = list(self.module.parameters()), list(model.parameters())
        rest, values = list(self.module.buffers()), list(model.buffers())
        if self.use_buffers:
            ours, theirs, rest, values = ours + rest, theirs + values, [], []
        with no_grad():
            old = [t.detach() for t in ours]
            new = [t.detach().to(a.device) for t, a in zip(theirs, old, strict=True)]
            first = self.n_averaged == 0
            for target, fresh, mean in zip(old, new, self._average(old, new), strict=True):
                target.copy_(where(first, fresh, mean))
            for target, value in zip(rest, values, strict=True):
                target.detach().copy_(value.detach())
            self.n_averaged += 1


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Set the running statistics of batch norms to those of all batches of `loader`."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    for batch in loader:
        inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(inputs if device is None else inputs.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """Moves each rate to `swa_lr` within some epochs, along a cosine or a line, and stays there.

    Raises:
        ValueError: another strategy, or a negative number of epochs.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        groups = optimizer.param_groups
        rates = swa_lr if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        for group, rate in zip(groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs = anneal_epochs
        self.anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        """How far the rate has moved, from 0 to 1."""
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        epoch = self._step_count - 1
        if self.anneal_epochs == 0:
            epoch = max(1, epoch)
        before, now = self._share(epoch - 1), self._share(epoch)
        rates = []
        for group, lr in zip(self.optimizer.param_groups, self._present(), strict=True):
            end = group["swa_lr"]
            start = end if before == 1 else (lr - before * end) / (1 - before)
            rates.append(now * end + (1 - now) * start)
        return rates
