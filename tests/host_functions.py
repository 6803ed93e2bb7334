"""Python that graphs of tests call by import path."""

from __future__ import annotations

from typing import Any

import numpy as np

CALLS: list[str] = []


def median_filter(x: Any) -> Any:
    """The median of each element and its neighbours."""
    CALLS.append("median_filter")
    padded = np.pad(x, 1, mode="edge")
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0).astype(x.dtype)


def scaled(x: Any, scale: Any) -> Any:
    """x times scale, and how many elements are positive."""
    CALLS.append("scaled")
    return x * scale, np.asarray((x > 0).sum())


def scaled_vjp(x: Any, scale: Any, gradient: Any) -> Any:
    """The gradients of `scaled`."""
    return gradient * scale, np.asarray((gradient * x).sum(), x.dtype)


def log(x: Any) -> Any:
    """Count a call; what it gives is not used."""
    CALLS.append("log")
    return x


def other_type(x: Any) -> Any:
    """A result of another type than promised."""
    return x.astype(np.float64)


def other_count(x: Any) -> Any:
    """More results than promised."""
    return x, x


def writes(x: Any) -> Any:
    """An attempt to change what it was given."""
    x[0] = 5
    return x


def same(x: Any) -> Any:
    """What it was given, itself."""
    return x


class Holder:
    """A place for a function below a class."""

    @staticmethod
    def double(x: Any) -> Any:
        """x + x."""
        return x + x
