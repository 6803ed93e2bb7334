"""From the gradient rules of a row to what the tape keeps and runs.

A rule names its parameters; from the names follows what must be kept of an op's operands and
results. A plan is made once for each set of operands that need gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from tracegraph.errors import OpError
from tracegraph.ops.parameters import parameter_names
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
    def least(self) -> int:
        """How many operands cannot be left out."""

    @property
    def attrs(self) -> tuple[str, ...]:
        """Names of the attributes."""

    @property
    def holomorphic(self) -> bool:
        """Whether the rules are to be conjugated where the results are complex."""

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


@dataclass(frozen=True, slots=True)
class SavePlan:
    """What the tape keeps when certain operands need gradients, and the rules it will run.

    `saves` are (kind, index) with the kinds SAVE_*; `attrs` are names of attributes; `partial`
    tells that some operand neither needs a gradient nor is kept, `holds` that values (not only
    types) are kept. `keep` gives a node what is kept; `run` calls the rules on Tensors,
    `run_arrays` on their bare arrays.

    Of a complex x, a gradient is dL/d(re x) + i·dL/d(im x), as in PyTorch: that of f(x) for a
    holomorphic f is g·conj(f'(x)), and the rule written for reals says g·f'(x). So a plan with
    CONJUGATED in its mask conjugates g, runs the rules, and conjugates what they give.
    """

    saves: tuple[tuple[int, int], ...]
    attrs: tuple[str, ...]
    rules: tuple[Rule, ...]
    partial: bool
    holds: bool
    keep: Callable[..., None]
    run: Callable[..., Any]
    run_arrays: Callable[..., Any]


CONJUGATED: Final = 1 << 62  # in a mask: the op is holomorphic, and its result is complex

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
    for name in parameter_names(function):
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
    runners = [_runner(op, kept, attrs, placed, arrays) for arrays in (False, True)]
    if op.holomorphic and mask & CONJUGATED:
        runners = list(map(_conjugated, runners))
    return SavePlan(kept, attrs, placed, partial, holds, _keeper(op, kept), *runners)


def _conjugated(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a runner between conjugates."""

    def conjugated(node: Any, m: Any, g: Any, create_graph: bool) -> tuple[Any, ...]:
        found = run(node, m, m.conj(g), create_graph)
        return tuple([None if x is None else m.conj(x) for x in found])

    return conjugated


_KEEP: Final = {
    SAVE_INPUT: """
    {v} = args[{i}]
    {n} = 0 if {v}.__class__ in SCALARS or {v}._storage is None else {v}._storage.version""",
    SAVE_OUTPUT: """
    {v} = outs[{i}]
    s = {v}._storage or storage_of({v})
    {v}, {n} = ({v}._data, s), s.version""",
    SAVE_TYPE: """
    {v}, {n} = type_of(args[{i}], outs), 0""",
    SAVE_INPUTS: """
    {v} = tuple(args[{i}:])
    {n} = tuple([0 if t._storage is None else t._storage.version for t in {v}])""",
    SAVE_TYPES: """
    {v}, {n} = tuple([type_of(t, outs) for t in args[{i}:]]), 0""",
}


def _keeper(op: Differentiable, saves: tuple[tuple[int, int], ...]) -> Callable[..., None]:
    """Return `keep(node, args, outs, storage_of, type_of)`: sets `saved` and `versions` of a node.

    `versions` is None where all are 0. Generated, as `_runner`: 0.3 us a node against 0.1 us.
    """
    body = "def keep(node, args, outs, storage_of, type_of):"
    for place, (kind, i) in enumerate(saves):
        template = _KEEP[kind]
        if kind in (SAVE_INPUT, SAVE_TYPE) and i >= op.least:
            template = template.replace("args[{i}]", "(args[{i}] if len(args) > {i} else None)")
        body += template.format(i=i, v=f"v{place}", n=f"n{place}")
    values, versions = ("".join(f"{x}{place}, " for place in range(len(saves))) for x in "vn")
    some = " or ".join(f"n{place}" for place in range(len(saves))) or "False"
    body += f"""
    node.saved = ({values})
    node.versions = ({versions}) if {some} else None"""
    space: dict[str, Any] = {"SCALARS": _SCALARS}
    exec(compile(body, f"<what {op.name} keeps>", "exec"), space)
    made: Callable[..., None] = space["keep"]
    return made


_UNPACK: Final = {
    SAVE_INPUT: """
    if {v}.__class__ not in SCALARS and {v}._storage is not None:
        {unpack}""",
    SAVE_OUTPUT: """
    {v} = {unpack}""",
    SAVE_INPUTS: """
    {unpack}""",
}
_UNPACK_ARRAYS: Final = {
    SAVE_INPUT: """
    if {v}.__class__ not in SCALARS:
        if {v}._storage is not None:
            {unpack}
        {v} = {v}._data""",
    SAVE_OUTPUT: """
    if {v}[1].version:
        {unpack}
    {v} = {v}[0]""",
    SAVE_INPUTS: """
    {unpack}
    {v} = tuple([t._data for t in {v}])""",
}


def _runner(
    op: Differentiable,
    saves: tuple[tuple[int, int], ...],
    attrs: tuple[str, ...],
    rules: tuple[Rule, ...],
    arrays: bool,
) -> Callable[..., Any]:
    """Return `run(node, m, g, create_graph)`: the rules called with what the node kept.

    It is generated, because a loop over saves and rules costs as much as a small op: 1.1 us a
    node against 0.5 us.
    """
    lines = ["def run(node, m, g, create_graph):", "    saved = node.saved"]
    unpacks = _UNPACK_ARRAYS if arrays else _UNPACK
    for place, (kind, index) in enumerate(saves):
        v = f"v{place + 3}"
        unpack = f"node.unpack({place}, {kind}, {index}, {v}, create_graph)"
        lines.append(f"    {v} = saved[{place}]" + unpacks.get(kind, "").format(v=v, unpack=unpack))
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
