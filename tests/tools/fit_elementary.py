"""Derive the coefficients of `runtime.cpu.code.elementary`, and print their errors.

Run with ``python tests/tools/fit_elementary.py runtime/cpu/code/elementary/coefficients.py`` (needs
mpmath, takes a minute). Method: the polynomial with the least greatest weighted error, by Remez'
exchange on a fine grid; its coefficients are rounded one after the other, lowest degree first, and
after each the others are fitted anew, so that they make up for the rounding.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mpmath as mp

DIGITS = 90
TWO_OVER_PI_PLACES = 1168  # 2^971, times 192 places
Real = Callable[[mp.mpf], mp.mpf]

HEADER = '''"""Coefficients of the elementary functions, lowest degree first, and constants.

Written by tests/tools/fit_elementary.py; do not edit. The comment beside a polynomial is the
binary logarithm of its greatest error, relative to the function that it serves.
"""

from __future__ import annotations

from typing import Final

from tracegraph.dtypes import DType, float32, float64
'''


class Fit(NamedTuple):
    """A polynomial that stands for `function` on [low, high].

    `weight` makes its error relative to what is computed with it; `single` is of float32 numbers.
    """

    name: str
    single: bool
    degree: int
    function: Real
    weight: Real
    low: float | mp.mpf
    high: float | mp.mpf


# Minimax polynomials.


def chebyshev_grid(low: mp.mpf, high: mp.mpf, count: int) -> list[mp.mpf]:
    """Return points of the interval in ascending order, denser toward its ends."""
    centre, half = (mp.mpf(low) + mp.mpf(high)) / 2, (mp.mpf(high) - mp.mpf(low)) / 2
    return [centre - half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def through(
    points: Sequence[int],
    xs: Sequence[mp.mpf],
    ys: Sequence[mp.mpf],
    weights: Sequence[mp.mpf],
) -> tuple[list[mp.mpf], mp.mpf]:
    """Return the polynomial whose weighted errors at the points are equal, of alternating sign."""
    count = len(points)
    matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
    for row, point in enumerate(points):
        power = weights[point]
        for column in range(count - 1):
            matrix[row, column] = power
            power *= xs[point]
        matrix[row, count - 1] = (-1) ** row
        right[row] = ys[point] * weights[point]
    solution = mp.lu_solve(matrix, right)
    return list(solution[: count - 1]), abs(solution[count - 1])


def alternation(errors: Sequence[mp.mpf], count: int) -> list[int]:
    """Return the places of `count` extremes of alternating sign, the largest there are."""
    places: list[int] = []
    for i, error in enumerate(errors):
        if places and (errors[places[-1]] > 0) == (error > 0):
            if abs(error) > abs(errors[places[-1]]):
                places[-1] = i
        else:
            places.append(i)
    while len(places) > count:
        if len(places) == count + 1:
            places.pop(0 if abs(errors[places[0]]) < abs(errors[places[-1]]) else -1)
            continue
        smallest = min(range(len(places)), key=lambda i: abs(errors[places[i]]))
        if smallest in (0, len(places) - 1):
            places.pop(smallest)
        else:
            left = abs(errors[places[smallest - 1]]) < abs(errors[places[smallest + 1]])
            first = smallest - 1 if left else smallest
            del places[first : first + 2]
    return places


def minimax(
    xs: Sequence[mp.mpf], ys: Sequence[mp.mpf], weights: Sequence[mp.mpf], degree: int
) -> list[mp.mpf]:
    """Return the coefficients of the best polynomial on a grid."""
    count, last = degree + 2, len(xs) - 1
    points = [round(i * last / (count - 1)) for i in range(count)]
    for _ in range(30):
        coefficients, level = through(points, xs, ys, weights)
        errors = [
            w * (y - mp.polyval(coefficients[::-1], x))
            for x, y, w in zip(xs, ys, weights, strict=True)
        ]
        found = alternation(errors, count)
        if len(found) < count or max(map(abs, errors)) <= level * mp.mpf("1.01"):
            break
        points = found
    return coefficients


def rounded(value: mp.mpf, single: bool) -> float:
    """Return the nearest float, or float32 (rounded by mpmath: NumPy would round twice)."""
    if not single:
        return float(value)
    with mp.workprec(24):
        return float(+value)


def solve(fit: Fit) -> tuple[list[float], float]:
    """Return rounded coefficients, and the binary logarithm of the greatest weighted error."""
    xs = chebyshev_grid(fit.low, fit.high, max(160, 12 * (fit.degree + 2)))
    ys, weights = [fit.function(x) for x in xs], [abs(fit.weight(x)) for x in xs]
    done: list[float] = []
    rest, scales = ys, weights
    for k in range(fit.degree + 1):
        done.append(rounded(minimax(xs, rest, scales, fit.degree - k)[0], fit.single))
        rest = [(y - done[-1]) / x for x, y in zip(xs, rest, strict=True)]
        scales = [w * abs(x) for x, w in zip(xs, scales, strict=True)]
    worst = max(
        w * abs(y - mp.polyval(done[::-1], x)) for x, y, w in zip(xs, ys, weights, strict=True)
    )
    return done, float(mp.log(worst, 2))


# What is fitted.


def _odd(function: Real) -> Real:
    """(f(x) / x − 1) / x² as a function of z = x²: f(x) = x + x z P(z)."""
    return lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def _odd_weight(function: Real) -> Real:
    """The share of x z P(z) in f(x)."""
    return lambda z: z * mp.sqrt(z) / function(mp.sqrt(z))


def _exp2_part(r: mp.mpf) -> mp.mpf:
    return mp.expm1(r * mp.log(2)) / r


def _log_part(f: mp.mpf) -> mp.mpf:
    return (mp.log1p(f) - f) / f**2


def _log_series(z: mp.mpf) -> mp.mpf:
    return (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z


def _pow_series(z: mp.mpf) -> mp.mpf:
    return (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1 - z / 3) / z**2


def _log2_part(z: mp.mpf) -> mp.mpf:
    return 2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) / mp.log(2)


def _cos_part(z: mp.mpf) -> mp.mpf:
    return (mp.cos(mp.sqrt(z)) - 1) / z


def _erf_part(z: mp.mpf) -> mp.mpf:
    return mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1


def _log_erfc(a: mp.mpf) -> mp.mpf:
    return mp.log(mp.erfc(a))


def _erfc_part(t: mp.mpf, scale: float) -> tuple[mp.mpf, mp.mpf]:
    """Return a and exp(a²) erfc(a), t = (a − K) / (a + K)."""
    a = scale * (1 + t) / (1 - t)
    return a, mp.exp(a * a) * mp.erfc(a)


def _erfc_short(t: mp.mpf) -> mp.mpf:
    a, value = _erfc_part(t, ERFC_SHORT_SCALE)
    return value * (a + ERFC_SHORT_SCALE)


def _erfc_full(t: mp.mpf) -> mp.mpf:
    a, value = _erfc_part(t, ERFC_SCALE)
    return value * (1 + 2 * a)


def _erfinv_part(w: mp.mpf) -> mp.mpf:
    """erfinv(x) / x as a function of w = −log(1 − x²)."""
    x = mp.sqrt(-mp.expm1(-w))
    with mp.workdps(40):
        return mp.erfinv(x) / x


ERFC_SHORT_SCALE, ERFC_SCALE = 3.0, 4.0


def _both(
    name: str, single: int, double: int, function: Real, weight: Real, low: Any, high: Any
) -> list[Fit]:
    """Return the fits of one function in float32 and float64."""
    return [
        Fit(name, True, single, function, weight, low, high),
        Fit(name, False, double, function, weight, low, high),
    ]


def fits() -> list[Fit]:
    """Return what is fitted. SHORT tables are float64 numbers that serve float32 results."""
    r, s = mp.mpf("0.35"), (3 - 2 * mp.sqrt(2)) ** 2  # a little over ln 2 / 2; max (f / (2 + f))²
    quarter_pi, low_f, high_f = mp.mpf("0.7857") ** 2, mp.sqrt(0.5) - 1, mp.sqrt(2) - 1
    tail, far = (lambda v: _erfinv_part((v + 3) ** 2)), (lambda v: 1 / (v + 3))
    short_end = (10.5 - ERFC_SHORT_SCALE) / (10.5 + ERFC_SHORT_SCALE)
    full_end = (27.5 - ERFC_SCALE) / (27.5 + ERFC_SCALE)
    return [
        *_both("EXP", 4, 9, lambda x: (mp.expm1(x) - x) / x**2, lambda x: x * x, -r, r),
        *_both("EXP2", 5, 10, _exp2_part, lambda x: x, -0.501, 0.501),
        Fit("EXP2_SHORT", False, 6, _exp2_part, lambda x: x, -0.501, 0.501),
        *_both("SINH", 2, 6, _odd(mp.sinh), _odd_weight(mp.sinh), 0, 1),
        *_both("TANH", 4, 10, _odd(mp.tanh), _odd_weight(mp.tanh), 0, 0.625**2),
        Fit("LOG", True, 8, _log_part, lambda f: f * f / mp.log1p(f), low_f, high_f),
        Fit("LOG_SERIES", False, 6, _log_series, lambda z: z / 2, 0, s),
        Fit("LOG2_SHORT", False, 4, _log2_part, lambda z: mp.mpf(1) / 3, 0, s),
        Fit("POW_SERIES", False, 7, _pow_series, lambda z: z * z, 0, s),
        *_both("SIN", 2, 5, _odd(mp.sin), lambda z: z, 0, quarter_pi),
        *_both("COS", 3, 6, _cos_part, lambda z: z, 0, quarter_pi),
        *_both("ATAN", 8, 19, _odd(mp.atan), _odd_weight(mp.atan), 0, 1),
        *_both("ASIN", 4, 11, _odd(mp.asin), lambda z: z, 0, 0.25),
        *_both("ERF", 5, 11, _erf_part, lambda z: 1 / (1 + _erf_part(z)), 0, 1),
        Fit("ERF_TAIL", True, 6, _log_erfc, mp.erfc, 1, 4),
        Fit("ERF_TAIL", False, 18, _log_erfc, mp.erfc, 1, 6),
        Fit("ERFC_SHORT", False, 9, _erfc_short, lambda t: 1 / _erfc_short(t), -1, short_end),
        Fit("ERFC", False, 22, _erfc_full, lambda t: mp.mpf(1), -1, full_end),
        Fit("ERFINV", False, 10, lambda u: _erfinv_part(u + 2.5), lambda u: mp.mpf(1), -2.5, 2.5),
        Fit("ERFINV_TAIL", False, 9, tail, far, -0.77, 1.1),
        Fit("ERFINV_FAR_TAIL", False, 11, tail, far, -0.77, 3.1),
    ]


# Constants.


def words(value: mp.mpf, *bits: int) -> tuple[float, ...]:
    """Return the value in words of so many bits, the last in as many as a float has (0)."""
    found = []
    for size in bits:
        if size:
            unit = mp.mpf(2) ** (mp.floor(mp.log(abs(value), 2)) + 1 - size)
            found.append(float(mp.nint(value / unit) * unit))
        else:
            found.append(float(value))
        value -= mp.mpf(found[-1])
    return tuple(found)


def pair(name: str, value: mp.mpf, single: int = 24, double: int = 53) -> list[str]:
    """Return the lines of a constant in two words of each dtype, the first with so many bits."""
    high, low = words(value, single, 0)
    return [
        f"{name}: Final[dict[DType, tuple[float, float]]] = {{",
        f"    float32: {(high, rounded(mp.mpf(low), True))},",
        f"    float64: {words(value, double, 0)},",
        "}",
    ]


def two_over_pi() -> int:
    """Return the first binary places of 2 / pi as a whole number."""
    with mp.workprec(TWO_OVER_PI_PLACES + 64):
        return int(mp.floor(2 / mp.pi * mp.mpf(2) ** TWO_OVER_PI_PLACES))


def constants() -> list[str]:
    """Return the lines that define the constants."""
    return [
        "# In two words, the first so short that its product with an exponent is exact.",
        *pair("LN_2", mp.log(2), 15, 41),
        *pair("LOG10_2", mp.log10(2), 15, 41),
        "# In two words.",
        *pair("LOG2_E", 1 / mp.log(2)),
        *pair("LOG10_E", 1 / mp.log(10)),
        *pair("HALF_PI", mp.pi / 2),
        f"TWO_LOG2_E: Final = {words(2 / mp.log(2), 53, 0)}",
        f"THIRD: Final = {words(mp.mpf(1) / 3, 53, 0)}",
        "# pi / 2 in words of 33 bits, and the rest.",
        "HALF_PI_WORDS: Final = (",
        *wrapped(list(map(repr, words(mp.pi / 2, 33, 33, 33, 0))), "    "),
        ")  # fmt: skip",
        "# The first binary places of 2 / pi, as a whole number.",
        f"TWO_OVER_PI_PLACES: Final = {TWO_OVER_PI_PLACES}",
        "TWO_OVER_PI: Final = int(",
        *(f'    "{digits}"' for digits in textwrap.wrap(f"{two_over_pi():x}", 80)),
        "    , 16)  # fmt: skip",
        "# K in the mapping (a − K) / (a + K) of erfc.",
        f"ERFC_SHORT_SCALE: Final = {ERFC_SHORT_SCALE}",
        f"ERFC_SCALE: Final = {ERFC_SCALE}",
    ]


def wrapped(items: Sequence[str], indent: str) -> list[str]:
    """Return the items, with a comma after each, in lines of up to 100 columns."""
    lines = [indent]
    for item in items:
        if len(lines[-1]) + len(item) + 1 > 100:
            lines.append(indent)
        lines[-1] += f"{item}, "
    return [line.rstrip() for line in lines]


def source() -> str:
    """Return the module of coefficients."""
    tables: dict[str, list[str]] = {}
    for fit in fits():
        values, error = solve(fit)
        kind = "float32" if fit.single else "float64"
        print(fit.name, kind, f"2^{error:.1f}", file=sys.stderr)
        rows = wrapped(list(map(repr, values)), " " * 8)
        tables.setdefault(fit.name, []).extend((f"    {kind}: (  # 2^{error:.1f}", *rows, "    ),"))
    lines = [HEADER, *constants(), "", "_Table = dict[DType, tuple[float, ...]]", ""]
    for name, rows in tables.items():
        lines += [f"{name}: Final[_Table] = {{", *rows, "}  # fmt: skip"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the module that is named on the command line; the errors are shown."""
    with mp.workdps(DIGITS):
        Path(sys.argv[1]).write_text(source(), encoding="utf-8")


if __name__ == "__main__":
    main()
