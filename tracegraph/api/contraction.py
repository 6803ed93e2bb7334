"""Products of matrices and vectors, with PyTorch's names."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegraph.api.complex_numbers import conj
from tracegraph.api.promotion import cast, scaled
from tracegraph.api.shape import diagonal, permute, reshape, unsqueeze
from tracegraph.dims.symint import hint_of
from tracegraph.dtypes import FLOAT_KIND, int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.operators import FAST_FLOATS, on_tape
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import broadcast_shapes, wrap_dim

_MATMUL = OPS["matmul"]


def _check_dtypes(x: Tensor, y: Tensor) -> None:
    if x._data.dtype is not y._data.dtype and type_of(x).dtype is not type_of(y).dtype:
        raise DTypeError(
            "expected m1 and m2 to have the same dtype, but got: "
            f"{type_of(x).dtype.name} != {type_of(y).dtype.name}"
        )


def _check_dims(name: str, *operands: tuple[Tensor, int]) -> None:
    for place, (x, ndim) in enumerate(operands, 1):
        if x.ndim != ndim:
            raise OpError(f"{name}: expected a {ndim}-D tensor as argument {place}, got {x.ndim}-D")


def matrix_product(x: Tensor, y: Tensor) -> Tensor:
    """Return x @ y for operands of at least 2 dims; two plain float matrices go the short way."""
    a, b = x._data, y._data
    if (
        modes.recording
        or a.__class__ is not np.ndarray
        or b.__class__ is not np.ndarray
        or a.dtype is not b.dtype
        or a.dtype not in FAST_FLOATS
        or a.ndim != 2
        or b.ndim != 2
        or a.shape[1] != b.shape[0]
    ):
        _check_dtypes(x, y)
        return front.matmul(x, y)
    try:
        out = wrap(a @ b)
    except RuntimeWarning:
        return front.matmul(x, y)
    on_tape(_MATMUL, (x, y), out)
    return out


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product of the last two dims, leading dims broadcast; a 1-D operand is a vector.

    Raises:
        OpError: a 0-D operand, or sizes or dtypes that do not fit.
    """
    n, k = len(input._data.shape), len(other._data.shape)
    if n >= 2 and k >= 2:
        return matrix_product(input, other)
    if n == 0 or k == 0:
        raise OpError(
            f"both arguments to matmul need to be at least 1D, but they are {n}D and {k}D"
        )
    x = input if n > 1 else unsqueeze(input, 0)
    y = other if k > 1 else unsqueeze(other, 1)
    if x._data.shape[-1] != y._data.shape[-2]:
        raise OpError(f"size mismatch in matmul: {list(input.shape)} and {list(other.shape)}")
    out = matrix_product(x, y)
    shape = list(out._data.shape)
    if k == 1:
        del shape[-1]
    if n == 1:
        del shape[-1 if k == 1 else -2]
    return reshape(out, tuple(shape))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    _check_dims("mm", (input, 2), (mat2, 2))
    return matrix_product(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of matrices, one for each batch element: `x: [batch, n, k]`, `y: [batch, k, m]`."""
    _check_dims("bmm", (input, 3), (mat2, 3))
    if input.shape[0] != mat2.shape[0]:
        raise OpError(f"batch sizes differ: {list(input.shape)} and {list(mat2.shape)}")
    return matrix_product(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    _check_dims("mv", (input, 2), (vec, 1))
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of the products of two vectors."""
    _check_dims("dot", (input, 1), (tensor, 1))
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot` of the conjugate of the first vector."""
    return dot(conj(input), other)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products along the last dim of both."""
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise OpError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input.shape)} and {list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector with one of another."""
    _check_dims("outer", (input, 1), (vec2, 1))
    return unsqueeze(input, 1) * vec2


ger = outer


def _plus(input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """Return beta·input + alpha·product; with beta 0 nothing of `input` remains, NaN neither.

    The factors take the category of the tensors.
    """
    kind = (bool, int, float, complex)[type_of(product).dtype.kind]
    beta, alpha = kind(beta), kind(alpha)
    product = scaled(product, alpha)
    if beta == 0:
        shape = broadcast_shapes([tuple(input.shape), tuple(product.shape)])
        return front.expand(product, shape=shape)
    return scaled(input, beta) + product


def _or_of_old(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function take its numbers in the places of old: (beta, input, alpha, a, b)."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        if len(args) > 3:
            numbers = [a for a in args if not isinstance(a, Tensor)]
            kwargs |= zip(("beta", "alpha"), numbers, strict=False)
            args = tuple(a for a in args if isinstance(a, Tensor))
        return function(*args, **kwargs)

    return call


@_or_of_old
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta·input + alpha·(mat1 @ mat2)."""
    return _plus(input, mm(mat1, mat2), beta, alpha)


@_or_of_old
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta·input + alpha·(mat @ vec)."""
    return _plus(input, mv(mat, vec), beta, alpha)


@_or_of_old
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta·input + alpha·outer(vec1, vec2)."""
    return _plus(input, outer(vec1, vec2), beta, alpha)


@_or_of_old
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """Return beta·input + alpha·bmm(batch1, batch2)."""
    return _plus(input, bmm(batch1, batch2), beta, alpha)


@_or_of_old
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """Return beta·input + alpha·(sum over the batch of bmm(batch1, batch2))."""
    product = front.sum(bmm(batch1, batch2), dim=(0,), keepdim=False)
    return _plus(input, product, beta, alpha)


def _contract(x: Tensor, y: Tensor, dims_x: list[int], dims_y: list[int]) -> Tensor:
    """Sum products over paired dims; the other dims of x, then those of y, remain."""
    rest_x = [i for i in range(x.ndim) if i not in dims_x]
    rest_y = [i for i in range(y.ndim) if i not in dims_y]
    lead = [x.shape[i] for i in rest_x]
    tail = [y.shape[i] for i in rest_y]
    size = math.prod(x.shape[i] for i in dims_x)
    a = reshape(permute(x, (*rest_x, *dims_x)), (math.prod(lead), size))
    b = reshape(permute(y, (*dims_y, *rest_y)), (size, math.prod(tail)))
    return reshape(matrix_product(a, b), (*lead, *tail))


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Contract the last `dims` dims of a with the first of b, or the pairs listed in two lists.

    Raises:
        OpError: paired sizes differ.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise OpError(f"tensordot expects dims >= 0, but got dims={dims}")
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    first, second = dims
    dims_a = [wrap_dim(int(d), a.ndim) for d in first]
    dims_b = [wrap_dim(int(d), b.ndim) for d in second]
    for i, j in zip(dims_a, dims_b, strict=True):
        if a.shape[i] != b.shape[j]:
            if 1 not in (a.shape[i], b.shape[j]):
                raise OpError(
                    f"contracted dimensions need to match, but first has size {a.shape[i]} in dim "
                    f"{i} and second has size {b.shape[j]} in dim {j}"
                )
            a = front.sum(a, dim=(i,), keepdim=True) if a.shape[i] != 1 else a
            b = front.sum(b, dim=(j,), keepdim=True) if b.shape[j] != 1 else b
    return _contract(a, b, dims_a, dims_b)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker product: every element of `input` times the whole of `other`."""
    ndim = max(input.ndim, other.ndim)
    have = (1,) * (ndim - input.ndim) + tuple(input.shape)
    by = (1,) * (ndim - other.ndim) + tuple(other.shape)
    left = reshape(input, tuple(n for size in have for n in (size, 1)))
    right = reshape(other, tuple(n for size in by for n in (1, size)))
    return reshape(left * right, tuple(a * b for a, b in zip(have, by, strict=True)))


def trace(input: Tensor) -> Tensor:
    """Sum of the diagonal of a matrix."""
    _check_dims("trace", (input, 2))
    out = front.sum(_summable(diagonal(input)), dim=(0,), keepdim=False)
    return out


def _summable(x: Tensor) -> Tensor:
    return x if type_of(x).dtype.kind >= FLOAT_KIND else cast(x, int64)


def _chain_order(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Return where to split each run of matrices for the fewest multiplications.

    `sizes` are the extents of the chain; dynamic programming (Cormen et al. 2009, section 15.2).
    """
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    split = {}
    for length in range(2, n + 1):
        for i in range(n - length + 1):
            j = i + length - 1
            best = [
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            ]
            cost[i, j], split[i, j] = min(best)
    return split


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """Product of a chain of matrices in the cheapest order; the ends may be vectors."""
    if len(tensors) < 2:
        raise OpError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    chain = list(tensors)
    first, last = chain[0], chain[-1]
    if first.ndim == 1:
        chain[0] = unsqueeze(first, 0)
    if last.ndim == 1:
        chain[-1] = unsqueeze(last, 1)
    _check_dims("multi_dot", *((x, 2) for x in chain))
    # By the sizes of the example in a trace: any order gives the same product.
    split = _chain_order([hint_of(n) for n in (chain[0].shape[0], *(x.shape[1] for x in chain))])

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return chain[i]
        return mm(product(i, split[i, j]), product(split[i, j] + 1, j))

    out = product(0, len(chain) - 1)
    kept = ([] if first.ndim == 1 else [out.shape[0]]) + ([] if last.ndim == 1 else [out.shape[1]])
    return reshape(out, tuple(kept))


def chain_matmul(*matrices: Tensor) -> Tensor:
    """Product of matrices in the cheapest order."""
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Sums of products (of the conjugate of x) along a dim; the other dims broadcast."""
    product = conj(x) * y
    return front.sum(_summable(product), dim=(wrap_dim(dim, product.ndim),), keepdim=False)
