"""Named tuples that functions with several results return, as in `torch.return_types`.

Each is made when it is first asked for.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, Final

_FIELDS: Final = {
    "max": "values indices",
    "min": "values indices",
    "median": "values indices",
    "nanmedian": "values indices",
    "mode": "values indices",
    "kthvalue": "values indices",
    "sort": "values indices",
    "topk": "values indices",
    "cummax": "values indices",
    "cummin": "values indices",
    "aminmax": "min max",
    "frexp": "mantissa exponent",
    "histogram": "hist bin_edges",
    "qr": "Q R",
    "geqrf": "a tau",
    "svd": "U S V",
    "slogdet": "sign logabsdet",
    "triangular_solve": "solution cloned_coefficient",
    "linalg_qr": "Q R",
    "linalg_svd": "U S Vh",
    "linalg_eigh": "eigenvalues eigenvectors",
    "linalg_slogdet": "sign logabsdet",
    "linalg_lstsq": "solution residuals rank singular_values",
    "linalg_cholesky_ex": "L info",
    "linalg_inv_ex": "inverse info",
    "linalg_solve_ex": "result info",
    "linalg_lu_factor": "LU pivots",
    "linalg_lu_factor_ex": "LU pivots info",
    "linalg_lu": "P L U",
    "lu_unpack": "P L U",
}


def __getattr__(name: str) -> Any:
    """Make a type."""
    if name not in _FIELDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    make: Any = namedtuple
    made = make(name, _FIELDS[name], module=__name__)
    made.__repr__ = _shown
    return globals().setdefault(name, made)


def _shown(self: Any) -> str:
    fields = ",\n".join(f"{name}={x!r}" for name, x in zip(self._fields, self, strict=True))
    return f"torch.return_types.{type(self).__name__}(\n{fields})"


def __dir__() -> list[str]:
    return sorted({*globals(), *_FIELDS})
