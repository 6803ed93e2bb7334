"""The elementary functions as native code: how far off, at special values, on every target.

AVX-512 and AVX2 agree to the bit at any width. SSE2, which has no FMA, is measured by itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.native_accuracy import (
    BINARY,
    UNARY,
    float32_patterns,
    float64_pairs,
    float64_points,
    single_errors,
    worst_double,
    worst_single,
)
from tests.native_scalars import NativeFunction, binary, compiled, target_of, unary
from tracegraph.dtypes import DType, float32, float64

BOUND = 2.0  # ulp


@pytest.fixture(scope="module", params=["host", "sse2"])
def level(request: Any) -> str:
    return request.param


@pytest.fixture(scope="module")
def elementary(level: str) -> dict[str, NativeFunction]:
    """Every function with an oracle; without FMA on SSE2."""
    names = [unary(name, d) for name in UNARY for d in (float32, float64)]
    names += [binary(name, d) for name in BINARY for d in (float32, float64)]
    return compiled(names, 8, target_of(level))


@pytest.mark.parametrize("name", UNARY)
def test_float32_functions_are_within_the_bound(
    name: str, level: str, elementary: dict[str, NativeFunction]
) -> None:
    """At every 997th float32 (without FMA, every 9973rd).

    `python -m tests.tools.measure_elementary` takes all of them.
    """
    step = 997 if level == "host" else 9973
    for x in float32_patterns(step):
        worst = worst_single(elementary[f"{name}.f32"], UNARY[name][0], x)
        assert worst.ulp <= BOUND, worst


@pytest.mark.parametrize("name", UNARY)
def test_float64_functions_are_within_the_bound(
    name: str, elementary: dict[str, NativeFunction]
) -> None:
    x = float64_points(name, 400 if name == "erfinv" else 2000)
    worst = worst_double(elementary[f"{name}.f64"], UNARY[name][1], x)
    assert worst.ulp <= BOUND, worst


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_are_within_the_bound(
    name: str, elementary: dict[str, NativeFunction]
) -> None:
    x, y = float64_pairs(name, 3000)
    worst = worst_double(elementary[f"{name}.f64"], BINARY[name][1], x, y)
    assert worst.ulp <= BOUND, worst
    rng = np.random.default_rng(0)
    x, y = (np.exp2(rng.uniform(-149, 127, 200_000)).astype(np.float32) for _ in range(2))
    y *= rng.choice([-1, 1], 200_000)
    if name == "power":
        y = (rng.uniform(-1, 1, 200_000) * 150 / np.log2(x + 1e-9)).astype(np.float32)
    worst = worst_single(elementary[f"{name}.f32"], BINARY[name][0], x, y)
    assert worst.ulp <= BOUND, worst


def test_a_wrong_function_is_found() -> None:
    """The measure itself: a result that is next but three to the right one."""
    exact = np.array([1.0, 1e-40, np.inf, np.nan])
    right = exact.astype(np.float32)
    assert (single_errors(right, exact) <= 0.5).all()
    wrong = np.array([1 + 3 * 2.0**-23, 1e-40 + 3 * 2.0**-149, 1e38, 0], dtype=np.float32)
    errors = single_errors(wrong, exact)
    assert np.allclose(errors[:2], 3, atol=0.5)
    assert (errors[2:] == np.inf).all()


# Special values, by IEEE 754 (2019), section 9.2.1.

INF, NAN = math.inf, math.nan
_ODD = [(0.0, 0.0), (-0.0, -0.0), (NAN, NAN)]
SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (1000.0, INF), (-1000.0, 0.0), (NAN, NAN)],
    "exp2": [(-INF, 0.0), (INF, INF), (3.0, 8.0), (-1.0, 0.5), (NAN, NAN)],
    "expm1": [(-INF, -1.0), (INF, INF), *_ODD],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "log2": [(0.0, -INF), (8.0, 3.0), (2.0**-126, -126.0), (INF, INF), (-1.0, NAN), (NAN, NAN)],
    "log10": [(0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (NAN, NAN)],
    "log1p": [(-1.0, -INF), *_ODD, (INF, INF), (-2.0, NAN)],
    "sin": [*_ODD, (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "tan": [*_ODD, (INF, NAN), (-INF, NAN)],
    "arcsin": [*_ODD, (2.0, NAN), (-INF, NAN)],
    "arccos": [(1.0, 0.0), (2.0, NAN), (INF, NAN), (NAN, NAN)],
    "arctan": [*_ODD],
    "sinh": [*_ODD, (INF, INF), (-INF, -INF), (1000.0, INF)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (1000.0, INF), (NAN, NAN)],
    "tanh": [*_ODD, (INF, 1.0), (-INF, -1.0)],
    "arcsinh": [*_ODD, (INF, INF), (-INF, -INF)],
    "arccosh": [(1.0, 0.0), (INF, INF), (0.5, NAN), (-INF, NAN), (NAN, NAN)],
    "arctanh": [*_ODD, (1.0, INF), (-1.0, -INF), (2.0, NAN), (INF, NAN)],
    "sigmoid": [(0.0, 0.5), (INF, 1.0), (-INF, 0.0), (NAN, NAN)],
    "erf": [*_ODD, (INF, 1.0), (-INF, -1.0)],
    "erfc": [(0.0, 1.0), (INF, 0.0), (-INF, 2.0), (NAN, NAN)],
    "erfinv": [*_ODD, (1.0, INF), (-1.0, -INF), (2.0, NAN)],
}  # fmt: skip


def assert_equal_with_signs(got: Any, expected: Any, what: Any) -> None:
    near = np.isclose(got, expected, rtol=2 * np.finfo(got.dtype).eps, atol=0)  # multiples of pi
    same = near & (np.signbit(got) == np.signbit(expected)) | np.isnan(got) & np.isnan(expected)
    assert same.all(), (what, got.tolist(), expected.tolist())


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str, elementary: dict[str, NativeFunction]) -> None:
    for dtype in (float32, float64):
        x, expected = (np.array(column, dtype.np) for column in zip(*SPECIAL[name], strict=True))
        assert_equal_with_signs(elementary[f"{name}.{dtype.code}"](x), expected, (name, dtype))


POWERS = [
    (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (0.0, -3.0, INF), (-0.0, -3.0, -INF),
    (-0.0, -2.0, INF), (0.0, INF, 0.0), (0.0, -INF, INF), (-0.0, 0.5, 0.0), (-1.0, INF, 1.0),
    (-1.0, -INF, 1.0), (1.0, NAN, 1.0), (NAN, 0.0, 1.0), (INF, 0.0, 1.0), (NAN, 1.0, NAN),
    (2.0, NAN, NAN), (-2.0, 0.5, NAN), (-2.0, 3.0, -8.0), (-2.0, 2.0, 4.0), (INF, 2.0, INF),
    (INF, -2.0, 0.0), (-INF, 3.0, -INF), (-INF, -3.0, -0.0), (-INF, 2.0, INF), (-INF, 0.5, INF),
    (0.5, INF, 0.0), (0.5, -INF, INF), (2.0, INF, INF), (2.0, -INF, 0.0), (2.0, 1e30, INF),
    (2.0, -1e30, 0.0), (-2.0, 1e30, INF), (-3.0, 2.0**53 + 2, INF), (9.0, 0.5, 3.0),
]  # fmt: skip
ANGLES = [
    (0.0, 0.0, 0.0), (-0.0, 0.0, -0.0), (0.0, 1.0, 0.0), (-0.0, 1.0, -0.0), (INF, 1.0, math.pi / 2),
    (0.0, -0.0, math.pi), (-0.0, -0.0, -math.pi), (0.0, -1.0, math.pi), (1.0, 0.0, math.pi / 2),
    (1.0, -INF, math.pi), (1.0, INF, 0.0), (INF, INF, math.pi / 4), (INF, -INF, 3 * math.pi / 4),
    (-INF, -INF, -3 * math.pi / 4), (NAN, 1.0, NAN), (1.0, NAN, NAN),
]  # fmt: skip
LENGTHS = [(INF, NAN, INF), (NAN, -INF, INF), (NAN, 1.0, NAN), (0.0, -0.0, 0.0), (3.0, 4.0, 5.0)]


@pytest.mark.parametrize(
    ("name", "table"), [("power", POWERS), ("arctan2", ANGLES), ("hypot", LENGTHS)]
)
def test_special_values_of_two(
    name: str, table: list[tuple[float, float, float]], elementary: dict[str, NativeFunction]
) -> None:
    for dtype in (float32, float64):
        x, y, expected = (np.array(column, dtype.np) for column in zip(*table, strict=True))
        assert_equal_with_signs(elementary[f"{name}.{dtype.code}"](x, y), expected, (name, dtype))


def test_hypot_neither_overflows_nor_underflows(elementary: dict[str, NativeFunction]) -> None:
    x = np.array([3e307, 3e-320, 1e308, 5e-324])
    got = elementary["hypot.f64"](x, x)
    np.testing.assert_allclose(got, [3e307 * 2**0.5, 3e-320 * 2**0.5, 2**0.5 * 1e308, 5e-324], 1e-3)


# The same bits on every target and at every width.


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.code)
def test_bits_do_not_depend_on_width_or_instruction_set(dtype: DType) -> None:
    """Of those that have FMA."""
    expressions = [unary(name, dtype) for name in (*UNARY, "lgamma", "ndtri")]
    expressions += [binary(name, dtype) for name in (*BINARY, "fmod", "floor_divide")]
    places = [(16, "host"), (1, "host"), (4, "avx2"), (8, "avx2")]
    found = [compiled(expressions, width, target_of(level)) for width, level in places]
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(999) * np.exp2(rng.uniform(-20, 30, 999)) for _ in range(2))
    operands = [x.astype(dtype.np), y.astype(dtype.np)]
    unsigned = np.dtype(f"u{dtype.itemsize}")
    for expression in expressions:
        given = operands[: len(expression.operands)]
        first, *others = [functions[expression.name](*given) for functions in found]
        for other in others:
            same = (first.view(unsigned) == other.view(unsigned)) | (first != first)
            assert same.all(), expression.name
