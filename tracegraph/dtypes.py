"""Element types: PyTorch's names over NumPy dtypes, and PyTorch's promotion rules.

Promotion follows the categories of PyTorch: a Python scalar or a 0-d tensor changes the result
type only where its category (bool < integral < floating < complex) is higher than that of the
other operands.
"""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np

from tracegraph.errors import DTypeError

BOOL_KIND: Final = 0
INT_KIND: Final = 1
FLOAT_KIND: Final = 2
COMPLEX_KIND: Final = 3  # gradients flow through the kinds from FLOAT_KIND on


class DType:
    """One element type.

    Attributes: `name` ("float32"), `np` (the NumPy dtype), `itemsize` (bytes), `kind`
    (BOOL_KIND, INT_KIND, FLOAT_KIND or COMPLEX_KIND), `code` ("f32", as in the IR's text form),
    `compute` (the dtype that arithmetic is done in: float32 for the 16-bit floats).
    """

    __slots__ = ("code", "compute", "itemsize", "kind", "name", "np")

    name: str
    code: str
    np: np.dtype[Any]
    itemsize: int
    kind: int
    compute: DType

    def __init__(self, name: str, code: str, numpy_type: Any, kind: int) -> None:
        self.name = name
        self.code = code
        self.np = np.dtype(numpy_type)
        self.itemsize = self.np.itemsize
        self.kind = kind
        self.compute = self

    @property
    def is_floating_point(self) -> bool:
        """Whether this is one of the floating dtypes."""
        return self.kind == FLOAT_KIND

    @property
    def is_complex(self) -> bool:
        """Whether this is one of the complex dtypes."""
        return self.kind == COMPLEX_KIND

    def to_complex(self) -> DType:
        """Return the complex dtype of this precision; complex64 for all below float64."""
        return self if self.is_complex else complex128 if self is float64 else complex64

    def to_real(self) -> DType:
        """Return the dtype of the parts of a complex dtype; of another dtype itself."""
        return _PARTS.get(self, self)

    @property
    def is_signed(self) -> bool:
        """Whether negative values can be represented."""
        return self.kind >= FLOAT_KIND or (self.kind == INT_KIND and self.np.kind != "u")

    def __repr__(self) -> str:
        return f"tracegraph.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype_of, (self.name,))


bool_ = DType("bool", "b8", np.bool_, BOOL_KIND)
uint8 = DType("uint8", "u8", np.uint8, INT_KIND)
uint16 = DType("uint16", "u16", np.uint16, INT_KIND)
uint32 = DType("uint32", "u32", np.uint32, INT_KIND)
uint64 = DType("uint64", "u64", np.uint64, INT_KIND)
int8 = DType("int8", "i8", np.int8, INT_KIND)
int16 = DType("int16", "i16", np.int16, INT_KIND)
int32 = DType("int32", "i32", np.int32, INT_KIND)
int64 = DType("int64", "i64", np.int64, INT_KIND)
float16 = DType("float16", "f16", np.float16, FLOAT_KIND)
bfloat16 = DType("bfloat16", "bf16", ml_dtypes.bfloat16, FLOAT_KIND)
float32 = DType("float32", "f32", np.float32, FLOAT_KIND)
float64 = DType("float64", "f64", np.float64, FLOAT_KIND)
complex64 = DType("complex64", "c64", np.complex64, COMPLEX_KIND)
complex128 = DType("complex128", "c128", np.complex128, COMPLEX_KIND)
float16.compute = bfloat16.compute = float32
_PARTS: Final = {complex64: float32, complex128: float64}

FLOATS: Final = (float16, bfloat16, float32, float64)
COMPLEX: Final = (complex64, complex128)
INTS: Final = (uint8, uint16, uint32, uint64, int8, int16, int32, int64)
NUMBERS: Final = INTS + FLOATS
REALS: Final = (bool_, *NUMBERS)
ALL: Final = REALS + COMPLEX
FIELDS: Final = FLOATS + COMPLEX  # where there is division
RINGS: Final = NUMBERS + COMPLEX
HALVES: Final = (float16, bfloat16)

BY_NUMPY: Final[dict[Any, DType]] = {d.np: d for d in ALL}
BY_CODE: Final[dict[str, DType]] = {d.code: d for d in ALL}
_BY_NAME: Final[dict[str, DType]] = {d.name: d for d in ALL} | {
    "float": float32, "double": float64, "half": float16,
    "int": int32, "long": int64, "short": int16, "cfloat": complex64, "cdouble": complex128,
}  # fmt: skip

_PYTHON_KIND: Final[dict[type, int]] = {
    bool: BOOL_KIND, int: INT_KIND, float: FLOAT_KIND, complex: COMPLEX_KIND,
}  # fmt: skip


