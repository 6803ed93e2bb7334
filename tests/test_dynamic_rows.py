"""Every row of the op table, and every call of the function tables, with dynamic sizes.

A replay at another size is right, or is refused: never wrong. How many generalise is counted and
must not fall.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import function_cases, nn_function_cases
from tests.device_checks import EXTRA, cases, draw
from tests.resizing import Outcome, check_size, sizes_of
from tracegraph.dtypes import DType, float32, float64
from tracegraph.eager.dispatch import dispatch
from tracegraph.eager.tensors import type_of, wrap
from tracegraph.errors import DTypeError
from tracegraph.ops.core import MARK, Case, Op
from tracegraph.ops.table import OPS

# Of the sizes in all samples of the rows: how many serve others at least. See the tests below.
ROWS_SERVED = 0.6
CALLS_SERVED = 0.85
CALL_TABLES = [
    (name, function_cases.split(table), function_cases)
    for name, table in vars(function_cases).items()
    if name.isupper() and isinstance(table, str)
] + [(name, nn_function_cases.split(t), nn_function_cases)
     for name, t in nn_function_cases.FAMILIES.items()]  # fmt: skip


class Count:
    """How many sizes were tried, and how many replays served others."""

    def __init__(self) -> None:
        self.tried = 0
        self.served = 0
        self.never: list[str] = []

    def add(self, what: str, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.tried += 1
            self.served += outcome.served > 0
            if not outcome.served:
                self.never.append(what)


def check(count: Count, what: str, function: Callable[..., Any], arrays: dict[str, Any]) -> None:
    """Check a function at each of its sizes; a fault names it."""
    for size in sizes_of(arrays):
        try:
            count.add(f"{what} [{size}]", check_size(function, arrays, size))
        except AssertionError as error:
            raise AssertionError(f"{what}, size {size} dynamic: {error}") from error


def row_function(op: Op, attrs: dict[str, Any]) -> Callable[..., Any]:
    return lambda *args: dispatch(op, args, attrs)


def _dtype(op: Op, case: Case) -> DType:
    """A dtype that the row takes."""
    types = [type_of(wrap(a)) for a in draw(case, float32, 0)]
    try:
        op.infer(types, case.attrs)
    except DTypeError:
        return float64
    return float32


def test_rows_with_a_dynamic_size_are_right_or_refused(capsys: Any) -> None:
    count = Count()
    for name, op in OPS.items():
        if name in EXTRA or MARK in op.traits:
            continue
        for case in cases(op):
            drawn = draw(case, _dtype(op, case), seed=zlib.crc32(name.encode()))
            arrays = {f"x{i}": a for i, a in enumerate(drawn)}
            check(count, f"{name}({case.attrs})", row_function(op, case.attrs), arrays)
    with capsys.disabled():
        print(f"\n{count.served} of {count.tried} sizes in samples of rows serve other sizes")
    assert count.served >= ROWS_SERVED * count.tried, count.never


NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w)(?!\s*=[^=])")
WRITES = re.compile(r"\.\w+_\(|out=")


def call_function(call: str, names: list[str]) -> Callable[..., Any]:
    code = compile(call, "<case>", "eval")
    writes = WRITES.search(call) is not None

    def function(*args: Any) -> Any:
        given = {n: a.clone() if writes else a for n, a in zip(names, args, strict=True)}
        return eval(code, {"t": tg, "F": tg.nn.functional}, given)

    return function


def check_call(count: Count, call: str, module: ModuleType) -> None:
    operands = module.operands(np.float64)
    names = [n for n in dict.fromkeys(NAME.findall(call)) if n in operands]
    arrays = {n: operands[n] for n in names}
    with contextlib.suppress(tg.errors.BakeError):  # it reads a number: refused at any size
        check(count, call, call_function(call, names), arrays)


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_calls_with_a_dynamic_size_are_right_or_refused(every: int, capsys: Any) -> None:
    count = Count()
    calls = [(call, module) for _, table, module in CALL_TABLES for call in table if call]
    for call, module in calls[::every]:
        check_call(count, call.rstrip(";"), module)
    with capsys.disabled():
        print(f"\n{count.served} of {count.tried} sizes in calls serve other sizes")
    assert count.served >= CALLS_SERVED * count.tried, count.never
