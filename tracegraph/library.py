"""Ops of one's own: `library.define("my::silu2(x) -> y", ...)` makes a row beside the op table's.

Such an op runs in eager code, has one node on the tape and in a trace, and goes into files with
its decomposition, so that they run where nobody has defined it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.autograd.differentiation import grad as gradients_of
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import OpError
from tracegraph.ops import core
from tracegraph.ops.core import (
    NOT_DIFFERENTIABLE,
    ZERO,
    Case,
    Joint,
    Op,
    Spec,
    case,
    elementwise_type,
    reals,
)
from tracegraph.ops.table import CUSTOM, OPS
from tracegraph.tensor_type import TensorType

__all__ = [
    "NOT_DIFFERENTIABLE", "ZERO", "Case", "CustomOp", "Joint", "Spec", "TensorType", "case",
    "define", "elementwise_type", "reals", "undefine",
]  # fmt: skip


class CustomOp:
    """An op that a program defined. Call it with tensors, and attributes by keyword."""

    def __init__(self, row: Op, defaults: dict[str, Any]) -> None:
        self.row = row
        self.__name__ = row.name
        self.__doc__ = row.doc
        self._defaults = defaults

    def __call__(self, *tensors: Any, **attrs: Any) -> Any:
        """Run the op.

        Raises:
            OpError: operands or attributes that it does not take.
        """
        unknown = set(attrs) - set(self.row.attrs)
        missing = set(self.row.attrs) - set(attrs) - set(self._defaults)
        if unknown or missing:
            what = "has no attribute" if unknown else "needs the attribute"
            raise OpError(f"{self.row.name} {what} {', '.join(sorted(unknown or missing))}")
        return dispatch(self.row, tensors, {**self._defaults, **attrs})

    def __repr__(self) -> str:
        return f"<custom op {self.row.signature}>"


def define(
    signature: str, decompose: Callable[..., Any], *, type: Callable[..., Any] | None = None,
    vjp: Any = None, kernel: Callable[..., Any] | None = None, traits: Sequence[str] = (),
    sample: Sequence[Case] = (), version: int = 1, doc: str = "",
) -> CustomOp:  # fmt: skip
    """Define an op and return it.

    Args:
        signature: `"my::name(x, y) -> z"`: a namespace, tensor operands, results; `*xs` and `b?`
            as for the rows of the op table.
        decompose: the op written `(m, *operands, *, attributes)` in ops of the table, with Python's
            operators: `lambda m, x, *, beta=1.0: x * m.sigmoid(x * beta)`. It is the meaning of
            the op, and what files carry.
        type: the result type(s) from operand types and attributes, raising `OpError`; by default
            those of the decomposition.
        vjp: gradient rules as of the op table, `ZERO` or `NOT_DIFFERENTIABLE`; by default the
            gradient of the decomposition.
        kernel: `(xp, *arrays, **attributes)` over NumPy or CuPy, faster than the decomposition.
        traits: what passes may know, see `ops/core.py`.
        sample: cases that tests can draw operands from.
        version: raise it when the meaning changes; files with another one use their decomposition.
        doc: one sentence.

    Raises:
        OpError: a name without namespace, or one that is taken.
    """
    name = signature.partition("(")[0].strip()
    if "::" not in name:
        raise OpError(f"an op of one's own has a namespace: my::{name}, not {name!r}")
    if name in OPS:
        raise OpError(f"there is an op {name!r} already; undefine({name!r}) comes first")
    rule = type or _type_of(decompose)
    row = core.define(
        signature, type=rule, vjp=NOT_DIFFERENTIABLE if vjp is None else vjp, kernel=kernel,
        decompose=decompose, traits=tuple(traits), sample=tuple(sample), version=version, doc=doc,
    )  # fmt: skip
    if vjp is None:
        object.__setattr__(row, "vjp", Joint(_rule_of(row)))
        object.__setattr__(row, "differentiable", True)
    CUSTOM[name] = row
    parameters = inspect.signature(rule).parameters.values()
    defaults = {p.name: p.default for p in parameters
                if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}  # fmt: skip
    return CustomOp(row, defaults)


def undefine(name: str) -> None:
    """Forget an op; graphs in memory that use it cannot run any more.

    Raises:
        OpError: nobody has defined it.
    """
    if CUSTOM.pop(name, None) is None:
        raise OpError(f"nobody has defined an op {name!r}")


def _type_of(decompose: Callable[..., Any]) -> Callable[..., Any]:
    """The type rule that follows from a decomposition."""

    def rule(*types: TensorType, **attrs: Any) -> Any:
        token, grad = modes.push_recorder(None), modes.GRAD.set(False)
        try:
            result = decompose(front, *(wrap(AbstractArray(t)) for t in types), **attrs)
        finally:
            modes.GRAD.reset(grad)
            modes.pop_recorder(token)
        return tuple(map(type_of, result)) if isinstance(result, tuple) else type_of(result)

    given = inspect.signature(decompose).parameters.values()
    named = [p for p in given if p.kind is p.KEYWORD_ONLY]
    rule.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("types", inspect.Parameter.VAR_POSITIONAL), *named]
    )
    return rule


def _rule_of(row: Op) -> Callable[..., tuple[Any, ...]]:
    """The gradient rule that follows from a decomposition: it is differentiated when needed."""

    def rule(m: Any, g: Any, needs: Any, *rest: Any) -> tuple[Any, ...]:
        count = len(row.operands)
        operands, attrs = list(rest[:count]), dict(zip(row.attrs, rest[count:], strict=True))
        if row.variadic:
            operands[-1:] = operands[-1]
        bare = not isinstance(next(x for x in operands if x is not None), Tensor)
        given = [wrap(x) if bare and x is not None else x for x in operands]
        grads = g if isinstance(g, (tuple, list)) else (g,)
        found = _differentiated(
            row, given, attrs, [wrap(x) if bare and x is not None else x for x in grads], needs
        )
        return tuple(x._data if bare and x is not None else x for x in found)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("m", "g", "needs", *row.operands, *row.attrs)
    rule.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    return rule


def _differentiated(
    row: Op, operands: Sequence[Any], attrs: dict[str, Any], grads: Sequence[Any], needs: Any
) -> list[Any]:
    """The gradients of the operands in `needs`, from the decomposition on fresh leaves of them."""
    assert row.decompose is not None
    again = modes.GRAD.get()
    token = modes.GRAD.set(True)
    try:
        wanted = [bool(n) and x is not None for n, x in zip(needs, operands, strict=False)]
        leaves = [
            front.copy(x if again and x.requires_grad else x.detach().requires_grad_()) if w else x
            for w, x in zip(wanted, operands, strict=False)
        ]
        results = row.decompose(front, *leaves, **attrs)
        many = results if isinstance(results, tuple) else (results,)
        pairs = [(y, g) for y, g in zip(many, grads, strict=True)
                 if g is not None and y.requires_grad]  # fmt: skip
        targets = [x for w, x in zip(wanted, leaves, strict=True) if w]
        found = iter(
            gradients_of([y for y, _ in pairs], targets, [g for _, g in pairs],
                         create_graph=again, allow_unused=True)
            if pairs else [None] * len(targets)
        )  # fmt: skip
    finally:
        modes.GRAD.reset(token)
    return [next(found) if w else None for w in wanted]
