"""Complex numbers: to and from their parts, conjugates, directions and angles.

The gradient of a real L by z = x + iy is dL/dx + i·dL/dy, as in PyTorch ("Autograd for Complex
Numbers"). The rules here are written for it; those of rows with the trait HOLOMORPHIC are
conjugated (see `SavePlan`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegraph.dtypes import BY_NUMPY, float32, float64
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import COMPLEX, ELEMENTWISE, VIEW, Case, Spec, case, define
from tracegraph.tensor_type import TensorType, broadcast_shapes


def _complex(*shapes: tuple[int, ...], **attrs: Any) -> Case:
    """A sample case of complex operands."""
    return Case(tuple(Spec(shape, kind="c") for shape in shapes), attrs)


_ONE = (_complex((3, 4)), _complex(()), _complex((0, 2)))


def parts(m: Any, z: Any) -> tuple[Any, Any]:
    """Return the real and the imaginary part."""
    both = m.view_as_real(z)
    lead = tuple((0, n, 1) for n in z.shape)
    return m.slice(both, index=(*lead, 0)), m.slice(both, index=(*lead, 1))


def real_part(m: Any, z: Any) -> Any:
    """Return the real part."""
    return parts(m, z)[0]


def _made_type(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is not y.dtype or x.dtype not in (float32, float64):
        raise DTypeError(
            f"Expected both inputs to be Float or Double tensors but got {x.dtype} and {y.dtype}"
        )
    return TensorType(x.dtype.to_complex(), broadcast_shapes([x.shape, y.shape]))


def _made(xp: Any, x: Any, y: Any) -> Any:
    out = xp.empty((*np.broadcast_shapes(x.shape, y.shape), 2), x.dtype)
    out[..., 0], out[..., 1] = x, y
    return _paired(xp, out)


complex_ = define(
    "complex(real, imag) -> z", type=_made_type, kernel=_made,
    vjp=(lambda m, g: parts(m, g)[0], lambda m, g: parts(m, g)[1]), traits=(ELEMENTWISE,),
    sample=(case((3, 4), (3, 4)), case((3, 1), (4,)), case((), ()), case((0, 2), (0, 2))),
    doc="real + i·imag.",
)  # fmt: skip


def _parts_type(z: TensorType) -> TensorType:
    if not z.dtype.is_complex:
        raise DTypeError("view_as_real is only supported for complex tensors")
    return TensorType(z.dtype.to_real(), (*z.shape, 2))


def _paired_type(x: TensorType) -> TensorType:
    if x.dtype not in (float32, float64):
        raise DTypeError(f"view_as_complex is only supported for float32 and float64, not {x}")
    if not x.ndim or x.shape[-1] != 2:
        raise OpError(f"Tensor must have a last dimension of size 2, not {x}")
    return TensorType(x.dtype.to_complex(), x.shape[:-1])


def _paired(xp: Any, x: Any) -> Any:
    """Complex numbers over the memory of pairs; over a copy where parts do not lie side by side."""
    if x.strides[-1] != x.itemsize or not x.size:
        x = xp.ascontiguousarray(x)
    return x.view(BY_NUMPY[x.dtype].to_complex().np)[..., 0]


def _joined(m: Any, x: Any) -> Any:
    """Pairs as complex numbers: `view_as_complex` of any order in memory."""
    return m.view_as_complex(m.copy(x))


view_as_real = define(
    "view_as_real(z) -> x", type=_parts_type,
    kernel=lambda xp, z: z[..., None].view(BY_NUMPY[z.dtype].to_real().np),
    vjp=(lambda m, g: _joined(m, g),), traits=(VIEW, COMPLEX),
    write_back=lambda m, base, value: _joined(m, value), sample=_ONE,
    doc="Real and imaginary parts, side by side in a last dim of size 2.",
)  # fmt: skip
view_as_complex = define(
    "view_as_complex(x) -> z", type=_paired_type, kernel=_paired,
    vjp=(lambda m, g: m.view_as_real(g),), traits=(VIEW,),
    write_back=lambda m, base, value: m.view_as_real(value),
    sample=(case((3, 4, 2)), case((2,)), case((0, 2))),
    doc="The pairs of a last dim of size 2 as complex numbers.",
)  # fmt: skip


def _same(z: TensorType) -> TensorType:
    if not z.dtype.is_complex:
        raise DTypeError(f"not implemented for dtype {z.dtype}")
    return z


def _to_parts(z: TensorType) -> TensorType:
    return _same(z).with_dtype(z.dtype.to_real())


conj = define(
    "conj(z) -> y", type=_same, kernel=lambda xp, z: xp.conj(z), vjp=(lambda m, g: m.conj(g),),
    traits=(ELEMENTWISE, COMPLEX), sample=_ONE, doc="The complex conjugate.",
)  # fmt: skip


def over_modulus(m: Any, x: Any, modulus: Any) -> Any:
    """Return complex x over real numbers; 0 where those are 0."""
    safe = m.where(m.eq(modulus, 0), m.full(shape=(), value=1, dtype=modulus.dtype), modulus)
    zero = m.full(shape=(), value=0, dtype=x.dtype)
    return m.where(m.eq(modulus, 0), zero, x / m.cast(safe, dtype=x.dtype))


def _sgn(xp: Any, z: Any) -> Any:
    modulus = xp.abs(z)
    return z / xp.where(modulus == 0, xp.ones((), modulus.dtype), modulus)


def _sgn_vjp(m: Any, g: Any, z: Any, y: Any) -> Any:
    """What of g is across the direction of z, over |z|."""
    along = real_part(m, m.conj(y) * g)
    return over_modulus(m, g - y * m.cast(along, dtype=g.dtype), m.abs(z))


sgn = define(
    "sgn(z) -> y", type=_same, kernel=_sgn, vjp=(_sgn_vjp,),
    traits=(ELEMENTWISE, COMPLEX), sample=_ONE, doc="z / |z|; 0 where z is.",
)  # fmt: skip


def _angle_vjp(m: Any, g: Any, z: Any) -> Any:
    """i·g·z / |z|²: no gradient where z is 0."""
    modulus = m.abs(z)
    x, y = parts(m, z)
    turned = m.complex(-g * y, g * x)
    return over_modulus(m, over_modulus(m, turned, modulus), modulus)


angle = define(
    "angle(z) -> y", type=_to_parts, kernel=lambda xp, z: xp.angle(z), vjp=(_angle_vjp,),
    traits=(ELEMENTWISE, COMPLEX), sample=_ONE, doc="The angle of z in radians, in (−π, π].",
)  # fmt: skip
