"""Canonical form: of the ways to write one thing, one, so that other passes need know only that."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, Final

import numpy as np

from tracegraph.dtypes import DType
from tracegraph.errors import TraceGraphError
from tracegraph.ir.graph import CONSTANT, Graph, Node, Value
from tracegraph.ops.core import COMMUTATIVE, MARK, Op
from tracegraph.ops.table import run_op
from tracegraph.passes.rewriting import Maker, constant_of, rewrite, table, uniform_of

# What a comparison becomes when its operands change places.
_MIRRORED: Final = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


def canonicalise(graph: Graph) -> int:
    """Order operands: constants last, larger first; write arrays of one value as an expand.

    Marks of gradients go: a program computes values.
    """
    return rewrite(graph, _RULES)


def _rank(value: Value) -> tuple[bool, int, int, int]:
    """Where an operand should stand. By `seq`, which replacements inherit: so it settles."""
    node = value.node
    fixed = node.op == CONSTANT or uniform_of(value) is not None
    return fixed, -value.type.size, node.seq, value.index


def _reorder(make: Maker, node: Node) -> Value | None:
    """Commutative operands by rank; a comparison becomes its mirror."""
    if len(node.inputs) != 2:
        return None
    x, y = node.inputs
    if _rank(x) <= _rank(y):
        return None
    if node.op in _MIRRORED:
        return make.op(_MIRRORED[node.op], y, x)
    return make.op(node.op, y, x) if commutes_exactly(node.row, x.type.dtype) else None


@cache
def commutes_exactly(op: Op, dtype: DType) -> bool:
    """Whether a commutative op gives the same bits in either order (maximum(0.0, −0.0) does not).

    Found by trying the row's own kernel on pairs of unlike values.
    """
    if dtype.is_complex:
        return False
    edges = [0.0, 1.0, 2.0] if not dtype.is_signed else [0.0, -0.0, 1.0, -2.0]
    if dtype.is_floating_point:
        edges += [np.inf, -np.inf, np.nan]
    pairs = np.array(list(product(edges, edges)) * 2).astype(dtype.np)
    x, y = pairs[:, 0].copy(), pairs[:, 1].copy()
    try:
        with np.errstate(all="ignore"):
            one, other = run_op(op, np, x, y), run_op(op, np, y, x)
    except (TypeError, TraceGraphError):
        return False
    return _same_bits(one, other)


def _same_bits(a: Any, b: Any) -> bool:
    """Whether arrays are equal, with 0.0 apart from −0.0 and all NaN alike."""
    if a.dtype.kind not in "fV":
        return bool((a == b).all())
    same = (a == b) & (np.signbit(a) == np.signbit(b))
    return bool((same | (np.isnan(a) & np.isnan(b))).all())


def _full(make: Maker, node: Node) -> Value | None:
    """full = expand(constant): later rules look at one number."""
    attrs = node.attrs
    return make.expand(make.constant(attrs["value"], attrs["dtype"]), node.out.type.shape)


def _uniform_constant(make: Maker, node: Node) -> Value | None:
    """Constants with one value everywhere become an expand of that value."""
    array = constant_of(node.out)
    if array.size < 2:
        return None
    first = array.reshape(-1)[:1]
    if first.tobytes() != array.reshape(-1)[-1:].tobytes() or (array != first).any():
        return None
    if array.tobytes() != first.tobytes() * array.size:
        return None
    return make.expand(make.constant(first.reshape(()), node.out.type.dtype), array.shape)


_RULES: Final = table(
    {
        MARK: lambda make, node: node.inputs[0],
        COMMUTATIVE: _reorder,
        " ".join(_MIRRORED): _reorder,
        "full": _full,
        CONSTANT: _uniform_constant,
    }
)
