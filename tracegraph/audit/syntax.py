"""The user's source as syntax: the node at an instruction, what a function's code reads, and from
where its local names come.

Everything here is looked up when a report is written or a replay is refused, not while a trace
runs. Without source (an interactive session, `exec`) the answers are None and ().
"""  # noqa: D205

from __future__ import annotations

import ast
import functools
import itertools
import linecache
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tracegraph.audit.sources import expression_at

Span = tuple[int, int, int, int]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MAX_LINES: Final = 20_000


class Read(NamedTuple):
    """A name, with the attributes and constant keys that follow it, as in `self.sizes[0]`.

    `role` is "value", "branch" (of `if`, `while`, `assert`), "loop" or "call" (what is called).
    """

    node: ast.expr
    root: str
    steps: tuple[tuple[str, Any], ...]
    line: int
    role: str

    @property
    def text(self) -> str:
        """As written."""
        return ast.unparse(self.node)


@dataclass
class Source:
    """The syntax of one function; line numbers are those of the file less `shift`."""

    function: Function
    shift: int
    parameters: dict[str, ast.expr | None] = field(default_factory=dict)
    assigned: dict[str, list[tuple[str, ast.expr]]] = field(default_factory=dict)
    spans: dict[Span, ast.AST] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)

    def is_local(self, name: str) -> bool:
        """Whether the function itself binds a name."""
        return name in self.parameters or name in self.assigned


def is_comprehension(code: types.CodeType) -> bool:
    """Whether code is that of a comprehension, or a generator expression, inside a function."""
    return code.co_name.startswith("<") and code.co_name != "<lambda>"


def source_of(code: types.CodeType) -> Source | None:
    """Return the syntax of a function's code, or None if its source is not at hand."""
    return _source(code, code.co_filename)


