"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tracegraph.nn import Linear, ReLU, Sequential


def mlp(*sizes: int, activation: Callable[[], Any] = ReLU) -> Sequential:
    """Return linear maps from each size to the next, with an activation between them.

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"an mlp needs an input and an output size, got {sizes}")
    layers: list[Any] = []
    for size, following in pairwise(sizes):
        layers += [Linear(size, following), activation()]
    return Sequential(*layers[:-1])
