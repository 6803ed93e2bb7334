"""Algebra of elementwise ops: only what holds for every input, with NaN, ±inf and −0.0.

Bits stay the same but for the sign and payload of NaN, which arithmetic does not define.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np

from tracegraph.dtypes import BOOL_KIND, FLOAT_KIND, HALVES, INT_KIND, DType, bool_
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.ops.core import ELEMENTWISE
from tracegraph.passes.rewriting import Maker, NodeRule, rewrite, table, uniform_of
from tracegraph.tensor_type import broadcast_shapes


def simplify_algebra(graph: Graph) -> int:
    """Apply identities of arithmetic, logic, choice and casts that are exact."""
    return rewrite(graph, _RULES)


def reduce_strength(graph: Graph) -> int:
    """Write small whole powers as products, and x⁻¹ as a reciprocal: within rounding of `pow`."""
    return rewrite(graph, _STRENGTH)


def _is(value: Value, number: float) -> bool:
    """Whether every element is this real constant; tells 0.0 from −0.0.

    A complex one never is: products with it do not keep infinities and signs of zeros.
    """
    found = uniform_of(value)
    if found is None or value.type.dtype.is_complex or found != number:
        return False
    if value.type.dtype.kind < FLOAT_KIND:
        return True
    return bool(np.signbit(found.astype(np.float64)) == np.signbit(np.float64(number)))


def _same(make: Maker, node: Node, x: Value) -> Value | None:
    """`x` in the shape of the node's result."""
    return make.expand(x, node.out.type.shape) if x.type.dtype is node.out.type.dtype else None


def _zero_of_add(dtype: DType) -> float:
    """The z with x + z = x: −0.0 for floats, since −0.0 + 0.0 = 0.0."""
    return -0.0 if dtype.kind == FLOAT_KIND else 0


def _neutral(number: Any, both_sides: bool) -> NodeRule:
    """x op number = x; `number` may depend on the dtype."""

    def rule(make: Maker, node: Node) -> Value | None:
        x, y = node.inputs
        wanted = number(x.type.dtype) if callable(number) else number
        if _is(y, wanted):
            return _same(make, node, x)
        return _same(make, node, y) if both_sides and _is(x, wanted) else None

    return rule


def _whole_division_by_one(make: Maker, node: Node) -> Value | None:
    x, y = node.inputs
    exact = x.type.dtype.kind == INT_KIND and _is(y, 1)
    return _same(make, node, x) if exact else None


def _undone(make: Maker, node: Node) -> Value | None:
    """f(f(x)) = x."""
    inner = node.inputs[0].node
    return inner.inputs[0] if inner.op == node.op else None


def _undone_not(make: Maker, node: Node) -> Value | None:
    inner = node.inputs[0].node
    if inner.op == "logical_not" and inner.inputs[0].type.dtype is bool_:
        return inner.inputs[0]
    if inner.op in ("eq", "ne"):
        return make.op("ne" if inner.op == "eq" else "eq", *inner.inputs)
    return None


def _idempotent(make: Maker, node: Node) -> Value | None:
    """f(f(x)) = f(x)."""
    inner = node.inputs[0]
    return inner if inner.node.op == node.op else None


def _of_itself(make: Maker, node: Node) -> Value | None:
    """x op x = x."""
    x, y = node.inputs
    return x if x is y and x.type == node.out.type else None


def _plus_negative(make: Maker, node: Node, other: str) -> Value | None:
    """x + (−y) = x − y, and x − (−y) = x + y."""
    x, y = node.inputs
    if y.node.op == "neg":
        return make.op(other, x, y.node.inputs[0])
    if node.op == "add" and x.node.op == "neg":
        return make.op(other, y, x.node.inputs[0])
    return None


def _both_negative(make: Maker, node: Node) -> Value | None:
    """(−x) op (−y) = x op y."""
    x, y = node.inputs
    if x.node.op == y.node.op == "neg":
        return make.op(node.op, x.node.inputs[0], y.node.inputs[0])
    return None


def _absolute(make: Maker, node: Node) -> Value | None:
    """|−x| = |x|."""
    inner = node.inputs[0].node
    if inner.op != "neg" or not node.out.type.dtype.is_signed:
        return None
    return make.op("abs", inner.inputs[0])


def _division_by_power_of_two(make: Maker, node: Node) -> Value | None:
    """x / 2ⁿ = x · 2⁻ⁿ where both are representable."""
    x, y = node.inputs
    found = None if y.type.dtype.is_complex else uniform_of(y)
    mantissa, exponent = math.frexp(0.0 if found is None else float(found))
    bound = 14 if y.type.dtype in HALVES else 100
    if abs(mantissa) != 0.5 or abs(exponent - 1) > bound:
        return None
    inverse = make.constant(math.ldexp(4 * mantissa, -exponent), y.type.dtype)
    return make.op("mul", x, make.expand(inverse, y.type.shape))


