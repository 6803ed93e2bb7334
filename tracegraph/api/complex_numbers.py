"""Complex tensors: made of parts or of polar coordinates, seen as pairs, conjugated."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api.pointwise import clamp_max, cos, eq, isnan, logical_or, sign, sin, where
from tracegraph.api.promotion import float_operand
from tracegraph.api.shape import t, transpose
from tracegraph.eager.computing import operand_types
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.storage import bare
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.table import OPS


def _checked(op: str, *operands: Tensor) -> Tensor:
    """Run an op once its type rule holds: NumPy would take other operands too."""
    OPS[op].infer(operand_types(operands), {})
    out: Tensor = dispatch(OPS[op], operands, {})
    return out


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex."""
    return type_of(input).dtype.is_complex


def is_conj(input: Tensor) -> bool:
    """Whether the tensor is a conjugate that is not computed yet: never."""
    return False


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """Return real + i·imag.

    Raises:
        DTypeError: the parts are not of one dtype, float32 or float64.
    """
    return _checked("complex", real, imag)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Return the complex numbers of these moduli and angles (radians).

    Raises:
        DTypeError: the two are not of one dtype, float32 or float64.
    """
    return complex(abs * cos(angle), abs * sin(angle))


def view_as_real(input: Tensor) -> Tensor:
    """Return a view [..., 2] of the real and imaginary parts.

    Raises:
        DTypeError: `input` is not complex.
    """
    return _checked("view_as_real", input)


def view_as_complex(input: Tensor) -> Tensor:
    """Return a view of pairs [..., 2] as complex numbers.

    Raises:
        DTypeError: neither float32 nor float64.
        OpError: the last dim is not of size 2, or the pairs do not lie as complex numbers would.
    """
    data = bare(input._data)
    if hasattr(data, "strides") and data.size and data.shape[-1:] == (2,):
        steps = [s // data.itemsize for s in data.strides]
        if steps[-1] != 1:
            raise OpError("Tensor must have a last dimension with stride 1")
        if any(s % 2 for s in steps[:-1]):
            raise OpError("Tensor must have a stride divisible by 2 for all but last dimension")
        if input.storage_offset() % 2:
            raise OpError("Tensor must have a storage_offset divisible by 2")
    return _checked("view_as_complex", input)


def _part(input: Tensor, place: int) -> Tensor:
    both = front.view_as_real(input)
    out: Tensor = front.slice(both, index=(*((0, n, 1) for n in input._data.shape), place))
    return out


def real(input: Tensor) -> Tensor:
    """Return a view of the real parts; a real tensor itself."""
    return _part(input, 0) if is_complex(input) else input


def imag(input: Tensor) -> Tensor:
    """Return a view of the imaginary parts.

    Raises:
        DTypeError: `input` is not complex.
    """
    if not is_complex(input):
        raise DTypeError("imag is not implemented for tensors with non-complex dtypes.")
    return _part(input, 1)


def isreal(input: Tensor) -> Tensor:
    """Whether an element has no imaginary part."""
    return eq(imag(input), 0) if is_complex(input) else logical_or(eq(input, input), True)


def conj(input: Tensor) -> Tensor:
    """Return the complex conjugates, in fresh memory; a real tensor itself."""
    out: Tensor = front.conj(input) if is_complex(input) else input
    return out


conj_physical = conj


def resolve_conj(input: Tensor) -> Tensor:
    """Return the input itself: conjugates are always computed."""
    return input


resolve_neg = resolve_conj


def angle(input: Tensor) -> Tensor:
    """Return the angle in radians; of real numbers π below 0 and 0 above. NaN stays."""
    if is_complex(input):
        out: Tensor = front.angle(input)
        return out
    x = float_operand(input)
    return where(isnan(x), math.nan, abs(clamp_max(sign(x), 0)) * math.pi)


def sgn(input: Tensor) -> Tensor:
    """Return z / |z|, 0 where z is; of real numbers the sign."""
    out: Tensor = front.sgn(input) if is_complex(input) else sign(input)
    return out


def adjoint(input: Tensor) -> Tensor:
    """Return the last two dims swapped, conjugated: of a real tensor a view."""
    return conj(transpose(input, -2, -1))


def _set_real(self: Tensor, value: Any) -> None:
    real(self).copy_(value)


def _set_imag(self: Tensor, value: Any) -> None:
    imag(self).copy_(value)


PROPERTIES: dict[str, Any] = {
    "real": property(real, _set_real),
    "imag": property(imag, _set_imag),
    "mH": property(adjoint),
    "H": property(lambda self: conj(t(self))),
}
