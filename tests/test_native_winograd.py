"""Convolutions by Winograd's filtering against sums in float64 over shifted images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from tests.native_contraction import ALONE, Run, array_of, convolve, input_gradient, run_steps
from tests.native_levels import LEVEL_TARGETS
from tests.test_native_convolution import drawn, reference, reference_gradients
from tracegraph.dtypes import BY_NUMPY, bool_, float16, float32, float64
from tracegraph.runtime.cpu.code.llvm import Target, host_target
from tracegraph.runtime.cpu.driver.pool import Pool
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.convolution import Geometry
from tracegraph.runtime.cpu.products.convolution_places import output_of
from tracegraph.runtime.cpu.products.convolution_products import convolution
from tracegraph.runtime.cpu.products.launches import Epilogue
from tracegraph.runtime.cpu.products.winograd import (
    LEAST_CHANNELS,
    Winograd,
    most_channels,
    transforms,
)
from tracegraph.runtime.cpu.products.winograd_code import winograd_text
from tracegraph.runtime.cpu.products.winograd_products import (
    WinogradConvolution,
    winograd_convolution,
    winograd_size,
)
from tracegraph.runtime.cpu.products.winograd_weights import (
    WinogradWeights,
    winograd_weights_text,
)

SAME = ((1, 1), (1, 1))


def geometry(
    images: int, size: tuple[int, int], channels: int, out_channels: int, padding: Any = SAME
) -> Geometry:
    return Geometry(images, size, channels, out_channels, (3, 3), (1, 1), padding, (1, 1), 1)


CASES = {
    "whole tiles": geometry(1, (8, 8), 32, 32),
    "odd sizes": geometry(3, (7, 9), 17, 33),
    "one channel of results": geometry(2, (9, 6), 16, 1),
    "one pixel": geometry(1, (1, 1), 19, 16),
    "a line": geometry(1, (1, 11), 16, 16),
    "no padding": geometry(1, (6, 11), 20, 40, ((0, 0), (0, 0))),
    "lopsided padding": geometry(2, (5, 7), 18, 21, ((2, 0), (1, 3))),
    "more padding than image": geometry(1, (2, 3), 35, 16, ((4, 5), (0, 3))),
    "many tiles": geometry(1, (30, 31), 48, 70),
    "many channels": geometry(1, (6, 6), 123, 20),
    "two tiles more than registers": geometry(1, (31, 3), 16, 17),
    "three tiles more": geometry(1, (33, 3), 16, 17),
    "no images": geometry(0, (5, 6), 16, 16),
}


def winograd(
    x: np.ndarray, weight: np.ndarray, g: Geometry, size: int, is_gradient: bool = False, *,
    operands: Sequence[np.ndarray] = (), epilogue: Epilogue | None = None,
    target: Target | None = None, results: Sequence[np.ndarray] | None = None, late: int = 0,
) -> Run:  # fmt: skip
    """Return a run with tiles of a size; `late`: blocks of a unit that transforms weights."""
    target, dtype = target or host_target(), BY_NUMPY[x.dtype]
    shape = (*g.out_size, g.out_channels) if not is_gradient else (*g.size, g.channels)
    if results is None:
        results = [np.full((g.images, *shape), np.nan, x.dtype)]
    views = list(map(array_of, operands))
    output = output_of(g, is_gradient, [BY_NUMPY[r.dtype] for r in results], views, epilogue)
    made = winograd_convolution(g, dtype, output, target, size, is_gradient)
    if late:
        made = made._replace(spec=made.spec._replace(is_late=True, blocks=late))
    steps = made.steps(g, views)
    return run_steps(made.kernels, steps, (x, weight, *operands), results, target)


def close(got: np.ndarray, exact: np.ndarray, size: int, channels: int) -> None:
    """Compare with the bounds that `winograd` states, and a half more for other numbers."""
    assert got.shape == exact.shape
    unit = 1.5 * np.finfo(got.dtype).eps * (9 * channels) ** 0.5
    most = 8 + 1.5 * channels**0.5 if size == 2 else 24 + 9 * channels**0.5
    mean = 0.7 + 0.25 * channels**0.5 if size == 2 else 2 + 0.7 * channels**0.5
    if got.size:
        assert np.abs(got - exact).max() <= most * unit
    if got.size > 1000:
        assert np.mean((got - exact) ** 2) ** 0.5 <= mean * unit


def check(g: Geometry, size: int, dtype: type, target: Target | None = None) -> None:
    x = drawn(g.images, *g.size, g.channels, dtype=dtype)
    weight = drawn(g.out_channels, g.channels, 3, 3, dtype=dtype, seed=1)
    dy = drawn(g.images, *g.out_size, g.out_channels, dtype=dtype, seed=2)
    got = winograd(x, weight, g, size, target=target)()
    close(got, reference(x, weight, g), size, g.channels)
    if g.out_channels >= LEAST_CHANNELS:
        got = winograd(dy, weight, g, size, is_gradient=True, target=target)()
        close(got, reference_gradients(x, weight, dy, g)[0], size, g.out_channels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_convolution_and_gradient(name: str, size: int, dtype: type) -> None:
    check(CASES[name], size, dtype)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_every_target(level: str, size: int) -> None:
    for name in ("odd sizes", "lopsided padding", "many tiles"):
        check(CASES[name], size, np.float32, LEVEL_TARGETS[level])


@pytest.mark.parametrize("late", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_late_weights_change_no_bit(name: str, size: int, dtype: type, late: int) -> None:
    g = CASES[name]
    if late * g.channels > most_channels(BY_NUMPY[np.dtype(dtype)], size):
        pytest.skip("too many channels")
    x = drawn(g.images, *g.size, g.channels, dtype=dtype)
    weight = drawn(g.out_channels, g.channels, 3, 3, dtype=dtype, seed=1)
    assert np.array_equal(winograd(x, weight, g, size, late=late)(), winograd(x, weight, g, size)())


@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_late_weights_on_every_target(level: str) -> None:
    g, target = CASES["many channels"], LEVEL_TARGETS[level]
    x = drawn(1, 6, 6, 123, dtype=np.float32)
    weight = drawn(20, 123, 3, 3, dtype=np.float32, seed=1)
    late = winograd(x, weight, g, 2, late=2, target=target)()
    assert np.array_equal(late, winograd(x, weight, g, 2, target=target)())


def test_shared_names_stand_for_the_same() -> None:
    """Kernels of a program are linked together, and of each shared name one is kept."""
    target, known = host_target(), {}
    g = geometry(1, (8, 8), 32, 32)
    for size, (is_late, blocks) in product((2, 4), ((False, 1), (True, 1), (True, 2))):
        made = winograd_convolution(g, float32, Output((float32,)), target, size, False)
        spec = made.spec._replace(is_late=is_late, blocks=blocks)
        weights = WinogradWeights.of(spec)
        text = winograd_text(spec, target) + "\n" + winograd_weights_text(weights, target)
        for found in re.finditer(r"^@([\w.]+) = linkonce_odr.*$", text, re.M):
            assert known.setdefault(found[1], found[0]) == found[0]
        for found in re.finditer(r"^define linkonce_odr[^@]*@([\w.]+)(.|\n)*?\n}", text, re.M):
            assert known.setdefault(found[1], found[0]) == found[0]
    assert len(known) > 10


def test_when_weights_are_late() -> None:
    def spec(g: Geometry) -> Winograd:
        made = convolution(g, float32, target=host_target(), ahead=True)
        assert isinstance(made, WinogradConvolution)
        (size,) = made.steps(g).packed_bytes
        numbers = 9 if made.spec.is_late else made.spec.places
        assert size == numbers * g.channels * g.out_channels * 4
        return made.spec

    wide, deep = geometry(1, (14, 14), 256, 256), geometry(1, (7, 7), 512, 512)
    assert (spec(wide).is_late, spec(wide).blocks) == (True, 2)
    assert (spec(deep).is_late, spec(deep).blocks) == (True, 1)
    assert not spec(deep._replace(images=9)).is_late  # they are read often
    assert not spec(geometry(1, (28, 28), 128, 128)).is_late  # small enough


@pytest.mark.parametrize(("size", "channels"), [(2, 64), (2, 512), (4, 64), (4, 256)])
def test_error(size: int, channels: int) -> None:
    g = geometry(1, (28, 28), channels, 32)
    x = drawn(1, 28, 28, channels, dtype=np.float32)
    weight = drawn(32, channels, 3, 3, dtype=np.float32, seed=1)
    close(winograd(x, weight, g, size)(), reference(x, weight, g), size, channels)


@pytest.mark.parametrize("size", [2, 4])
def test_transforms_give_a_filter(size: int) -> None:
    count, halves = size // 2, np.array([[1.0, 1.0], [1.0, -1.0]])
    pairs = np.zeros((size + 2, size + 2))
    pairs[0, 0] = pairs[-1, -1] = 1
    pairs[1:-1, 1:-1] = np.kron(np.eye(count), halves)
    patch, weight, result = map(np.array, transforms(size))
    patch, weight, result = pairs @ patch, pairs @ weight, result @ pairs
    d, g = drawn(size + 2), drawn(3, seed=1)
    want = [d[i : i + 3] @ g for i in range(size)]
    np.testing.assert_allclose(result @ ((weight @ g) * (patch @ d)), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("is_gradient", [False, True])
@pytest.mark.parametrize("name", ["odd sizes", "lopsided padding"])
def test_epilogues(name: str, is_gradient: bool, size: int) -> None:
    g = CASES[name]
    first, shape = (g.images, *g.size, g.channels), (g.images, *g.out_size, g.out_channels)
    if is_gradient:
        first, shape = shape, first
    x = drawn(*first, dtype=np.float32)
    weight = drawn(g.out_channels, g.channels, 3, 3, dtype=np.float32, seed=1)
    bias = drawn(1, 1, 1, shape[-1], dtype=np.float32, seed=2)
    scale = drawn(shape[0], 1, 1, shape[-1], dtype=np.float32, seed=3)
    mask = drawn(*shape[:-1], 1, seed=4) > 0
    residual = drawn(*shape, dtype=np.float32, seed=5)
    epilogue = Epilogue(
        "all", lambda m, t, b, s, k, r: m.maximum(m.where(k, t, 0) * s + b + r, 0)
    )  # fmt: skip
    plain = winograd(x, weight, g, size, is_gradient)()
    operands = [bias, scale, mask, residual]
    got = winograd(x, weight, g, size, is_gradient, operands=operands, epilogue=epilogue)()
    want = np.maximum(np.where(mask, plain, 0) * scale + bias + residual, 0)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    relu = Epilogue("residual", lambda m, t, b, r: m.maximum(t + b + r, 0))
    want = np.maximum(plain + bias + residual, 0)
    # The result may lie in the memory of the residual.
    run = winograd(
        x, weight, g, size, is_gradient,
        operands=[bias, residual], epilogue=relu, results=[residual],
    )  # fmt: skip
    assert np.array_equal(run(), want)


def test_results_of_other_dtypes() -> None:
    g = CASES["odd sizes"]
    x = drawn(3, 7, 9, 17, dtype=np.float32)
    weight = drawn(33, 17, 3, 3, dtype=np.float32, seed=1)
    epilogue = Epilogue("sign", lambda m, total: (total > 0, total))
    results = [np.zeros((3, 7, 9, 33), t.np) for t in (bool_, float16)]
    winograd(x, weight, g, 4, epilogue=epilogue, results=results)()
    plain = winograd(x, weight, g, 4)()
    assert np.array_equal(results[0], plain > 0)
    assert np.array_equal(results[1], plain.astype(np.float16))


@pytest.mark.parametrize("size", [2, 4])
def test_nan_stays_in_its_tiles(size: int) -> None:
    g = CASES["many tiles"]
    x, weight = drawn(1, 30, 31, 48), drawn(70, 48, 3, 3, seed=1)
    x[0, 9, 12, 1], x[0, 0, 0, 2] = np.nan, np.inf
    got, exact = winograd(x, weight, g, size)(), reference(x, weight, g)
    assert not np.isfinite(got[~np.isfinite(exact)]).any()
    tiles = np.zeros((8 * 4, 8 * 4), bool)
    for y, x in np.argwhere(~np.isfinite(exact[0, :, :, 0])):
        y, x = y // size * size, x // size * size
        tiles[y : y + size, x : x + size] = True
    assert np.isfinite(got[0][~tiles[:30, :31]]).all()


@pytest.mark.parametrize("size", [2, 4])
def test_threads_and_other_images_do_not_change_a_bit(size: int) -> None:
    g = geometry(3, (20, 21), 33, 65)
    x = drawn(3, 20, 21, 33, dtype=np.float32)
    weight = drawn(65, 33, 3, 3, dtype=np.float32, seed=1)
    run = winograd(x, weight, g, size)
    alone = run(ALONE).copy()
    for threads in (2, 3):
        pool = Pool(threads - 1)
        assert np.array_equal(run(pool), alone)
        pool.close()
    for i in range(3):
        one = winograd(x[i : i + 1], weight, g._replace(images=1), size)()
        assert np.array_equal(one, alone[i : i + 1])


def test_when_it_is_chosen() -> None:
    def size(g: Geometry, dtype: Any = float32) -> int:
        return winograd_size(g, False, dtype, host_target())

    assert size(geometry(1, (56, 56), 64, 64)) == 4
    assert size(geometry(1, (14, 14), 256, 256)) == 2
    assert size(geometry(1, (14, 14), 600, 64)) == 0  # too many channels
    assert size(geometry(1, (56, 56), 3, 64)) == 0
    assert size(geometry(1, (56, 56), 64, 64), float64) == 4
    wide = geometry(1, (56, 56), 64, 64)
    for other in ({"stride": (2, 2)}, {"dilation": (2, 2)}, {"groups": 2}, {"window": (3, 1)}):
        assert size(wide._replace(**other)) == 0
    for ahead in (True, False):
        made = convolution(wide, float32, target=host_target(), ahead=ahead)
        assert isinstance(made, WinogradConvolution) is ahead
        kernels = {kernel.name for kernel in made.kernels}
        other = convolution(wide._replace(images=9), float32, target=host_target(), ahead=ahead)
        assert {kernel.name for kernel in other.kernels} == kernels
        assert made.steps(wide._replace(images=9)) == other.steps(wide._replace(images=9))


def test_what_a_layer_gets() -> None:
    g = geometry(2, (15, 13), 64, 48)
    x = drawn(2, 15, 13, 64, dtype=np.float32)
    weight = drawn(48, 64, 3, 3, dtype=np.float32, seed=1)
    dy = drawn(2, 15, 13, 48, dtype=np.float32, seed=2)
    close(convolve(x, weight, g)(), reference(x, weight, g), 4, 64)
    got = input_gradient(dy, weight, g, ahead=True)()
    close(got, reference_gradients(x, weight, dy, g)[0], 4, 48)
