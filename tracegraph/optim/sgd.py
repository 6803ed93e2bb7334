"""Gradient descent: SGD with momentum, averaged SGD, and Rprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.api.creation import full_like, zeros_like
from tracegraph.api.pointwise import where
from tracegraph.eager.tensors import Tensor
from tracegraph.optim.optimizer import Group
from tracegraph.optim.rule import RuleOptimizer, Scalars, check_not_negative, counter

Layout = tuple[tuple[str, ...], tuple[str, ...]]


class SGD(RuleOptimizer):
    """p ← p − lr·v with v ← momentum·v + (1 − dampening)·g, g the gradient plus weight decay.

    Nesterov's form is that of Sutskever et al. 2013.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: Any = 0, nesterov: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov, maximize=maximize, foreach=foreach, differentiable=differentiable,
            fused=fused,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        if group["momentum"] == 0:
            return (), ()
        # With dampening, the first step takes the plain gradient: it must be told from later ones.
        return ("step",) if group["dampening"] != 0 else (), ("momentum_buffer",)

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        if name == "step":
            return counter(0.0 if self.state[p].get("momentum_buffer") is None else 1.0)
        return zeros_like(p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        c = Scalars(minus_lr=-self._hyper(group, "lr"))
        if _matters(group["weight_decay"]):
            c.weight_decay = self._hyper(group, "weight_decay")
        if group["momentum"] != 0:
            c.momentum = self._hyper(group, "momentum")
        if group["momentum"] != 0 and group["dampening"] != 0:
            c.new = where(count.step == 0, 1.0, 1 - self._hyper(group, "dampening"))
            count.step = count.step + 1
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        if _matters(group["weight_decay"]):
            g = g + p * c.weight_decay
        if not slots:
            return (m.add(p, g * c.minus_lr),)
        new = g * c.new if group["dampening"] != 0 else g
        velocity = m.add(m.scale(slots[0], c.momentum), new)
        g = m.add(velocity * c.momentum, g) if group["nesterov"] else velocity
        return m.add(p, g * c.minus_lr), velocity


def _matters(weight_decay: Any) -> bool:
    """Whether a weight decay is part of the rule: a tensor always is."""
    return isinstance(weight_decay, Tensor) or weight_decay != 0


class ASGD(RuleOptimizer):
    """Averaged stochastic gradient descent; the average is the slot `ax`.

    Polyak & Juditsky 1992, with the step sizes of Bottou 2010.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, weight_decay=weight_decay)
        super().__init__(
            params, lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay,
            foreach=foreach, maximize=maximize, differentiable=differentiable,
            capturable=capturable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step", "eta", "mu"), ("ax",)

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        if name == "eta":
            return counter(float(group["lr"]))
        return counter(1.0) if name == "mu" else super()._initial(name, group, p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, lambd = self._hyper(group, "lr"), self._hyper(group, "lambd")
        c = Scalars(
            shrink=1 - lambd * count.eta, minus_eta=-count.eta, mu=count.mu, plain=count.mu == 1,
        )  # fmt: skip
        if group["weight_decay"] != 0:
            c.weight_decay = self._hyper(group, "weight_decay")
        step = count.step + 1
        age = step - self._hyper(group, "t0")
        count.step = step
        count.eta = lr / (1 + lambd * lr * step) ** self._hyper(group, "alpha")
        count.mu = 1 / where(age > 1, age, 1.0)
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        (average,) = slots
        if group["weight_decay"] != 0:
            g = g + p * c.weight_decay
        p = p * c.shrink + g * c.minus_eta
        return p, m.where(c.plain, p, average + (p - average) * c.mu)


class Rprop(RuleOptimizer):
    """A step size for each element, that grows while the gradient keeps its sign.

    Riedmiller & Braun 1993, in the form without backtracking.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
        foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(
            params, lr=lr, etas=etas, step_sizes=step_sizes, foreach=foreach, maximize=maximize,
            differentiable=differentiable, capturable=capturable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("prev", "step_size")

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        if name == "step_size":
            return full_like(p, float(group["lr"]))
        return super()._initial(name, group, p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        count.step = count.step + 1
        return Scalars(
            minus=self._hyper(group, "etas", 0), plus=self._hyper(group, "etas", 1),
            least=self._hyper(group, "step_sizes", 0), most=self._hyper(group, "step_sizes", 1),
        )  # fmt: skip

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        before, size = slots
        agreement = g * before
        grown = m.where(agreement > 0, size * c.plus, size)
        size = m.where(agreement < 0, size * c.minus, grown)
        size = m.minimum(m.maximum(size, c.least), c.most)
        g = m.where(agreement < 0, g * 0.0, g)
        return p - m.sign(g) * size, g, size
