"""Derive the fitted coefficients of `tracegraph.special_functions`, and print their errors.

Run with ``python tests/tools/fit_special.py`` (needs mpmath, takes seconds).  Method:
interpolation by a polynomial, or a quotient of two, at Chebyshev nodes, solved with 60 digits.
It is within a small factor of the best approximation of its degree, and the degrees are chosen so
that the error is below the rounding of float64 (near that of float32 for names with SINGLE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import mpmath as mp

DIGITS = 60
BESSEL_SPLIT = 10  # where the Bessel functions change from one polynomial to the other


class Fit(NamedTuple):
    """What is fitted: `function` on [low, high], by a quotient of two polynomials."""

    function: Callable[[mp.mpf], mp.mpf]
    low: float
    high: float
    numerator_degree: int
    denominator_degree: int


def digamma_root() -> mp.mpf:
    """Return the zero of digamma on the positive axis, 1.4616..."""
    return mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))


def digamma_root_parts() -> tuple[float, float, float]:
    """Split (root - 1) in three, the first two short enough to be exact in float32."""
    rest = digamma_root() - 1
    first = mp.nint(rest * 2**16) / 2**16
    second = mp.nint((rest - first) * 2**40) / 2**40
    return float(first), float(second), float(rest - first - second)


def _digamma_quotient(x: mp.mpf) -> mp.mpf:
    """digamma(1 + x) / (1 + x - root), which has no zero."""
    return mp.digamma(1 + x) / (1 + x - digamma_root())


def _lgamma_quotient(x: mp.mpf) -> mp.mpf:
    """log Gamma(2 + x) / x, which has no zero on [-1/2, 1/2]."""
    return mp.loggamma(2 + x) / x


def _bessel_near(order: int) -> Callable[[mp.mpf], mp.mpf]:
    """I_order(x) / (x / 2)**order as a function of (x / 16)**2."""

    def function(scaled: mp.mpf) -> mp.mpf:
        x = 16 * mp.sqrt(scaled)
        return mp.besseli(order, x) / (x / 2) ** order

    return function


def _bessel_far(order: int) -> Callable[[mp.mpf], mp.mpf]:
    """sqrt(x) exp(-x) I_order(x) as a function of BESSEL_SPLIT / x - 1/2."""

    def function(shifted: mp.mpf) -> mp.mpf:
        x = BESSEL_SPLIT / (shifted + mp.mpf(1) / 2)
        return mp.sqrt(x) * mp.exp(-x) * mp.besseli(order, x)

    return function


def _erf_angle(square: mp.mpf) -> mp.mpf:
    """atanh(erf(x)) / x as a function of x**2: smooth, and tanh of it is never above 1."""
    x = mp.sqrt(square)
    return mp.atanh(mp.erf(x)) / x


FITS = {
    "ERF_SINGLE": Fit(_erf_angle, 0, 2.5**2, 3, 3),
    "DIGAMMA": Fit(_digamma_quotient, 0, 1, 6, 5),
    "LGAMMA": Fit(_lgamma_quotient, -0.5, 0.5, 17, 0),
    "I0_NEAR": Fit(_bessel_near(0), 0, (BESSEL_SPLIT / 16) ** 2, 17, 0),
    "I0_FAR": Fit(_bessel_far(0), -0.5, 0.5, 20, 0),
    "I1_NEAR": Fit(_bessel_near(1), 0, (BESSEL_SPLIT / 16) ** 2, 17, 0),
    "I1_FAR": Fit(_bessel_far(1), -0.5, 0.5, 20, 0),
}


def chebyshev_nodes(fit: Fit, count: int) -> Iterator[mp.mpf]:
    """Yield the zeros of the Chebyshev polynomial of degree `count` on the interval of the fit."""
    centre, half_width = mp.mpf(fit.low + fit.high) / 2, mp.mpf(fit.high - fit.low) / 2
    for index in range(count):
        yield centre + half_width * mp.cos(mp.pi * (2 * index + 1) / (2 * count))


def solve(fit: Fit) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """Return numerator and denominator, lowest degree first, the denominator starting with 1."""
    unknowns = fit.numerator_degree + 1 + fit.denominator_degree
    matrix, right = mp.matrix(unknowns, unknowns), mp.matrix(unknowns, 1)
    for row, x in enumerate(chebyshev_nodes(fit, unknowns)):
        value = fit.function(x)
        powers = [x**power for power in range(fit.numerator_degree + 1)]
        powers += [-value * x**power for power in range(1, fit.denominator_degree + 1)]
        for column, entry in enumerate(powers):
            matrix[row, column] = entry
        right[row] = value
    solution = list(mp.lu_solve(matrix, right))
    return (
        solution[: fit.numerator_degree + 1],
        [mp.mpf(1), *solution[fit.numerator_degree + 1 :]],
    )


def relative_error(fit: Fit, numerator: list[mp.mpf], denominator: list[mp.mpf]) -> float:
    """Return the largest relative error of the quotient on 400 points of the interval."""
    worst = mp.mpf(0)
    for x in chebyshev_nodes(fit, 400):
        quotient = mp.polyval(numerator[::-1], x) / mp.polyval(denominator[::-1], x)
        worst = max(worst, abs(quotient / fit.function(x) - 1))
    return float(worst)


def tables() -> dict[str, tuple[float, ...]]:
    """Return every fitted table by its name in `special_functions`, rounded to float64."""
    with mp.workdps(DIGITS):
        found: dict[str, tuple[float, ...]] = {"DIGAMMA_ROOT": digamma_root_parts()}
        for name, fit in FITS.items():
            numerator, denominator = solve(fit)
            top = f"{name}_NUMERATOR" if fit.denominator_degree else name
            found[top] = tuple(float(value) for value in numerator)
            if fit.denominator_degree:
                found[f"{name}_DENOMINATOR"] = tuple(float(value) for value in denominator)
    return found


def main() -> None:
    """Print the tables as Python source, and the errors as comments."""
    with mp.workdps(DIGITS):
        for name, fit in FITS.items():
            print(f"# {name}: relative error {relative_error(fit, *solve(fit)):.1e}")
    for name, values in tables().items():
        print(f"{name} = (")
        for start in range(0, len(values), 4):
            print("    " + " ".join(f"{value!r}," for value in values[start : start + 4]))
        print(")  # fmt: skip")


if __name__ == "__main__":
    main()
