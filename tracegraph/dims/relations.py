"""Relations between sizes: `batch == time`, `batch >= 1`, `features % 8 == 0`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tracegraph.dims.bounds import bounds
from tracegraph.dims.expressions import Apply, Expr, Symbol, number
from tracegraph.dims.functions import MAX, MIN
from tracegraph.dims.reading import parse
from tracegraph.errors import GraphError

EQ: Final = "=="
NE: Final = "!="
GE: Final = ">="

_OPPOSITE: Final = {EQ: NE, NE: EQ}
_SIGNS = re.compile(r"(==|!=|>=|<=)")


@dataclass(frozen=True, slots=True)
class Relation:
    """`expr == 0`, `expr != 0` or `expr >= 0`, in a normal form: equal relations are one."""

    kind: str
    expr: Expr

    def __str__(self) -> str:
        left = Expr({atoms: c for atoms, c in self.expr.terms if c > 0 and atoms})
        right = Expr({atoms: -c for atoms, c in self.expr.terms if c < 0 and atoms})
        rest = dict(self.expr.terms).get((), 0)
        kind = self.kind
        if not left.terms:
            left, right, rest = right, left, -rest
            kind = "<=" if kind == GE else kind
        if right.terms and rest > 0:
            return f"{left + number(rest)} {kind} {right}"
        return f"{left} {kind} {right - number(rest)}"

    def negated(self) -> Relation:
        """What holds where this does not."""
        if self.kind == GE:
            return relation(GE, -self.expr - number(1))
        return relation(_OPPOSITE[self.kind], self.expr)

    def proven(self) -> bool | None:
        """Whether it holds for all sizes within their bounds; None where it depends on them."""
        value = self.expr.constant
        if value is not None:
            return holds(self.kind, value)
        low, high = bounds(self.expr)
        if self.kind == GE:
            return True if low >= 0 else (False if high < 0 else None)
        if low > 0 or high < 0 or not _has_solution(self.expr):
            return self.kind == NE
        return None

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it holds for given sizes by name.

        Raises:
            KeyError: a symbol has no size.
        """
        return holds(self.kind, self.expr.value(sizes))

    @property
    def pinned(self) -> tuple[Symbol, int] | None:
        """The symbol and the only size that it leaves to it, for `batch == 4`."""
        if self.kind != EQ:
            return None
        rest = dict(self.expr.terms).get((), 0)
        symbol = (self.expr - number(rest)).symbol
        return None if symbol is None else (symbol, -rest)


def holds(kind: str, value: int) -> bool:
    """Whether a number is == 0, != 0 or >= 0."""
    return value == 0 if kind == EQ else (value != 0 if kind == NE else value >= 0)


def relation(kind: str, expr: Expr) -> Relation:
    """Return the normal form of `expr kind 0`."""
    inner = [c for atoms, c in expr.terms if atoms]
    rest = dict(expr.terms).get((), 0)
    common = math.gcd(*inner)
    if common > 1 and (kind == GE or rest % common == 0):
        expr = Expr({atoms: c // common for atoms, c in expr.terms})  # floors the constant
    if kind != GE and (inner[0] if inner else rest) < 0:
        expr = -expr
    return _simpler(kind, expr) or Relation(kind, expr)


def _simpler(kind: str, expr: Expr) -> Relation | None:
    """The same relation without a division or min, or as an equality, if there is such a form."""
    if kind != GE:
        return _of_extreme(kind, expr) or (_at_an_end(expr) if kind == NE else None)
    plain = _of_division(expr)
    if plain is not None:
        return relation(GE, plain)
    low, high = bounds(expr)
    return relation(EQ, expr) if low < 0 == high else None  # batch % 4 <= 0


def _of_extreme(kind: str, expr: Expr) -> Relation | None:
    """`min(a, b) == b` as `a >= b`, and the like."""
    for atoms, c in expr.terms:
        if len(atoms) != 1 or abs(c) != 1 or not isinstance(atoms[0], Apply):
            continue
        atom = atoms[0]
        other = Expr({atoms: 1}) - expr * number(c)
        for x, y in ((atom.left, atom.right), (atom.right, atom.left)):
            if atom.function in (MIN, MAX) and other == y:
                found = relation(GE, x - y if atom.function == MIN else y - x)
                return found if kind == EQ else found.negated()
    return None


def _of_division(expr: Expr) -> Expr | None:
    """What is >= 0 where `x // d + c` (or its negative) is, without the division."""
    rest = dict(expr.terms).get((), 0)
    inner = (expr - number(rest)).terms
    if len(inner) != 1 or len(inner[0][0]) != 1 or abs(inner[0][1]) != 1:
        return None
    atom = inner[0][0][0]
    divisor = atom.divides_by if isinstance(atom, Apply) else None
    if divisor is None or divisor <= 0 or not isinstance(atom, Apply):
        return None
    if inner[0][1] > 0:  # x // d >= -rest
        return atom.left + number(rest * divisor)
    return number(rest * divisor + divisor - 1) - atom.left


def _at_an_end(expr: Expr) -> Relation | None:
    """`batch != 0`, where that is its least value, as `batch >= 1`."""
    low, high = bounds(expr)
    if low == 0 < high:
        return relation(GE, expr - number(1))
    return relation(GE, -expr - number(1)) if high == 0 > low else None


def _has_solution(expr: Expr) -> bool:
    """Whether an integer polynomial can be 0, as far as divisibility tells."""
    rest = dict(expr.terms).get((), 0)
    common = math.gcd(*(c for atoms, c in expr.terms if atoms))
    return common <= 1 or rest % common == 0


def parse_relation(text: str, symbols: Mapping[str, Symbol]) -> Relation:
    """Return the relation that `str` wrote.

    Raises:
        GraphError: it is no relation over these symbols.
    """
    parts = _SIGNS.split(text)
    if len(parts) != 3:
        raise GraphError(f"{text!r:.80} is no relation such as 'batch == time'")
    left, right = parse(parts[0], symbols), parse(parts[2], symbols)
    if parts[1] == "<=":
        return relation(GE, right - left)
    return relation(parts[1], left - right)
