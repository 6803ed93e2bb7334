"""Sizes given as one number or one number per dim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that gives a tuple: of a sequence its items, of a value `n` times it."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else (x,) * n

    parse.__name__ = name
    return parse


_single = _ntuple(1, "_single")
_pair = _ntuple(2, "_pair")
_triple = _ntuple(3, "_triple")
_quadruple = _ntuple(4, "_quadruple")


def _reverse_repeat_tuple(t: Iterable[Any], n: int) -> tuple[Any, ...]:
    """Return the items from last to first, each `n` times: paddings as `pad` wants them."""
    return tuple(chain.from_iterable((x,) * n for x in reversed(tuple(t))))
