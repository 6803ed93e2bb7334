"""Where a writer's decisions come from: hypothesis (which shrinks them) or a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """Decisions over `integer(low, high)`, which includes both ends; simple answers are low."""

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.integer = integer

    def pick(self, items: Sequence[T]) -> T:
        """One of the items; the first is the simplest."""
        return items[self.integer(0, len(items) - 1)]

    def chance(self, percent: int) -> bool:
        """Whether something that happens so often happens now."""
        return self.integer(0, 99) >= 100 - percent

    def weighted(self, items: Sequence[tuple[int, T]]) -> T:
        """One of the items (weight, item)."""
        place = self.integer(0, sum(weight for weight, _ in items) - 1)
        for weight, item in items:
            place -= weight
            if place < 0:
                return item
        raise AssertionError("unreachable")


def seeded(seed: int) -> Choices:
    """Choices of a seed."""
    generator = random.Random(seed)
    return Choices(generator.randint)


def drawn(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Choices:
    """Choices of hypothesis."""
    return Choices(lambda low, high: low if low == high else draw(st.integers(low, high)))
