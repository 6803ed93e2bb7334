"""Adam and its relatives: Adam, AdamW, Adamax, NAdam, RAdam.

All keep decaying means of the gradient (`exp_avg`) and of its square (`exp_avg_sq`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.api.pointwise import where
from tracegraph.eager.tensors import Tensor
from tracegraph.optim.optimizer import Group
from tracegraph.optim.rule import RuleOptimizer, Scalars, check_betas, check_not_negative, counter

Layout = tuple[tuple[str, ...], tuple[str, ...]]


class _Moments(RuleOptimizer):
    """What the family shares: decay of weights, and of the two means."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        check_not_negative(
            lr=defaults["lr"], eps=defaults["eps"],
            weight_decay=defaults["weight_decay"],
        )  # fmt: skip
        check_betas(defaults["betas"])
        super().__init__(params, **defaults)

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("exp_avg", "exp_avg_sq")

    def _common(self, group: Group, count: Scalars) -> tuple[Any, Any, Any, Scalars]:
        """Advance the step; return lr, the betas, and the scalars that every rule needs."""
        lr, eps = self._hyper(group, "lr"), self._hyper(group, "eps")
        beta1, beta2 = self._hyper(group, "betas", 0), self._hyper(group, "betas", 1)
        count.step = count.step + 1
        c = Scalars(eps=eps, new1=1 - beta1, beta2=beta2, new2=1 - beta2)
        if group["weight_decay"] != 0:
            decay = self._hyper(group, "weight_decay")
            if group.get("decoupled_weight_decay"):
                c.keep = 1 - lr * decay
            else:
                c.decay = decay
        return lr, beta1, beta2, c

    def _decayed(self, m: Any, group: Group, c: Scalars, p: Any, g: Any) -> tuple[Any, Any]:
        """Return parameter and gradient after weight decay."""
        if group["weight_decay"] == 0:
            return p, g
        if group.get("decoupled_weight_decay"):
            return m.scale(p, c.keep), g
        return p, g + p * c.decay


class Adam(_Moments):
    """Kingma & Ba 2015, arXiv:1412.6980; AMSGrad is that of Reddi et al. 2018."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            maximize=maximize, foreach=foreach, capturable=capturable,
            differentiable=differentiable, fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        return ("step",), ("exp_avg", "exp_avg_sq", *largest)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, beta1, beta2, c = self._common(group, count)
        c.minus_size = -(lr / (1 - beta1**count.step))
        c.root = (1 - beta2**count.step).sqrt()
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        mean, square = slots[:2]
        p, g = self._decayed(m, group, c, p, g)
        mean = m.add(mean, m.scale(g - mean, c.new1))
        square = m.add(m.scale(square, c.beta2), g * c.new2 * g)
        largest = tuple(m.maximum(old, square) for old in slots[2:])
        scale = m.sqrt(largest[0] if largest else square) / c.root + c.eps
        return m.add(p, mean * c.minus_size / scale), mean, square, *largest


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient. Loshchilov & Hutter 2019."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip


class Adamax(_Moments):
    """Adam with the infinity norm in place of the mean square. Kingma & Ba 2015, section 7."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach,
            maximize=maximize, differentiable=differentiable, capturable=capturable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("exp_avg", "exp_inf")

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, beta1, _, c = self._common(group, count)
        c.minus_size = -(lr / (1 - beta1**count.step))
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        mean, norm = slots
        p, g = self._decayed(m, group, c, p, g)
        mean = m.add(mean, m.scale(g - mean, c.new1))
        norm = m.maximum(norm * c.beta2, m.abs(g) + c.eps)
        return p + mean * c.minus_size / norm, mean, norm


class NAdam(_Moments):
    """Adam with Nesterov momentum. Dozat 2016."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(momentum_decay=momentum_decay)
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize, foreach=foreach, capturable=capturable,
            differentiable=differentiable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step", "mu_product"), ("exp_avg", "exp_avg_sq")

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        return counter(1.0) if name == "mu_product" else super()._initial(name, group, p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, beta1, beta2, c = self._common(group, count)
        decay = self._hyper(group, "momentum_decay")
        mu = beta1 * (1 - 0.5 * 0.96 ** (count.step * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((count.step + 1) * decay))
        count.mu_product = count.mu_product * mu
        c.correction = 1 - beta2**count.step
        c.minus_new = -lr * (1 - mu) / (1 - count.mu_product)
        c.minus_mean = -lr * mu_next / (1 - count.mu_product * mu_next)
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        mean, square = slots
        p, g = self._decayed(m, group, c, p, g)
        mean = m.add(mean, m.scale(g - mean, c.new1))
        square = m.add(m.scale(square, c.beta2), g * c.new2 * g)
        scale = m.sqrt(square / c.correction) + c.eps
        return p + g * c.minus_new / scale + mean * c.minus_mean / scale, mean, square


class RAdam(_Moments):
    """Adam that rectifies the variance of its early steps. Liu et al. 2020, arXiv:1908.03265."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize,
            foreach=foreach, capturable=capturable,
            decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable,
        )  # fmt: skip

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, beta1, beta2, c = self._common(group, count)
        step = count.step
        power = beta2**step
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * power / (1 - power)
        c.rectified = length > 5
        length = where(c.rectified, length, 5.0)
        ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        c.rectifier = ratio.sqrt()
        c.minus_lr, c.correction, c.root = -lr, 1 - beta1**step, (1 - power).sqrt()
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        mean, square = slots
        p, g = self._decayed(m, group, c, p, g)
        mean = m.add(mean, m.scale(g - mean, c.new1))
        square = m.add(m.scale(square, c.beta2), g * c.new2 * g)
        plain = mean / c.correction * c.minus_lr
        rectified = plain * (c.root / (m.sqrt(square) + c.eps)) * c.rectifier
        return p + m.where(c.rectified, rectified, plain), mean, square
