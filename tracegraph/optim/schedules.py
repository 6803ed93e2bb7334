"""Schedulers that set the learning rate as a function of the epoch.

`get_lr` gives the next rates from the present ones, so that schedulers can be chained;
`_closed_form` gives them from the first ones, for `step(epoch)`.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.optim.optimizer import Group, Optimizer


def set_rate(group: Group, lr: float) -> None:
    """Set a group's learning rate, in place where it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def _saved(members: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in left_out}


class LRScheduler:
    """Base of the schedulers: a subclass defines `get_lr()`, one rate for each group.

    Raises:
        TypeError: no Optimizer.
        KeyError: `last_epoch` is given and a group lacks `initial_lr`.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                lr = group["lr"]
                group.setdefault("initial_lr", float(lr) if isinstance(lr, Tensor) else lr)
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}]")
        self.base_lrs: list[Any] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[Any] = []
        self.step()

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def _closed_form(self) -> Sequence[Any] | None:
        """Return the rates of epoch `last_epoch` from the first ones, where there is a formula."""
        return None

    def get_last_lr(self) -> list[Any]:
        """Return the rates that were set last."""
        return self._last_lr

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch, or to a given one."""
        if self._step_count == 1 and self.optimizer._steps_done == 0:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`: call "
                "`optimizer.step()` first, or the first value of the schedule is skipped",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch  # type: ignore[assignment]
            closed = self._closed_form()
            values = self.get_lr() if closed is None else closed
        self._apply(values)

    def _apply(self, values: Sequence[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_rate(group, lr)
        self._last_lr = self._present()

    def _present(self) -> list[Any]:
        """Return the rates that the groups have now, as numbers."""
        return [
            float(group["lr"]) if isinstance(group["lr"], Tensor) else group["lr"]
            for group in self.optimizer.param_groups
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return _saved(vars(self), "optimizer")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state."""
        vars(self).update(state_dict)


class LambdaLR(LRScheduler):
    """The first rate times `lr_lambda(epoch)`; one function, or one for each group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        several = isinstance(lr_lambda, (list, tuple))
        self.lr_lambdas: list[Callable[[int], Any]] = (
            list(lr_lambda) if several else [lr_lambda] * groups
        )
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"Expected {groups} lr_lambdas, but got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        pairs = zip(self.lr_lambdas, self.base_lrs, strict=True)
        return [base * function(self.last_epoch) for function, base in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but optimizer and functions; of callable objects, their members."""
        state = _saved(vars(self), "optimizer", "lr_lambdas")
        state["lr_lambdas"] = [
            dict(vars(f)) if hasattr(f, "__dict__") and not hasattr(f, "__code__") else None
            for f in self.lr_lambdas
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state."""
        vars(self).update(_saved(state_dict, "lr_lambdas"))
        for function, members in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if members is not None:
                vars(function).update(members)


class MultiplicativeLR(LambdaLR):
    """The rate times `lr_lambda(epoch)`, each epoch."""

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        if self.last_epoch <= 0:
            return self._present()
        pairs = zip(self.lr_lambdas, self._present(), strict=True)
        return [lr * function(self.last_epoch) for function, lr in pairs]


class _Factor(LRScheduler):
    """A scheduler given by the factor on the rate at each epoch, and the factor since the first."""

    def _change(self, epoch: int) -> float:
        """Return the rate of an epoch over that of the epoch before."""
        raise NotImplementedError

    def _total(self, epoch: int) -> float:
        """Return the rate of an epoch over the first rate."""
        raise NotImplementedError

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        change = self._change(self.last_epoch)
        return [lr if change == 1 else lr * change for lr in self._present()]

    def _closed_form(self) -> Sequence[Any]:
        total = self._total(self.last_epoch)
        return [base * total for base in self.base_lrs]


class StepLR(_Factor):
    """Times gamma every `step_size` epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        return self.gamma if epoch > 0 and epoch % self.step_size == 0 else 1

    def _total(self, epoch: int) -> float:
        return float(self.gamma ** (epoch // self.step_size))


class MultiStepLR(_Factor):
    """Times gamma at each milestone."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        return self.gamma ** self.milestones[epoch] if epoch in self.milestones else 1

    def _total(self, epoch: int) -> float:
        return float(self.gamma ** bisect_right(sorted(self.milestones.elements()), epoch))


class ExponentialLR(_Factor):
    """Times gamma each epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        return self.gamma if epoch > 0 else 1

    def _total(self, epoch: int) -> float:
        return float(self.gamma**epoch)


class ConstantLR(_Factor):
    """A constant factor until epoch `total_iters`."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 <= factor <= 1:
            raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        if epoch == 0:
            return self.factor
        return 1.0 / self.factor if epoch == self.total_iters else 1

    def _total(self, epoch: int) -> float:
        return self.factor if epoch < self.total_iters else 1.0


class LinearLR(_Factor):
    """A factor that moves evenly from `start_factor` to `end_factor`."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 < start_factor <= 1:
            raise ValueError("Starting multiplicative factor expected to be in (0, 1].")
        if not 0 <= end_factor <= 1:
            raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        if epoch == 0:
            return self.start_factor
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (epoch - 1) * rise
        return 1 if epoch > self.total_iters else 1.0 + rise / before

    def _total(self, epoch: int) -> float:
        rise = self.end_factor - self.start_factor
        return self.start_factor + rise * min(self.total_iters, epoch) / self.total_iters


class PolynomialLR(_Factor):
    """(1 − epoch / total_iters) to a power."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def _change(self, epoch: int) -> float:
        if epoch == 0 or epoch > self.total_iters:
            return 1
        return float(
            ((1.0 - epoch / self.total_iters) / (1.0 - (epoch - 1) / self.total_iters))
            ** self.power
        )

    def _total(self, epoch: int) -> float:
        return float((1.0 - min(self.total_iters, epoch) / self.total_iters) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate to `eta_min`. Loshchilov & Hutter 2017."""

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, epoch: float) -> float:
        return 1 + math.cos(math.pi * epoch / self.T_max)

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`."""
        epoch, low = self.last_epoch, self.eta_min
        if epoch == 0:
            return self._present()
        if self._step_count == 1 and epoch > 0:
            return self._closed_form()
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = 1 - math.cos(math.pi / self.T_max)
            return [
                lr + (base - low) * rise / 2
                for lr, base in zip(self._present(), self.base_lrs, strict=True)
            ]
        change = self._height(epoch) / self._height(epoch - 1)
        return [change * (lr - low) + low for lr in self._present()]

    def _closed_form(self) -> Sequence[Any]:
        low, height = self.eta_min, self._height(self.last_epoch)
        return [low + (base - low) * height / 2 for base in self.base_lrs]


class SequentialLR(LRScheduler):
    """One scheduler after the other; the next begins at each milestone."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Any], milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if len(milestones) != len(schedulers) - 1:
            raise ValueError("SequentialLR needs one milestone less than schedulers")
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("all schedulers of SequentialLR must belong to its optimizer")
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        self.optimizer, self.last_epoch = optimizer, last_epoch + 1
        for group in optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        for scheduler in self._schedulers:
            scheduler.last_epoch -= 1
        self._schedulers[0]._step_count = 0
        self._schedulers[0].step()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch."""
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler.step(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the own state and that of every scheduler."""
        state = _saved(vars(self), "optimizer", "_schedulers")
        return {**state, "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state."""
        vars(self).update(_saved(state_dict, "_schedulers"))
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class ChainedScheduler(SequentialLR):
    """Several schedulers that all act at every step."""

    def __init__(self, schedulers: Sequence[Any], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler needs at least one scheduler")
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("all schedulers of ChainedScheduler must belong to one optimizer")
        self.optimizer, self._schedulers = optimizer, list(schedulers)
        self._last_lr = self._present()

    def step(self, epoch: float | None = None) -> None:
        """Let every scheduler take a step."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._present()
