"""NumPy's functions called on Tensors: they see arrays, and what they return becomes a Tensor.

Operators between a scalar of NumPy's and a Tensor are the Tensor's, so the scalar counts as a
number; between an array and a Tensor they are NumPy's, and the dtype of the result is.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracegraph.eager.conversion import to_array
from tracegraph.eager.tensors import Tensor, wrap

_REFLECTED: Final = {
    "add": "radd", "subtract": "rsub", "multiply": "rmul", "divide": "rtruediv",
    "floor_divide": "rfloordiv", "remainder": "rmod", "power": "rpow", "equal": "eq",
    "not_equal": "ne", "less": "gt", "less_equal": "ge", "greater": "lt", "greater_equal": "le",
    "bitwise_and": "rand", "bitwise_or": "ror", "bitwise_xor": "rxor",
}  # fmt: skip


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """Run one of NumPy's functions of elements; arrays given as `out` are returned.

    Raises:
        AutogradError: a Tensor requires a gradient, which NumPy cannot follow.
    """
    name = _REFLECTED.get(ufunc.__name__) if method == "__call__" and not options else None
    if name is not None and _is_scalar(inputs[0]):
        return getattr(inputs[1], f"__{name}__")(inputs[0][()])
    arrays = [to_array(x) if isinstance(x, Tensor) else x for x in inputs]
    result = getattr(ufunc, method)(*arrays, **options)
    if result is None or "out" in options:
        return result
    if isinstance(result, tuple):
        return tuple(array_wrap(self, r) for r in result)
    return array_wrap(self, result)


def _is_scalar(x: Any) -> bool:
    return isinstance(x, (np.generic, np.ndarray)) and x.ndim == 0


def array_wrap(
    self: Tensor, array: Any, context: Any = None, return_scalar: bool = False
) -> Tensor:
    """Return a result of NumPy's as a Tensor; bools become uint8, as in PyTorch."""
    array = np.asarray(array)
    return wrap(array.astype(np.uint8) if array.dtype == np.bool_ else array)
