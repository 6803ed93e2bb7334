"""Matrix products as plans get them: any strides, epilogues, extents that vary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from tests.native_contraction import array_of, product_run, run_steps
from tests.native_levels import LEVEL_TARGETS
from tracegraph.dtypes import float32
from tracegraph.runtime.cpu.code.llvm import host_target
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.products.launches import Array, Buffer, Epilogue
from tracegraph.runtime.cpu.products.matrix import matrix_product


def drawn(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def swapped(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(-1, -2)


def in_columns(x: np.ndarray) -> np.ndarray:
    """Return the same values, each matrix stored column after column."""
    return swapped(np.ascontiguousarray(swapped(x)))


def close(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    exact = a.astype(np.float64) @ b.astype(np.float64)
    tolerance = 8 * (a.shape[-1] + 2) ** 0.5 * np.finfo(got.dtype).eps
    assert got.shape == exact.shape
    np.testing.assert_allclose(got, exact, rtol=tolerance, atol=4 * tolerance)


STORED = {"rows": np.ascontiguousarray, "columns": in_columns, "part": lambda x: _part(x)}


def _part(x: np.ndarray) -> np.ndarray:
    """Return the same values inside of a wider array."""
    wide = np.full((*x.shape[:-2], x.shape[-2] + 1, x.shape[-1] + 3), np.nan, x.dtype)
    wide[..., 1:, 2:-1] = x
    return wide[..., 1:, 2:-1]


extents = st.integers(0, 40) | st.sampled_from([64, 150, 385, 770])
batches = st.sampled_from(
    [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((2, 3), (2, 3)),
     ((0,), ()), ((1,), (1,)), ((4, 1), ())]
)  # fmt: skip


@given(
    m=extents, n=extents, k=extents, batch=batches, a_stored=st.sampled_from([*STORED]),
    b_stored=st.sampled_from([*STORED]), to_columns=st.booleans(), ahead=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(max_examples=200)
def test_any_product(
    m: int, n: int, k: int, batch: tuple[tuple[int, ...], tuple[int, ...]], a_stored: str,
    b_stored: str, to_columns: bool, ahead: bool, dtype: type,
) -> None:  # fmt: skip
    a = STORED[a_stored](drawn(*batch[0], m, k, dtype=dtype))
    b = STORED[b_stored](drawn(*batch[1], k, n, dtype=dtype, seed=1))
    result = np.zeros((*np.broadcast_shapes(*batch), m, n), dtype)
    result = in_columns(result) if to_columns else result
    close(product_run(a, b, results=[result], ahead=ahead)(), a, b)


@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_every_target(level: str) -> None:
    a, b = drawn(2, 150, 70), drawn(70, 41, seed=1)
    for ahead in (False, True):
        for stored in STORED.values():
            run = product_run(a, stored(b), target=LEVEL_TARGETS[level], ahead=ahead)
            close(run(), a, b)


ALL = Epilogue("all", lambda m, t, c, r, p, k, s: m.where(k, t, 0) * s + c + r + p)


@pytest.mark.parametrize("shape", [(33, 47, 500), (200, 1, 30), (1, 30, 7), (150, 40, 400)])
@pytest.mark.parametrize("to_columns", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_epilogues(shape: tuple[int, int, int], to_columns: bool, ahead: bool) -> None:
    m, n, k = shape
    a, b = drawn(2, m, k), drawn(k, n, seed=1)
    place = drawn(2, m, n, seed=4)
    operands = [
        drawn(n, seed=2), drawn(2, m, 1, seed=3), in_columns(place) if to_columns else place,
        drawn(m, n, seed=5) > 0, np.array(0.5, np.float32),
    ]  # fmt: skip
    if to_columns:
        operands[3] = in_columns(operands[3])
    result = np.zeros((2, m, n), np.float32)
    result = in_columns(result) if to_columns else result
    how = {"results": [result], "ahead": ahead}
    plain = product_run(a, b, **how)().copy()
    got = product_run(a, b, operands, ALL, **how)()
    column, row, place, keep, scale = operands
    want = np.where(keep, plain, 0) * scale + column + row + place
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_results_of_other_dtypes() -> None:
    for k in (30, 800):
        a, b = drawn(20, k), drawn(k, 21, seed=1)
        results = [np.zeros((20, 21), bool), np.zeros((20, 21), np.float16)]
        product_run(a, b, [], Epilogue("two", lambda m, t: (t > 0, t)), results=results)()
        plain = product_run(a, b)()
        assert np.array_equal(results[0], plain > 0)
        assert np.array_equal(results[1], plain.astype(np.float16))


def test_a_result_may_lie_in_an_operand_where_it_says_so() -> None:
    add = Epilogue("add", lambda m, t, x: t + x)
    for k in (100, 1000):
        a, b, x = drawn(40, k), drawn(k, 33, seed=1), drawn(40, 33, seed=2)
        views = array_of(a), array_of(b), [array_of(x)], [array_of(x)]
        made = matrix_product(*views, add, target=host_target())
        steps = made.steps(*views)
        assert steps.may_alias == (k == 100)
        if steps.may_alias:
            want = product_run(a, b)() + x
            run_steps(made.kernels, steps, (a, b, x), [x], host_target())()
            assert np.array_equal(x, want)


# Extents that vary: the kernels stay.


def test_kernels_serve_every_extent() -> None:
    target = host_target()
    add = Epilogue("add", lambda m, t, c: t + c)
    weight, bias = drawn(50, 40, seed=1), drawn(40, seed=2)
    sizes = [(4, 6), (1, 1), (1, 9), (7, 1), (0, 5), (30, 20)]
    for fold in (False, True):
        first = drawn(4, 6, 50)
        views = array_of(first), array_of(weight), [array_of(first @ weight)], [array_of(bias)]
        made = matrix_product(
            *views, add, target=target, ahead=True, varies=True, fold=fold
        )  # fmt: skip
        for lead in sizes:
            # Strides as they are written down, whatever the extents.
            a, result = drawn(*lead, 50), np.zeros((*lead, 40), np.float32)
            views = (
                Array(a.shape, (lead[1] * 50, 50, 1), float32), array_of(weight),
                [Array(result.shape, (lead[1] * 40, 40, 1), float32)], [array_of(bias)],
            )  # fmt: skip
            steps = made.steps(*views)
            run_steps(made.kernels, steps, (a, weight, bias), [result], target)()
            close(result - bias, a, weight)


def test_scores_of_any_length() -> None:
    """q · kᵀ of heads that lie side by side: [batch, length, heads, 16] seen as [b, h, l, 16]."""
    target, heads = host_target(), 3

    def seen(batch: int, length: int) -> tuple[Array, Array, Array]:
        far, wide = length * heads * 16, heads * 16
        q = Array((batch, heads, length, 16), (far, 16, wide, 1), float32)
        k = Array((batch, heads, 16, length), (far, 16, 1, wide), float32)
        square = length * length
        scores = Array(
            (batch, heads, length, length), (heads * square, square, length, 1), float32
        )  # fmt: skip
        return q, k, scores

    q, k, scores = seen(2, 5)
    made = matrix_product(q, k, [scores], target=target, varies=True)
    for batch, length in ((2, 5), (1, 1), (2, 1), (1, 40), (3, 500)):
        q, k, scores = seen(batch, length)
        x, y = drawn(batch, length, heads, 16), drawn(batch, length, heads, 16, seed=1)
        got = np.zeros((batch, heads, length, length), np.float32)
        run_steps(made.kernels, made.steps(q, k, [scores]), (x, y), [got], target)()
        x, y = (v.transpose(0, 2, 1, 3) for v in (x, y))
        close(got, x, swapped(y))


# What is chosen.


def steps_of(a: np.ndarray, b: np.ndarray, **how: object):
    result = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))
    views = array_of(a), array_of(b), [array_of(result.astype(a.dtype))]
    made = matrix_product(*views, target=host_target(), **how)
    return made, made.steps(*views)


def test_leading_dims_become_rows() -> None:
    _, steps = steps_of(drawn(8, 16, 32), drawn(32, 24), ahead=True)
    (launch,) = steps.launches
    assert launch.arguments["m"] == 128
    assert "extent0" not in launch.arguments
    assert launch.arguments["a"] == Buffer("operand", 0)
    assert launch.arguments["b"] == Buffer("packed", 0)
    (packing,) = steps.ahead
    assert packing.arguments["source"] == Buffer("operand", 1)


def test_heads_become_one_batch_dim() -> None:
    made, steps = steps_of(drawn(2, 6, 16, 32), drawn(2, 6, 32, 16))
    assert made.spec.batch == 1
    assert steps.launches[-1].arguments["extent0"] == 12


def test_names_tell_kernels_apart() -> None:
    a, b = drawn(4, 5), drawn(5, 6)
    names = set()
    for key in ("x", "y"):
        result = array_of(a @ b)
        made = matrix_product(
            array_of(a), array_of(b), [result], (), Epilogue(key, lambda m, t: t),
            target=host_target(),
        )  # fmt: skip
        names.add(made.kernels[0].name)
    assert len(names) == 2


@pytest.mark.parametrize("fault", ["dtype", "strides", "result"])
def test_what_has_no_native_form(fault: str) -> None:
    a, b, c = drawn(8, 8), drawn(8, 8), drawn(8, 8)
    if fault == "dtype":
        a, b = a.astype(np.int32), b.astype(np.int32)
    elif fault == "strides":
        a = drawn(16, 16)[::2, ::2]
    else:
        c = drawn(16, 16)[::2, ::2]
    with pytest.raises(UnsupportedError):
        matrix_product(array_of(a), array_of(b), [array_of(c)], target=host_target())
