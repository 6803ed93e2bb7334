"""SymInt: a size that depends on the inputs of a graph, and who decides when two are compared.

A SymInt is an expression and a hint, the size that it had in the example. Arithmetic stays
symbolic. A comparison that the bounds of the symbols do not settle is put to the `Decider` of the
context: a trace goes by the hints and notes what it relied on, the verifier looks it up among the
facts of the graph. It is no subclass of int: C code would read a subclass's digits behind its back.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from numbers import Integral, Real
from typing import Any, Final, Protocol

from tracegraph.dims import expressions
from tracegraph.dims.expressions import Expr, Symbol
from tracegraph.dims.functions import FLOORDIV, MAX, MIN, MOD
from tracegraph.dims.relations import EQ, GE, NE, Relation, holds, relation
from tracegraph.errors import GraphError, UndecidedError

_BEYOND: Final = 2.0**60
_EXACT: Final = 1 << 10


class Decider(Protocol):
    """Who answers what expressions and bounds do not.

    `traces` says whether hints decide, `by_form` whether what is written otherwise is different.
    """

    traces: bool
    by_form: bool

    def decide(self, asked: Relation, outcome: bool) -> bool:
        """Whether a relation holds; `outcome` is what the hints say."""

    def read(self, size: SymInt) -> int:
        """The size as a plain int."""

    def fix(self, size: SymInt) -> int:
        """As `read`, for a function that reads a size for the user."""

    def number(self, size: SymInt) -> Any:
        """The size as something that can be multiplied with a fraction."""


DECIDER: Final[ContextVar[Decider | None]] = ContextVar("decider", default=None)


class SymInt:
    """A whole number that follows from sizes of a graph's inputs. See the module."""

    __slots__ = ("expr", "hint")
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic to us

    expr: Expr
    hint: int

    def __init__(self, expr: Expr, hint: int) -> None:
        self.expr = expr
        self.hint = hint

    def __repr__(self) -> str:
        return str(self.expr)

    def __str__(self) -> str:
        return str(read(self)) if _asked_by_user() else str(self.expr)

    def __format__(self, spec: str) -> str:
        return format(read(self), spec) if spec or _asked_by_user() else str(self.expr)

    def __reduce__(self) -> Any:
        raise GraphError(f"the size {self!r} belongs to a trace: it cannot be pickled or copied")

    def __copy__(self) -> SymInt:
        return self

    def __deepcopy__(self, memo: Any) -> SymInt:
        return self

    # Arithmetic.

    def __add__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a + b, Expr.__add__)

    def __radd__(self, other: Any) -> Any:
        return _arithmetic(other, self, lambda a, b: a + b, Expr.__add__)

    def __sub__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a - b, Expr.__sub__)

    def __rsub__(self, other: Any) -> Any:
        return _arithmetic(other, self, lambda a, b: a - b, Expr.__sub__)

    def __mul__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a * b, Expr.__mul__)

    def __rmul__(self, other: Any) -> Any:
        return _arithmetic(other, self, lambda a, b: a * b, Expr.__mul__)

    def __floordiv__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a // b, _floordiv)

    def __rfloordiv__(self, other: Any) -> Any:
        return _arithmetic(other, self, lambda a, b: a // b, _floordiv)

    def __mod__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a % b, _mod)

    def __rmod__(self, other: Any) -> Any:
        return _arithmetic(other, self, lambda a, b: a % b, _mod)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __truediv__(self, other: Any) -> Any:
        return _fraction(self, other, lambda a, b: a / b)

    def __rtruediv__(self, other: Any) -> Any:
        return _fraction(other, self, lambda a, b: a / b)

    def __pow__(self, exponent: Any) -> Any:
        if type(exponent) is not int or exponent < 0:
            return _fraction(self, exponent, lambda a, b: a**b)
        power: Any = 1
        for _ in range(exponent):
            power = power * self
        return power

    def __rpow__(self, base: Any) -> Any:
        return _fraction(base, self, lambda a, b: a**b)

    def __neg__(self) -> Any:
        return make(-self.expr, -self.hint)

    def __pos__(self) -> SymInt:
        return self

    def __abs__(self) -> Any:
        return larger(self, -self)

    def __ceil__(self) -> SymInt:
        return self

    __floor__ = __trunc__ = __ceil__

    def __round__(self, digits: int = 0) -> SymInt:
        return self

    # What must be decided.

    def __eq__(self, other: object) -> Any:
        return _compare(EQ, self, _whole(other))

    def __ne__(self, other: object) -> Any:
        return _compare(NE, self, _whole(other))

    def __ge__(self, other: Any) -> Any:
        return _compare(GE, self, _whole(other, math.ceil))

    def __le__(self, other: Any) -> Any:
        return _compare(GE, _whole(other, math.floor), self)

    def __gt__(self, other: Any) -> Any:
        return _compare(GE, self, _whole(other, math.floor), -1)

    def __lt__(self, other: Any) -> Any:
        return _compare(GE, _whole(other, math.ceil), self, -1)

    def __bool__(self) -> bool:
        return decide(relation(NE, self.expr), self.hint != 0)

    def __int__(self) -> int:
        return read(self)

    __index__ = __int__

    def __float__(self) -> float:
        return float(read(self))

    def __hash__(self) -> int:
        return hash(read(self)) if _asked_by_user() else hash(self.expr)


