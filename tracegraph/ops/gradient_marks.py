"""Marks in a graph that say where gradients go: `detach`, `no_grad` and what cannot be replayed.

The result has the value of the first operand. A trace writes them down, so that gradients of a
replay are those of the function that was traced; programs that need no gradient drop them.
"""

from __future__ import annotations

from typing import Any

from tracegraph.errors import AutogradError, OpError
from tracegraph.ops.core import COMPLEX, LAID_ALIKE, MARK, NOT_DIFFERENTIABLE, VIEW, case, define
from tracegraph.tensor_type import TensorType


def _origin_type(x: TensorType, origin: TensorType) -> TensorType:
    if x != origin:
        raise OpError(f"a gradient of {x} cannot go to {origin}")
    return x


def _reason_type(x: TensorType, *, reason: str) -> TensorType:
    return x


def _refuse(g: Any, reason: str) -> Any:
    raise AutogradError(f"a replay cannot give this gradient: {reason}")


detach = define(
    "detach(x) -> y", type=lambda x: x, kernel=lambda xp, x: x, vjp=NOT_DIFFERENTIABLE,
    traits=(MARK, VIEW, COMPLEX), write_back=lambda m, base, value: m.pass_gradient(value, base),
    sample=(case((2, 3)), case(())), doc="x; gradients end here.",
)  # fmt: skip

pass_gradient = define(
    "pass_gradient(x, origin) -> y", type=_origin_type, kernel=lambda xp, x, origin: x.copy(),
    vjp=(None, lambda g: g), traits=(MARK, COMPLEX, LAID_ALIKE),
    sample=(case((2, 3), (2, 3)), case((), ())),
    doc="x; its gradient goes to `origin`, whose memory was written with x unseen by autograd.",
)  # fmt: skip

refuse_gradient = define(
    "refuse_gradient(x) -> y", type=_reason_type, kernel=lambda xp, x, *, reason: x.copy(),
    vjp=(_refuse,), traits=(MARK, COMPLEX, LAID_ALIKE),
    sample=(case((2, 3), reason="a hook"), case((), reason="a hook")),
    doc="x; a gradient that arrives is refused: how it went on was Python outside of the graph.",
)  # fmt: skip
