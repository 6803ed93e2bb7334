"""SparseTensor: a tensor in coordinate form (COO), made of ordinary tensors.

It has `places` i64[sparse_dim, nnz] and `entries` [nnz, *dense sizes]: `entries[n]` stands at
`places[:, n]`, what stands at one place adds up, and all else is zero. It is coalesced if the
places are distinct and in order. There is no array of the whole and no op knows of one: what can
be done with it is written in operations on the two parts. So gradients, traces and files need
nothing of their own.

What has no such form raises `SparseError`: methods by name, functions when they touch the array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from tracegraph.api import pointwise
from tracegraph.api.constants import sparse_coo
from tracegraph.api.creation import as_tensor, shape_of, zeros
from tracegraph.api.promotion import cast
from tracegraph.api.selection import index_add, index_copy, index_put
from tracegraph.api.shape import cat, expand, reshape, unbind, unsqueeze
from tracegraph.api.sorting import unique
from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import DType, bool_, get_default_dtype, int64
from tracegraph.eager import leaves, modes
from tracegraph.eager.printing import tensor_text
from tracegraph.eager.tensors import Size, Tensor, storage_of
from tracegraph.errors import AutogradError, OpError, SparseError, TraceError

NUMBERS: Final = (bool, int, float, np.generic, SymInt)
OPERATIONS: Final[dict[str, Callable[..., Any]]] = {}
"""The functions of the public face that have a form for sparse operands, by name."""
SEVERAL: Final[set[str]] = set()
"""Those whose first operand may be dense, or a list."""


def refused(name: str) -> SparseError:
    """Return the error for an operation that sparse tensors do not have."""
    return SparseError(
        f"{name} is not available for sparse tensors: call to_dense() first, or work on the "
        "values() of the coalesced tensor"
    )


class NotDenseError(SparseError):
    """The array of a sparse tensor, which has none, was touched."""

    def elsewhere(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run the form for sparse operands of the function that was called."""
        first = next(iter((*args, *kwargs.values())), None)
        if name not in OPERATIONS or not (name in SEVERAL or isinstance(first, SparseTensor)):
            raise refused(f"{name}()") from None
        return OPERATIONS[name](*args, **kwargs)


def _of_dense(self: SparseTensor) -> Any:
    raise NotDenseError(
        "a sparse tensor was given to an operation for dense ones: call to_dense() first, or use "
        "the function or operator in place of a dense tensor's method"
    )


class SparseTensor(Tensor):
    """A tensor in coordinate form; see `sparse_coo_tensor`."""

    __slots__ = ("coalesced", "entries", "extent", "leaf", "places")

    places: Tensor
    entries: Tensor
    extent: Size
    coalesced: bool
    leaf: bool

    # What dense tensors have: whatever looks at it raises an error.
    _data = _node = _lineage = _grad = _index = _chain = _seen = property(_of_dense)
    # The memory whose version counts writes, for what is saved for a backward pass.
    _storage = property(lambda self: storage_of(self.entries))

    def __tracegraph_parts__(self) -> dict[str, Any]:
        """What it is made of, where a trace or a file takes it apart; `assemble` undoes this."""
        return {
            "indices": self.places, "values": self.entries, "size": tuple(self.extent),
            "is_coalesced": self.coalesced,
        }  # fmt: skip


def make(places: Tensor, entries: Tensor, extent: Sequence[int], coalesced: bool) -> SparseTensor:
    """Return a sparse tensor over its parts, which are not checked."""
    made: SparseTensor = object.__new__(SparseTensor)
    made.places, made.entries, made.extent = places, entries, Size(extent)
    made.coalesced, made.leaf = coalesced, False
    return made


def assemble(parts: dict[str, Any], check: bool = False) -> SparseTensor:
    """Return the sparse tensor that was taken apart; check that its parts belong together.

    Raises:
        OpError: they do not.
    """
    places, entries, size = parts["indices"], parts["values"], parts["size"]
    if check:
        _check(places, entries, size)
    made = make(places, entries, size, bool(parts["is_coalesced"]))
    made.leaf = made.entries.requires_grad and made.entries.is_leaf
    return made


