"""Products of matrices: their bits do not depend on how operands lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph as tg

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "one number": lambda x: x[:1, :1].expand(6, 8),
    "one row": lambda x: x[:1].expand(6, 8),
    "one column": lambda x: x[:, :1].expand(6, 8),
    "every other column": lambda x: tg.cat([x, x], dim=1)[:, ::2],
    "every other row": lambda x: tg.cat([x, x])[::2],
    "a part": lambda x: tg.cat([x, x], dim=1)[:, 3:11],
    "repeated matrices": lambda x: x.expand(3, 6, 8),
    "matrices of one number": lambda x: x[0, 0].expand(3, 6, 8),
}


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.float16, tg.int64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_do_not_depend_on_the_layout(layout: str, dtype: Any) -> None:
    tg.manual_seed(1)
    x = LAYOUTS[layout]((tg.rand(6, 8, dtype=tg.float64) * 10).to(dtype))
    weight, other = ((tg.rand(*s, dtype=tg.float64) * 10).to(dtype) for s in ((5, 8), (8, 7)))
    plain = tg.tensor(x.numpy().copy())
    assert plain.is_contiguous()
    assert np.array_equal(
        tg.nn.functional.linear(x, weight), tg.nn.functional.linear(plain, weight)
    )
    assert np.array_equal(x @ other, plain @ other)
    assert np.array_equal(weight @ x.mT, weight @ plain.mT)
    if x.ndim == 2:
        assert np.array_equal(
            tg.nn.functional.linear(weight, x), tg.nn.functional.linear(weight, plain)
        )


def test_an_expanded_constant_keeps_every_bit() -> None:
    """What fills State is known to the passes: a product of it reads one number, expanded."""
    held = tg.zeros(2, 3, dtype=tg.float64)

    def step(weight: Any) -> Any:
        held.copy_(tg.full((), 3, dtype=tg.float64))
        return tg.nn.functional.linear(held.amax(dim=0, keepdim=True), weight)

    tg.manual_seed(3)
    weights = [tg.rand(2, 3, dtype=tg.float64) for _ in range(50)]
    program = tg.trace(step, (weights[0],)).program(runtime="interpreter", level=1)
    for weight in weights:
        assert np.array_equal(program(weight), step(weight))
