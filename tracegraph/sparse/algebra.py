"""Products, sums and elementwise functions of sparse tensors, written in operations on the parts.

Functions that take several tensors are called where at least one of them is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tracegraph.api import contraction, pointwise
from tracegraph.api.functions import FUNCTIONS
from tracegraph.api.promotion import cast, result_type, scaled
from tracegraph.api.selection import index_add, index_put, scatter_reduce
from tracegraph.api.shape import cat, expand, reshape, unbind
from tracegraph.api.sorting import unique
from tracegraph.dtypes import DType, int64
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import DTypeError, OpError
from tracegraph.sparse.places import pairs, permute, unsqueeze
from tracegraph.sparse.tensor import (
    OPERATIONS,
    SEVERAL,
    SparseTensor,
    coalesce,
    gathered,
    is_number,
    keys_of,
    like,
    make,
    refused,
)
from tracegraph.tensor_type import wrap_dim

# Products.


def _check_product(name: str, x: Tensor, y: Tensor, dims: tuple[int, int]) -> None:
    for place, (t, ndim) in enumerate(((x, dims[0]), (y, dims[1])), 1):
        if t.ndim != ndim:
            raise OpError(f"{name}: expected a {ndim}-D tensor as argument {place}, got {t.ndim}-D")
        if isinstance(t, SparseTensor) and t.entries.ndim > 1:
            raise refused(f"{name}() with dense dims in a sparse tensor")
    if x.dtype is not y.dtype:
        raise DTypeError(
            f"expected m1 and m2 to have the same dtype, but got: {x.dtype.name} != {y.dtype.name}"
        )
    if x.shape[-1] != y.shape[0 if y.ndim < 3 else 1]:
        raise OpError(f"{name}: sizes {list(x.shape)} and {list(y.shape)} do not fit")


def _into_rows(x: SparseTensor, dense: Tensor) -> Tensor:
    """Return x @ dense for a sparse matrix and a dense one or a vector."""
    found = dense[x.places[1]]
    weights = x.entries if dense.ndim == 1 else reshape(x.entries, (-1, 1))
    out = dense.new_zeros((x.extent[0], *dense.shape[1:]))
    return index_add(out, 0, x.places[0], weights * found)


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices: sparse if both are."""
    x, y = input, mat2
    if not (x.is_sparse or y.is_sparse):
        return contraction.mm(x, y)
    _check_product("mm", x, y, (2, 2))
    if not isinstance(x, SparseTensor):
        return _into_rows(_turned(y), x.t()).t()
    if not isinstance(y, SparseTensor):
        return _into_rows(x, y)
    i, j = pairs(x.places[1], y.places[0])
    places = cat([x.places[:1, i], y.places[1:, j]])
    extent = (x.extent[0], y.extent[1])
    return coalesce(make(places, x.entries[i] * y.entries[j], extent, False))


spmm = dsmm = mm


def _turned(x: Any) -> SparseTensor:
    return permute(x, 1, 0)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a sparse matrix and a vector."""
    if not isinstance(input, SparseTensor) or vec.is_sparse:
        raise refused("mv() with a sparse vector")
    _check_product("mv", input, vec, (2, 1))
    return _into_rows(input, vec)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of sparse matrices with dense ones, one for each batch element."""
    if not isinstance(input, SparseTensor) or mat2.is_sparse:
        raise refused("bmm() with a sparse second operand")
    _check_product("bmm", input, mat2, (3, 3))
    batch, rows, inner = input.extent
    if mat2.shape[0] != batch:
        raise OpError(f"batch sizes differ: {list(input.shape)} and {list(mat2.shape)}")
    at, row, column = unbind(input.places)
    places = cat([reshape(at * rows + row, (1, -1)), reshape(at * inner + column, (1, -1))])
    wide = make(places, input.entries, (batch * rows, batch * inner), False)
    out = _into_rows(wide, reshape(mat2, (batch * inner, mat2.shape[2])))
    return reshape(out, (batch, rows, mat2.shape[2]))


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Product of matrices, or of a matrix and a vector."""
    if input.ndim == 2 and other.ndim == 2:
        return mm(input, other)
    if input.ndim == 2 and other.ndim == 1:
        return mv(input, other)
    if input.ndim == 1 and other.ndim == 2:
        return mv(_turned(other), input)
    raise refused(f"matmul() of a {input.ndim}-D and a {other.ndim}-D tensor")


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta·input + alpha·(mat1 @ mat2)."""
    product = scaled(mm(mat1, mat2), alpha)
    if beta == 0 or isinstance(product, SparseTensor):
        return product if beta == 0 else add(scaled(input, beta), product)
    if isinstance(input, SparseTensor):
        raise refused("addmm() of a sparse tensor and a dense product")
    return scaled(input, beta) + product


