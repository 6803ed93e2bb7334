"""The face of linear algebra, as `torch.linalg`."""

from tracegraph.api.elimination import (
    householder_product,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    matrix_exp,
)
from tracegraph.api.linear_algebra import *  # noqa: F403
from tracegraph.api.linear_algebra import __all__ as _names

__all__ = [
    *_names, "householder_product", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matrix_exp",
]  # fmt: skip
