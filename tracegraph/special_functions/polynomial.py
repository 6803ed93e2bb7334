"""Helpers of the special functions: polynomials, and bounds that keep NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """Evaluate a polynomial, lowest degree first, by Horner's rule (arrays: in one temporary)."""
    result = coefficients[-1] * x
    result += coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        result *= x
        result += coefficient
    return result


def at_most(m: Any, x: Any, limit: float) -> Any:
    """Return min(x, limit), and NaN for NaN."""
    return m.where(x > limit, limit, x)


def at_least(m: Any, x: Any, limit: float) -> Any:
    """Return max(x, limit), and NaN for NaN."""
    return m.where(x < limit, limit, x)
