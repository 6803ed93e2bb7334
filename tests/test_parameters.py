"""Names of parameters read from code are those that `inspect` finds."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from tracegraph.api.functions import FUNCTIONS, PLAIN
from tracegraph.ops.parameters import keyword_only_names, parameter_names, positional_names
from tracegraph.ops.table import OPS


def mixed(a: int, /, b: int = 1, *c: int, d: int, e: int = 2, **f: int) -> int:
    local = a + b
    return local + d + e


class Called:
    def __call__(self, x: int, *, y: int) -> int:
        return x + y

    def method(self, x: int, *, y: int) -> int:
        return x + y


@functools.wraps(mixed)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return mixed(*args, **kwargs)


def declared(x: int) -> int:
    return x


declared.__signature__ = inspect.signature(mixed)  # type: ignore[attr-defined]

OTHERS = (
    mixed, wrapped, declared, Called(), Called().method, functools.partial(mixed, 1, d=3),
    lambda *, x: x, lambda **x: x, lambda *x: x, lambda: 0,
)  # fmt: skip


@pytest.mark.parametrize(
    "functions",
    [OTHERS, [*PLAIN.values(), *FUNCTIONS.values()], [op.type_rule for op in OPS.values()]],
    ids=["all kinds", "public functions", "type rules"],
)
def test_names_are_those_of_the_signature(functions: Any) -> None:
    for function in functions:
        parameters = inspect.signature(function).parameters
        assert parameter_names(function) == tuple(parameters)
        alone = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
        assert keyword_only_names(function) == tuple(alone)


class _Callable:
    def method(self, x: Any, /, y: Any = 1, *more: Any, z: Any = 2, **named: Any) -> Any: ...

    def all_of(*everything: Any) -> Any: ...

    @classmethod
    def made(cls, a: Any) -> Any: ...

    def __call__(self, b: Any, *rest: Any) -> Any: ...


@functools.wraps(_Callable.method)
def _wrapped(*args: Any) -> Any: ...


@pytest.mark.parametrize(
    "function",
    [_Callable.method, _Callable().method, _Callable().all_of, _Callable.made, _Callable(),
     _wrapped, functools.partial(_Callable().method, 3), lambda p, *q: p, len],
)  # fmt: skip
def test_what_may_be_given_by_place(function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    assert positional_names(function) == (tuple(names), (rest or ["args"])[0])
