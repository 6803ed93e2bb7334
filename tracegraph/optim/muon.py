"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.optim.optimizer import Group
from tracegraph.optim.rule import RuleOptimizer, Scalars, check_not_negative


class Muon(RuleOptimizer):
    """For matrices: momentum, brought near the closest orthogonal matrix by Newton-Schulz steps.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the polynomial
    x (a + b x² + c x⁴) is its quintic. PyTorch iterates in bfloat16, this in the parameter's dtype.

    Raises:
        ValueError: a parameter that is no matrix.
    """

    _elementwise = False

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, weight_decay: float = 0.1,
        momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, weight_decay=weight_decay, momentum=momentum)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
            ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn,
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon only supports 2D parameters, got {tuple(p.shape)}")

    def _layout(self, group: Group, p: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), ("momentum_buffer",)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        lr, momentum = self._hyper(group, "lr"), self._hyper(group, "momentum")
        a, b, c = (self._hyper(group, "ns_coefficients", i) for i in range(3))
        return Scalars(
            minus_lr=-lr, keep=1 - lr * self._hyper(group, "weight_decay"), momentum=momentum,
            new=1 - momentum, a=a, b=b, c=c, eps=self._hyper(group, "eps"),
        )  # fmt: skip

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        velocity = slots[0] + (g - slots[0]) * c.new
        x = g + (velocity - g) * c.momentum if group["nesterov"] else velocity
        rows, columns = p.shape
        x = x.mT if rows > columns else x
        x = x / m.maximum((x * x).sum().sqrt(), c.eps)
        for _ in range(group["ns_steps"]):
            gram = x @ x.mT
            x = x * c.a + (gram * c.b + (gram @ gram) * c.c) @ x
        x = x.mT if rows > columns else x
        if group["adjust_lr_fn"] == "match_rms_adamw":
            size = 0.2 * math.sqrt(max(rows, columns))
        else:
            size = math.sqrt(max(1.0, rows / columns))
        return p * c.keep + x * size * c.minus_lr, velocity
