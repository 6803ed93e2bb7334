"""Native convolutions and their gradients against sums in float64 over shifted images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from tests.native_contraction import (
    ALONE,
    convolve,
    input_gradient,
    transpose,
    weight_gradient,
)
from tests.native_levels import LEVEL_TARGETS
from tracegraph.dtypes import bool_, float32
from tracegraph.runtime.cpu.code.llvm import Target, host_target
from tracegraph.runtime.cpu.driver.pool import Pool
from tracegraph.runtime.cpu.products import convolution_products
from tracegraph.runtime.cpu.products.convolution import Geometry, forward
from tracegraph.runtime.cpu.products.convolution_products import convolution
from tracegraph.runtime.cpu.products.launches import Epilogue

SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))

# images, size, channels, out channels, window, stride, padding, dilation, groups
CASES = {
    "3x3": Geometry(2, (5, 6), 3, 4, (3, 3), (1, 1), SAME, (1, 1), 1),
    "1x1": Geometry(2, (5, 6), 3, 4, (1, 1), (1, 1), NONE, (1, 1), 1),
    "1x1 with stride": Geometry(2, (8, 7), 5, 7, (1, 1), (2, 3), NONE, (1, 1), 1),
    "one-dimensional": Geometry(2, (1, 17), 6, 5, (1, 3), (1, 2), ((0, 0), (2, 1)), (1, 1), 1),
    "stride and lopsided padding": Geometry(
        2, (9, 8), 4, 6, (3, 2), (2, 3), ((1, 2), (0, 2)), (1, 1), 1
    ),
    "dilation": Geometry(1, (11, 12), 4, 6, (3, 3), (1, 1), ((2, 2), (4, 4)), (2, 4), 1),
    "stride, dilation, groups": Geometry(
        2, (9, 8), 4, 6, (3, 2), (2, 3), ((1, 2), (0, 2)), (2, 2), 2
    ),
    "stride and dilation share a factor": Geometry(
        1, (14, 15), 3, 4, (3, 3), (4, 2), ((1, 0), (2, 2)), (2, 4), 1
    ),
    "groups of one channel": Geometry(3, (8, 8), 6, 6, (3, 3), (1, 1), SAME, (1, 1), 6),
    "wide groups": Geometry(2, (9, 7), 36, 40, (3, 2), (1, 2), SAME, (1, 1), 2),
    "narrow groups": Geometry(2, (9, 21), 12, 12, (3, 3), (1, 1), SAME, (1, 1), 3),
    "groups that halve channels": Geometry(1, (5, 14), 12, 6, (2, 5), (1, 2), SAME, (2, 1), 6),
    "long taps": Geometry(1, (1, 150), 3, 3, (1, 19), (1, 1), ((0, 0), (9, 9)), (1, 1), 3),
    "groups that multiply channels": Geometry(1, (6, 5), 3, 9, (3, 3), (2, 1), SAME, (1, 1), 3),
    "many k": Geometry(1, (7, 7), 130, 40, (3, 3), (1, 1), SAME, (1, 1), 1),
    "a window as large as the image": Geometry(3, (4, 4), 3, 5, (4, 4), (1, 1), NONE, (1, 1), 1),
    "more padding than image": Geometry(
        1, (2, 1), 2, 3, (3, 3), (1, 2), ((3, 2), (4, 3)), (1, 1), 1),
    "one window": Geometry(3, (5, 4), 12, 9, (4, 3), (2, 1), ((1, 0), (0, 0)), (1, 1), 1),
    "one window on a line": Geometry(1, (3, 17), 4, 30, (3, 3), (1, 2), NONE, (1, 2), 2),
    "a window that skips pixels": Geometry(1, (9, 9), 2, 3, (2, 2), (5, 4), NONE, (1, 1), 1),
    "no images": Geometry(0, (5, 6), 3, 4, (3, 3), (1, 1), SAME, (1, 1), 1),
    "no channels": Geometry(1, (5, 6), 0, 4, (3, 3), (1, 1), SAME, (1, 1), 1),
    "no places": Geometry(1, (2, 2), 3, 4, (3, 3), (1, 1), NONE, (1, 1), 1),
}  # fmt: skip


def drawn(*shape: int, dtype: type = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def padded(x: np.ndarray, g: Geometry) -> np.ndarray:
    return np.pad(x, ((0, 0), *g.padding, (0, 0)))


def shifts(g: Geometry):
    """Yield each tap and the slices of a padded image that it reads."""
    for tap in itertools.product(*map(range, g.window)):
        yield (
            tap,
            tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, g.dilation, g.stride, g.out_size, strict=True)
            ),
        )


def by_groups(x: np.ndarray, g: Geometry) -> np.ndarray:
    return x.reshape(*x.shape[:-1], g.groups, x.shape[-1] // g.groups)


def reference(x: np.ndarray, weight: np.ndarray, g: Geometry) -> np.ndarray:
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    total = np.zeros((g.images, *g.out_size, g.groups, g.outer))
    wide, weight = by_groups(padded(x, g), g), weight.reshape(g.groups, g.outer, g.inner, *g.window)
    if total.size:
        for (ky, kx), (ys, xs) in shifts(g):
            total += np.einsum("nyxgi,goi->nyxgo", wide[:, ys, xs], weight[..., ky, kx])
    return total.reshape(g.images, *g.out_size, g.out_channels)


def reference_gradients(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, g: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of the input and of the weight."""
    x, weight, dy = (v.astype(np.float64) for v in (x, weight, dy))
    wide, weight = by_groups(padded(x, g), g), weight.reshape(g.groups, g.outer, g.inner, *g.window)
    dx, dw = np.zeros_like(wide), np.zeros((g.groups, g.outer, g.inner, *g.window))
    split = by_groups(dy, g)
    if dy.size:
        for (ky, kx), (ys, xs) in shifts(g):
            dx[:, ys, xs] += np.einsum("nyxgo,goi->nyxgi", split, weight[..., ky, kx])
            dw[..., ky, kx] = np.einsum("nyxgo,nyxgi->goi", split, wide[:, ys, xs])
    dx = dx.reshape(*dx.shape[:3], g.channels)
    (top, _), (left, _) = g.padding
    dx = dx[:, top : top + g.size[0], left : left + g.size[1]]
    return dx, dw.reshape(g.out_channels, g.inner, *g.window)


