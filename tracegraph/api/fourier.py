"""Fourier transforms, with the names and argument forms of `torch.fft`.

`n` and `s` are sizes that dims are cut or filled up with zeros to; `norm` is "backward" (the
default: inverse transforms are over n), "ortho" (both are over the root of n) or "forward".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tracegraph.api.complex_numbers import conj
from tracegraph.api.promotion import cast, float_operand
from tracegraph.api.ranges import arange
from tracegraph.api.rearrangement import roll
from tracegraph.api.shape import cat
from tracegraph.dtypes import DType, get_default_dtype
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import DTypeError, OpError
from tracegraph.tensor_type import wrap_dim

_SCALES: Final = {
    None: ("one", "size"), "backward": ("one", "size"), "ortho": ("root", "root"),
    "forward": ("size", "one"),
}  # fmt: skip
Sizes = Sequence[int] | None


def _scale(norm: str | None, inverse: bool) -> str:
    if norm not in _SCALES:
        raise OpError(f'Invalid normalization mode: "{norm}"')
    return _SCALES[norm][inverse]


def _real(name: str, input: Tensor) -> Tensor:
    if input.is_complex():
        raise DTypeError(f"{name} expects a real input tensor, but got {input.dtype}")
    return float_operand(input)


def _complex(input: Tensor) -> Tensor:
    x = float_operand(input)
    return cast(x, _checked(type_of(x).dtype).to_complex())


def _checked(dtype: DType) -> DType:
    if dtype.itemsize == 2:
        raise DTypeError(f"Unsupported dtype {dtype}")
    return dtype


def resized(x: Tensor, dim: int, size: int) -> Tensor:
    """Return a tensor cut or filled up with zeros to a size of a dim.

    Raises:
        OpError: a size below 1.
    """
    if size < 1:
        raise OpError(f"Invalid number of data points ({size}) specified")
    known = x.shape[dim]
    if size < known:
        spans = tuple((0, size if i == dim else n, 1) for i, n in enumerate(x.shape))
        return front.slice(x, index=spans)
    if size > known:
        pads = tuple((0, size - known if i == dim else 0) for i in range(x.ndim))
        return front.pad(x, pads=pads, value=0)
    return x


def _plan(
    x: Tensor, s: Sizes, dim: int | Sequence[int] | None, halved: bool = False
) -> list[tuple[int, int]]:
    """Return the dims and what size each shall have; `halved`: the last has the sizes' halves.

    Raises:
        OpError: dims that repeat, or sizes that do not fit them.
    """
    given = (dim,) if isinstance(dim, int) else dim
    if given is None:
        given = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    if s is not None and len(s) > x.ndim:
        raise OpError(
            f"Got shape with {len(s)} values but input tensor only has {x.ndim} dimensions."
        )
    dims = [wrap_dim(int(d), x.ndim) for d in given]
    if len({*dims}) != len(dims):
        raise OpError("FFT dims must be unique")
    if s is not None and len(s) != len(dims):
        raise OpError("When given, dim and shape arguments must have the same length")
    sizes = [-1] * len(dims) if s is None else list(s)
    known = [x.shape[d] for d in dims]
    if halved and known:
        known[-1] = 2 * (known[-1] - 1)
    sizes = [n if size == -1 else size for n, size in zip(known, sizes, strict=True)]
    for size in sizes:
        if size < 1:
            raise OpError(f"Invalid number of data points ({size}) specified")
    return list(zip(dims, sizes, strict=True))


def _transform(x: Tensor, plan: list[tuple[int, int]], norm: str | None, inverse: bool) -> Tensor:
    """Return the transform of complex numbers along some dims."""
    scale = _scale(norm, inverse)
    for dim, size in plan:
        x = resized(x, dim, size)
    if not plan:
        return x
    return front.fft(x, dims=tuple(sorted(d for d, _ in plan)), inverse=inverse, scale=scale)


def _one(input: Tensor, n: int | None, dim: int) -> tuple[Sizes, tuple[int, ...]]:
    if not input.ndim:
        raise IndexError("Dimension specified as -1 but tensor has no dimensions")
    return None if n is None else (n,), (dim,)


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the Fourier transform along a dim."""
    return fftn(input, *_one(input, n, dim), norm)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the inverse Fourier transform along a dim."""
    return ifftn(input, *_one(input, n, dim), norm)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the first half (n // 2 + 1 elements) of the transform of real numbers."""
    return rfftn(_real("rfft", input), *_one(input, n, dim), norm)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the real numbers of whose transform the input is the first half."""
    return irfftn(input, *_one(input, n, dim), norm)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the real transform of numbers of which the input is the first half."""
    return hfftn(input, *_one(input, n, dim), norm)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return the first half of the inverse transform of real numbers."""
    return ihfftn(_real("ihfft", input), *_one(input, n, dim), norm)


_LAST_TWO: Final = (-2, -1)


def fft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Return the Fourier transform along two dims."""
    return fftn(input, s, dim, norm)


