"""Fourier transforms of windows of a signal, one after another: `stft` and back."""

from __future__ import annotations

import warnings
from typing import Any

from tracegraph.api.complex_numbers import view_as_real
from tracegraph.api.fourier import fft, ifft, irfft, resized, rfft
from tracegraph.api.promotion import filled
from tracegraph.api.shape import expand, reshape, slice_dim
from tracegraph.dtypes import FLOAT_KIND, DType
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError

_LEAST_ENVELOPE = 1e-11


def _sizes(name: str, n_fft: int, hop: int | None, window: int | None) -> tuple[int, int]:
    """Return the steps between windows and their length."""
    step, length = n_fft // 4 if hop is None else hop, n_fft if window is None else window
    if not 0 < length <= n_fft:
        raise OpError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={length}")
    if step < 1:
        raise OpError(f"{name}: expected hop_length > 0, but got hop_length={step}")
    return step, length


def _whole_window(name: str, window: Tensor | None, like: Tensor, length: int, n: int) -> Tensor:
    """Return the window in the middle of n places, as a column; a box if there is none."""
    if window is None:
        warnings.warn(
            f"{name}: a window was not provided. A rectangular window will be applied.",
            stacklevel=3,
        )
        window = filled(like, (length,), 1, _part_dtype(like))
    if window.ndim != 1 or window.shape[0] != length:
        raise OpError(
            f"{name}: expected a 1D window tensor of size equal to win_length={length}, but got "
            f"window with size {list(window.shape)}"
        )
    before = (n - length) // 2
    placed = front.pad(window, pads=((before, n - length - before),), value=0)
    return reshape(placed, (n, 1))


def _part_dtype(x: Tensor) -> DType:
    return type_of(x).dtype.to_real()


def _padded(input: Tensor, amount: int, mode: str) -> Tensor:
    from tracegraph.nn.functional.rearrangements import pad

    rows = reshape(input, (1,) * (3 - input.ndim) + tuple(input.shape))
    wide = pad(rows, (amount, amount), mode)
    return reshape(wide, (*input.shape[:-1], wide.shape[-1]))