def close(got: np.ndarray, exact: np.ndarray, k: int) -> None:
    assert got.shape == exact.shape
    tolerance = 8 * (k + 2) ** 0.5 * np.finfo(got.dtype).eps
    np.testing.assert_allclose(got, exact, rtol=tolerance, atol=4 * tolerance)


def check(g: Geometry, dtype: type, target: Target | None = None) -> None:
    """Compare the convolution and its two gradients with the references."""
    x = drawn(g.images, *g.size, g.channels, dtype=dtype)
    weight = drawn(g.out_channels, g.inner, *g.window, dtype=dtype, seed=1)
    dy = drawn(g.images, *g.out_size, g.out_channels, dtype=dtype, seed=2)
    dx, dw = reference_gradients(x, weight, dy, g)
    taps = g.window[0] * g.window[1]
    for ahead in (True, False):
        with pytest.MonkeyPatch.context() as patch:  # small ones by both ways
            patch.setattr(convolution_products, "_LEAST_LINE", 1 if ahead else 1 << 30)
            got = convolve(x, weight, g, target=target, ahead=ahead)()
            close(got, reference(x, weight, g), taps * g.inner)
            for one in {g, g.apart}:
                got = input_gradient(dy, weight, one, target=target, ahead=ahead)()
                close(got, dx, taps * g.outer)
    close(weight_gradient(x, dy, g, target)(), dw, g.places)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_convolution_and_gradients(name: str, dtype: type) -> None:
    check(CASES[name], dtype)


