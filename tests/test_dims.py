"""Expressions over dims, relations and SymInt, against Python's integers."""

from __future__ import annotations

import operator
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegraph.dims.bounds import bounds
from tracegraph.dims.declared import Dim
from tracegraph.dims.expressions import Expr, Symbol, apply, number, symbol
from tracegraph.dims.facts import Facts, assuming, by_form
from tracegraph.dims.reading import parse
from tracegraph.dims.relations import EQ, GE, NE, holds, parse_relation, relation
from tracegraph.dims.shapes import evaluated, hints
from tracegraph.dims.symint import DECIDER, SymInt, larger, make, smaller, variable
from tracegraph.errors import GraphError, UndecidedError

SYMBOLS = {
    "batch": Symbol("batch"),
    "time": Symbol("time", 1, 9),
    "found": Symbol("found", 0, None, data=True),
}
LIMITS = {"batch": (0, 12), "time": (1, 9), "found": (0, 5)}
SIZES = st.fixed_dictionaries({n: st.integers(*LIMITS[n]) for n in SYMBOLS})
BINARY = {
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "//": (operator.floordiv, lambda a, b: apply("//", a, b)),
    "%": (operator.mod, lambda a, b: apply("%", a, b)),
    "min": (min, lambda a, b: apply("min", a, b)),
    "max": (max, lambda a, b: apply("max", a, b)),
}
LEAVES = st.sampled_from(list(SYMBOLS)) | st.integers(-9, 9)
FORMULAS: Any = st.recursive(
    LEAVES, lambda inner: st.tuples(st.sampled_from(list(BINARY)), inner, inner), max_leaves=7
)


def plain(formula: Any, sizes: dict[str, int]) -> int:
    """The formula in Python's integers."""
    if isinstance(formula, tuple):
        name, a, b = formula
        return BINARY[name][0](plain(a, sizes), plain(b, sizes))
    return sizes[formula] if isinstance(formula, str) else formula


def canonical(formula: Any) -> Expr:
    """The formula as an expression."""
    if isinstance(formula, tuple):
        name, a, b = formula
        return BINARY[name][1](canonical(a), canonical(b))
    return symbol(SYMBOLS[formula]) if isinstance(formula, str) else number(formula)


def known(formula: Any, sizes: dict[str, int]) -> tuple[Expr, int] | None:
    """The expression and its value; None where Python or the limits refuse it."""
    try:
        return canonical(formula), plain(formula, sizes)
    except (ZeroDivisionError, GraphError):
        return None


@settings(max_examples=600, deadline=None)
@given(FORMULAS, SIZES)
def test_expressions_compute_what_integers_do(formula: Any, sizes: dict[str, int]) -> None:
    made = known(formula, sizes)
    if made is not None:
        expr, value = made
        assert expr.value(sizes) == value
        low, high = bounds(expr)
        assert low <= value <= high


@settings(max_examples=600, deadline=None)
@given(FORMULAS, SIZES)
def test_the_text_of_an_expression_reads_back(formula: Any, sizes: dict[str, int]) -> None:
    made = known(formula, sizes)
    if made is not None:
        assert parse(str(made[0]), SYMBOLS) == made[0]
        assert parse(str(made[0]).replace(" ", ""), SYMBOLS) == made[0]


