"""What CuPy 14 has, of what op rows use: names, and the keywords that they take.

A new name is looked up in CuPy before it is added here; `check_against_cupy` verifies all of it
where CuPy is installed.
"""

from __future__ import annotations

import inspect
from types import ModuleType


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


UFUNCS = _names(
    """
    abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or
    bitwise_xor ceil conj copysign cos cosh divide divmod equal exp exp2 expm1 floor floor_divide
    fmax fmin fmod frexp gcd greater greater_equal hypot invert isfinite isinf isnan lcm ldexp
    left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not
    logical_or logical_xor maximum minimum modf multiply negative nextafter not_equal power
    reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan tanh
    true_divide trunc
    """
)
# name: keywords beside the arrays
FUNCTIONS = {
    "all": "axis keepdims", "angle": "", "any": "axis keepdims", "argsort": "axis kind",
    "atleast_1d": "", "ascontiguousarray": "dtype", "broadcast_arrays": "",
    "broadcast_to": "shape", "clip": "",
    "concatenate": "axis", "cumprod": "axis dtype", "cumsum": "axis dtype",
    "diagonal": "offset axis1 axis2", "einsum": "", "expand_dims": "axis", "flatnonzero": "",
    "flip": "axis", "matmul": "out", "max": "axis keepdims", "may_share_memory": "",
    "min": "axis keepdims", "moveaxis": "", "nonzero": "", "prod": "axis dtype keepdims",
    "roll": "shift axis",
    "repeat": "repeats axis", "searchsorted": "side", "sort": "axis kind", "stack": "axis",
    "sum": "axis dtype keepdims", "swapaxes": "", "take": "axis", "take_along_axis": "axis",
    "tensordot": "axes", "tril": "k", "triu": "k", "where": "",
    "unique": "return_index return_inverse return_counts axis equal_nan",
}  # fmt: skip
LINALG = _names(
    """
    cholesky det eigh eigvalsh inv qr slogdet solve svd
    """
)
FFT = {
    "fftn": "axes norm", "ifftn": "axes norm", "rfft": "axis norm", "irfft": "n axis norm",
}  # fmt: skip
CREATION = {
    "arange": "dtype", "array": "dtype copy", "asarray": "dtype", "empty": "dtype",
    "empty_like": "dtype order", "eye": "dtype", "full": "dtype", "ones": "dtype", "zeros": "dtype",
    "zeros_like": "dtype", "full_like": "dtype", "ones_like": "dtype", "linspace": "dtype",
}  # fmt: skip
# What does not touch arrays, and is NumPy's own in CuPy too.
HOST = _names(
    """
    bool bool_ broadcast_shapes can_cast complex64 complex128 dtype e finfo float16 float32 float64
    iinfo inf int16 int32 int64 int8 intp isscalar nan newaxis pi promote_types result_type uint16
    uint32 uint64 uint8
    """
)
METHODS = {
    "all": "axis keepdims", "any": "axis keepdims", "argmax": "axis dtype keepdims",
    "argmin": "axis dtype keepdims", "argsort": "axis kind", "astype": "order copy",
    "conj": "", "copy": "order", "cumprod": "axis dtype", "cumsum": "axis dtype", "diagonal": "",
    "dot": "", "fill": "", "flatten": "", "max": "axis keepdims", "mean": "axis dtype keepdims",
    "min": "axis keepdims", "nonzero": "", "prod": "axis dtype keepdims", "ravel": "",
    "repeat": "axis", "reshape": "", "squeeze": "axis", "std": "axis ddof keepdims",
    "sum": "axis dtype keepdims", "swapaxes": "", "take": "axis", "transpose": "",
    "var": "axis ddof keepdims", "view": "dtype",
}  # fmt: skip


def check_against_cupy(cupy: ModuleType) -> list[str]:
    """Return where the tables above say something else than an installed CuPy (no GPU needed)."""
    faults = [
        f"no cupy.{n}" for n in (*UFUNCS, *FUNCTIONS, *CREATION, *HOST) if not hasattr(cupy, n)
    ]
    faults += [f"no cupy.linalg.{n}" for n in LINALG if not hasattr(cupy.linalg, n)]
    faults += [f"no cupy.fft.{n}" for n in FFT if not hasattr(cupy.fft, n)]
    faults += [f"no method {n}" for n in METHODS if not hasattr(cupy.ndarray, n)]
    for name, keywords in (FUNCTIONS | CREATION).items():
        try:
            known = inspect.signature(getattr(cupy, name)).parameters
        except (TypeError, ValueError):
            continue
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            continue
        faults += [f"cupy.{name} has no {k}" for k in keywords.split() if k not in known]
    for name, keywords in METHODS.items():
        described = (getattr(cupy.ndarray, name).__doc__ or "").partition(")")[0]
        if "(" in described:
            faults += [f"ndarray.{name} has no {k}" for k in keywords.split() if k not in described]
    return faults
