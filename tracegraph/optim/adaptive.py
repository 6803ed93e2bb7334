"""Step sizes from the history of squared gradients: Adagrad, Adadelta, RMSprop, Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegraph.api.creation import full_like, zeros
from tracegraph.api.pointwise import where
from tracegraph.dtypes import finfo
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.optim.optimizer import Group
from tracegraph.optim.rule import RuleOptimizer, Scalars, check_not_negative

Layout = tuple[tuple[str, ...], tuple[str, ...]]


class Adagrad(RuleOptimizer):
    """p ← p − lr·g / √(sum of g²). Duchi, Hazan & Singer 2011."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_not_negative(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, foreach=foreach,
            maximize=maximize, differentiable=differentiable, fused=fused,
        )  # fmt: skip
        self.__tracegraph_materialize__()

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("sum",)

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        if name == "sum":
            return full_like(p, group["initial_accumulator_value"])
        return super()._initial(name, group, p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, decay = self._hyper(group, "lr"), self._hyper(group, "lr_decay")
        c = Scalars(minus_lr=-(lr / (1 + count.step * decay)), eps=self._hyper(group, "eps"))
        if group["weight_decay"] != 0:
            c.weight_decay = self._hyper(group, "weight_decay")
        count.step = count.step + 1
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        (total,) = slots
        if group["weight_decay"] != 0:
            g = g + p * c.weight_decay
        total = total + g * g
        return p + g * c.minus_lr / (m.sqrt(total) + c.eps), total


class Adadelta(RuleOptimizer):
    """Steps in the units of the parameter. Zeiler 2012, arXiv:1212.5701."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        super().__init__(
            params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize,
            capturable=capturable, foreach=foreach, differentiable=differentiable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("square_avg", "acc_delta")

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        rho = self._hyper(group, "rho")
        c = Scalars(
            minus_lr=-self._hyper(group, "lr"), rho=rho, new=1 - rho, eps=self._hyper(group, "eps")
        )
        if group["weight_decay"] != 0:
            c.weight_decay = self._hyper(group, "weight_decay")
        count.step = count.step + 1
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        square, moved = slots
        if group["weight_decay"] != 0:
            g = g + p * c.weight_decay
        square = square * c.rho + g * c.new * g
        delta = m.sqrt(moved + c.eps) / m.sqrt(square + c.eps) * g
        return p + delta * c.minus_lr, square, moved * c.rho + delta * c.new * delta


class RMSprop(RuleOptimizer):
    """p ← p − lr·g / √(mean of g²). Tieleman & Hinton 2012; centred: Graves 2013."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(
            lr=lr, eps=eps, momentum=momentum,
            weight_decay=weight_decay, alpha=alpha,
        )  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered,
            weight_decay=weight_decay, capturable=capturable, foreach=foreach, maximize=maximize,
            differentiable=differentiable,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        velocity = ("momentum_buffer",) if group["momentum"] > 0 else ()
        mean = ("grad_avg",) if group["centered"] else ()
        return ("step",), ("square_avg", *velocity, *mean)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        alpha = self._hyper(group, "alpha")
        c = Scalars(
            minus_lr=-self._hyper(group, "lr"), alpha=alpha, new=1 - alpha,
            eps=self._hyper(group, "eps"),
        )  # fmt: skip
        if group["weight_decay"] != 0:
            c.weight_decay = self._hyper(group, "weight_decay")
        if group["momentum"] > 0:
            c.momentum = self._hyper(group, "momentum")
        count.step = count.step + 1
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        square, rest = slots[0], slots[1:]
        if group["weight_decay"] != 0:
            g = g + p * c.weight_decay
        square = variance = square * c.alpha + g * c.new * g
        mean: tuple[Any, ...] = ()
        if group["centered"]:
            mean = (rest[-1] + (g - rest[-1]) * c.new,)
            variance = square - mean[0] * mean[0]
        scale = m.sqrt(variance) + c.eps
        if group["momentum"] > 0:
            velocity = rest[0] * c.momentum + g / scale
            return p + velocity * c.minus_lr, square, velocity, *mean
        return p + g * c.minus_lr / scale, square, *mean


class Adafactor(RuleOptimizer):
    """Adam with the mean square of a matrix kept as a product of row and column means.

    Shazeer & Stern 2018, arXiv:1804.04235, without momentum.
    """

    _elementwise = False

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0,
        *, foreach: bool | None = None, maximize: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, weight_decay=weight_decay)
        if beta2_decay > 0:
            raise ValueError(f"Invalid beta2_decay: {beta2_decay} is positive")
        if d < 1:
            raise ValueError(f"Invalid d: {d} is below 1")
        super().__init__(
            params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay,
            foreach=foreach, maximize=maximize,
        )  # fmt: skip

    def _layout(self, group: Group, p: Tensor) -> Layout:
        return ("step",), ("row_var", "col_var") if p.ndim > 1 else ("variance",)

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        shape = list(p.shape)
        if name in ("row_var", "col_var"):
            shape[-1 if name == "row_var" else -2] = 1
            return zeros(shape, dtype=type_of(p).dtype, device=p.device)
        return super()._initial(name, group, p)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr = self._hyper(group, "lr")
        count.step = count.step + 1
        size = 1 / count.step.sqrt()
        c = Scalars(
            size=where(size < lr, size, lr), new=count.step ** self._hyper(group, "beta2_decay"),
            least=self._hyper(group, "eps", 1), limit=self._hyper(group, "d"),
        )  # fmt: skip
        if group["weight_decay"] != 0:
            c.keep = 1 - lr * self._hyper(group, "weight_decay")
        return c

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        size = m.maximum(_root_mean_square(p), c.least) * c.size
        if group["weight_decay"] != 0:
            p = p * c.keep
        eps = finfo(type_of(p).dtype).eps if group["eps"][0] is None else group["eps"][0]
        square = g * g
        if p.ndim > 1:
            row = slots[0] + (square.mean(dim=-1, keepdim=True) - slots[0]) * c.new
            column = slots[1] + (square.mean(dim=-2, keepdim=True) - slots[1]) * c.new
            estimate = row * column / row.mean(dim=-2, keepdim=True).clamp(min=eps)
            after: tuple[Any, ...] = (row, column)
        else:
            estimate = slots[0] + (square - slots[0]) * c.new
            after = (estimate,)
        change = g * estimate.clamp(min=eps * eps).rsqrt()
        size = size / m.maximum(_root_mean_square(change) / c.limit, 1.0)
        return p - change * size, *after


def _root_mean_square(x: Any) -> Any:
    return (x * x).mean().sqrt()