@settings(max_examples=600, deadline=None)
@given(FORMULAS, FORMULAS, st.sampled_from([EQ, NE, GE]), SIZES)
def test_relations_hold_where_integers_do(a: Any, b: Any, kind: str, sizes: Any) -> None:
    left, right = known(a, sizes), known(b, sizes)
    if left is None or right is None:
        return
    asked = relation(kind, left[0] - right[0])
    outcome = holds(kind, left[1] - right[1])
    assert asked.holds(sizes) is outcome
    assert asked.negated().holds(sizes) is not outcome
    assert asked.negated().negated().holds(sizes) is outcome
    assert asked.proven() in (None, outcome)
    assert parse_relation(str(asked), SYMBOLS) == asked
    if asked.pinned is not None:
        name, only = asked.pinned[0].name, asked.pinned[1]
        assert outcome is (sizes[name] == only)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(batch + 1)*2 - 1", "batch*2 + 1"),
        ("time*batch - batch*time", "0"),
        ("batch*4//2", "batch*2"),
        ("(batch*4 + 6)//4", "batch + 1 + (2//4)"),
        ("(batch*4 + 2)//4", "batch"),
        ("(batch*6 + 3)//9", "(batch*2 + 1) // 3"),
        ("batch*time//batch", "time"),
        ("batch*12 % 4", "0"),
        ("(batch + 4) % 4", "batch % 4"),
        ("min(batch, batch + 1)", "batch"),
        ("max(time, 1)", "time"),
        ("max(min(time, 20), 0)", "time"),
        ("min(3, batch)", "min(batch, 3)"),
        ("(batch - 1)*batch", "batch*batch - batch"),
        ("-(-batch)//2", "batch // 2"),
        ("0 - batch", "-batch"),
    ],
)
def test_canonical_form(text: str, shown: str) -> None:
    assert str(parse(text, SYMBOLS)) == str(parse(shown, SYMBOLS))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("batch >= 0", True), ("batch >= 1", None), ("time >= 1", True), ("time <= 9", True),
        ("time >= 10", False), ("batch*2 == 3", False), ("batch - batch//2 >= 0", True),
        ("batch - min(batch, 3) >= 0", True), ("max(batch - 1, 0) <= batch", True),
        ("(batch + 1)//2 + batch//2 >= batch", True), ("batch*2 + 1 != 0", True),
        ("batch*4 == batch*2 + batch*2", True), ("batch + 1 == batch", False),
    ],
)  # fmt: skip
def test_what_bounds_decide(text: str, outcome: bool | None) -> None:
    assert parse_relation(text, SYMBOLS).proven() is outcome


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("batch == time", "batch == time"), ("2*batch - 2*time == 0", "batch == time"),
        ("batch >= 1", "batch >= 1"), ("7 >= batch", "batch <= 7"), ("3 == batch", "batch == 3"),
        ("batch*16 % 10 == 0", "(batch*3) % 5 == 0"), ("batch*3 >= 4", "batch >= 2"),
        ("time <= batch + 2", "batch + 2 >= time"), ("batch != 1", "batch != 1"),
    ],
)  # fmt: skip
def test_the_text_of_relations(text: str, shown: str) -> None:
    assert str(parse_relation(text, SYMBOLS)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "batch +", "batch**2", "unknown", "f(batch, 2)", "min(batch)", "batch.x", "batch[0]",
        "1.5", "True", "'a'", "batch if 1 else 2", "min(a=1, b=2)", "batch//0", "batch%0",
        "9" * 30, "(" * 300 + "batch" + ")" * 300, "+".join(["batch"] * 900),
        "*".join(["(batch+time)"] * 300)[:1990], "*".join(["batch+time+found+1"] * 2) * 40,
        "//2//".join(["batch"] * 60),
        "".join(f"max({i}, min(batch//{i + 2}," for i in range(40)) + "time" + "))" * 40,
        "*".join(["(batch + time + found + 7)"] * 60), "*".join(["9999999999"] * 9), "\x00",
    ],
)  # fmt: skip
def test_texts_that_are_refused(text: str) -> None:
    with pytest.raises(GraphError):
        parse(text, SYMBOLS)


# SymInt.


class Noting:
    """A decider that goes by the hints and keeps what was asked."""

    traces = True
    by_form = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def decide(self, asked: Any, outcome: bool) -> bool:
        self.asked.append(f"{asked if outcome else asked.negated()}")
        return outcome

    def read(self, size: SymInt) -> int:
        self.asked.append(f"read {size!r}")
        return size.hint

    fix = read

    def number(self, size: SymInt) -> Any:
        self.asked.append(f"number {size!r}")
        return float(size.hint)


@pytest.fixture
def noting() -> Any:
    decider = Noting()
    token = DECIDER.set(decider)
    yield decider
    DECIDER.reset(token)


def sized(formula: Any, sizes: dict[str, int]) -> Any:
    """The formula in SymInts."""
    functions = {**{n: f for n, (f, _) in BINARY.items()}, "min": smaller, "max": larger}
    if isinstance(formula, tuple):
        name, a, b = formula
        return functions[name](sized(a, sizes), sized(b, sizes))
    return size(formula, sizes[formula]) if isinstance(formula, str) else formula


@settings(max_examples=400, deadline=None)
@given(FORMULAS, FORMULAS, SIZES, SIZES)
def test_symints_are_their_hints(a: Any, b: Any, sizes: Any, others: Any) -> None:
    left, right = known(a, sizes), known(b, sizes)
    if left is None or right is None:
        return
    x, y = sized(a, sizes), sized(b, sizes)
    decider = Noting()
    token = DECIDER.set(decider)
    try:
        for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt,
                        operator.ge):  # fmt: skip
            assert compare(x, y) is compare(left[1], right[1])
    finally:
        DECIDER.reset(token)
    assert hints((x, (y, "a"))) == (left[1], (right[1], "a"))
    assert evaluated(((x,), y), sizes) == ((left[1],), right[1])
    asked = [parse_relation(text, SYMBOLS) for text in decider.asked]
    assert all(r.holds(sizes) for r in asked)
    try:
        plain_a, plain_b = plain(a, others), plain(b, others)
    except ZeroDivisionError:
        return
    if all(r.holds(others) for r in asked):  # what was noted is all that the outcomes rest on
        assert (plain_a > plain_b, plain_a == plain_b) == (left[1] > right[1], left[1] == right[1])


