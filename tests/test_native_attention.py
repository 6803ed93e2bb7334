"""Attention as one native kernel: against the interpreter, PyTorch, and itself on more threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph
from tracegraph.dtypes import DType, float32, float64
from tracegraph.ir.graph import Graph
from tracegraph.passes.pipeline import run_passes
from tracegraph.runtime.cpu.lowering.fused import is_native
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

pytestmark = pytest.mark.usefixtures("kept_threads")

F = tracegraph.nn.functional
INF = float("inf")
# batch, rows, keys, elements of a key, columns of v
SIZES = (
    ((), 16, 64, 1, 1),
    ((2, 3), 37, 53, 8, 8),
    ((1, 2), 150, 300, 64, 33),
    ((2, 2), 17, 129, 5, 7),
    ((3,), 33, 40, 33, 70),
    ((0, 2), 32, 32, 4, 4),
)


def program(function: Callable[..., Any], arrays: list[Any]) -> Any:
    """Return the native program of a function of arrays."""
    given = tuple(tracegraph.from_numpy(a) for a in arrays)
    return tracegraph.trace(function, given, check=False).program(runtime="native", level=2)


def fused(function: Callable[..., Any], arrays: list[Any]) -> Any:
    """Return what a function gives as a program that is one attention."""
    made = program(function, arrays)
    assert " attention " in made._program.explain()
    return made(*map(tracegraph.from_numpy, arrays)).numpy()


def tensors(rows: int, keys: int, depth: int = 8, width: int = 8, batch: Any = (2,)) -> list[Any]:
    """Return q, k and v."""
    rng = np.random.default_rng(1)
    shapes = ((rows, depth), (keys, depth), (keys, width))
    return [rng.standard_normal((*batch, *s)).astype(np.float32) for s in shapes]


def attention(q: Any, k: Any, v: Any, *mask: Any) -> Any:
    """Return softmax(q · kᵀ / √d) · v, without the scores of some places if there is a mask."""
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]))
    for hidden in mask:
        scores = scores.masked_fill(hidden, -INF)
    return scores.softmax(-1) @ v


def expected(q: Any, k: Any, v: Any, hidden: Any = False) -> Any:
    """Return the same with NumPy."""
    with np.errstate(all="ignore"):
        scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        scores = np.where(hidden, -INF, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("near", ["key", "element"])
def test_all_sizes_and_orders(sizes: Any, dtype: DType, near: str) -> None:
    batch, rows, keys, depth, width = sizes
    graph, rng = Graph("attention"), np.random.default_rng(2)
    turned = (*range(len(batch)), len(batch) + 1, len(batch))

    def given(name: str, shape: tuple[int, ...]) -> Any:
        return graph.add_input(name, TensorType(dtype, (*batch, *shape))).out

    q, v = given("q", (rows, depth)), given("v", (keys, width))
    if near == "key":
        k = graph.add("permute", (given("k", (keys, depth)),), {"dims": turned}).out
    else:
        k = given("k", (depth, keys))
    mask = graph.add_input("mask", TensorType(dtype, (rows, keys))).out
    dims = {"dim": (len(batch) + 1,), "keepdim": True}
    scores = graph.add("add", (graph.add("matmul", (q, k)).out, mask)).out
    greatest = graph.add("amax", (scores,), dims).out
    weights = graph.add("exp", (graph.add("sub", (scores, greatest)).out,)).out
    total = graph.add("sum", (weights,), dims).out
    softmax = graph.add("div", (weights, total)).out
    graph.outputs.append(graph.add("matmul", (softmax, v)).out)
    arrays = [rng.standard_normal(n.out.type.shape).astype(dtype.np) for n in graph.inputs]
    (wanted,), _ = InterpreterProgram(graph).run(arrays, {})
    run_passes(graph, 2, accept=is_native)
    made = NativeProgram(graph)
    assert (" attention " in made.explain()) == (0 not in batch)
    (got,), _ = made.run(arrays, {})
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    tolerance = 1e-5 if dtype is float32 else 1e-13
    np.testing.assert_allclose(got, wanted, tolerance, tolerance)


@pytest.mark.parametrize("shape", [(20, 300), (1, 300), (20, 1), (2, 20, 300)], ids=str)
def test_masks_of_all_extents(shape: tuple[int, ...]) -> None:
    given = [*tensors(20, 300), np.random.default_rng(4).random(shape) < 0.6]
    np.testing.assert_allclose(fused(attention, given), expected(*given), 1e-5, 1e-6)


def test_rows_without_keys_are_nan_and_late_keys_count() -> None:
    hidden = np.zeros((20, 300), bool)
    hidden[3] = True
    hidden[5, :290] = True
    given = [*tensors(20, 300), hidden]
    got = fused(attention, given)
    assert np.isnan(got[:, 3]).all()
    assert np.isfinite(np.delete(got, 3, 1)).all()
    np.testing.assert_allclose(got, expected(*given), 1e-5, 1e-6)


@pytest.mark.parametrize("value", [INF, -INF, math.nan, 1e38])
def test_rows_of_odd_numbers(value: float) -> None:
    q, k, v = tensors(20, 300)
    q[0, 4, 2] = value
    got, wanted = fused(attention, [q, k, v]), expected(q, k, v)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_allclose(np.delete(got, 4, 1), np.delete(wanted, 4, 1), 1e-5, 1e-6)


def test_growing_scores_do_not_overflow() -> None:
    q, k, v = tensors(16, 700)
    k *= np.linspace(0, 400, 700, dtype=np.float32)[:, None]
    wanted = expected(*(x.astype(np.float64) for x in (q, k, v)))
    np.testing.assert_allclose(fused(attention, [q, k, v]), wanted, 1e-3, 1e-3)


def test_results_do_not_depend_on_threads() -> None:
    given = [*tensors(333, 257, 32, 48, (3,)), np.tril(np.ones((333, 257), bool), -1)]
    tracegraph.set_num_threads(1)
    wanted = fused(attention, given)
    tracegraph.set_num_threads(2)
    for _ in range(5):
        np.testing.assert_array_equal(fused(attention, given), wanted)


def test_scores_and_weights_that_others_read_are_there() -> None:
    given = tensors(20, 100)

    def both(q: Any, k: Any, v: Any) -> Any:
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        return weights @ v, weights

    made = program(both, given)
    assert " attention " not in made._program.explain()
    y, weights = (t.numpy() for t in made(*map(tracegraph.from_numpy, given)))
    np.testing.assert_allclose(weights.sum(-1), 1, 1e-5)
    np.testing.assert_allclose(y, weights @ given[2], 1e-5, 1e-6)


def test_small_ones_stay_three_launches() -> None:
    assert " attention " not in program(attention, tensors(15, 300))._program.explain()
    assert " attention " not in program(attention, tensors(16, 16))._program.explain()


def test_heads_are_read_and_written_where_they_lie() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 40, 3 * 24)).astype(np.float32)

    def heads(x: Any) -> Any:
        q, k, v = (t.view(2, 40, 4, 6).transpose(1, 2) for t in x.split(24, dim=2))
        return attention(q, k, v).transpose(1, 2).reshape(2, 40, 24)

    made = program(heads, [x])
    q, k, v = (np.swapaxes(p.reshape(2, 40, 4, 6), 1, 2) for p in np.split(x, 3, 2))
    wanted = np.swapaxes(expected(q, k, v), 1, 2).reshape(2, 40, 24)
    np.testing.assert_allclose(made(tracegraph.from_numpy(x)).numpy(), wanted, 1e-5, 1e-6)
    assert made._program.explain().startswith("1 steps")


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["plain", "causal", "added", "hidden", "hidden rows"])
def test_scaled_dot_product_attention_is_that_of_pytorch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    given = tensors(40, 150, 16, 16, (2, 3))
    options = {"is_causal": True} if kind == "causal" else {}
    if kind == "added":
        given.append(rng.standard_normal((40, 150)).astype(np.float32))
    elif "hidden" in kind:
        given.append(rng.random((2, 1, 40, 150)) < (0.5 if kind == "hidden" else 0.01))

    def step(q: Any, k: Any, v: Any, *mask: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, *mask, **options)

    wanted = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, given), **options
    )
    np.testing.assert_allclose(fused(step, given), wanted.numpy(), 1e-5, 1e-6)


def test_a_mask_that_lies_in_columns_leaves_three_launches() -> None:
    given = [*tensors(20, 300), np.random.default_rng(4).random((300, 20)) < 0.6]

    def turned(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return attention(q, k, v, mask.t())

    made = program(turned, given)
    assert " attention " not in made._program.explain()
    got = made(*map(tracegraph.from_numpy, given)).numpy()
    np.testing.assert_allclose(got, expected(*given[:3], given[3].T), 1e-5, 1e-6)


@pytest.mark.parametrize("rows,keys", [(128, 128), (150, 300), (300, 150), (16, 640)])
def test_hidden_panels_are_passed_over(rows: int, keys: int) -> None:
    places = np.arange(rows)[:, None] - np.arange(keys)
    for hidden in (places < 0, places > 20, (places < -40) | (places > 5), places != places):
        given = [*tensors(rows, keys, 16, 40), hidden]
        np.testing.assert_allclose(fused(attention, given), expected(*given), 1e-5, 1e-6)


@pytest.mark.parametrize("value", [INF, math.nan])
def test_odd_numbers_of_hidden_keys_are_seen(value: float) -> None:
    q, k, v = tensors(40, 300, 16, 40)
    v[0, 270, 3] = value
    k[1, 280] = value
    hidden = np.zeros((40, 300), bool)
    hidden[:, 200:] = True
    got, wanted = fused(attention, [q, k, v, hidden]), expected(q, k, v, hidden)
    assert np.isnan(wanted[0, :, 3]).all()
    np.testing.assert_allclose(got, wanted, 1e-5, 1e-6)
