"""Schedulers that go up and down, restart, or wait for a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.optim.optimizer import Group, Optimizer
from tracegraph.optim.schedules import LRScheduler, set_rate


def _per_group(value: Any, groups: int, name: str) -> list[Any]:
    """Return one value for each group.

    Raises:
        ValueError: a sequence of another length.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"expected {groups} values for {name}, got {len(value)}")
    return list(value)


def _momentum(group: Group) -> Any:
    return group["betas"][0] if "betas" in group else group["momentum"]


def _set_momentum(group: Group, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _check_momentum(optimizer: Optimizer) -> None:
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or betas for `cycle_momentum=True`")


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


class OneCycleLR(LRScheduler):
    """One rise to `max_lr` and a long fall; momentum moves the other way. Smith & Topin 2018."""

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: Any = 0.85,
        max_momentum: Any = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if total_steps is None:
            if not epochs or not steps_per_epoch:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or not 0 <= pct_start <= 1:
            raise ValueError("OneCycleLR needs positive total_steps, and pct_start in [0, 1]")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}")
        self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
        self.cycle_momentum = cycle_momentum
        rise = float(pct_start * total_steps) - 1
        self._phases = [(rise, "initial_lr", "max_lr", "max_momentum", "base_momentum")]
        start, target = "max_lr", "min_lr"
        if three_phase:
            fall = float(2 * pct_start * total_steps) - 2
            self._phases.append((fall, "max_lr", "initial_lr", "base_momentum", "max_momentum"))
            start = "initial_lr"
        low = "max_momentum" if three_phase else "base_momentum"
        self._phases.append((total_steps - 1, start, target, low, "max_momentum"))
        groups = optimizer.param_groups
        if last_epoch == -1:
            tops = _per_group(max_lr, len(groups), "max_lr")
            if cycle_momentum:
                _check_momentum(optimizer)
            highs = _per_group(max_momentum, len(groups), "max_momentum")
            lows = _per_group(base_momentum, len(groups), "base_momentum")
            for group, top, high, low_momentum in zip(groups, tops, highs, lows, strict=True):
                first = top / div_factor
                group.update(initial_lr=first, max_lr=top, min_lr=first / final_div_factor)
                if cycle_momentum:
                    _set_momentum(group, high)
                    group.update(max_momentum=high, base_momentum=low_momentum)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`; sets the momentum.

        Raises:
            ValueError: more than `total_steps` steps.
        """
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"tried to step {step} times; the total of steps is {self.total_steps}"
            )
        anneal = _cosine if self.anneal_strategy == "cos" else _linear
        begin: float = 0
        for phase in self._phases:
            if step <= phase[0] or phase is self._phases[-1]:
                break
            begin = phase[0]
        end, start_lr, end_lr, start_momentum, end_momentum = phase
        part = (step - begin) / (end - begin) if end != begin else 1.0
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(anneal(group[start_lr], group[end_lr], part))
            if self.cycle_momentum:
                _set_momentum(group, anneal(group[start_momentum], group[end_momentum], part))
        return rates


class CyclicLR(LRScheduler):
    """Rises and falls between two rates. Smith 2017, arXiv:1506.01186."""

    def __init__(
        self, optimizer: Optimizer, base_lr: Any, max_lr: Any, step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
        cycle_momentum: bool = True, base_momentum: Any = 0.8, max_momentum: Any = 0.9,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        groups = optimizer.param_groups
        for group, lr in zip(groups, _per_group(base_lr, len(groups), "base_lr"), strict=True):
            if last_epoch == -1:
                set_rate(group, lr)
        self.max_lrs = _per_group(max_lr, len(groups), "max_lr")
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self.cycle_momentum = mode, gamma, cycle_momentum
        self._scale_fn = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        if cycle_momentum:
            _check_momentum(optimizer)
            self.base_momentums = _per_group(base_momentum, len(groups), "base_momentum")
            self.max_momentums = _per_group(max_momentum, len(groups), "max_momentum")
            for group, high, low in zip(
                groups, self.max_momentums, self.base_momentums, strict=True
            ):
                group.update(max_momentum=high, base_momentum=low)
                _set_momentum(group, high)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = _per_group(base_lr, len(groups), "base_lr")

    def scale_fn(self, x: float) -> float:
        """Return the height of a cycle, or of an iteration."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        if self.mode == "triangular":
            return 1.0
        return float(1 / (2.0 ** (x - 1)) if self.mode == "triangular2" else self.gamma**x)

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of epoch `last_epoch`; sets the momentum."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        rates = [
            low + (high - low) * height * scale
            for low, high in zip(self.base_lrs, self.max_lrs, strict=True)
        ]
        if self.cycle_momentum:
            for group, low, high in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                _set_momentum(group, high - (high - low) * height * scale)
        return rates

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer and a user's function."""
        return {k: v for k, v in super().state_dict().items() if k != "_scale_fn"}


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines that restart, each `T_mult` times as long. Loshchilov & Hutter 2017."""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[Any]:
        """Return the rates of the present place in the cycle."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch, or to a given one, which may be a fraction.

        Raises:
            ValueError: a negative epoch.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        elif epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        else:
            self.T_cur, self.T_i = self._place(epoch)
        self.last_epoch = math.floor(epoch)
        self._step_count += 1
        self._apply(self.get_lr())

    def _place(self, epoch: float) -> tuple[float, int]:
        """Return the place in the cycle that holds an epoch, and the length of the cycle."""
        if epoch < self.T_0:
            return epoch, self.T_0
        if self.T_mult == 1:
            return epoch % self.T_0, self.T_0
        n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
        begin = self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
        return epoch - begin, self.T_0 * self.T_mult**n


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` when a metric has not improved for `patience` epochs."""

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0, min_lr: Any = 0,
        eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(f"mode {mode!r} or threshold mode {threshold_mode!r} is unknown")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer, self.mode, self.factor = optimizer, mode, factor
        self.patience, self.cooldown, self.eps = patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.min_lrs = _per_group(min_lr, len(optimizer.param_groups), "min_lr")
        self.default_min_lr = min_lr
        self.last_epoch = 0
        self._reset()
        self._last_lr = self._present()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether a metric is better than the best by more than the threshold."""
        margin = -self.threshold if self.mode == "min" else self.threshold
        target = best * (1 + margin) if self.threshold_mode == "rel" else best + margin
        return a < target if self.mode == "min" else a > target

    @property
    def in_cooldown(self) -> bool:
        """Whether the metric is ignored after a reduction."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take in the metric of an epoch."""
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(current, self.best):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._present()

    def _reduce(self) -> None:
        present = self._present()
        for group, lr, least in zip(
            self.optimizer.param_groups, present, self.min_lrs, strict=True
        ):
            new = max(lr * self.factor, least)
            if lr - new > self.eps:
                set_rate(group, new)