def make(expr: Expr, hint: int) -> Any:
    """Return an expression as a size: a plain int where nothing in it can vary."""
    value = expr.constant
    return SymInt(expr, hint) if value is None else value


def variable(symbol: Symbol) -> SymInt:
    """Return a symbol as a size."""
    return SymInt(expressions.symbol(symbol), symbol.hint)


def size_of(expr: Expr) -> Any:
    """Return an expression as a size, with the hint that its symbols' give."""
    value = expr.constant
    if value is not None:
        return value
    return SymInt(expr, expr.value({n: s.hint for n, s in expr.symbols().items()}))


def expr_of(size: Any) -> Expr:
    """Return the expression of a size or plain int."""
    return size.expr if size.__class__ is SymInt else expressions.number(int(size))


def hint_of(size: Any) -> int:
    """Return the size that it was in the example; an int is itself."""
    return size.hint if size.__class__ is SymInt else size


def _whole(x: Any, rounded: Callable[[float], int] | None = None) -> Any:
    """What a size is compared with as a size, None if that has no order beside a size.

    A fraction is rounded; one that is compared for equality is like no size, as -1 is.
    """
    if x.__class__ is SymInt or isinstance(x, Integral):
        return x
    if not isinstance(x, Real):
        return None
    number = float(x)
    if number.is_integer():
        return int(number)
    if rounded is None or number != number:
        return -1
    return rounded(min(max(number, -_BEYOND), _BEYOND))


def _arithmetic(
    a: Any, b: Any, on_hints: Callable[[int, int], int], on_exprs: Callable[[Expr, Expr], Expr]
) -> Any:
    for x in (a, b):
        if x.__class__ is not SymInt and not isinstance(x, Integral):
            return _fraction(a, b, on_hints) if isinstance(x, Real) else NotImplemented
    hint = on_hints(hint_of(a), hint_of(b))
    return make(on_exprs(expr_of(a), expr_of(b)), int(hint))


def _floordiv(a: Expr, b: Expr) -> Expr:
    return expressions.apply(FLOORDIV, a, b)


def _mod(a: Expr, b: Expr) -> Expr:
    return expressions.apply(MOD, a, b)


def _fraction(a: Any, b: Any, compute: Callable[[Any, Any], Any]) -> Any:
    """Arithmetic that leaves the whole numbers: on what the trace makes of a size."""
    for x in (a, b):
        if x.__class__ is not SymInt and not isinstance(x, Real):
            return NotImplemented
    decider = DECIDER.get()
    if decider is None:
        raise UndecidedError(f"the size {a!r} or {b!r} is known only when a graph runs")
    return compute(*(decider.number(x) if x.__class__ is SymInt else x for x in (a, b)))


