"""Contraction: batched matrix products. Convolutions are in `convolution.py`."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.dtypes import RINGS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import CONTRACTION, HOLOMORPHIC, case, define, in_float32
from tracegraph.ops.matrices import multiplied, swapped
from tracegraph.tensor_type import TensorType, broadcast_shapes


def _matmul_type(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is not y.dtype:
        raise DTypeError(f"expected both matrices to have the same dtype, {x.dtype} != {y.dtype}")
    if x.dtype not in RINGS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < 2 or y.ndim < 2:
        raise OpError(f"matmul needs matrices of at least 2 dims, got {x} and {y}")
    if x.shape[-1] != y.shape[-2]:
        raise OpError(
            f"mat1 and mat2 shapes cannot be multiplied ({x.shape[-2]}x{x.shape[-1]} and "
            f"{y.shape[-2]}x{y.shape[-1]})"
        )
    lead = broadcast_shapes([x.shape[:-2], y.shape[:-2]])
    return x.with_shape((*lead, x.shape[-2], y.shape[-1]))


def _matmul(xp: Any, x: Any, y: Any) -> Any:
    """`x @ y`, with leading dims folded into one matrix product where y is a plain matrix.

    NumPy multiplies a batch matrix by matrix: folded, [512, 64, 64] @ [64, 64] is 5 times faster.
    """
    if y.ndim == 2 and x.ndim > 2:
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        return multiplied(rows, y).reshape(*x.shape[:-1], y.shape[-1])
    return multiplied(x, y)


def _weight_vjp(m: Any, g: Any, x: Any, y_type: TensorType) -> Any:
    """Gradient of the second operand; a plain matrix is contracted with all leading dims."""
    if y_type.ndim == 2 and len(x.shape) > 2:
        x = m.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))
        g = m.reshape(g, shape=(math.prod(g.shape[:-1]), g.shape[-1]))
    return m.matmul(swapped(m, x), g)


matmul = define(
    "matmul(x, y) -> z", type=_matmul_type, kernel=in_float32(_matmul),
    vjp=(lambda m, g, y: m.matmul(g, swapped(m, y)), _weight_vjp),
    traits=(CONTRACTION, HOLOMORPHIC),
    sample=(case((2, 3), (3, 4)), case((5, 2, 3), (3, 4)), case((2, 1, 2, 3), (3, 3, 2)),
            case((2, 0), (0, 3))),
    doc="Matrix product of the last two dims; leading dims broadcast.",
)  # fmt: skip
