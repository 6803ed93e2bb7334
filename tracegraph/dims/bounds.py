"""What an expression lies between, whatever the sizes: interval arithmetic.

Terms are bounded one by one, and also together after one floordiv, mod, min or max was replaced by
what it is made of: so `batch - batch//2` is never negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from tracegraph.dims.functions import MAX, MIN, MOD

if TYPE_CHECKING:
    from tracegraph.dims.expressions import Apply, Expr, Monomial

Bound = float  # an int, or an infinity

# How many atoms a bound looks into, and how deep.
_MAX_DEPTH: Final = 4
_MAX_BREADTH: Final = 4
_BEYOND: Final = 1 << 100


def bounds(x: Expr) -> tuple[Bound, Bound]:
    """The least and the largest value that interval arithmetic finds."""
    return _least(x, _MAX_DEPTH), -_least(-x, _MAX_DEPTH)


def _least(x: Expr, depth: int) -> Bound:
    """A lower bound: of the terms one by one, or with one atom replaced by what it is made of."""
    best: Bound = sum(_term_least(atoms, c) for atoms, c in x.terms)
    if depth and len(x.terms) > 1:
        inner: list[tuple[Any, int]] = [(atoms[0], c) for atoms, c in x.terms if len(atoms) == 1]
        applied = [(atom, c) for atom, c in inner if hasattr(atom, "function")]
        for atom, c in applied[:_MAX_BREADTH]:
            best = max(best, _least_without(x, atom, c, depth - 1))
    return best


def _least_without(x: Expr, atom: Apply, c: int, depth: int) -> Bound:
    """A lower bound of `x`, where `atom` stands with the coefficient `c`, without the atom."""
    made = type(x)
    rest = x - made({(atom,): c})
    if atom.function in (MIN, MAX):
        with_left = _least(rest + atom.left * made({(): c}), depth)
        with_right = _least(rest + atom.right * made({(): c}), depth)
        # -min(a, b) is at least -a, and at least -b; min(a, b) is only one of the two.
        free = (atom.function == MIN) == (c < 0)
        return max(with_left, with_right) if free else min(with_left, with_right)
    if atom.function == MOD and c < 0:  # a % b is at most a, and at most b - 1
        most = [atom.left] if bounds(atom.left)[0] >= 0 else []
        most += [atom.right - made({(): 1})] if bounds(atom.right)[0] >= 1 else []
        return max((_least(rest + x * made({(): c}), depth) for x in most), default=-math.inf)
    divisor = atom.divides_by
    if divisor is None or divisor <= 0:
        return -math.inf
    # divisor * (a // divisor) lies between a - (divisor - 1) and a.
    scaled = rest * made({(): divisor}) + atom.left * made({(): c})
    if c > 0:
        scaled = scaled - made({(): c * (divisor - 1)})
    least = _least(scaled, depth)
    return -(-least // divisor) if math.isfinite(least) else least


def _term_least(atoms: Monomial, c: int) -> Bound:
    low: Bound = c
    high: Bound = c
    for atom in atoms:
        a, b = atom.limits()
        ends = [_product(x, y) for x in (low, high) for y in (a, b)]
        low, high = min(ends), max(ends)
    return low


def _product(a: Bound, b: Bound) -> Bound:
    """a * b, where what is beyond all sizes is infinite."""
    product = 0 if a == 0 or b == 0 else a * b
    return product if abs(product) < _BEYOND else math.copysign(math.inf, product)


def bounds_of_function(atom: Apply) -> tuple[Bound, Bound]:
    """The least and the largest value of a floordiv, mod, min or max."""
    (a, b), (c, d) = bounds(atom.left), bounds(atom.right)
    if atom.function == MIN:
        return min(a, c), min(b, d)
    if atom.function == MAX:
        return max(a, c), max(b, d)
    if c < 1:
        return -math.inf, math.inf
    if atom.function == MOD:
        return 0, (min(b, d - 1) if a >= 0 else d - 1)
    ends = [_floor(x, y) for x in (a, b) for y in (c, d)]
    return min(ends), max(ends)


def _floor(a: Bound, b: Bound) -> Bound:
    """a // b for b >= 1, ends of intervals included."""
    if math.isinf(b):
        return 0 if a >= 0 else (-math.inf if math.isinf(a) else -1)
    return a if math.isinf(a) else a // b