def _compare(kind: str, a: Any, b: Any, more: int = 0) -> Any:
    """Whether `a - b + more` is == 0, != 0 or >= 0; None compares with nothing."""
    if a is None or b is None:
        return NotImplemented
    if a.__class__ is b.__class__ is SymInt and a.expr == b.expr:
        return holds(kind, more)
    decider = DECIDER.get()
    if kind != GE and decider is not None and decider.by_form:
        return kind == NE
    difference = expr_of(a) - expr_of(b) + expressions.number(more)
    return decide(relation(kind, difference), holds(kind, int(hint_of(a) - hint_of(b)) + more))


def decide(asked: Relation, outcome: bool) -> bool:
    """Return whether a relation holds; `outcome` is what the hints say.

    Raises:
        UndecidedError: nobody in this context knows.
    """
    proven = asked.proven()
    if proven is not None:
        return proven
    decider = DECIDER.get()
    if decider is None:
        raise UndecidedError(f"whether {asked} is known only when a graph runs")
    return decider.decide(asked, outcome)


def read(size: Any) -> int:
    """Return a size as a plain int: in a trace it is fixed from then on, and noted.

    Raises:
        UndecidedError: nobody in this context knows.
    """
    if size.__class__ is not SymInt:
        return int(size)
    decider = DECIDER.get()
    if decider is None:
        raise UndecidedError(f"the size {size!r} is known only when a graph runs")
    return decider.read(size)


def fix(size: Any) -> int:
    """As `read`, for what PyTorch counts out for the user: `len(x)`, the pieces of a split."""
    if size.__class__ is not SymInt:
        return int(size)
    decider = DECIDER.get()
    return read(size) if decider is None else decider.fix(size)


def as_size(value: Any) -> Any:
    """Return a size as it is used in an attribute: an int, or symbolic."""
    return value if value.__class__ is SymInt else int(value)


def as_index(value: Any) -> Any:
    """Return a place as it is used in an attribute: an int, or symbolic.

    Raises:
        TypeError: it is no whole number.
    """
    return value if value.__class__ is SymInt else operator.index(value)


def scaled(size: Any, factor: float) -> Any:
    """Return the whole part of a size times a number.

    Symbolic where the number is a fraction that floats hold exactly; for others, 10·0.1 is 1 only
    because it is rounded.
    """
    if size.__class__ is SymInt:
        above, below = float(factor).as_integer_ratio()
        if below <= _EXACT:
            return size * above // below
    return math.floor(read(size) * factor)


def traces_sizes() -> bool:
    """Whether a trace in this context has symbolic sizes."""
    decider = DECIDER.get()
    return decider is not None and decider.traces


def _asked_by_user() -> bool:
    """Whether code outside of tracegraph does what called this (C code in between is invisible)."""
    if not traces_sizes():
        return False
    return not sys._getframe(2).f_code.co_filename.startswith(OURS)


_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
OURS: Final = (_PACKAGE, os.path.realpath(os.path.join(_PACKAGE, "passes")),
               os.path.realpath(os.path.join(_PACKAGE, "runtime")))  # fmt: skip
"""How the names of tracegraph's own source files begin."""


# What Python's own functions would have to decide.


def smaller(a: Any, b: Any) -> Any:
    """Return the smaller size, symbolic where one is."""
    return _extreme(MIN, min, a, b)


def larger(a: Any, b: Any) -> Any:
    """Return the larger size, symbolic where one is."""
    return _extreme(MAX, max, a, b)


def _extreme(name: str, choose: Callable[[int, int], int], a: Any, b: Any) -> Any:
    if a.__class__ is not SymInt and b.__class__ is not SymInt:
        return choose(a, b)
    made = expressions.apply(name, expr_of(a), expr_of(b))
    return make(made, choose(hint_of(a), hint_of(b)))


sym_min, sym_max = smaller, larger
"""PyTorch's names: `min` and `max` of sizes, that no trace fixes."""
