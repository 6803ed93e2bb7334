"""What stands between the brackets of `x[...]`: lists for tuples, bytes for masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.both_modules import T  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Keys are made by a function of the module; beside them, what they select of 0..11 in 3 rows.
LISTS = [
    (lambda T: [T.tensor([0, 2]), T.tensor([1, 3])], [1, 11]),
    (lambda T: [[0, 2], [1, 3]], [1, 11]),
    (lambda T: [(0, 2), (1, 3)], [1, 11]),
    (lambda T: ((0, 2), (1, 3)), [1, 11]),
    (lambda T: [np.array([0, 2]), 1], [1, 9]),
    (lambda T: [range(2), range(2)], [0, 5]),
    (lambda T: [T.tensor(0), T.tensor(1)], 1),
    (lambda T: [slice(0, 2), 1], [1, 5]),
    (lambda T: [..., 1], [1, 5, 9]),
    (lambda T: [T.tensor([2])], [[8, 9, 10, 11]]),
    (lambda T: [[2]], [[8, 9, 10, 11]]),
    (lambda T: [[True, False, True], [True, False, True, False]], [0, 10]),
    (lambda T: [2, 0], [[8, 9, 10, 11], [0, 1, 2, 3]]),
    (lambda T: [True, False, True], [[0, 1, 2, 3], [8, 9, 10, 11]]),
    (lambda T: [T.tensor(1)] * 32, [[4, 5, 6, 7]] * 32),
]
MASKS = [
    (lambda T: T.tensor([1, 0, 1], dtype=T.uint8), [[0, 1, 2, 3], [8, 9, 10, 11]]),
    (lambda T: np.array([0, 0, 3], dtype=np.uint8), [[8, 9, 10, 11]]),
    (lambda T: (slice(None), T.tensor([0, 0, 0, 1], dtype=T.uint8)), [[3], [7], [11]]),
    (lambda T: (T.arange(12).reshape(3, 4) > 9).byte(), [10, 11]),
    (lambda T: T.tensor(1, dtype=T.uint8), [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]),
]


@pytest.mark.parametrize(("key", "expected"), [*LISTS, *MASKS])
def test_keys_select_and_write(T: Any, key: Any, expected: Any) -> None:
    x = T.arange(12).reshape(3, 4)
    key = key(T)
    assert x[key].tolist() == expected
    x[key] = T.full_like(x[key], -1)
    written = {i for i, v in enumerate(x.flatten().tolist()) if v == -1}
    assert written == set(np.ravel(expected).tolist())


def test_gradients_pass_a_mask_of_bytes(T: Any) -> None:
    x = T.ones(3, requires_grad=True)
    (x[T.tensor([0, 1, 1], dtype=T.uint8)] * T.tensor([2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3]


@pytest.mark.parametrize("key", [1.5, {}, (slice(None), 1.5), iter([1])])
def test_what_is_no_index_is_refused(T: Any, key: Any) -> None:
    with pytest.raises(IndexError, match="only integers, slices"):
        T.ones(2, 2)[key]
    with pytest.raises(TypeError):
        T.ones(2)["a"]


def test_a_trace_keeps_a_mask_of_bytes_open() -> None:
    def f(x: Any, mask: Any) -> Any:
        x = x.clone()
        x[mask.byte()] = 0
        return x

    traced = tg.trace(f, (tg.ones(3), tg.tensor([1, 0, 0])))
    assert traced(tg.ones(3), tg.tensor([0, 1, 1])).tolist() == [1, 0, 0]
