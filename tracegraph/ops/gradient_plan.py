"""From the gradient rules of a row to what the tape keeps and runs.

A rule names its parameters; from the names follows what must be kept of an op's operands and
results. A plan is made once for each set of operands that need gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from tracegraph.errors import OpError
from tracegraph.tensor_type import TensorType


class Zero:
    """Marks a gradient that is zero everywhere it exists (`floor`)."""


class NotDifferentiable:
    """Marks an op whose results carry no gradient (`argmax`)."""


ZERO: Final = Zero()
NOT_DIFFERENTIABLE: Final = NotDifferentiable()


@dataclass(frozen=True)
class Joint:
    """One gradient rule that returns the gradients of all operands at once.

    Its parameter `needs` tells which operands want one (a tuple of bool).
    """

    rule: Callable[..., tuple[Any, ...]]


class Differentiable(Protocol):
    """The columns of a row that gradients are made from."""

    @property
    def name(self) -> str:
        """Of the op."""

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the results."""

    @property
    def variadic(self) -> bool:
        """Whether the last operand stands for any number."""

    @property
    def attrs(self) -> tuple[str, ...]:
        """Names of the attributes."""

    @property
    def vjp(self) -> Any:
        """The gradient rules."""


class _Wish(NamedTuple):
    """A gradient rule and what each of its parameters names: (kind, which)."""

    operand: int
    function: Callable[..., Any]
    places: tuple[tuple[str, Any], ...]


class Rule(NamedTuple):
    """A gradient rule ready to be called: for which operand (-1: all), and with what.

    `places` index the environment [m, g, needs, *saved values, *attributes] of a `SavePlan`.
    """

    operand: int
    function: Callable[..., Any]
    places: tuple[int, ...]


class SavePlan(NamedTuple):
    """What the tape keeps when certain operands need gradients, and the rules it will run.

    `saves` are (kind, index) with the kinds SAVE_*; `attrs` are names of attributes; `partial`
    tells that some operand neither needs a gradient nor is kept, `holds` that values (not only
    types) are kept.
    """

    saves: tuple[tuple[int, int], ...]
    attrs: tuple[str, ...]
    rules: tuple[Rule, ...]
    partial: bool
    holds: bool
    run: Callable[..., Any]


SAVE_INPUT: Final = 0  # an operand
SAVE_OUTPUT: Final = 1  # a result
SAVE_TYPE: Final = 2  # the type of an operand
SAVE_INPUTS: Final = 3  # the operands from a place on (variadic)
SAVE_TYPES: Final = 4  # the types of these

_KINDS: Final = {
    "input": SAVE_INPUT, "output": SAVE_OUTPUT, "type": SAVE_TYPE, "inputs": SAVE_INPUTS,
    "types": SAVE_TYPES,
}  # fmt: skip

_SCALARS: Final = frozenset((int, float, bool, type(None)))


def _sources(op: Differentiable, function: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    """Say where each parameter of a gradient rule comes from, by its name."""
    found: list[tuple[str, Any]] = []
    for name in inspect.signature(function).parameters:
        base = name.removesuffix("_type")
        if name in ("m", "g", "needs"):
            found.append((name, None))
        elif op.variadic and base == op.operands[-1]:
            found.append(("types" if name.endswith("_type") else "inputs", len(op.operands) - 1))
        elif name in op.operands:
            found.append(("input", op.operands.index(name)))
        elif name in op.results:
            found.append(("output", op.results.index(name)))
        elif name.endswith("_type") and base in op.operands:
            found.append(("type", op.operands.index(base)))
        elif name in op.attrs:
            found.append(("attr", name))
        else:
            raise OpError(f"gradient rule of {op.name} has an unknown parameter {name!r}")
    return tuple(found)


def _zero_rule(m: Any, x_type: TensorType) -> Any:
    return m.full(shape=x_type.shape, value=0, dtype=x_type.dtype)


def make_plan(op: Differentiable, mask: int) -> SavePlan:
    """Return what to keep, and which rules to run, when the operands in `mask` need gradients."""
    rules: list[_Wish] = []
    if isinstance(op.vjp, Joint):
        rules.append(_Wish(-1, op.vjp.rule, _sources(op, op.vjp.rule)))
    elif op.vjp is ZERO:
        for i in range(len(op.operands)):
            if mask >> i & 1:
                rules.append(_Wish(i, _zero_rule, (("m", None), ("type", i))))
    else:
        for i, function in enumerate(op.vjp):
            if mask >> i & 1 and function is not None:
                rules.append(_Wish(i, function, _sources(op, function)))
    wanted = [source for rule in rules for source in rule.places]
    saves = tuple(dict.fromkeys(s for s in wanted if s[0] in _KINDS))
    attrs = tuple(dict.fromkeys(what for kind, what in wanted if kind == "attr"))
    fixed = [("m", None), ("g", None), ("needs", None)]
    order = {s: i for i, s in enumerate([*fixed, *saves, *(("attr", a) for a in attrs)])}
    kept = tuple((_KINDS[kind], index) for kind, index in saves)
    placed = tuple(Rule(r.operand, r.function, tuple(order[s] for s in r.places)) for r in rules)
    partial = op.variadic or any(
        not mask >> i & 1 and (SAVE_INPUT, i) not in kept for i in range(len(op.operands))
    )
    holds = any(kind in (SAVE_INPUT, SAVE_OUTPUT, SAVE_INPUTS) for kind, _ in kept)
    return SavePlan(kept, attrs, placed, partial, holds, _runner(op, kept, attrs, placed))


def _runner(
    op: Differentiable,
    saves: tuple[tuple[int, int], ...],
    attrs: tuple[str, ...],
    rules: tuple[Rule, ...],
) -> Callable[..., Any]:
    """Return `run(node, m, g, create_graph)`: the rules called with what the node kept.

    It is generated, because a loop over saves and rules costs as much as a small op: 1.1 us a
    node against 0.5 us.
    """
    lines = ["def run(node, m, g, create_graph):", "    saved = node.saved"]
    for place, (kind, index) in enumerate(saves):
        name = f"v{place + 3}"
        lines.append(f"    {name} = saved[{place}]")
        unpack = f"{name} = node.unpack({place}, {kind}, {index}, {name}, create_graph)"
        if kind == SAVE_INPUT:
            lines.append(f"    if {name}.__class__ not in SCALARS and {name}._storage is not None:")
            lines.append(f"        {unpack}")
        elif kind in (SAVE_OUTPUT, SAVE_INPUTS):
            lines.append(f"    {unpack}")
    base = 3 + len(saves)
    lines += [f"    v{base + i} = node.attrs[{name!r}]" for i, name in enumerate(attrs)]
    if any(2 in r.places for r in rules):
        lines.append("    v2 = tuple([e is not None for e in node.edges])")
    calls = {
        r.operand: f"f{i}({', '.join(('m', 'g')[p] if p < 2 else f'v{p}' for p in r.places)})"
        for i, r in enumerate(rules)
    }
    if -1 in calls:
        lines.append(f"    return {calls[-1]}")
    else:
        items = [calls.get(i, "None") for i in range(max(calls, default=-1) + 1)]
        lines.append(f"    return ({''.join(item + ', ' for item in items)})")
    space: dict[str, Any] = {f"f{i}": r.function for i, r in enumerate(rules)}
    space["SCALARS"] = _SCALARS
    exec(compile("\n".join(lines), f"<gradient of {op.name}>", "exec"), space)
    made: Callable[..., Any] = space["run"]
    return made