# Elementwise, of several operands.


def _check_sizes(name: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise OpError(
            f"{name}: expected sizes of both operands to be the same, but {list(x.shape)} != "
            f"{list(y.shape)}"
        )


def add(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return input + alpha·other: sparse if both are, else dense.

    Raises:
        SparseError: the first operand alone is sparse.
    """
    x, y = input, other
    if not isinstance(y, SparseTensor):
        raise refused("add(sparse, dense), unlike add(dense, sparse),")
    _check_sizes("add", x, y)
    dtype = result_type(x.entries if isinstance(x, SparseTensor) else x, y.entries)
    entries = cast(scaled(y.entries, alpha), dtype)
    if not isinstance(x, SparseTensor):
        if not y.places.shape[0]:
            return cast(x, dtype) + entries.sum(0)
        return index_put(cast(x, dtype), unbind(y.places), entries, accumulate=True)
    if x.places.shape[0] != y.places.shape[0]:
        raise OpError("add: operands have different numbers of sparse dims")
    joined = cat([cast(x.entries, dtype), entries])
    out = make(cat([x.places, y.places], 1), joined, x.extent, False)
    return coalesce(out) if x.coalesced and y.coalesced else out


def sub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return input − alpha·other."""
    if not isinstance(other, SparseTensor):
        raise refused("sub(sparse, dense), unlike sub(dense, sparse),")
    return add(input, other, alpha=-alpha)


def mul(input: Any, other: Any) -> SparseTensor:
    """Return products: with a number, with a dense tensor at the places, or of common places."""
    x, y = (input, other) if isinstance(input, SparseTensor) else (other, input)
    if is_number(y):
        return like(x, x.entries * y)
    _check_sizes("mul", *((x, y) if y.is_sparse else (x, expand(y, x.shape))))
    if not isinstance(y, SparseTensor):
        return like(x, x.entries * gathered(expand(y, x.shape), x.places))
    if x.places.shape[0] != y.places.shape[0]:
        raise OpError("mul: operands have different numbers of sparse dims")
    x, y = coalesce(x), coalesce(y)
    dims = range(x.places.shape[0])
    i, j = pairs(keys_of(x, dims), keys_of(y, dims))
    return make(x.places[:, i], x.entries[i] * y.entries[j], x.extent, True)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> SparseTensor:
    """Return the tensor divided by a number; with a rounding mode it is coalesced first."""
    if not isinstance(input, SparseTensor) or not is_number(other):
        raise refused("div() by anything but a number")
    x = input if rounding_mode is None else coalesce(input)
    return like(x, pointwise.div(x.entries, other, rounding_mode=rounding_mode))


def floor_divide(input: Any, other: Any) -> SparseTensor:
    """Return the tensor divided by a number and rounded down."""
    return div(input, other, rounding_mode="floor")


def pow(input: Any, other: Any) -> SparseTensor:
    """Return the tensor to the power of a positive number."""
    if not isinstance(input, SparseTensor) or not isinstance(other, (int, float)) or other <= 0:
        raise refused("pow() with anything but a positive number as exponent")
    x = coalesce(input)
    return like(x, x.entries**other)


# Elementwise, of one operand: functions that are 0 at 0.

_AT_ZERO: Final = """
abs absolute arcsin arcsinh arctan arctanh asin asinh atan atanh ceil deg2rad erf erfinv expm1 fix
floor frac isinf isnan isneginf isposinf log1p rad2deg relu round sgn sign sin sinh sqrt square tan
tanh trunc
"""


def _at_entries(name: str) -> Callable[..., SparseTensor]:
    function = FUNCTIONS[name]

    def apply(input: SparseTensor, **options: Any) -> SparseTensor:
        x = coalesce(input)
        return like(x, function(x.entries, **options))

    apply.__name__, apply.__doc__ = name, function.__doc__
    return apply


def neg(input: SparseTensor) -> SparseTensor:
    """Return −input."""
    return like(input, -input.entries)


# Reductions and normalisation.


def sum(
    input: SparseTensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum of all elements, or over dims: sparse as long as a sparse dim is left."""
    if dim is None or dim == ():
        return input.entries.sum(dtype=dtype)
    count, ndim = input.places.shape[0], len(input.extent)
    dims = sorted(wrap_dim(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim))
    if len(set(dims)) < len(dims):
        raise OpError(f"sum(): a dim appears multiple times in {dim}")
    entries = input.entries
    if dtype is None and not entries.dtype.is_floating_point:
        dtype = int64
    entries = entries if dtype is None else cast(entries, dtype)
    inner = [d - count + 1 for d in dims if d >= count]
    if inner:
        entries = entries.sum(inner)
    extent = [n for d, n in enumerate(input.extent) if d not in dims]
    kept = [d for d in range(count) if d not in dims]
    if not kept:
        out: Tensor = entries.sum(0)
    elif len(kept) == count:
        out = make(input.places, entries, extent, input.coalesced)
    else:
        out = coalesce(make(input.places[kept], entries, extent, False))
    for d in dims if keepdim else ():
        out = unsqueeze(out, d) if isinstance(out, SparseTensor) else out.unsqueeze(d)
    return out


def norm(input: SparseTensor, p: Any = "fro", dim: Any = None) -> Tensor:
    """Return the p-norm of all elements, p > 0."""
    if dim is not None or (p not in (None, "fro") and p <= 0):
        raise refused("norm() over a dim, or with p of 0 and less,")
    result: Tensor = coalesce(input).entries.norm(p)
    return result


def any(input: SparseTensor) -> Tensor:
    """Whether any element is not zero."""
    found: Tensor = coalesce(input).entries.any()
    return found


def softmax(input: SparseTensor, dim: int, *, dtype: DType | None = None) -> SparseTensor:
    """Return exp(x) / sum(exp(x)) along a dim over the entries that there are."""
    return _normalised("softmax", input, dim, dtype)


def log_softmax(input: SparseTensor, dim: int, *, dtype: DType | None = None) -> SparseTensor:
    """Return x − log(sum(exp(x))) along a dim over the entries that there are."""
    return _normalised("log_softmax", input, dim, dtype)


def _normalised(name: str, input: SparseTensor, dim: int, dtype: DType | None) -> SparseTensor:
    if not isinstance(input, SparseTensor):
        raise OpError(f"sparse.{name}() expects a sparse tensor; use {name}() for dense ones")
    x = coalesce(input)
    entries = x.entries if dtype is None else cast(x.entries, dtype)
    place, count = wrap_dim(dim, len(x.extent)), x.places.shape[0]
    if place >= count:
        return like(x, getattr(entries, name)(place - count + 1))
    keys = keys_of(x, [d for d in range(count) if d != place])
    group = unique(keys, return_inverse=True)[1]  # less than the number of entries
    wide = entries.new_zeros(entries.shape)
    rows = expand(reshape(group, (-1, *(1,) * (entries.ndim - 1))), entries.shape)
    most = scatter_reduce(wide, 0, rows, entries.detach(), "amax", include_self=False)
    shifted = entries - most[group]
    total = index_add(wide, 0, group, shifted.exp())[group]
    return like(x, shifted.exp() / total if name == "softmax" else shifted - total.log())


def product(mat1: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices of which at least one is sparse."""
    if not (mat1.is_sparse or mat2.is_sparse):
        raise OpError("sparse.mm() expects at least one sparse matrix; use mm() for dense ones")
    return mm(mat1, mat2)


def total(input: SparseTensor, dim: Any = None, dtype: DType | None = None) -> Tensor:
    """Sum of all elements, or over dims; the result is sparse as long as a sparse dim is left."""
    if not isinstance(input, SparseTensor):
        raise OpError("sparse.sum() expects a sparse tensor; use sum() for dense ones")
    return sum(input, dim, dtype=dtype)


def _of(names: Sequence[str], function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return dict.fromkeys(names, function)


OPERATIONS.update({name: _at_entries(name) for name in _AT_ZERO.split()})
OPERATIONS.update(
    {"mm": mm} | _of(("sub", "subtract"), sub) | _of(("mul", "multiply"), mul)
    | _of(("div", "divide", "true_divide"), div) | _of(("neg", "negative"), neg)
)  # fmt: skip
OPERATIONS.update({
    f.__name__: f for f in (mv, bmm, matmul, addmm, add, floor_divide, pow, sum, norm, any)
})  # fmt: skip
SEVERAL.update(
    ("mm", "matmul", "addmm", "mv", "bmm", "add", "sub", "subtract", "mul", "multiply", "div")
)
