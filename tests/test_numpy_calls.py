"""NumPy's functions and arrays beside Tensors: what comes back, and of which dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.both_modules import T  # noqa: F401
from tracegraph.errors import BakeError

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")


@pytest.mark.parametrize("name", ["sqrt", "exp", "log", "abs", "sin", "floor", "sign", "square"])
@pytest.mark.parametrize("given", [[[1.0, 4.0], [9.0, 16.0]], 4.0])
def test_functions_of_elements_return_tensors(T: Any, name: str, given: Any) -> None:
    found = getattr(np, name)(T.tensor(given))
    assert isinstance(found, T.Tensor) and found.dtype == T.float32
    np.testing.assert_array_equal(found.numpy(), getattr(np, name)(np.float32(given)))


def test_functions_of_two_operands(T: Any) -> None:
    t, a = T.tensor([1.0, 4.0]), np.array([2.0, 3.0])
    for found, expected, dtype in [
        (np.maximum(t, 2), [2, 4], T.float32),
        (np.add(a, t), [3, 7], T.float64),
        (np.power(t, 2), [1, 16], T.float32),
        (np.matmul(t, t), 17, T.float32),
        (np.isnan(t), [0, 0], T.uint8),
        (np.clip(t, 2, 3), [2, 3], T.float32),
        (np.round(t), [1, 4], T.float32),
        (np.argsort(-t), [1, 0], T.int64),
        (np.modf(t)[1], [1, 4], T.float32),
    ]:
        assert isinstance(found, T.Tensor) and found.dtype == dtype
        assert found.tolist() == expected


def test_operators_with_arrays_take_their_dtype(T: Any) -> None:
    t = T.tensor([1.0, 4.0])
    for dtype in (np.float64, np.float32):
        a = np.array([2.0, 2.0], dtype=dtype)
        for found, expected in [
            (t * a, [2, 8]), (t + a, [3, 6]), (t - a, [-1, 2]), (t / a, [0.5, 2]),
            (t @ a, 10),
        ]:  # fmt: skip
            assert isinstance(found, T.Tensor) and found.numpy().dtype == dtype
            assert found.tolist() == expected
    np.add(a, t, out=a)
    assert isinstance(a, np.ndarray) and a.tolist() == [3, 6]


def test_scalars_of_numpy_are_numbers(T: Any) -> None:
    t, n = T.tensor([1.0, 4.0]), T.tensor([1, 2])
    two = np.float64(2)
    for found, expected, dtype in [
        (two * t, [2, 8], T.float32),
        (t * two, [2, 8], T.float32),
        (two - t, [1, -2], T.float32),
        (two**t, [2, 16], T.float32),
        (two + n, [3, 4], T.float32),
        (np.int64(2) * n, [2, 4], T.int64),
        (two < t, [False, True], T.bool),
        (two >= t, [True, False], T.bool),
        (T.full((2,), two), [2, 2], T.float32),
        (T.full((2,), np.int64(2)), [2, 2], T.int64),
    ]:
        assert found.tolist() == expected and found.dtype == dtype


def test_numpy_cannot_follow_gradients(T: Any) -> None:
    with pytest.raises(RuntimeError, match="requires grad"):
        np.sqrt(T.ones(2, requires_grad=True))
    with pytest.raises(RuntimeError, match="requires grad"):
        T.ones(2, requires_grad=True) * np.ones(2)
    x = T.ones(2, requires_grad=True)
    (np.float64(3) * x).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_a_trace_refuses_what_numpy_would_freeze() -> None:
    with pytest.raises(BakeError):
        tg.trace(lambda x: x + np.sqrt(x * 2), (tg.ones(2),))
    with pytest.raises(BakeError):
        tg.trace(lambda x: (x * 2) * np.ones(2), (tg.ones(2),))
    traced = tg.trace(lambda x: np.float32(2) * x, (tg.ones(2),))
    assert traced(tg.full((2,), 3.0)).tolist() == [6, 6]
