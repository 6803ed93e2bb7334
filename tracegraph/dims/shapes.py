"""Shapes and attributes that may hold symbolic sizes, and questions that decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tracegraph.dims import expressions
from tracegraph.dims.bounds import bounds
from tracegraph.dims.expressions import Symbol
from tracegraph.dims.symint import SymInt, expr_of, hint_of, size_of


def is_one(size: Any) -> bool:
    """Whether a size is the literal 1: only that broadcasts."""
    return size.__class__ is not SymInt and bool(size == 1)


def was_broadcast(size: Any, to: Any) -> bool:
    """Whether a dim of `size` was repeated to another: it is 1, literally or as a known fact."""
    if is_one(size):
        return not is_one(to)
    if hint_of(size) != 1 or same(size, to):
        return False
    return (hint_of(to) != 1 or most(size) == 1) and bool(size == 1)


def most(size: Any) -> float:
    """The largest value that a size can have; infinity where nothing bounds it."""
    return bounds(expr_of(size))[1]


def is_always_size(size: Any) -> bool:
    """Whether a size follows from those of inputs, and is never negative."""
    if size.__class__ is int:
        return bool(size >= 0)
    expr = expr_of(size)
    return bounds(expr)[0] >= 0 and not any(s.data for s in expr.symbols().values())


def is_zero(size: Any) -> bool:
    """Whether a size is the literal 0."""
    return size.__class__ is not SymInt and bool(size == 0)


def alike(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes are written alike: symbolic sizes that happen to be equal are not."""
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        if x is not y and (SymInt in (x.__class__, y.__class__) or x != y) and not same(x, y):
            return False
    return True


def same(a: Any, b: Any) -> bool:
    """Whether sizes, or tuples of them, are written alike: nothing is decided."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if SymInt in (a.__class__, b.__class__):
        return a.__class__ is b.__class__ and bool(a.expr == b.expr)
    return bool(a == b)


def is_size(value: Any) -> bool:
    """Whether a value is an int or a SymInt (and no bool)."""
    return value.__class__ is SymInt or (isinstance(value, int) and not isinstance(value, bool))


def mentions(value: Any) -> bool:
    """Whether an attribute (nested tuples) holds a SymInt."""
    if isinstance(value, (tuple, list)):
        return any(map(mentions, value))
    return value.__class__ is SymInt


def hints(value: Any) -> Any:
    """Return an attribute with every SymInt replaced by its hint."""
    return replaced(value, lambda size: size.hint)


def with_sizes(size: Any, sizes: Mapping[str, Any]) -> Any:
    """Return a size for sizes by name, which may be symbolic themselves, of another graph."""
    if size.__class__ is not SymInt:
        return size
    exprs = {name: expr_of(n) for name, n in sizes.items()}
    return size_of(expressions.substituted(size.expr, exprs))


def evaluated(value: Any, sizes: Mapping[str, Any]) -> Any:
    """Return an attribute with every SymInt replaced by its value for sizes by name."""
    return replaced(value, lambda size: size.expr.value(sizes))


def replaced(value: Any, new: Callable[[SymInt], Any]) -> Any:
    """Return an attribute (nested tuples) with every SymInt replaced."""
    if value.__class__ is SymInt:
        return new(value)
    if isinstance(value, (tuple, list)) and mentions(value):
        return type(value)(replaced(v, new) for v in value)
    return value


def symbols_of(values: Iterable[Any]) -> dict[str, Symbol]:
    """Return the symbols that attributes or shapes mention, by name."""
    found: dict[str, Symbol] = {}
    for value in values:
        if value.__class__ is SymInt:
            found.update(value.expr.symbols())
        elif isinstance(value, (tuple, list)):
            found.update(symbols_of(value))
    return found