class _Default:
    """The default floating dtype (PyTorch's `set_default_dtype`)."""

    dtype: DType = float32


def get_default_dtype() -> DType:
    """Return the floating dtype that Python floats become."""
    return _Default.dtype


def set_default_dtype(dtype: DType) -> None:
    """Set the floating dtype that Python floats become.

    Raises:
        DTypeError: `dtype` is not a floating dtype.
    """
    if dtype_of(dtype).kind != FLOAT_KIND:
        raise DTypeError(f"the default dtype must be floating, not {dtype}")
    _Default.dtype = dtype_of(dtype)


def dtype_of(spec: Any) -> DType:
    """Return the DType for a DType, a name, a Python type or a NumPy dtype.

    Raises:
        DTypeError: there is no such dtype here.
    """
    if isinstance(spec, DType):
        return spec
    if isinstance(spec, str) and spec in _BY_NAME:
        return _BY_NAME[spec]
    if spec is float:
        return _Default.dtype
    if spec is int:
        return int64
    if spec is bool:
        return bool_
    if spec is complex:
        return _Default.dtype.to_complex()
    try:
        return BY_NUMPY[np.dtype(spec).newbyteorder("=")]
    except (TypeError, KeyError):
        names = ", ".join(d.name for d in ALL)
        raise DTypeError(f"no dtype {spec!r}; the dtypes are {names}") from None


def scalar_kind(value: Any) -> int:
    """Return the category of a Python or NumPy scalar."""
    kind = _PYTHON_KIND.get(type(value))
    if kind is not None:
        return kind
    if isinstance(value, (bool, np.bool_)):
        return BOOL_KIND
    if isinstance(value, (int, np.integer)):
        return INT_KIND
    if isinstance(value, (float, np.floating)):
        return FLOAT_KIND
    if isinstance(value, (complex, np.complexfloating)):
        return COMPLEX_KIND
    raise DTypeError(f"{value!r} of type {type(value).__name__} is not a number or a tensor")


def scalar_dtype(kind: int) -> DType:
    """Return the dtype that a lone Python scalar of this category becomes."""
    if kind == COMPLEX_KIND:
        return _Default.dtype.to_complex()
    return (bool_, int64, _Default.dtype)[kind]


_ORDER: Final = {d: i for i, d in enumerate((int8, int16, int32, int64))}
_UNSIGNED: Final = {d: i for i, d in enumerate((uint8, uint16, uint32, uint64))}


def promote_types(a: DType, b: DType) -> DType:
    """Return the smallest dtype that both promote to, by PyTorch's table.

    Raises:
        DTypeError: a mix of a signed dtype with uint16, uint32 or uint64 (as in PyTorch).
    """
    if a is b:
        return a
    if a.kind != b.kind:
        high, low = (a, b) if a.kind > b.kind else (b, a)
        return complex128 if high.kind == COMPLEX_KIND and low is float64 else high
    if a.kind == COMPLEX_KIND:
        return complex128
    if a.kind == FLOAT_KIND:
        if a.itemsize == b.itemsize:
            return float32
        return a if a.itemsize > b.itemsize else b
    if (a in _ORDER) == (b in _ORDER):
        return a if a.itemsize > b.itemsize else b
    signed, unsigned = (a, b) if a in _ORDER else (b, a)
    if unsigned is uint8:
        return signed if signed is not int8 else int16
    raise DTypeError(f"promotion of {a} with {b} is not defined; cast one with .to(dtype)")


def as_pairs(array: Any) -> Any:
    """Return complex numbers as pairs (real, imaginary) in a last dim, others as they are."""
    return np.stack((array.real, array.imag), -1) if array.dtype.kind == "c" else array


def from_pairs(array: Any, dtype: DType) -> Any:
    """Undo `as_pairs` for a complex `dtype`; others stay as they are."""
    return np.ascontiguousarray(array).view(dtype.np)[..., 0] if dtype.is_complex else array


def finfo(dtype: DType) -> Any:
    """Return NumPy's `finfo` (bits, eps, max, min, tiny, resolution) of a floating dtype.

    Of a complex dtype: that of its parts.
    """
    return _FInfo(dtype_of(dtype).to_real())


class _FInfo:
    """Limits of a floating dtype as Python floats."""

    def __init__(self, dtype: DType) -> None:
        info = ml_dtypes.finfo(dtype.np)
        self.dtype = dtype.name
        self.bits = int(info.bits)
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = float(info.resolution)

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        shown = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({shown}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype as Python ints: bits, min, max."""

    def __init__(self, dtype: DType) -> None:
        info = np.iinfo(dtype_of(dtype).np)
        self.dtype = dtype_of(dtype).name
        self.bits, self.min, self.max = int(info.bits), int(info.min), int(info.max)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
