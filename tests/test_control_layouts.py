"""Control flow ops and how elements lie: operands in rows, results of their own, in rows too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tracegraph as tg
from tracegraph.errors import GuardError

MAKES: dict[str, Callable[[], Any]] = {
    "rows": lambda: tg.arange(6.0).reshape(2, 3).clone(),
    "turned": lambda: tg.arange(6.0).reshape(3, 2).T,
    "columns": lambda: tg.arange(12.0).reshape(2, 6)[:, ::2],
}


def written(v: Any) -> Any:
    """A write that reaches the result where `v` lies in rows."""
    y = v * 2
    y.reshape(-1)[0] = 5
    return y


def written_after(y: Any) -> Any:
    y.reshape(-1)[0] = 5
    return y


def tripled(v: Any) -> Any:
    return v * 3


def turns(v: Any) -> Any:
    return written(v).T.clone()


def zero() -> Any:
    return tg.zeros((), dtype=tg.int64)


FREE: dict[str, Callable[[Any], Any]] = {
    "cond": lambda x: tg.cond(x.sum() > 0, written, tripled, (x,)),
    "result of cond": lambda x: written_after(tg.cond(x.sum() > 0, tripled, written, (x,))),
    "operand of cond": lambda x: (tg.cond(x.sum() > 0, lambda v: v, tripled, (x,)).add_(1), x * 1),
    "while_loop": lambda x: tg.while_loop(
        lambda i, v: i < 2, lambda i, v: (i + 1, written(v)), (zero(), x))[1],
    "result of while_loop": lambda x: written_after(tg.while_loop(
        lambda i, v: i < 2, lambda i, v: (i + 1, v * 2), (zero(), x))[1]),
    "no step of while_loop": lambda x: (tg.while_loop(
        lambda i, v: i < 0, lambda i, v: (i + 1, v * 2), (zero(), x))[1].add_(1), x * 1),
    "while_loop that turns": lambda x: tg.while_loop(
        lambda i, v: i < 3, lambda i, v: (i + 1, turns(v)), (zero(), x @ x.T))[1],
    "scan that turns": lambda x: tg.scan(
        lambda c, v: (turns(c), v.sum()), x @ x.T, tg.ones(3, 2))[0],
    "result of scan": lambda x: written_after(tg.scan(
        lambda c, v: (c * 2, v.sum()), x, tg.ones(3, 2))[0]),
    "slices of scan": lambda x: tg.scan(
        lambda c, v: (c + 1, written(v)), tg.ones(3), x[None] * tg.ones(3, 1, 1))[1],
    "columns of scan": lambda x: tg.scan(
        lambda c, v: (c + 1, written(v)), tg.ones(3), x[None] * tg.ones(3, 1, 1), dim=2)[1],
    "map": lambda x: written_after(tg.map(lambda v: v * 2, x)),
}  # fmt: skip


def outside(x: Any) -> Any:
    return tg.cond(x.sum() > 0, lambda: written(x), lambda: tripled(x))


def memory_outside(x: Any) -> Any:
    y = x * 2

    def write() -> Any:
        y.reshape(-1)[0] = 5
        return y.sum()

    return tg.cond(x.sum() > 0, write, y.sum), y


def loop_outside(x: Any) -> Any:
    return tg.while_loop(lambda i: i.sum() < 9, lambda i: i + 1 + written(x)[0, 0], (tg.zeros(()),))


def nested(x: Any) -> Any:
    def inner(c: Any) -> Any:
        return tg.cond(c > 0, lambda: written(x).sum(), lambda: x.sum())

    return tg.while_loop(lambda i: i < 9, lambda i: i + inner(i + 1), (tg.zeros(()),))


def answers(result: Any) -> list[Any]:
    return [t.tolist() for t in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("first", MAKES)
@pytest.mark.parametrize("name", FREE)
def test_operands_and_results_lie_in_rows(name: str, first: str) -> None:
    function = FREE[name]
    traced = tg.trace(function, (MAKES[first](),), check=False)
    for make in MAKES.values():
        expected = answers(function(make()))
        assert answers(traced(make())) == expected
        assert answers(traced.program("cpu")(make())) == expected
    assert not traced.layouts


@pytest.mark.parametrize("first", MAKES)
@pytest.mark.parametrize("function", [outside, memory_outside, loop_outside, nested])
def test_memory_from_outside_lies_as_it_did(function: Callable[[Any], Any], first: str) -> None:
    traced = tg.trace(function, (MAKES[first](),), check=False)
    for name, make in MAKES.items():
        if (name == "turned") != (first == "turned"):
            with pytest.raises(GuardError, match=r"'x' lies .*test_control_layouts\.py:\d+"):
                traced(make())
        else:
            assert answers(traced(make())) == answers(function(make()))


def test_eager_cond_gives_numbers_and_sparse_tensors_as_they_are() -> None:
    eye = tg.eye(2).to_sparse()
    number, sparse = tg.cond(tg.ones(()) > 0, lambda: (1.5, eye), lambda: (2.5, eye))
    assert number == 1.5 and sparse.is_sparse and sparse.to_dense().tolist() == [[1, 0], [0, 1]]
    sparse.mul_(3)
    assert eye.to_dense().tolist() == [[1, 0], [0, 1]]
