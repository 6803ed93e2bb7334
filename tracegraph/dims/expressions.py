"""Integer expressions over the dims of a graph, in canonical form.

An `Expr` is a polynomial with integer coefficients over atoms: symbols (a dim of an input, a size
that follows from data) and floordiv, mod, min and max of expressions. What is equal as a
polynomial is one: `(batch + 1)*2` and `batch*2 + 2`. Nothing here knows a size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from tracegraph.dims.bounds import Bound, bounds, bounds_of_function
from tracegraph.dims.functions import FLOORDIV, FUNCTIONS, MAX, MIN, MOD
from tracegraph.errors import GraphError

# What keeps a hostile file (or a strange program) from taking all memory.
_MAX_TERMS: Final = 256
_MAX_NUMBER: Final = 1 << 62
_MAX_NESTED: Final = 16


class Symbol:
    """A size with a name: of an input's dim, or (`data`) of what a node finds in its operands.

    `min` and `max` are what it is promised to be within, `hint` is what it was in the example. Two
    of one name are the same.
    """

    __slots__ = ("data", "hint", "max", "min", "name")

    def __init__(
        self, name: str, min: int = 0, max: int | None = None, data: bool = False, hint: int = 0
    ) -> None:
        self.name = name
        self.min = min
        self.max = max
        self.data = data
        self.hint = hint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name

    def limits(self) -> tuple[Bound, Bound]:
        """The least and largest value."""
        return self.min, math.inf if self.max is None else self.max


class Apply:
    """floordiv, mod, min or max of two expressions that simplifies no further."""

    __slots__ = ("_bounds", "_hash", "depth", "function", "left", "right", "text")

    def __init__(self, function: str, left: Expr, right: Expr) -> None:
        self.function = function
        self.left = left
        self.right = right
        self.depth = 1 + max(left.depth(), right.depth())
        if self.depth > _MAX_NESTED:
            raise GraphError(f"an expression nested deeper than {_MAX_NESTED}")
        self._bounds: tuple[Bound, Bound] | None = None
        if function in (MIN, MAX):
            self.text = f"{function}({left}, {right})"
        else:
            self.text = f"{_operand(left)} {function} {_operand(right)}"
        self._hash = hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Apply) and other.text == self.text

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self.text

    @property
    def divides_by(self) -> int | None:
        """The number that this is a floordiv by, if it is one."""
        return self.right.constant if self.function == FLOORDIV else None

    def limits(self) -> tuple[Bound, Bound]:
        """The least and largest value."""
        if self._bounds is None:
            self._bounds = bounds_of_function(self)
        return self._bounds


Atom = Symbol | Apply
Monomial = tuple[Atom, ...]


class Expr:
    """A polynomial: terms (atoms, coefficient) in a fixed order, the constant one last."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        if len(terms) > _MAX_TERMS:
            raise GraphError(f"an expression of more than {_MAX_TERMS} terms")
        kept = [(atoms, c) for atoms, c in _settled(terms).items() if c]
        if any(abs(c) > _MAX_NUMBER for _, c in kept):
            raise GraphError(f"an expression with a number beyond {_MAX_NUMBER}")
        kept.sort(key=lambda term: (not term[0], [_rank(a) for a in term[0]]))
        self.terms: tuple[tuple[Monomial, int], ...] = tuple(kept)
        self._hash = hash(self.terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        signed = ((" - " if c < 0 else " + ") + _term(atoms, c) for atoms, c in self.terms)
        shown = "".join(signed)
        return ("-" + shown[3:] if shown[1:2] == "-" else shown[3:]) or "0"

    @property
    def constant(self) -> int | None:
        """The value of an expression without symbols, else None."""
        if not self.terms:
            return 0
        (atoms, c), *more = self.terms
        return c if not atoms and not more else None

    @property
    def symbol(self) -> Symbol | None:
        """The symbol that this is, if it is one and nothing else."""
        if len(self.terms) != 1:
            return None
        atoms, c = self.terms[0]
        return atoms[0] if c == 1 and len(atoms) == 1 and isinstance(atoms[0], Symbol) else None

    def depth(self) -> int:
        """How deep floordiv, mod, min and max are nested in it."""
        return max((a.depth for atoms, _ in self.terms for a in atoms if isinstance(a, Apply)),
                   default=0)  # fmt: skip

    def __neg__(self) -> Expr:
        return Expr({atoms: -c for atoms, c in self.terms})

    def __add__(self, other: Expr) -> Expr:
        total = dict(self.terms)
        for atoms, c in other.terms:
            total[atoms] = total.get(atoms, 0) + c
        return Expr(total)

    def __sub__(self, other: Expr) -> Expr:
        return self + -other

    def __mul__(self, other: Expr) -> Expr:
        total: dict[Monomial, int] = {}
        for left, c in self.terms:
            for right, d in other.terms:
                atoms = tuple(sorted((*left, *right), key=_rank))
                total[atoms] = total.get(atoms, 0) + c * d
        return Expr(total)

    def symbols(self) -> dict[str, Symbol]:
        """Every symbol in it, by name."""
        found: dict[str, Symbol] = {}
        for atoms, _ in self.terms:
            for atom in atoms:
                if isinstance(atom, Symbol):
                    found[atom.name] = atom
                else:
                    found.update(atom.left.symbols())
                    found.update(atom.right.symbols())
        return found

    def value(self, sizes: Mapping[str, Any]) -> Any:
        """What it is for given sizes by name.

        Raises:
            KeyError: a symbol has no size yet.
            ZeroDivisionError: a division by a size that is 0.
        """
        total: Any = 0
        for atoms, c in self.terms:
            for atom in atoms:
                c = c * _atom_value(atom, sizes)
            total = total + c
        return total


def _settled(terms: Mapping[Monomial, int]) -> Mapping[Monomial, int]:
    """Write `(a // d)*d` as `a - a % d`: so what divides and what is left over are one fact."""
    for atoms, c in terms.items():
        for place, atom in enumerate(atoms):
            divisor = None if isinstance(atom, Symbol) else atom.divides_by
            if c and divisor is not None and c % divisor == 0 and not isinstance(atom, Symbol):
                rest = Expr({(*atoms[:place], *atoms[place + 1 :]): c // divisor})
                others = Expr({a: n for a, n in terms.items() if a != atoms})
                whole = atom.left - apply(MOD, atom.left, atom.right)
                return dict((others + rest * whole).terms)
    return terms


def _rank(atom: Atom) -> tuple[bool, str]:
    return (isinstance(atom, Apply), str(atom))


def _term(atoms: Monomial, c: int) -> str:
    """A term without its sign; what binds no tighter than the sign is in parentheses."""
    if not atoms:
        return str(abs(c))
    if len(atoms) == 1 and c == 1:
        return str(atoms[0])
    factors = [f"({a})" if isinstance(a, Apply) and a.function in (FLOORDIV, MOD) else str(a)
               for a in atoms]  # fmt: skip
    return "*".join(factors + ([str(abs(c))] if abs(c) != 1 else []))


def _operand(x: Expr) -> str:
    """An operand of `//` or `%` as it is written."""
    plain = x.symbol is not None or (x.constant or 0) > 0 or x.constant == 0
    return str(x) if plain else f"({x})"


def _atom_value(atom: Atom, sizes: Mapping[str, Any]) -> Any:
    if isinstance(atom, Symbol):
        return sizes[atom.name]
    left, right = atom.left.value(sizes), atom.right.value(sizes)
    return FUNCTIONS[atom.function](left, right)


# Making expressions.


def number(value: int) -> Expr:
    """A whole number as an expression."""
    return Expr({(): value})


def symbol(made: Symbol) -> Expr:
    """A symbol as an expression."""
    return Expr({(made,): 1})


def apply(function: str, left: Expr, right: Expr) -> Expr:
    """`left // right`, `left % right`, `min` or `max`, simplified.

    Raises:
        ZeroDivisionError: by the number 0.
    """
    if left.constant is not None and right.constant is not None:
        return number(FUNCTIONS[function](left.constant, right.constant))
    if function in (MIN, MAX):
        return _extreme(function, left, right)
    if not right.terms:
        raise ZeroDivisionError(f"{left} divided by 0")
    exact = _quotient(left, right)
    if exact is not None:
        return exact if function == FLOORDIV else number(0)
    divisor = right.constant
    if divisor is not None and divisor > 0:
        return _divided(function, left, divisor)
    if function == MOD and _is_within(left, right):
        return left
    if function == FLOORDIV and _is_within(left, right):
        return number(0)
    return Expr({(Apply(function, left, right),): 1})


def _is_within(left: Expr, right: Expr) -> bool:
    """Whether 0 <= left < right whatever the sizes."""
    return bounds(left)[0] >= 0 and bounds(right - left)[0] >= 1


def _divided(function: str, left: Expr, divisor: int) -> Expr:
    """By a number: whole multiples of it come out of the division."""
    whole = Expr({atoms: c // divisor for atoms, c in left.terms})
    rest = Expr({atoms: c % divisor for atoms, c in left.terms})
    low, high = bounds(rest)
    if low >= 0 and high < divisor:
        return whole if function == FLOORDIV else rest
    if function == FLOORDIV:
        inner = _nested_division(rest, divisor)
        if inner is not None:
            return whole + inner
    common = math.gcd(divisor, *(c for _, c in rest.terms))
    rest = Expr({atoms: c // common for atoms, c in rest.terms})
    made = Expr({(Apply(function, rest, number(divisor // common)),): 1})
    return whole + made if function == FLOORDIV else made * number(common)


def _nested_division(x: Expr, divisor: int) -> Expr | None:
    """`(a // b + c) // divisor` as `(a + b*c) // (b*divisor)`."""
    constant = dict(x.terms).get((), 0)
    inner = (x - number(constant)).terms
    if len(inner) != 1 or inner[0][1] != 1 or len(inner[0][0]) != 1:
        return None
    atom = inner[0][0][0]
    first = None if isinstance(atom, Symbol) else atom.divides_by
    if first is None or first <= 0 or isinstance(atom, Symbol):
        return None
    return apply(FLOORDIV, atom.left + number(first * constant), number(first * divisor))


def _quotient(left: Expr, right: Expr) -> Expr | None:
    """`left / right` where the divisor is one term that divides every term, else None."""
    if len(right.terms) != 1:
        ratio = _ratio(left, right)
        return None if ratio is None else number(ratio)
    divisor, d = right.terms[0]
    found: dict[Monomial, int] = {}
    for atoms, c in left.terms:
        rest = list(atoms)
        for atom in divisor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % d:
            return None
        found[tuple(rest)] = c // d
    return Expr(found)


def _ratio(left: Expr, right: Expr) -> int | None:
    """The number that `left` is a multiple of `right` by, if it is one."""
    if not left.terms or [t[0] for t in left.terms] != [t[0] for t in right.terms]:
        return None
    ratio = left.terms[0][1] // right.terms[0][1]
    same = all(a == b * ratio for (_, a), (_, b) in zip(left.terms, right.terms, strict=True))
    return ratio if same else None


def _extreme(function: str, left: Expr, right: Expr) -> Expr:
    low, high = bounds(left - right)
    if low >= 0:
        return right if function == MIN else left
    if high <= 0:
        return left if function == MIN else right
    first, second = sorted((left, right), key=lambda x: (x.constant is not None, str(x)))
    return Expr({(Apply(function, first, second),): 1})


def substituted(x: Expr, exprs: Mapping[str, Expr]) -> Expr:
    """Return an expression with others in the place of some symbols.

    Raises:
        ZeroDivisionError: one of them is 0 and divides.
    """
    total = number(0)
    for atoms, c in x.terms:
        term = number(c)
        for atom in atoms:
            if isinstance(atom, Symbol):
                inner = exprs.get(atom.name) or symbol(atom)
            else:
                left, right = substituted(atom.left, exprs), substituted(atom.right, exprs)
                inner = apply(atom.function, left, right)
            term = term * inner
        total = total + term
    return total