def size(name: str = "batch", hint: int = 4) -> SymInt:
    known = SYMBOLS[name]
    return variable(Symbol(name, known.min, known.max, known.data, hint))


def test_a_number_stays_a_number() -> None:
    assert type(size() - size() + 3) is int
    assert type(size() * 0) is int
    assert size() + 1 - 1 is not None
    assert repr(size() * 2 + 1) == "batch*2 + 1"
    assert make(number(7), 7) == 7


def test_fractions(noting: Noting) -> None:
    n = size()
    assert (n > 3.5, n >= 4.0, n < 4.5, n <= 3.5, n == 4.5, n != 4.5) == (
        True, True, True, False, False, True)  # fmt: skip
    assert (n < float("inf"), n > float("-inf"), n == float("nan")) == (True, True, False)
    assert noting.asked[:4] == ["batch >= 4", "batch >= 4", "batch <= 4", "batch >= 4"]
    assert n / 8 == 0.5
    assert 2 / n == 0.5
    assert n * 0.5 == 2.0
    assert n**-1 == 0.25
    assert noting.asked[-1] == "number batch"


def test_what_reads_a_size(noting: Noting) -> None:
    n = size()
    assert list(range(n)) == [0, 1, 2, 3]
    assert ["a"] * n == ["a"] * 4
    assert [1, 2, 3, 4, 5][n] == 5
    assert int(n) == 4 and float(n) == 4.0
    assert {4: "four"}[n] == "four"
    assert f"{n}" == "4" and str(n) == "4" and f"{n:03d}" == "004"
    assert noting.asked == ["read batch"] * 9 + ["batch == 4"] or "read batch" in noting.asked
    count = len(noting.asked)
    assert repr(n) == "batch" and f"{n!r}" == "batch"
    assert len(noting.asked) == count


def test_without_a_decider_nothing_is_assumed() -> None:
    n = size()
    for ask in (lambda: n == 4, lambda: n > 3, lambda: int(n), lambda: bool(n), lambda: n / 2):
        with pytest.raises(UndecidedError):
            ask()
    assert n == size(hint=7)
    assert n >= 0 and n + 1 != n
    assert {n: 1}[size()] == 1


def test_expressions_compared_by_form() -> None:
    n = size()
    with by_form():
        assert (n == 4, n != 4, n == n + 0, smaller(n, 2) == 2, n == size("time")) == (
            False, True, True, False, False)  # fmt: skip
        with pytest.raises(UndecidedError):
            assert n > 3


def test_facts_decide_what_they_say_and_what_follows_from_bounds() -> None:
    n, m = size(), size("time", 4)
    known = Facts([parse_relation(text, SYMBOLS) for text in ("batch >= 3", "batch == time")])
    with assuming(known):
        assert n >= 3 and n >= 1 and n * 2 >= 6 and n != 0 and n == m and n * 2 == m * 2
        for ask in (lambda: n == 4, lambda: n >= 4, lambda: int(n), lambda: n / 2):
            with pytest.raises(UndecidedError, match="batch"):
                ask()
    known.add(parse_relation("batch == 4", SYMBOLS))
    with assuming(known):
        assert int(n) == 4 and n * 3 == 12 and n // 2 == 2 and bool(n)


def test_comparisons_with_other_things() -> None:
    n = size()
    assert (n == "4", n != None, n == (4,)) == (False, True, False)  # noqa: E711
    with pytest.raises(TypeError):
        assert n < "5"
    with pytest.raises(TypeError):
        n + "5"


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("", {}), ("1x", {}), ("a b", {}), ("min", {}), ("for", {}), (None, {}), ("a.b", {}),
        ("n", {"min": -1}), ("n", {"min": 3, "max": 2}), ("n", {"min": True}),
        ("n", {"max": 2.0}), ("n", {"min": None}), ("n", {"max": 1 << 60}),
    ],
)  # fmt: skip
def test_dims_that_are_refused(name: Any, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Dim(name, **limits)


def test_bounds_are_never_wrong_near_their_ends() -> None:
    texts = ["batch//3*2 - batch", "min(batch, 5) - batch//2", "(batch - 7) % 5", "batch % time",
             "max(batch - time, 0)", "batch//time", "min(batch, time)*-2"]  # fmt: skip
    for text, batch, time in product(texts, range(13), range(1, 10)):
        expr = parse(text, SYMBOLS)
        low, high = bounds(expr)
        assert low <= expr.value({"batch": batch, "time": time}) <= high
