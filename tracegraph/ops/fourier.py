"""Discrete Fourier transforms.

A transform is a sum over e^(−2πi·jk/n), or over its conjugate, times a scale: "one", "root" (the
root of 1/n) or "size" (1/n), n the number of elements along all dims. All are linear; so their
gradient rules are the adjoint transforms, of the same scale.
"""

from __future__ import annotations

from typing import Any, Final

from tracegraph.dtypes import float32, float64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.complex_numbers import real_part
from tracegraph.ops.core import COMPLEX, Case, Spec, case, define, row_major
from tracegraph.ops.reduction import cut
from tracegraph.tensor_type import Shape, TensorType

SCALES: Final = ("one", "root", "size")
_FORWARD: Final = dict(zip(SCALES, ("backward", "ortho", "forward"), strict=True))
_INVERSE: Final = dict(zip(SCALES, ("forward", "ortho", "backward"), strict=True))


def _check(x: TensorType, dims: Shape, scale: str) -> None:
    x.check_dims(*dims)
    if scale not in SCALES:
        raise OpError(f"scale must be one of {', '.join(SCALES)}, not {scale!r}")
    if not x.ndim or any(x.shape[d] == 0 for d in dims):
        raise OpError(f"Invalid number of data points (0) specified: dims {dims} of {x}")


def _fft_type(x: TensorType, *, dims: Shape, inverse: bool, scale: str) -> TensorType:
    if not x.dtype.is_complex:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    _check(x, dims, scale)
    return x


def _fft(xp: Any, x: Any, *, dims: Shape, inverse: bool, scale: str) -> Any:
    if inverse:
        return xp.fft.ifftn(x, axes=dims, norm=_INVERSE[scale])
    return xp.fft.fftn(x, axes=dims, norm=_FORWARD[scale])


def _complex(shape: tuple[int, ...], **attrs: Any) -> Case:
    return Case((Spec(shape, kind="c"),), attrs)


fft = define(
    "fft(x) -> y", type=_fft_type, kernel=row_major(_fft),
    vjp=(lambda m, g, dims, inverse, scale: m.fft(
        g, dims=dims, inverse=not inverse, scale=scale),),
    traits=(COMPLEX,),
    sample=(_complex((3, 4), dims=(1,), inverse=False, scale="one"),
            _complex((2, 3, 5), dims=(0, 2), inverse=True, scale="size"),
            _complex((0, 3), dims=(1,), inverse=False, scale="root")),
    doc="Fourier transform along dims (`inverse`: with the conjugate exponent).",
)  # fmt: skip


def _rfft_type(x: TensorType, *, dim: int, scale: str) -> TensorType:
    if x.dtype not in (float32, float64):
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    _check(x, (dim,), scale)
    size = x.shape[dim] // 2 + 1
    return TensorType(x.dtype.to_complex(), (*x.shape[:dim], size, *x.shape[dim + 1 :]))


def _rfft_vjp(m: Any, g: Any, x_type: TensorType, dim: int, scale: str) -> Any:
    """What is not given back has no gradient: the adjoint of a whole transform, with zeros."""
    missing = x_type.shape[dim] - g.shape[dim]
    pads = tuple((0, missing if i == dim else 0) for i in range(len(g.shape)))
    whole = m.pad(g, pads=pads, value=0)
    return real_part(m, m.fft(whole, dims=(dim,), inverse=True, scale=scale))


rfft = define(
    "rfft(x) -> y", type=_rfft_type,
    kernel=row_major(
        lambda xp, x, *, dim, scale: xp.fft.rfft(x, axis=dim, norm=_FORWARD[scale])),
    vjp=(_rfft_vjp,),
    sample=(case((3, 4), dim=1, scale="one"), case((5, 2), dim=0, scale="root"),
            case((1,), dim=0, scale="size"), case((0, 3), dim=1, scale="one")),
    doc="The first n // 2 + 1 elements of the Fourier transform along a dim of n real ones.",
)  # fmt: skip


def _irfft_type(x: TensorType, *, dim: int, size: int, scale: str) -> TensorType:
    if not x.dtype.is_complex:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    _check(x, (dim,), scale)
    if size < 1 or x.shape[dim] != size // 2 + 1:
        raise OpError(f"{size} real elements have {size // 2 + 1} in dim {dim}, not as {x}")
    return TensorType(x.dtype.to_real(), (*x.shape[:dim], size, *x.shape[dim + 1 :]))


def _irfft_vjp(m: Any, g: Any, dim: int, size: int, scale: str) -> Any:
    """Elements that stand for their conjugates too count twice."""
    found = m.rfft(g, dim=dim, scale=scale)
    half = found.shape[dim]
    twice = size - half + 1
    middle = cut(m, found, dim, 1, twice)
    return m.cat(
        cut(m, found, dim, 0, 1), middle + middle, cut(m, found, dim, twice, half), dim=dim
    )


irfft = define(
    "irfft(x) -> y", type=_irfft_type,
    kernel=row_major(lambda xp, x, *, dim, size, scale: xp.fft.irfft(
        x, n=size, axis=dim, norm=_INVERSE[scale])),
    vjp=(_irfft_vjp,), traits=(COMPLEX,),
    sample=(_complex((2, 3), dim=1, size=4, scale="size"),
            _complex((3, 2), dim=0, size=5, scale="one"),
            _complex((1,), dim=0, size=1, scale="root"),
            _complex((2,), dim=0, size=2, scale="root")),
    doc="The `size` real elements along a dim whose Fourier transform begins with x.",
)  # fmt: skip
