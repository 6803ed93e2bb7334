"""What the rows on matrices share: type checks, layouts of operands, calls of LAPACK."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from tracegraph.dtypes import FIELDS
from tracegraph.errors import DTypeError, LinAlgError, OpError
from tracegraph.tensor_type import TensorType


def check_matrix(x: TensorType) -> None:
    """Refuse what is no batch of float matrices."""
    if x.dtype not in FIELDS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    if x.ndim < 2:
        raise OpError(f"The input tensor A must have at least 2 dimensions, but it is {x}")


def check_square(x: TensorType) -> None:
    """Refuse what is no batch of square float matrices."""
    check_matrix(x)
    if x.shape[-1] != x.shape[-2]:
        raise OpError(f"A must be batches of square matrices, but they are {x}")


def same_square(x: TensorType) -> TensorType:
    """Type rule: square matrices to square matrices."""
    check_square(x)
    return x


def multiplied(x: Any, y: Any) -> Any:
    """Return x @ y for arrays, whose last bits do not depend on how repeated elements lie.

    BLAS takes matrices whose rows or columns lie close. NumPy's loops for others (expanded ones,
    say) add in another order, and are slow. CuPy copies them itself.
    """
    if isinstance(x, np.ndarray) and not (x.flags.forc and y.flags.forc):
        x, y = _for_blas(x), _for_blas(y)
    return x @ y


def _for_blas(x: Any) -> Any:
    if x.flags.forc or x.dtype.kind not in "fc":
        return x
    (rows, columns), (down, along), size = x.shape[-2:], x.strides[-2:], x.itemsize
    has_rows = along == size and (rows == 1 or down >= columns * size)
    has_columns = down == size and (columns == 1 or along >= rows * size)
    return x if has_rows or has_columns else np.ascontiguousarray(x)


def swapped(m: Any, x: Any) -> Any:
    """Return matrices transposed."""
    n = len(x.shape)
    return m.permute(x, dims=(*range(n - 2), n - 1, n - 2))


def as_row(m: Any, x: Any) -> Any:
    """Return a vector as a row: it scales the columns of what it multiplies."""
    return m.reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))


def as_column(m: Any, x: Any) -> Any:
    """Return a vector as a column: it scales the rows of what it multiplies."""
    return m.reshape(x, shape=(*x.shape, 1))


def per_matrix(m: Any, x: Any) -> Any:
    """Return one number per matrix, laid against the matrices."""
    return m.reshape(x, shape=(*x.shape, 1, 1))


def lapack(name: str, why: str) -> Any:
    """Return a kernel of `xp.linalg` whose failure is a LinAlgError that says why."""

    def kernel(xp: Any, *arrays: Any, **options: Any) -> Any:
        try:
            with _raising(xp):
                return getattr(xp.linalg, name)(*arrays, **options)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"linalg.{name}: {why} ({error})") from None

    return kernel


def _raising(xp: Any) -> Any:
    """A context where failures raise: NumPy's always do, CuPy's only if told to."""
    if xp.__name__ == "numpy":
        return nullcontext()
    import cupyx

    return cupyx.errstate(linalg="raise")
