"""Functions that are straight but for kinks: their second derivative is zero, and it is there.

Their gradient rules choose by a comparison, which leads no gradient on. A gradient of a gradient is
zeros for the operand all the same, as in PyTorch, and not None: optimizers tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tracegraph.dtypes import bool_
from tracegraph.ops.gradient_plan import SAVE_OUTPUT

_KINKED: Final = frozenset(
    ("hardshrink", "hardtanh", "leaky_relu", "relu", "softshrink", "threshold")
)
"""Ops of one operand, whose rule reads the operand or the result."""


def linked(node: Any, m: Any, gradients: Sequence[Any]) -> Sequence[Any]:
    """Return the gradient of the operand, as a choice that never falls on what the node kept.

    Those of other ops are returned as they are.
    """
    if node.op.name not in _KINKED:
        return gradients
    kind, index = node.plan.saves[0]
    kept = node.saved[0]
    if kind == SAVE_OUTPUT:
        kept = node.unpack(0, kind, index, kept, create_graph=True)
    return (m.where(m.full(shape=(), value=True, dtype=bool_), gradients[0], kept),)