def stft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect",
    normalized: bool = False, onesided: bool | None = None, return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the transforms of windows: c64[batch?, frequencies, windows] of f32[batch?, time].

    Args:
        input: the signal, or a batch of signals.
        n_fft: size of a transform.
        hop_length: steps from a window to the next; n_fft // 4 by default.
        win_length: length of the window; n_fft by default.
        window: what a part of the signal is multiplied by; ones by default.
        center: pad the signal, so that the middles of windows are `hop_length` apart from 0 on.
        pad_mode: how, see `nn.functional.pad`.
        normalized: divide by the root of n_fft.
        onesided: the first n_fft // 2 + 1 frequencies only; by default those of real signals.
        return_complex: else pairs of real numbers in a last dim.
        align_to_window: without `center`, fill up n_fft around the window, not inside the signal.

    Raises:
        OpError: sizes that do not fit each other.
    """
    step, length = _sizes("stft", n_fft, hop_length, win_length)
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None and not is_complex:
        raise OpError(
            "stft requires the return_complex parameter be given for real inputs, and will "
            "further require that return_complex=True in a future PyTorch release."
        )
    if center and align_to_window is not None:
        raise OpError("stft align_to_window should only be set when center = false")
    if type_of(input).dtype.kind < FLOAT_KIND:
        raise OpError("stft: expected a tensor of floating point or complex values")
    if input.ndim not in (1, 2):
        raise OpError("stft: expected a 1D or 2D tensor")
    around = n_fft // 2 if center else (n_fft - length) // 2 if align_to_window else 0
    signal = _padded(input, around, pad_mode if center else "constant") if around else input
    if not 0 < n_fft <= signal.shape[-1]:
        raise OpError(f"stft: expected 0 < n_fft < {signal.shape[-1]}, but got n_fft={n_fft}")
    half = not is_complex if onesided is None else onesided
    if half and is_complex:
        raise OpError("Cannot have onesided output if window or input is complex")
    shaped = _whole_window("stft", window, signal, length, n_fft)
    parts = front.unfold_windows(signal, **_laid(n_fft, step)) * shaped
    out = (rfft if half else fft)(parts, dim=-2, norm="ortho" if normalized else None)
    return out if return_complex or (return_complex is None and is_complex) else view_as_real(out)


def _laid(n_fft: int, step: int) -> dict[str, Any]:
    return {"window": (n_fft,), "stride": (step,), "padding": (0,), "dilation": (1,)}


def istft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, normalized: bool = False,
    onesided: bool | None = None, length: int | None = None, return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """Return the signal whose `stft` is nearest (Griffin & Lim 1984): windows, added and weighed.

    For the arguments see `stft`. `length` is that of the signal, which is cut or filled up with
    zeros to it.

    Raises:
        OpError: sizes that do not fit each other, or windows that leave a part out.
    """
    step, wide = _sizes("istft", n_fft, hop_length, win_length)
    if step > wide:
        raise OpError("istft: expected 0 < hop_length <= win_length")
    _check_spectrum(input, n_fft, onesided)
    half = input.shape[-2] != n_fft if onesided is None else onesided
    if return_complex and half:
        raise OpError("Cannot have onesided output if window or input is complex")
    if not return_complex and window is not None and window.is_complex():
        raise OpError("Complex windows are incompatible with return_complex=False")
    norm = "ortho" if normalized else None
    shaped = _whole_window("istft", window, input, wide, n_fft)
    if return_complex:
        parts = ifft(input, dim=-2, norm=norm)
    else:
        kept = slice_dim(input, input.ndim - 2, 0, n_fft // 2 + 1)
        parts = irfft(kept, n=n_fft, dim=-2, norm=norm)
    count = input.shape[-1]
    size = n_fft + step * (count - 1)
    weights = expand(shaped * shaped, (n_fft, count))
    added, envelope = (
        front.fold_windows(x, size=(size,), **_laid(n_fft, step)) for x in (parts * shaped, weights)
    )
    start = n_fft // 2 if center else 0
    stop = start + length if length is not None else size - start
    first, last = (slice_dim(x, x.ndim - 1, start, min(stop, size)) for x in (added, envelope))
    _check_envelope(last)
    out = first / last
    if stop <= size:
        return out
    warnings.warn(
        "The length of signal is shorter than the length parameter. Result is being padded with "
        "zeros in the tail. Please check your center and hop_length settings.",
        stacklevel=2,
    )
    return resized(out, out.ndim - 1, stop - start)


def _check_spectrum(input: Tensor, n_fft: int, onesided: bool | None) -> None:
    """Refuse what is no result of `stft`."""
    if not input.is_complex():
        raise OpError(
            "istft requires a complex-valued input tensor matching the output from stft with "
            "return_complex=True."
        )
    if 0 in input._data.shape:
        raise OpError("istft: input tensor cannot be empty.")
    if input.ndim not in (2, 3):
        raise OpError(f"istft: expected a tensor with 2 or 3 dimensions, but got {input.ndim}")
    found, half = input.shape[-2], n_fft // 2 + 1
    if found not in ((n_fft, half) if onesided is None else (half,) if onesided else (n_fft,)):
        raise OpError(
            "istft: expected the frequency dimension of the input tensor to match n_fft when "
            f"onesided=False, or n_fft // 2 + 1 when onesided=True, but got {found}"
        )


def _check_envelope(envelope: Tensor) -> None:
    """Refuse windows whose squares add up to 0 somewhere; a trace does not look at values."""
    if modes.recording and modes.RECORDER.get() is not None:
        return
    if bool((abs(envelope) <= _LEAST_ENVELOPE).any()):
        raise OpError("istft: window overlap add min: 1")
