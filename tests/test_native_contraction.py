"""Native contraction kernels against products in float64, within bounds that grow with k."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from tests.native_contraction import ALONE, matmul, spec_of
from tests.native_levels import LEVEL_TARGETS
from tracegraph.dtypes import bool_, float32, float64
from tracegraph.runtime.cpu.code.llvm import compile_assembly, host_target, level_target
from tracegraph.runtime.cpu.driver.pool import Pool
from tracegraph.runtime.cpu.products.contraction import Extents
from tracegraph.runtime.cpu.products.contraction_code import contraction_text
from tracegraph.runtime.cpu.products.contraction_cut import schedule
from tracegraph.runtime.cpu.products.contraction_epilogue import Operand, Output
from tracegraph.runtime.cpu.products.contraction_tiles import tile_for
from tracegraph.runtime.cpu.products.launches import Epilogue

LAYOUTS = list(itertools.product(("rows", "columns"), ("panels", "rows", "columns")))
SHORT = [("rows", "panels"), ("columns", "columns"), ("rows", "rows")]


def drawn(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_product(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Each sum of k products is within k + 2 roundings of its magnitude."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    bound = (a.shape[-1] + 2) * np.finfo(a.dtype).eps * size
    assert got.shape == exact.shape
    if a.dtype == np.float64:
        bound = 2 * bound  # the reference rounds too
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("layouts", LAYOUTS)
@pytest.mark.parametrize("shape", [
    (1, 1, 1), (14, 32, 5), (15, 33, 383), (64, 100, 784), (29, 70, 1025), (3, 10, 0), (0, 4, 3),
    (4, 0, 3), (130, 65, 64),
])  # fmt: skip
def test_shapes_and_layouts(shape: tuple[int, int, int], layouts: tuple[str, str]) -> None:
    m, n, k = shape
    a, b = drawn(m, k), drawn(k, n, seed=1)
    assert_product(matmul(a, b, layouts)(), a, b)


@pytest.mark.parametrize("layouts", SHORT)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_every_remainder_on_every_target(level: str, dtype: type, layouts: tuple[str, str]) -> None:
    target = LEVEL_TARGETS[level]
    for known in (True, False):
        tile = tile_for(target, float32 if dtype is np.float32 else float64, None)
        for m in range(1, tile.heights[0] + 3):
            n = (m * 7) % (2 * tile.columns + 3) + 1
            a, b = drawn(m, 37, dtype=dtype), drawn(37, n, dtype=dtype, seed=1)
            got = matmul(a, b, layouts, target=target, known_columns=known)()
            assert_product(got, a, b)
        for n in range(1, tile.columns + 2):
            a, b = drawn(5, 9, dtype=dtype), drawn(9, n, dtype=dtype, seed=1)
            got = matmul(a, b, layouts, target=target, known_columns=known)()
            assert_product(got, a, b)


extents = st.integers(0, 40) | st.sampled_from([64, 100, 385, 770])


@given(
    m=extents, n=extents, k=extents, layouts=st.sampled_from(LAYOUTS),
    batch=st.sampled_from([(), (3,), (2, 1), (0,), (2, 3)]), shared=st.sampled_from("ab-"),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(max_examples=150)
def test_any_extents(
    m: int,
    n: int,
    k: int,
    layouts: tuple[str, str],
    batch: tuple[int, ...],
    shared: str,
    dtype: type,
) -> None:
    a = drawn(*(() if shared == "a" else batch), m, k, dtype=dtype)
    b = drawn(*(() if shared == "b" else batch), k, n, dtype=dtype, seed=1)
    assert_product(matmul(a, b, layouts)(), a, b)


@pytest.mark.parametrize("layouts", SHORT)
@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_panels_that_are_done_at_once(level: str, layouts: tuple[str, str]) -> None:
    """Few rows and several panels, a group that is not whole, several blocks of k."""
    target = LEVEL_TARGETS[level]
    columns = tile_for(target, float32).columns
    for m, n in itertools.product((1, 2, 3), (4 * columns, 11 * columns + 3)):
        a, b = drawn(m, 400), drawn(400, n, seed=1)
        got = matmul(a, b, layouts, target=target)()
        assert_product(got, a, b)
        if layouts == ("rows", "rows"):
            for others in LAYOUTS:
                assert np.array_equal(got, matmul(a, b, others, target=target)())
        last = matmul(a, np.ascontiguousarray(b[:, -5:]), layouts, target=target)()
        assert np.array_equal(got[:, -5:], last)


def test_batches_broadcast() -> None:
    a, b = drawn(2, 1, 5, 7), drawn(3, 7, 6, seed=1)
    for layouts in LAYOUTS:
        assert_product(matmul(a, b, layouts)(), a, b)


@pytest.mark.parametrize("layouts", LAYOUTS)
def test_nan_and_inf_reach_their_own_elements_only(layouts: tuple[str, str]) -> None:
    a, b = drawn(20, 50), drawn(50, 40, seed=1)
    a[3, 7], a[17, 49], b[11, 39] = np.nan, np.inf, -np.inf
    got = matmul(a, b, layouts)()
    with np.errstate(invalid="ignore"):
        exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(exact))
    assert np.array_equal(np.isposinf(got), np.isposinf(exact))
    assert np.array_equal(np.isneginf(got), np.isneginf(exact))


def test_subnormal_products_are_kept() -> None:
    a = np.full((3, 4), 2.0**-100, np.float32)
    b = np.full((4, 5), 2.0**-40, np.float32)
    assert (matmul(a, b)() == np.float32(2.0**-138)).all()


# The same bits, whatever surrounds an element.


@pytest.mark.parametrize("layouts", LAYOUTS)
def test_threads_do_not_change_a_bit(layouts: tuple[str, str]) -> None:
    a, b = drawn(150, 800), drawn(800, 200, seed=1)
    run = matmul(a, b, layouts)
    alone = run(ALONE).copy()
    for threads in (2, 3, 4):
        pool = Pool(threads - 1)
        run.results[0][...] = 0
        for _ in range(5):
            assert run(pool).tobytes() == alone.tobytes()
        pool.close()


def test_an_element_depends_on_its_row_and_column_only() -> None:
    a, b = drawn(97, 800), drawn(800, 111, seed=1)
    whole = matmul(a, b)()
    for layouts in LAYOUTS:
        assert np.array_equal(matmul(a, b, layouts)(), whole)
    for rows, columns in ((slice(0, 1), slice(0, 111)), (slice(3, 9), slice(5, 6))):
        part = matmul(np.ascontiguousarray(a[rows]), np.ascontiguousarray(b[:, columns]))()
        assert np.array_equal(part, whole[rows, columns])


def test_chunks_depend_on_sizes_alone() -> None:
    made = spec_of("rows", "panels")
    launch = schedule(made, Extents((), 64, 512, 784))
    assert launch.chunks > 4
    assert launch == schedule(made, Extents((), 64, 512, 784))
    assert schedule(made, Extents((), 4, 4, 4)).chunks == 1
    assert schedule(made, Extents((), 0, 4, 4)).chunks == 0


# Epilogues.


def test_bias_and_activation() -> None:
    a, b, bias = drawn(33, 500), drawn(500, 47, seed=1), drawn(47, seed=2)
    output = Output(
        (float32,), (Operand("column", float32),),
        Epilogue("biased relu", lambda m, total, bias: m.maximum(total + bias, 0)),
    )  # fmt: skip
    got = matmul(a, b, output=output, operands=[bias])()
    plain = matmul(a, b)()
    assert np.array_equal(got, np.maximum(plain + bias, 0))


def test_all_extents_of_operands() -> None:
    a, b = drawn(2, 33, 500), drawn(500, 47, seed=1)
    column, row, place = drawn(47, seed=2), drawn(33, seed=3), drawn(2, 33, 47, seed=4)
    scalar = np.array(0.5, np.float32)
    extents = ("column", "row", "place", "scalar")
    output = Output(
        (float32,), tuple(Operand(x, float32) for x in extents),
        Epilogue("all", lambda m, total, c, r, p, s: total * s + c + r + p),
    )  # fmt: skip
    got = matmul(a, b, output=output, operands=[column, row, place, scalar])()
    plain = matmul(a, b)()
    want = plain * scalar + column + row[:, None] + place
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_several_results_of_several_dtypes() -> None:
    a, b = drawn(17, 400), drawn(400, 21, seed=1)
    output = Output(
        (float32, bool_, float32), (),
        Epilogue("several", lambda m, total: (total, total > 0, m.tanh(total))),
    )  # fmt: skip
    run = matmul(a, b, output=output)
    plain = matmul(a, b)()
    run()
    assert np.array_equal(run.results[0], plain)
    assert np.array_equal(run.results[1], plain > 0)
    np.testing.assert_allclose(run.results[2], np.tanh(plain), rtol=1e-6)


@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_masks_and_epilogues_on_every_target(level: str) -> None:
    a, b = drawn(9, 30), drawn(30, 21, seed=1)
    keep = drawn(9, 21, seed=2) > 0
    output = Output(
        (float32,), (Operand("place", bool_),),
        Epilogue("masked", lambda m, total, keep: m.where(keep, total, -1)),
    )  # fmt: skip
    for layouts in SHORT:
        got = matmul(a, b, layouts, output=output, operands=[keep], target=LEVEL_TARGETS[level])()
        plain = matmul(a, b, layouts, target=LEVEL_TARGETS[level])()
        assert np.array_equal(got, np.where(keep, plain, -1))


# Code.


def test_tiles_stay_in_registers() -> None:
    """Between the loads and stores of a tile's loop nothing is spilled to the stack."""
    levels = ("avx512", "avx2", "sse2", "neon")
    for level, layout in itertools.product(levels, ("panels", "rows")):
        triple = ("aarch64" if level == "neon" else "x86_64") + "-unknown-linux-gnu"
        target = level_target(level, triple)
        text = contraction_text(spec_of("rows", layout, target), target)
        assembly = compile_assembly([text], target)
        tiles = [tile.split("\n.Lfunc_end")[0] for tile in assembly.split("\ntile_")[1:]]
        assert len(tiles) >= len(tile_for(target, float32).shapes)
        for tile in tiles:
            assert "rsp" not in tile and "[sp" not in tile, (level, tile.splitlines()[0])


def test_equal_specs_give_equal_text() -> None:
    target = host_target()
    first, second = (contraction_text(spec_of("rows", "rows"), target) for _ in range(2))
    assert first == second
    assert spec_of("columns", "rows").name != spec_of("rows", "rows").name