def like(x: SparseTensor, entries: Tensor) -> SparseTensor:
    """Return other entries at the places of `x`."""
    return make(x.places, entries, x.extent, x.coalesced)


def empty_of(size: Sequence[int], sparse_dim: int, **options: Any) -> SparseTensor:
    """Return a sparse tensor of zeros."""
    entries = zeros(0, *size[sparse_dim:], **options)
    places = zeros(sparse_dim, 0, dtype=int64, device=entries.device)
    return make(places, entries, size, True)


def _check(places: Tensor, entries: Tensor, size: Sequence[int]) -> None:
    """Check that parts belong together; places are read, but in a trace, which would keep a guard.

    Raises:
        OpError: they do not.
    """
    if places.ndim != 2 or places.dtype is not int64:
        raise OpError(f"indices must be sparse_dim x nnz, but got: {list(places.shape)}")
    if places.shape[1] != entries.shape[0]:
        raise OpError(
            "indices and values must have same nnz, but got nnz from indices: "
            f"{places.shape[1]}, nnz from values: {entries.shape[0]}"
        )
    sparse_dim = places.shape[0]
    if len(size) != sparse_dim + entries.ndim - 1:
        raise OpError(
            f"number of dimensions must be sparse_dim ({sparse_dim}) + dense_dim "
            f"({entries.ndim - 1}), but got {len(size)}"
        )
    if tuple(entries.shape[1:]) != tuple(size[sparse_dim:]):
        raise OpError(
            f"values has incorrect size, expected {list(size[sparse_dim:])}, got "
            f"{list(entries.shape[1:])}"
        )
    if (modes.recording and modes.RECORDER.get() is not None) or 0 in places.shape:
        return
    least, most = places.amin(1).tolist(), places.amax(1).tolist()
    for dim, (low, high, n) in enumerate(zip(least, most, size, strict=False)):
        if low < 0:
            raise OpError(f"found negative index {low} for dim {dim}")
        if high >= n:
            raise OpError(
                f"size is inconsistent with indices: for dim {dim}, size is {n} but found index "
                f"{high}"
            )


def sparse_coo_tensor(
    indices: Any = None, values: Any = None, size: Any = None, *, dtype: DType | None = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
    check_invariants: bool | None = None, is_coalesced: bool | None = None,
) -> SparseTensor:  # fmt: skip
    """Return the sparse tensor with `values[n]` at `indices[:, n]`, by itself of the least size.

    `sparse_coo_tensor(size)` is one of zeros. Gradients flow to `values`.

    Raises:
        OpError: parts that do not belong together.
    """
    if values is None:
        size = shape_of((indices if size is None else size,))
        dtype = dtype or get_default_dtype()
        made = empty_of(size, len(size), dtype=dtype, device=device)
        return requires_grad_(made) if requires_grad else made
    entries = as_tensor(values, dtype=dtype, device=device)
    entries = entries if entries.ndim else reshape(entries, (1,))
    places = cast(as_tensor(indices, device=entries.device).detach(), int64)
    if size is None and places.ndim == 2:
        most = (places.amax(1) + 1).tolist() if places.shape[1] else [0] * places.shape[0]
        size = (*most, *entries.shape[1:])
    size = shape_of((size or (),))
    _check(places, entries, size)
    single = entries.shape[0].__class__ is int and entries.shape[0] < 2
    made = make(places, entries, size, single if is_coalesced is None else bool(is_coalesced))
    return requires_grad_(made) if requires_grad and not entries.requires_grad else made