def node_at(code: types.CodeType, instruction: int) -> ast.AST | None:
    """Return the syntax that an instruction (`frame.f_lasti`) computes."""
    source = source_of(code)
    span = _span(next(itertools.islice(code.co_positions(), instruction // 2, None), None))
    if source is None or span is None:
        return None
    first, last, start, end = span
    place = (first - source.shift, last - source.shift, start, end)
    node = source.spans.get(place)
    return node if node is not None else _around(source, place)


def target_at(code: types.CodeType, instruction: int) -> tuple[str, ...]:
    """Return the names that the statement at an instruction assigns to."""
    source, node = source_of(code), node_at(code, instruction)
    if source is None or node is None:
        return ()
    names: list[str] = []
    for statement in ast.walk(source.function):
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            value = statement.value
            if value is not None and any(inner is node for inner in ast.walk(value)):
                names += [n.id for t in _targets(statement) for n in _names(t)]
    return tuple(names)


def normal(text: str) -> str:
    """Return an expression in one spelling; text that is none comes back as it is."""
    try:
        return ast.unparse(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError):
        return " ".join(text.split())


def text_at(code: types.CodeType, instruction: int) -> str:
    """Return the expression at an instruction in one spelling; "" without source."""
    node = node_at(code, instruction)
    return ast.unparse(node) if isinstance(node, ast.expr) else expression_at(code, instruction)


def steps_of(node: ast.AST) -> tuple[str, tuple[tuple[str, Any], ...]] | None:
    """Return root and steps of `a.b[0].c`; None if the expression is no such chain."""
    steps: list[tuple[str, Any]] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            steps.append(("attribute", node.attr))
            node = node.value
        elif isinstance(node, ast.Subscript) and (key := _key(node.slice)) is not None:
            steps.append(("item", key))
            node = node.value
        else:
            return None
    return node.id, tuple(reversed(steps))


def _key(node: ast.expr) -> Any:
    """Return a constant key, None for other keys."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        key = _key(node.operand)
        return -key if isinstance(key, int) else None
    return node.value if isinstance(node, ast.Constant) else None


# Finding the function.


@functools.lru_cache(maxsize=1024)
def _source(code: types.CodeType, filename: str) -> Source | None:
    lines = linecache.getlines(filename)
    first, last = code.co_firstlineno, _last_line(code)
    if not lines or last > len(lines):
        return None
    block = lines[first - 1 : last]
    shift = first - 1
    if block[0][:1].isspace():
        block, shift = ["if True:\n", *block], first - 2
    inner = is_comprehension(code)
    function = None if inner else _find(_parse("".join(block)), code, shift)
    if function is None and len(lines) <= _MAX_LINES:
        function, shift = _find(_parse_file(filename, hash("".join(lines))), code, 0), 0
    return None if function is None else _analysed(function, shift)


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=16)
def _parse_file(filename: str, version: int) -> ast.Module | None:
    return _parse("".join(linecache.getlines(filename)))


def _last_line(code: types.CodeType) -> int:
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    ends = (end for _, end, _, _ in code.co_positions() if end is not None)
    return max(code.co_firstlineno, *ends, *map(_last_line, inner), 0)


def _span(place: Any) -> Span | None:
    return None if place is None or None in place else place


def _find(tree: ast.Module | None, code: types.CodeType, shift: int) -> Function | None:
    """Return the definition of a code object; the outermost of those at its place."""
    if tree is None:
        return None
    line = code.co_firstlineno - shift
    if is_comprehension(code):
        return _enclosing(tree, code)
    body = next((p for p in map(_span, code.co_positions()) if p is not None and p[3] > p[2]), None)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = [node.lineno, *(d.lineno for d in node.decorator_list)]
            if node.name == code.co_name and line in lines:
                return node
        elif isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and body is not None:
            place = (body[0] - shift, body[1] - shift, body[2], body[3])
            if node.lineno == line and _contains(node.body, place):
                return node
    return None


def _enclosing(tree: ast.Module, code: types.CodeType) -> Function | None:
    """Return the innermost function that a comprehension is in."""
    span = next((p for p in map(_span, code.co_positions()) if p is not None and p[3] > p[2]), None)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    around = [n for n in ast.walk(tree) if isinstance(n, kinds) and span and _contains(n, span)]
    return around[-1] if around else None


def _contains(node: Any, place: Span) -> bool:
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return bool(start <= (place[0], place[2]) and (place[1], place[3]) <= end)


def _around(source: Source, place: Span) -> ast.AST | None:
    """Return the smallest expression around a place."""
    found = [n for n in source.spans.values() if isinstance(n, ast.expr) and _contains(n, place)]
    return min(found, key=_extent, default=None)


def _extent(node: ast.expr) -> tuple[int, int]:
    last, end = node.end_lineno or node.lineno, node.end_col_offset or 0
    return last - node.lineno, end - node.col_offset


# Reading it.


def _analysed(function: Function, shift: int) -> Source:
    source = Source(function, shift)
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    source.parameters.update((a.arg, None) for a in plain)
    source.parameters.update(
        zip([a.arg for a in plain[len(plain) - len(arguments.defaults) :]], arguments.defaults,
            strict=True))  # fmt: skip
    source.parameters.update(
        (a.arg, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    )
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            source.parameters[rest.arg] = None
    body = function.body if isinstance(function.body, list) else [function.body]
    outer = {n for s in body for d in _within(s) if isinstance(d, (ast.Global, ast.Nonlocal))
             for n in d.names}  # fmt: skip
    for statement in body:
        for node in _within(statement):
            if isinstance(node, (ast.expr, ast.stmt)):
                end, stop = node.end_lineno or 0, node.end_col_offset or 0
                source.spans.setdefault((node.lineno, end, node.col_offset, stop), node)
            for name, how, value in _bindings(node):
                if name not in outer:
                    source.assigned.setdefault(name, []).append((how, value))
    for statement in body:
        source.reads += _reads(statement, "value", shift)
    return source


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, functions and classes defined inside apart."""
    stack = [node]
    while stack:
        node = stack.pop()
        if not isinstance(node, _SCOPES):
            yield node
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _targets(statement: Any) -> list[ast.expr]:
    return statement.targets if isinstance(statement, ast.Assign) else [statement.target]


def _names(target: ast.AST) -> Iterator[ast.Name]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node


def _bindings(node: ast.AST) -> Iterator[tuple[str, str, ast.expr]]:
    """Yield (name, how, expression) for what a node binds."""
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
        for target in _targets(node):
            yield from _bound(target, "value", node.value)
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        yield from _bound(node.target, "loop", node.iter)
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from _bound(node.optional_vars, "value", node.context_expr)
    elif isinstance(node, ast.Lambda):
        nothing = ast.Constant(None)
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        yield from ((a.arg, "argument", nothing) for a in arguments)


def _bound(target: ast.expr, how: str, value: ast.expr | None) -> Iterator[tuple[str, str, Any]]:
    if value is None:
        return
    if (
        isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        and len(target.elts) == len(value.elts) and how == "value"
    ):  # fmt: skip
        for inner, part in zip(target.elts, value.elts, strict=True):
            yield from _bound(inner, how, part)
        return
    if isinstance(target, (ast.Name, ast.Tuple, ast.List, ast.Starred)):
        for name in _names(target):
            yield name.id, how, value


def _reads(node: ast.AST, role: str, shift: int) -> Iterator[Read]:
    """Yield what is read below a node, outermost chains only; no function defined inside."""
    if isinstance(node, (*_SCOPES, ast.Raise)):
        return
    chain = steps_of(node) if isinstance(getattr(node, "ctx", None), ast.Load) else None
    if chain is not None and isinstance(node, ast.expr):
        yield Read(node, *chain, node.lineno + shift, role)
        return
    for part, inner in _parts(node, role if role != "call" else "value"):
        yield from _reads(part, inner, shift)


def _parts(node: ast.AST, role: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield what is right below a node that matters to a trace, with its role."""
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "print"):
            yield node.func, "call"
            yield from ((part, role) for part in (*node.args, *node.keywords))
        return
    for name, child in ast.iter_fields(node):
        inner = {"test": "branch", "iter": "loop"}.get(name, role)
        if not (isinstance(node, ast.Assert) and name == "msg"):
            for part in child if isinstance(child, list) else [child]:
                if isinstance(part, ast.AST):
                    yield part, inner