def _choice(make: Maker, node: Node) -> Value | None:
    """`where` of a constant condition, of a negated one, and of equal branches."""
    condition, x, y = node.inputs
    found = uniform_of(condition)
    if found is not None:
        return _same(make, node, x if found else y)
    if x is y:
        return _same(make, node, x)
    inner = condition.node
    if inner.op == "logical_not" and inner.inputs[0].type.dtype is bool_:
        return make.op("where", inner.inputs[0], y, x)
    return None


def is_lossless(a: DType, b: DType) -> bool:
    """Whether every value of `a` is a value of `b`."""
    if a is b or a.kind == BOOL_KIND:
        return True
    if a.kind == INT_KIND and b.kind == INT_KIND:
        return bool(np.can_cast(a.np, b.np, "safe"))
    if a.kind == INT_KIND and b.kind == FLOAT_KIND:
        return 8 * a.itemsize - a.is_signed <= ml_dtypes.finfo(b.np).nmant + 1
    return a.kind == FLOAT_KIND and b.kind == FLOAT_KIND and a.itemsize < b.itemsize


def _casts(make: Maker, node: Node) -> Value | None:
    """A cast that changes nothing, or undoes or follows a lossless one."""
    value = node.inputs[0]
    target = node.out.type.dtype
    if value.type.dtype is target:
        return value
    inner = value.node
    if inner.op != "cast":
        return None
    origin = inner.inputs[0]
    source, middle = origin.type.dtype, value.type.dtype
    if not is_lossless(source, middle):
        return None
    if source is target:
        return origin
    # Float to integer is undefined out of range, integer to 16-bit float may round twice.
    floats = source.kind == FLOAT_KIND and target.kind == FLOAT_KIND
    whole = source.kind != FLOAT_KIND and middle.kind != FLOAT_KIND and target not in HALVES
    return make.op("cast", origin, dtype=target) if floats or whole else None


def _drop_expand(make: Maker, node: Node) -> Value | None:
    """Elementwise ops broadcast by themselves: operands need no expand for that.

    Not for results without elements: division by an operand with elements could raise.
    """
    shape = node.out.type.shape
    if not node.out.type.size:
        return None
    inputs = list(node.inputs)
    changed = False
    for place, value in enumerate(inputs):
        if not _only_broadcasts(value.node):
            continue
        trial = [*inputs[:place], value.node.inputs[0], *inputs[place + 1 :]]
        if broadcast_shapes([v.type.shape for v in trial]) == shape:
            inputs, changed = trial, True
    return make.op(node.op, *inputs, **node.attrs) if changed else None


def _only_broadcasts(node: Node) -> bool:
    """Whether a node does what broadcasting does: an expand, or a reshape that adds leading 1s."""
    if node.op != "reshape":
        return node.op == "expand"
    before, after = node.inputs[0].type.shape, node.out.type.shape
    return after == (1,) * (len(after) - len(before)) + before


def _hoist_expand(make: Maker, node: Node) -> Value | None:
    """f(expand(x)) = expand(f(x)): compute small, repeat afterwards.

    Not where the size decides how f is computed (see `ops/heavy.py`): bits would differ.
    """
    shape, heavy = node.out.type.shape, node.row.heavy
    size = node.out.type.size
    if heavy and (size.__class__ is not int or size >= heavy):
        return None
    inputs = [v.node.inputs[0] if v.node.op == "expand" else v for v in node.inputs]
    small = broadcast_shapes([v.type.shape for v in inputs])
    if small == shape or not size:
        return None
    return make.expand(make.op(node.op, *inputs, **node.attrs), shape)


_RULES: Final = table(
    {
        "add": (_neutral(_zero_of_add, True), partial(_plus_negative, other="sub")),
        "sub": (_neutral(0, False), partial(_plus_negative, other="add")),
        "mul": (_neutral(1, True), _both_negative),
        "div": (_neutral(1, False), _both_negative, _division_by_power_of_two),
        "floor_divide trunc_divide": _whole_division_by_one,
        "neg bitwise_not conj": _undone,
        "logical_not": _undone_not,
        "abs": (_idempotent, _absolute),
        "floor ceil trunc round sign": _idempotent,
        "maximum minimum bitwise_and bitwise_or logical_and logical_or": _of_itself,
        "where": _choice,
        "cast": _casts,
        ELEMENTWISE: (_drop_expand, _hoist_expand),
    }
)


def _power(make: Maker, node: Node) -> Value | None:
    """x to the power 1, 2, 3 or −1; other powers differ from roots at −0.0 and −inf."""
    x, y = node.inputs
    if x.type != node.out.type:
        return None
    if _is(y, 1):
        return x
    if _is(y, 2):
        return make.op("mul", x, x)
    if _is(y, 3):
        return make.op("mul", make.op("mul", x, x), x)
    fraction = x.type.dtype.kind == FLOAT_KIND
    return make.op("reciprocal", x) if fraction and _is(y, -1) else None


_STRENGTH: Final = table({"pow": _power})