def to_sparse(self: Tensor, sparse_dim: int | None = None, *, layout: Any = None) -> SparseTensor:
    """Return the nonzero elements with their places; `sparse_dim` of 1 keeps whole rows.

    A gradient reaches the elements that are not zero.
    """
    if layout not in (None, sparse_coo):
        raise SparseError(f"the layout {layout} is not available: sparse tensors are sparse_coo")
    if isinstance(self, SparseTensor):
        if sparse_dim not in (None, self.places.shape[0]):
            raise refused("to_sparse() with another sparse_dim")
        return self
    count = self.ndim if sparse_dim is None else sparse_dim
    if not min(1, self.ndim) <= count <= self.ndim:
        raise OpError(f"sparse_dim must be between 1 and {self.ndim}, but got {count}")
    mask = self != 0
    if count < self.ndim:
        mask = reshape(mask, (*self.shape[:count], -1)).any(-1)
    x = self if count else reshape(self, (1,))
    rows = (mask if count else reshape(mask, (1,))).nonzero()
    entries = x[unbind(rows, 1)]
    places = (rows.t() if count else rows.t()[:0]).contiguous()
    return make(places, entries, self.shape, True)


def to_dense(
    self: SparseTensor, dtype: DType | None = None, *, masked_grad: bool | None = None
) -> Tensor:
    """Return the tensor with all its zeros."""
    entries, count = self.entries, self.places.shape[0]
    dtype = entries.dtype if dtype is None else dtype
    summed = cast(entries, int64) if entries.dtype is bool_ else entries
    if count:
        out = summed.new_zeros(self.extent)
        out = index_put(out, unbind(self.places), summed, accumulate=True)
    else:
        out = summed.sum(0, dtype=summed.dtype)
    return cast(out != 0 if entries.dtype is bool_ else out, dtype)


def keys_of(x: SparseTensor, dims: Sequence[int]) -> Tensor:
    """Return one number i64[nnz] for the place of each entry in some of the sparse dims.

    Raises:
        OpError: there are more places than such numbers.
    """
    if math.prod(x.extent[dim] for dim in dims) >= 1 << 63:
        raise OpError(f"the sizes {list(x.extent)} have more places than an int64 can number")
    keys = x.places.new_zeros(x.places.shape[1])
    for dim in dims:
        keys = keys * x.extent[dim] + x.places[dim]
    return keys


