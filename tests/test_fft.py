"""Fourier transforms: against their sums, against PyTorch, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.against_torch import compare, values
from tests.both_modules import T  # noqa: F401
from tracegraph.autograd import gradcheck, gradgradcheck

NORMS = (None, "backward", "ortho", "forward")
PLAIN = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def matrix(n: int, sign: int = -1) -> Any:
    """The transform of n elements as a matrix."""
    places = np.arange(n)
    return np.exp(sign * 2j * np.pi * np.outer(places, places) / n)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_transforms_are_sums_over_roots_of_one(n: int) -> None:
    z, x = values("complex128", 3, n), values("float64", 3, n)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(tg.fft.fft(tg.tensor(z)).numpy(), z @ matrix(n), **close)
    np.testing.assert_allclose(tg.fft.ifft(tg.tensor(z)).numpy(), z @ matrix(n, 1) / n, **close)
    half = (x @ matrix(n))[:, : n // 2 + 1]
    np.testing.assert_allclose(tg.fft.rfft(tg.tensor(x)).numpy(), half, **close)
    np.testing.assert_allclose(tg.fft.irfft(tg.tensor(half), n=n).numpy(), x, **close)
    np.testing.assert_allclose(tg.fft.ihfft(tg.tensor(x)).numpy(), half.conj() / n, **close)
    np.testing.assert_allclose(tg.fft.hfft(tg.tensor(half.conj() / n), n=n).numpy(), x, **close)


def test_a_convolution_is_a_product_of_transforms() -> None:
    x, y = tg.randn(17, dtype=tg.float64), tg.randn(17, dtype=tg.float64)
    product = tg.fft.irfft(tg.fft.rfft(x) * tg.fft.rfft(y), n=17)
    turned = tg.stack([y.flip(0).roll(k + 1) for k in range(17)])
    assert tg.allclose(product, turned @ x)


def test_energy_is_kept_by_an_orthonormal_transform() -> None:
    z = tg.randn(4, 6, dtype=tg.complex128)
    seen = tg.fft.fftn(z, norm="ortho")
    assert tg.allclose(seen.abs().square().sum(), z.abs().square().sum())
    assert tg.allclose(tg.fft.ifftn(seen, norm="ortho"), z)


@pytest.mark.oracle
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 3, 7])
@pytest.mark.parametrize("name", PLAIN)
def test_one_dim_as_pytorch(name: str, n: int | None, norm: str | None) -> None:
    real = name in ("rfft", "ihfft")
    for dtype in ("float32", "float64") if real else ("float64", "complex64", "complex128"):
        for dim in (-1, 0):
            x = values(dtype, 4, 5)
            compare(lambda t, x: getattr(t.fft, name)(x, n, dim, norm), x)  # noqa: B023


CASES = [
    (None, None), (None, (0, 2)), ((4, 2), None), ((3, -1), (-1, 0)), ((2, 3, 5), (0, 1, 2)),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize(("s", "dim"), CASES)
@pytest.mark.parametrize("name", PLAIN)
def test_several_dims_as_pytorch(name: str, s: Any, dim: Any, norm: str | None) -> None:
    x = values("float64" if name in ("rfft", "ihfft") else "complex128", 3, 4, 5)
    compare(lambda t, x: getattr(t.fft, name + "n")(x, s, dim, norm), x)
    if s is None and dim is None:
        compare(lambda t, x: getattr(t.fft, name + "2")(x, norm=norm), x)


@pytest.mark.parametrize("name", PLAIN)
def test_gradients_of_gradients(name: str) -> None:
    dtype = tg.float64 if name in ("rfft", "ihfft") else tg.complex128
    x = tg.randn(2, 4, dtype=dtype, requires_grad=True)
    for n in (3, 5):
        function = lambda x: getattr(tg.fft, name)(x, n)  # noqa: B023, E731
        assert gradcheck(function, x)
        assert gradgradcheck(function, x)


@pytest.mark.oracle
def test_frequencies_and_shifts_as_pytorch() -> None:
    for n in (1, 2, 7, 8):
        compare(lambda t, n=n: t.fft.fftfreq(n, d=0.3))
        compare(lambda t, n=n: t.fft.rfftfreq(n, dtype=t.float64))
        x = values("complex64", n, 5)
        compare(lambda t, x: (t.fft.fftshift(x), t.fft.ifftshift(x, dim=0)), x)
        compare(lambda t, x: (t.fft.ifftshift(x), t.fft.fftshift(x, dim=(1,))), x)


def test_what_is_refused(T: Any) -> None:
    x, z = T.ones(3, 4), T.ones(3, 4) * 1j
    for call in (
        lambda: T.fft.rfft(z), lambda: T.fft.ihfft(z), lambda: T.fft.fft(x, n=0),
        lambda: T.fft.fft(x, norm="none"), lambda: T.fft.fftn(x, dim=(0, 0)),
        lambda: T.fft.fftn(x, s=(2,), dim=(0, 1)), lambda: T.fft.fftn(x, s=(2, 2, 2)),
        lambda: T.fft.irfft(T.ones(1) * 1j), lambda: T.fft.fft(T.zeros(0)),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(IndexError):
        T.fft.fft(x, dim=2)


# Windows of a signal.

SHORT: list[dict[str, Any]] = [
    {}, {"hop_length": 3}, {"hop_length": 2, "win_length": 5}, {"normalized": True},
    {"onesided": False}, {"center": False}, {"pad_mode": "constant"}, {"return_complex": False},
    {"center": False, "win_length": 4, "align_to_window": True},
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:stft with return_complex=False is deprecated")
@pytest.mark.parametrize("options", SHORT, ids=str)
@pytest.mark.parametrize("shape", [(20,), (2, 25)], ids=str)
def test_stft_as_pytorch(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    size = options.get("win_length", 8)
    given = {"return_complex": True, **options}
    x = values("float64", *shape)
    compare(lambda t, x: t.stft(x, 8, window=t.hann_window(size, dtype=t.float64), **given), x)
    compare(lambda t, x, w: x.stft(8, window=w, **given), x, values("float64", size, seed=2))


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_stft_of_other_dtypes_as_pytorch(dtype: str) -> None:
    x, w = values(dtype, 30), values("complex64", 6, seed=3)
    compare(lambda t, x, w: t.stft(x, 6, 2, window=w, return_complex=True), x, w)


BACK: list[dict[str, Any]] = [
    {}, {"hop_length": 3}, {"hop_length": 2, "win_length": 5}, {"normalized": True},
    {"onesided": False}, {"length": 11}, {"length": 40}, {"center": False},
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
@pytest.mark.parametrize("options", BACK, ids=str)
def test_istft_as_pytorch(options: dict[str, Any]) -> None:
    for lead in ((), (2,)):
        rows = 8 if options.get("onesided") is False else 5
        z = values("complex128", *lead, rows, 9)
        window = np.hamming(options.get("win_length", 8)) + 0.1
        compare(lambda t, z, w: t.istft(z, 8, window=w, **options), z, window)


def test_istft_undoes_stft_and_both_are_traced(tmp_path: Any) -> None:
    window, x = tg.hann_window(16), tg.randn(3, 100)

    def there_and_back(x: Any) -> Any:
        seen = tg.stft(x, 16, 4, window=window, return_complex=True)
        return tg.istft(seen, 16, 4, window=window, length=100), seen.abs()

    back, size = there_and_back(x)
    assert tg.allclose(back, x, atol=1e-6)
    assert size.shape == (3, 9, 26)
    traced = tg.trace(there_and_back, (x,))
    other = tg.randn(3, 100)
    tg.save(traced, tmp_path / "short.tg")
    expected = there_and_back(other)
    for run in (traced, tg.load(tmp_path / "short.tg"), traced.program(), traced.program(level=2)):
        for a, b in zip(run(other), expected, strict=True):
            assert tg.allclose(a, b, atol=1e-5)


def test_transforms_are_trained_and_replayed(tmp_path: Any) -> None:
    """A layer with complex weights for the lowest frequencies, as Fourier neural operators have."""
    weight = tg.nn.Parameter(tg.randn(3, 4, 5, dtype=tg.complex64) * 0.1)
    optimizer = tg.optim.SGD([weight], lr=0.1)
    x, goal = tg.randn(2, 3, 16), tg.randn(2, 4, 16)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        low = tg.fft.rfft(x)[..., :5]
        out = tg.zeros(2, 4, 9, dtype=tg.complex64)
        out[..., :5] = tg.einsum("bif,iof->bof", low, weight)
        loss = (tg.fft.irfft(out, n=16) - goal).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    traced = tg.trace(step, (x,))
    tg.save(traced, tmp_path / "step.tg")
    loaded, compiled = tg.load(tmp_path / "step.tg"), tg.load(tmp_path / "step.tg").program()
    losses = [float(step(x)) for _ in range(4)]
    assert losses[-1] < losses[0]
    for run in (loaded, compiled):
        assert np.allclose([float(run(x)) for _ in range(4)], losses, rtol=1e-4)