@pytest.mark.parametrize("name", ["3x3", "stride, dilation, groups", "many k"])
@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_every_target(level: str, name: str) -> None:
    check(CASES[name], np.float32, LEVEL_TARGETS[level])


DEPTHWISE = {
    "3x3": Geometry(2, (5, 6), 3, 3, (3, 3), (1, 1), SAME, (1, 1), 3),
    "wide": Geometry(2, (13, 30), 35, 35, (3, 3), (1, 1), SAME, (1, 1), 35),
    "stride, dilation": Geometry(2, (13, 16), 35, 35, (5, 3), (2, 1), ((2, 1), (0, 3)), (1, 2), 35),
    "both": Geometry(2, (13, 26), 16, 16, (5, 3), (2, 3), ((2, 1), (0, 3)), (2, 2), 16),
    "1x1": Geometry(2, (8, 9), 17, 17, (1, 1), (1, 1), NONE, (1, 1), 17),
    "small": Geometry(1, (2, 2), 8, 8, (3, 3), (2, 2), SAME, (1, 1), 8),
    "no images": Geometry(0, (5, 6), 3, 3, (3, 3), (1, 1), SAME, (1, 1), 3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(name: str, dtype: type) -> None:
    check(DEPTHWISE[name], dtype)


@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_depthwise_on_every_target(level: str) -> None:
    for name in ("wide", "both"):
        check(DEPTHWISE[name], np.float32, LEVEL_TARGETS[level])


small = st.integers(1, 3)


@given(
    images=st.integers(0, 2), size=st.tuples(st.integers(1, 9), st.integers(1, 20)),
    inner=st.integers(1, 5), outer=st.integers(1, 5), groups=small, window=st.tuples(small, small),
    stride=st.tuples(small, small), dilation=st.tuples(small, small),
    padding=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)  # fmt: skip
@settings(max_examples=80)
def test_any_geometry(
    images: int, size: tuple[int, int], inner: int, outer: int, groups: int,
    window: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> None:  # fmt: skip
    g = Geometry(
        images, size, inner * groups, outer * groups, window, stride, padding, dilation, groups
    )
    assume(min(g.out_size) > 0)
    check(g, np.float32)
    channels = inner * groups
    check(g._replace(out_channels=channels, groups=channels), np.float32)


def test_nan_outside_of_a_window_stays_outside() -> None:
    g = CASES["3x3"]
    x, weight = drawn(2, 5, 6, 3), drawn(4, 3, 3, 3, seed=1)
    x[0, 0, 0, 1], x[1, 4, 5, 2] = np.nan, np.inf
    got, exact = convolve(x, weight, g)(), reference(x, weight, g)
    assert np.array_equal(np.isfinite(got), np.isfinite(exact))
    g = DEPTHWISE["3x3"]
    weight = drawn(3, 1, 3, 3, seed=1)
    got, exact = convolve(x, weight, g)(), reference(x, weight, g)
    # The reference multiplies the infinite channel by its own weights only, too.
    assert np.array_equal(np.isfinite(got), np.isfinite(exact))


EPILOGUES = {
    "windows": CASES["stride and lopsided padding"],
    "pixels": CASES["1x1"],
    "groups": CASES["stride, dilation, groups"],
    "depthwise": DEPTHWISE["wide"],
    "strided depthwise": DEPTHWISE["both"],
    "many k": CASES["many k"],
}


@pytest.mark.parametrize("is_gradient", [False, True])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(name: str, is_gradient: bool) -> None:
    g = EPILOGUES[name]
    first = drawn(g.images, *g.size, g.channels, dtype=np.float32)
    weight = drawn(g.out_channels, g.inner, *g.window, dtype=np.float32, seed=1)
    shape = (g.images, *g.out_size, g.out_channels)
    if is_gradient:
        first, shape = drawn(*shape, dtype=np.float32), first.shape
    bias = drawn(1, 1, 1, shape[-1], dtype=np.float32, seed=2)
    scale = drawn(shape[0], 1, 1, shape[-1], dtype=np.float32, seed=3)
    mask = drawn(*shape[:-1], 1, seed=4) > 0
    residual = drawn(*shape, dtype=np.float32, seed=5)
    epilogue = Epilogue(
        "all", lambda m, t, b, s, k, r: m.maximum(m.where(k, t, 0) * s + b + r, 0)
    )  # fmt: skip
    run = input_gradient if is_gradient else convolve
    plain = run(first, weight, g)()
    operands = [bias, scale, mask, residual]
    got = run(first, weight, g, operands=operands, epilogue=epilogue)()
    want = np.maximum(np.where(mask, plain, 0) * scale + bias + residual, 0)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    relu = Epilogue("residual", lambda m, t, b, r: m.maximum(t + b + r, 0))
    got = run(first, weight, g, operands=[bias, residual], epilogue=relu)()
    assert np.array_equal(got, np.maximum(plain + bias + residual, 0))


def test_results_of_other_dtypes() -> None:
    for name in ("many k", "3x3", "1x1"):
        g = CASES[name]
        x = drawn(g.images, *g.size, g.channels, dtype=np.float32)
        weight = drawn(g.out_channels, g.inner, *g.window, dtype=np.float32, seed=1)
        epilogue = Epilogue("sign", lambda m, total: (total > 0, total))
        run = convolve(x, weight, g, epilogue=epilogue, results=(bool_, float32))
        run()
        plain = convolve(x, weight, g)()
        assert np.array_equal(run.results[0], plain > 0)
        assert np.array_equal(run.results[1], plain)


def test_kernels_serve_every_size() -> None:
    for g in (CASES["3x3"], CASES["1x1"], DEPTHWISE["both"]):
        g = g._replace(size=(30, 40))
        made = convolution(g, float32, target=host_target(), ahead=True)
        wider = g._replace(images=5, size=(23, 31))
        names = {kernel.name for kernel in made.kernels}
        other = convolution(wider, float32, target=host_target(), ahead=True)
        assert names == {kernel.name for kernel in other.kernels}
        assert made.steps(wider) == other.steps(wider)


def test_threads_do_not_change_a_bit() -> None:
    g = Geometry(2, (20, 21), 33, 65, (3, 3), (2, 1), SAME, (1, 1), 1)
    x, weight = (
        drawn(2, 20, 21, 33, dtype=np.float32),
        drawn(65, 33, 3, 3, dtype=np.float32, seed=1),
    )
    dy = drawn(2, *g.out_size, 65, dtype=np.float32, seed=2)
    runs = [convolve(x, weight, g), input_gradient(dy, weight, g), weight_gradient(x, dy, g)]
    alone = [run(ALONE).tobytes() for run in runs]
    for threads in (2, 3, 4):
        pool = Pool(threads - 1)
        for run in runs:
            run(pool)
        assert [run.results[0].tobytes() for run in runs] == alone
        pool.close()


def test_windows_side_by_side_are_rows() -> None:
    assert forward(CASES["1x1"], 32).a == "rows"
    assert forward(CASES["1x1 with stride"], 32).a == "windows"
    assert forward(CASES["3x3"], 32).words["runs"] == 1
    assert forward(CASES["dilation"], 32).words["runs"] == 3


@pytest.mark.parametrize("shape", [
    (1, 1, 1), (2, 3, 50), (2, 50, 3), (1, 64, 49), (3, 17, 33), (0, 3, 4), (2, 0, 4), (2, 4, 0),
    (1, 16, 4000),
])  # fmt: skip
@pytest.mark.parametrize("level", LEVEL_TARGETS)
def test_transposition(level: str, shape: tuple[int, int, int]) -> None:
    for dtype in (np.float32, np.float64, np.float16, np.int8):
        x = (10 * drawn(*shape)).astype(dtype)
        assert np.array_equal(transpose(x, LEVEL_TARGETS[level])(), x.transpose(0, 2, 1))