def places_of(keys: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the places i64[dims, nnz] that numbers stand for; undoes `keys_of`."""
    if not sizes:
        return keys.new_zeros((0, keys.shape[0]))
    rows: list[Tensor] = []
    for size in reversed(sizes):
        rows.insert(0, unsqueeze(pointwise.remainder(keys, max(size, 1)), 0))
        keys = pointwise.floor_divide(keys, max(size, 1))
    return cat(rows)


def _merged(x: SparseTensor, entries: Tensor, add: bool) -> SparseTensor:
    """Return `x` with one entry for each place: the sum of those there, or the last of them."""
    sizes = x.extent[: x.places.shape[0]]
    keys, group = unique(keys_of(x, range(len(sizes))), return_inverse=True)
    summed = cast(entries, int64) if entries.dtype is bool_ else entries
    out = summed.new_zeros((keys.shape[0], *entries.shape[1:]))
    out = (index_add if add else index_copy)(out, 0, group, summed)
    out = out != 0 if entries.dtype is bool_ else out
    return make(places_of(keys, sizes), out, x.extent, True)


def coalesce(self: SparseTensor) -> SparseTensor:
    """Return the tensor with its places in order and one entry for each."""
    return self if self.coalesced else _merged(self, self.entries, True)


def gathered(dense: Tensor, places: Tensor) -> Tensor:
    """Return the elements [nnz, *dense sizes] of a dense tensor at places."""
    if not places.shape[0]:
        return expand(unsqueeze(dense, 0), (places.shape[1], *dense.shape))
    found: Tensor = dense[unbind(places)]
    return found


def sparse_mask(self: Tensor, mask: Tensor) -> SparseTensor:
    """Return the elements of a tensor at the places of a sparse one."""
    if not isinstance(mask, SparseTensor):
        raise OpError("sparse_mask(): expected mask to be sparse")
    if self.shape != mask.shape:
        raise OpError(
            f"sparse_mask(): operands have incompatible sizes; self has size {list(self.shape)} "
            f"but mask has size {list(mask.shape)}"
        )
    dense = to_dense(self) if isinstance(self, SparseTensor) else self
    return like(mask, gathered(dense, mask.places))


# What a tensor answers about itself.


def indices(self: SparseTensor) -> Tensor:
    """Return the places i64[sparse_dim, nnz] of a coalesced tensor."""
    _need_coalesced(self, "indices")
    return self.places


def values(self: SparseTensor) -> Tensor:
    """Return the entries of a coalesced tensor."""
    _need_coalesced(self, "values")
    return self.entries


def _need_coalesced(x: SparseTensor, what: str) -> None:
    if not x.coalesced:
        raise OpError(f"Cannot get {what} on an uncoalesced tensor, please call .coalesce() first")


def text(self: SparseTensor) -> str:
    """Return indices, values and size as PyTorch prints them."""
    parts = []
    for name, t in (("indices", self.places), ("values", self.entries)):
        body = tensor_text(t, f"tensor({name}=tensor(") if t.numel() else f"[], size={(*t.shape,)}"
        parts.append(f"{name}=tensor({body}),\n       ")
    notes = [f"size={(*self.extent,)}", f"nnz={self.entries.shape[0]}"]
    if self.dtype not in (get_default_dtype(), int64, bool_):
        notes.append(f"dtype={self.dtype}")
    notes.append(f"layout={sparse_coo}")
    if self.entries.requires_grad:
        notes.append("requires_grad=True" if self.leaf else "grad_fn=<SparseCooTensorBackward0>")
    return f"tensor({''.join(parts)}{', '.join(notes)})"


# History and memory.


def requires_grad_(self: SparseTensor, requires_grad: bool = True) -> SparseTensor:
    """Let a leaf accumulate a gradient, or stop it.

    Raises:
        AutogradError: it is to stop, and is no leaf.
    """
    if requires_grad == self.entries.requires_grad:
        return self
    if not (requires_grad or self.leaf):
        raise AutogradError("you can only change requires_grad flags of leaf variables.")
    entries = self.entries.detach()  # so that a gradient comes to this tensor alone
    self.entries = entries.requires_grad_(requires_grad)
    self.leaf = requires_grad
    return self


def grad(self: SparseTensor) -> SparseTensor | None:
    """The accumulated gradient of a leaf, at its places; None if there is none."""
    slope = leaves.get_grad(self.entries) if self.leaf else None
    if slope is None:
        return None
    # Entries at one place have one gradient, that of the place.
    return like(self, slope) if self.coalesced else _merged(self, slope, False)


def set_grad(self: SparseTensor, value: None) -> None:
    """Forget the gradient."""
    if value is not None:
        raise refused("setting .grad to a tensor")
    if self.leaf:
        leaves.set_grad(self.entries, None)


def copy_(self: SparseTensor, src: Any, non_blocking: bool = False) -> SparseTensor:
    """Take over the entries and places of another sparse tensor.

    Raises:
        TraceError: a trace is running.
        AutogradError: it is a leaf that requires a gradient.
    """
    if not isinstance(src, SparseTensor) or src.extent != self.extent:
        raise OpError("copy_() of a sparse tensor needs a sparse tensor of its size")
    if modes.recording and modes.RECORDER.get() is not None:
        raise TraceError(
            "copy_() gives a sparse tensor other parts, which a trace cannot follow: write to its "
            "values() in place, or return the new tensor"
        )
    entries = src.entries.to(self.device, self.dtype, copy=True)
    if self.leaf and self.requires_grad:
        if modes.GRAD.get():
            raise AutogradError("a leaf that requires grad is being used in an in-place operation")
        entries = entries.detach().requires_grad_()
    self.places, self.entries = src.places.to(self.device, copy=True), entries
    self.coalesced = src.coalesced
    return self


def is_number(value: Any) -> bool:
    """Whether a value is a Python or NumPy number, or a dense 0-d tensor."""
    if isinstance(value, Tensor):
        return not value.is_sparse and value.ndim == 0
    return isinstance(value, NUMBERS)
