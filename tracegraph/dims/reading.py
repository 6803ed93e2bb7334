"""The text of expressions and relations, reading side."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Final

from tracegraph.dims.expressions import Expr, Symbol, apply, number, symbol
from tracegraph.dims.functions import FLOORDIV, MAX, MIN, MOD
from tracegraph.errors import GraphError

_MAX_TEXT: Final = 2000


def parse(text: str, symbols: Mapping[str, Symbol]) -> Expr:
    """Return the expression that `str` wrote.

    Raises:
        GraphError: it is no expression over these symbols.
    """
    if len(text) > _MAX_TEXT:
        raise GraphError(f"an expression of more than {_MAX_TEXT} characters")
    try:
        return _read(ast.parse(text.strip(), mode="eval").body, symbols)
    except (SyntaxError, ValueError, RecursionError, MemoryError, ArithmeticError) as error:
        if isinstance(error, GraphError):
            raise
        raise GraphError(f"{text!r:.80} is no expression over dims") from error


def _read(tree: ast.AST, symbols: Mapping[str, Symbol]) -> Expr:
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return number(tree.value)
    if isinstance(tree, ast.Name):
        if tree.id not in symbols:
            raise GraphError(f"there is no dim {tree.id!r:.60}")
        return symbol(symbols[tree.id])
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_read(tree.operand, symbols)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
        return _OPERATORS[type(tree.op)](_read(tree.left, symbols), _read(tree.right, symbols))
    if isinstance(tree, ast.Call) and not tree.keywords and len(tree.args) == 2:
        name = ast.unparse(tree.func)
        if name in (MIN, MAX):
            return apply(name, *(_read(a, symbols) for a in tree.args))
    raise GraphError(f"an expression over dims has no {type(tree).__name__}")


_OPERATORS: Final[dict[type, Callable[[Expr, Expr], Expr]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: apply(FLOORDIV, a, b),
    ast.Mod: lambda a, b: apply(MOD, a, b),
}
