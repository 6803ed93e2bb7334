"""Losses whose value or gradient cannot be had from other rows without overflow."""

from __future__ import annotations

from typing import Any

from tracegraph.dtypes import FLOATS
from tracegraph.ops.core import Case, Spec, define, elementwise_type


def _limited(m: Any, x: Any) -> Any:
    """A logarithm of at least −100, so that certain mistakes cost much but not infinity."""
    return m.maximum(x, -100.0)


def _cross_entropy(m: Any, x: Any, target: Any) -> Any:
    return (target - 1) * _limited(m, m.log1p(-x)) - target * _limited(m, m.log(x))


def _target_vjp(m: Any, g: Any, x: Any) -> Any:
    low = m.full(shape=(), value=-100, dtype=g.dtype)
    return g * (m.maximum(m.log1p(-x), low) - m.maximum(m.log(x), low))


def _input_vjp(m: Any, g: Any, x: Any, target: Any) -> Any:
    smallest = m.full(shape=(), value=1e-12, dtype=g.dtype)
    return g * ((x - target) / m.maximum((1 - x) * x, smallest))


binary_cross_entropy = define(
    "binary_cross_entropy(x, target) -> y", type=elementwise_type(FLOATS),
    scalar=_cross_entropy, vjp=(_input_vjp, _target_vjp),
    sample=(Case((Spec((3, 4), 0.1, 0.9), Spec((3, 4), 0, 1)), {}),
            Case((Spec((), 0.1, 0.9), Spec((), 0, 1)), {}),
            Case((Spec((0, 2), 0.1, 0.9), Spec((0, 2), 0, 1)), {})),
    doc="−target·log(x) − (1 − target)·log(1 − x), each logarithm at least −100.",
)  # fmt: skip
