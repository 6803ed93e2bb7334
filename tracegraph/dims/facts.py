"""Facts: relations between sizes that hold, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tracegraph.dims import expressions
from tracegraph.dims.expressions import Expr, Symbol, substituted
from tracegraph.dims.relations import EQ, GE, Relation, relation
from tracegraph.dims.symint import DECIDER, SymInt
from tracegraph.errors import UndecidedError


class Facts:
    """Relations that hold, and the bounds that those about one symbol give it.

    Only what is the same relation, or follows from bounds, counts as known: it does not depend on
    the order in which facts came, and more facts never make less known.
    """

    def __init__(self, relations: Iterable[Relation] = ()) -> None:
        self.relations: dict[Relation, None] = {}
        self._tighter: dict[str, Symbol] = {}
        for fact in relations:
            self.add(fact)

    def add(self, fact: Relation) -> None:
        """Note that a relation holds."""
        self.relations[fact] = None
        rest = dict(fact.expr.terms).get((), 0)
        inner = fact.expr - expressions.number(rest)
        if fact.kind == EQ and inner.symbol is not None:
            self._tighten(inner.symbol, -rest, -rest)
        elif fact.kind == GE and inner.symbol is not None:
            self._tighten(inner.symbol, -rest, None)
        elif fact.kind == GE and (-inner).symbol is not None:
            self._tighten((-inner).symbol, None, rest)

    def _tighten(self, symbol: Symbol | None, least: int | None, most: int | None) -> None:
        assert symbol is not None
        known = self._tighter.get(symbol.name, symbol)
        low = known.min if least is None else max(known.min, least)
        high = known.max if most is None else (most if known.max is None else min(known.max, most))
        self._tighter[symbol.name] = Symbol(symbol.name, low, high, symbol.data, symbol.hint)

    def knows(self, asked: Relation) -> bool | None:
        """Whether a relation holds; None where that does not follow."""
        if asked in self.relations:
            return True
        if asked.negated() in self.relations:
            return False
        if not self._tighter.keys() & asked.expr.symbols().keys():
            return None
        try:
            exprs = {name: _narrow(symbol) for name, symbol in self._tighter.items()}
            return relation(asked.kind, substituted(asked.expr, exprs)).proven()
        except ZeroDivisionError:
            return None


def _narrow(symbol: Symbol) -> Expr:
    """A symbol as an expression: a number where its bounds leave but one."""
    only = symbol.min == symbol.max
    return expressions.number(symbol.min) if only else expressions.symbol(symbol)


class Reasoner:
    """Decides by facts, and refuses what does not follow from them."""

    traces = by_form = False

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def decide(self, asked: Relation, outcome: bool) -> bool:
        """Whether a relation holds.

        Raises:
            UndecidedError: it does not follow from the facts.
        """
        known = self.facts.knows(asked)
        if known is None:
            shown = ", ".join(map(str, self.facts.relations)) or "nothing"
            raise UndecidedError(f"{asked} does not follow from what is known: {shown:.200}")
        return known

    def read(self, size: SymInt) -> int:
        """The only value that the facts leave to a size."""
        self.decide(relation(EQ, size.expr - expressions.number(size.hint)), True)
        return size.hint

    fix = read

    def number(self, size: SymInt) -> Any:
        """Nothing: there is no trace to compute in."""
        raise UndecidedError(f"the size {size!r} is known only when a graph runs")


class _ByForm:
    """Takes sizes for equal where their expressions are, for different elsewhere."""

    traces = False
    by_form = True

    def decide(self, asked: Relation, outcome: bool) -> bool:
        """Nothing: there is no order between expressions."""
        raise UndecidedError(f"whether {asked} is known only when a graph runs")

    def read(self, size: SymInt) -> int:
        """Nothing is known of a size."""
        raise UndecidedError(f"the size {size!r} is known only when a graph runs")

    fix = number = read


@contextmanager
def assuming(facts: Facts) -> Iterator[None]:
    """Decide by facts in this context, and by nothing else."""
    token = DECIDER.set(Reasoner(facts))
    try:
        yield
    finally:
        DECIDER.reset(token)


@contextmanager
def by_form() -> Iterator[None]:
    """Compare expressions as such in this context: for what pairs, sorts and shows graphs."""
    token = DECIDER.set(_ByForm())
    try:
        yield
    finally:
        DECIDER.reset(token)