def ifft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Return the inverse Fourier transform along two dims."""
    return ifftn(input, s, dim, norm)


def rfft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Return the transform of real numbers along two dims, halved in the last of them."""
    return rfftn(_real("rfft2", input), s, dim, norm)


def irfft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Undo `rfft2`."""
    return irfftn(input, s, dim, norm)


def hfft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Return the real transform along two dims of what is halved in the last of them."""
    return hfftn(input, s, dim, norm)


def ihfft2(
    input: Tensor, s: Sizes = None, dim: Sequence[int] = _LAST_TWO, norm: str | None = None
) -> Tensor:
    """Undo `hfft2`."""
    return ihfftn(_real("ihfft2", input), s, dim, norm)


def fftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return the Fourier transform along dims (all by default)."""
    x = _complex(input)
    return _transform(x, _plan(x, s, dim), norm, inverse=False)


def ifftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return the inverse Fourier transform along dims (all by default)."""
    x = _complex(input)
    return _transform(x, _plan(x, s, dim), norm, inverse=True)


def _halve(name: str, input: Tensor, s: Sizes, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    """Real numbers to half of their transform: along the last dim first."""
    x = _real(name, input)
    _checked(type_of(x).dtype)
    *rest, (last, size) = _planned(name, x, s, dim)
    z = front.rfft(resized(x, last, size), dim=last, scale=_scale(norm, inverse))
    return _transform(conj(z) if inverse else z, rest, norm, inverse)


def _planned(name: str, x: Tensor, s: Sizes, dim: Any, halved: bool = False) -> Any:
    plan = _plan(x, s, dim, halved)
    if not plan:
        raise OpError(f"{name} must transform at least one axis")
    return plan


def _whole(name: str, input: Tensor, s: Sizes, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    """Half of a transform to real numbers: along the last dim last."""
    x = _complex(input)
    *rest, (last, size) = _planned(name, x, s, dim, halved=True)
    z = resized(_transform(x, rest, norm, inverse), last, size // 2 + 1)
    scale = _scale(norm, inverse)
    return front.irfft(z if inverse else conj(z), dim=last, size=size, scale=scale)


def rfftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return the transform of real numbers along dims, halved in the last of them."""
    return _halve("rfftn", input, s, dim, norm, inverse=False)


def irfftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Undo `rfftn`."""
    return _whole("irfftn", input, s, dim, norm, inverse=True)


def hfftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return the real transform along dims of what is halved in the last of them."""
    return _whole("hfftn", input, s, dim, norm, inverse=False)


def ihfftn(
    input: Tensor, s: Sizes = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Undo `hfftn`."""
    return _halve("ihfftn", input, s, dim, norm, inverse=True)


def _frequencies(places: Tensor, n: int, d: float, options: dict[str, Any]) -> Tensor:
    requires_grad = options.pop("requires_grad", False)
    dtype = options.pop("dtype", None) or get_default_dtype()
    out = cast(places, dtype) * (1.0 / (n * d))
    return out.requires_grad_() if requires_grad else out


def fftfreq(n: int, d: float = 1.0, *, device: Any = None, **options: Any) -> Tensor:
    """Return the frequencies of the elements of a transform of n samples, `d` apart."""
    half = (n + 1) // 2
    places = cat([arange(half, device=device), arange(-(n // 2), 0, device=device)])
    return _frequencies(places, n, d, options)


def rfftfreq(n: int, d: float = 1.0, *, device: Any = None, **options: Any) -> Tensor:
    """Return the frequencies of the elements of `rfft` of n samples, `d` apart."""
    return _frequencies(arange(n // 2 + 1, device=device), n, d, options)


def _shift(input: Tensor, dim: Any, back: bool) -> Tensor:
    given = (dim,) if isinstance(dim, int) else range(input.ndim) if dim is None else dim
    dims = [wrap_dim(int(d), input.ndim) for d in given]
    return roll(input, tuple((input.shape[d] + back) // 2 for d in dims), tuple(dims))


def fftshift(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Move frequency 0 to the middle of dims (all by default)."""
    return _shift(input, dim, back=False)


def ifftshift(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Undo `fftshift`."""
    return _shift(input, dim, back=True)
