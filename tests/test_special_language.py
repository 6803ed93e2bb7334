"""The special functions keep to the scalar language, from which other targets are generated.

They run here on symbolic scalars that have nothing but that language.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.test_special import ARRAYS, UNARY, call
from tracegraph import special_functions as special


class Flag:
    """The result of a comparison: only `where` may look into it."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __bool__(self) -> bool:
        raise TypeError("Python control flow on a symbolic value")


class Scalar:
    """A number with the operators of the scalar language and no others.

    Python's own arithmetic stands behind it, which raises on division by zero, on log(0) and on
    exp overflowing: so a harmful argument in a branch that is not taken is found.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: float) -> None:
        self.value = value

    def __neg__(self) -> Scalar:
        return Scalar(-self.value)


def _number(value: Any) -> float:
    """Return the float of a Scalar or of a constant, which must be a Python float."""
    if isinstance(value, Scalar):
        return value.value
    assert type(value) is float, value
    return value


def _add_operators() -> None:
    """Give Scalar the arithmetic and the comparisons of the language."""

    def arithmetic(name: str, reflected: bool) -> Callable[[Scalar, Any], Scalar]:
        def operator(self: Scalar, other: Any) -> Scalar:
            left, right = self.value, _number(other)
            if reflected:
                left, right = right, left
            if name == "truediv":
                return Scalar(left / right)
            return Scalar(getattr(left, f"__{name}__")(right))

        return operator

    def comparison(name: str) -> Callable[[Scalar, Any], Flag]:
        return lambda self, other: Flag(getattr(self.value, f"__{name}__")(_number(other)))

    for name in ("add", "sub", "mul", "truediv"):
        setattr(Scalar, f"__{name}__", arithmetic(name, False))
        setattr(Scalar, f"__r{name}__", arithmetic(name, True))
    for name in ("lt", "le", "gt", "ge", "eq"):
        setattr(Scalar, f"__{name}__", comparison(name))


def _where(flag: Flag, first: Any, second: Any) -> Scalar:
    assert isinstance(flag, Flag)
    assert isinstance(first, Scalar) or isinstance(second, Scalar), "where of two constants"
    return Scalar(_number(first) if flag.value else _number(second))


def _lifted(name: str) -> Callable[[Scalar], Scalar]:
    function = getattr(math, name)
    return lambda x: Scalar(function(x.value))


_add_operators()
SYMBOLIC = SimpleNamespace(
    where=_where,
    isnan=lambda x: Flag(math.isnan(x.value)),
    abs=lambda x: Scalar(abs(x.value)),
    floor=lambda x: Scalar(float(math.floor(x.value)) if math.isfinite(x.value) else x.value),
    **{name: _lifted(name) for name in ("exp", "log", "log1p", "sqrt", "sin", "tan")},
)
POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-9, -1e-9, 2.5, -2.5, 9.0, -9.0, 50.5, 300.5, -300.5]


@pytest.mark.parametrize("name", [*UNARY, "polygamma 1", "polygamma 2"])
def test_only_the_scalar_language_is_used(name: str) -> None:
    for point in POINTS:
        if name == "digamma" and point == 0:
            continue  # the sign at 0 needs a division by it
        with np.errstate(over="ignore"):
            expected = float(call(name, np.array([point]))[0])
        actual = call(name, Scalar(point), SYMBOLIC)
        assert isinstance(actual, Scalar)
        assert actual.value == pytest.approx(expected, rel=1e-13, abs=1e-14, nan_ok=True)


@pytest.mark.parametrize("name", ["xlogy", "xlog1py"])
def test_products_use_only_the_scalar_language(name: str) -> None:
    function = getattr(special, name)
    assert function(SYMBOLIC, Scalar(0.0), Scalar(-1.0)).value == 0
    expected = float(function(ARRAYS, np.array([2.0]), np.array([0.5]))[0])
    assert function(SYMBOLIC, Scalar(2.0), Scalar(0.5)).value == pytest.approx(expected)
