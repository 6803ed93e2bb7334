"""Orthogonal polynomials, with the names of `torch.special`.

A whole number as order makes the polynomial of ops, so that it has derivatives; of orders in a
tensor the values are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegraph.api.creation import full_like
from tracegraph.api.promotion import cast, float_operand, result_type, scalar_tensor
from tracegraph.dtypes import FLOAT_KIND, get_default_dtype
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch
from tracegraph.eager.engine import clone
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ops.polynomials import FAMILIES
from tracegraph.ops.table import OPS


def _of_order(family: str, x: Tensor, n: int) -> Tensor:
    rule = FAMILIES[family]
    if n < 0:
        return full_like(x, 0)
    before: Any = full_like(x, 1)
    if n == 0:
        return before
    present = rule.first(x)
    for k in range(1, n):
        before, present = present, rule.following(x, k, present, before)
    return clone(present) if present is x else present


def _polynomial(family: str, shifted: bool) -> Callable[..., Tensor]:
    def function(input: Any, n: Any) -> Tensor:
        if isinstance(input, Tensor) and isinstance(n, int):
            x = float_operand(input)
            return _of_order(family, 2 * x - 1 if shifted else x, n)
        if isinstance(input, Tensor) and input._node is not None and modes.GRAD.get():
            raise OpError(f"the derivative of {family} is only known for an order that is an int")
        dtype = result_type(input, n)
        dtype = dtype if dtype.kind == FLOAT_KIND else get_default_dtype()
        x, order = (cast(t, dtype) if isinstance(t, Tensor) else scalar_tensor(t, dtype)
                    for t in (input, n))  # fmt: skip
        x = 2 * x - 1 if shifted else x
        return dispatch(OPS["orthogonal_polynomial"], (x, order), {"family": family})

    function.__name__ = f"shifted_{family}" if shifted else family
    kind = family.replace("_polynomial_", " polynomial ")
    function.__doc__ = f"Return the {kind} of order n at {'2x − 1' if shifted else 'x'}."
    return function


POLYNOMIALS = {name: _polynomial(name, False) for name in FAMILIES} | {
    f"shifted_{name}": _polynomial(name, True) for name in FAMILIES if name.startswith("chebyshev")
}
"""The functions by name."""
