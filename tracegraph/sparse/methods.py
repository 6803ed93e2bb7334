"""SparseTensor completed: its methods, and a refusal in the place of each one that it has not."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from tracegraph.api.constants import sparse_coo
from tracegraph.api.promotion import cast
from tracegraph.dtypes import DType, dtype_of
from tracegraph.eager.tensors import Tensor
from tracegraph.sparse import algebra, places
from tracegraph.sparse import tensor as parts
from tracegraph.sparse.tensor import OPERATIONS, SparseTensor, like, make, refused

_CASTS: Final = {
    "float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16",
    "long": "int64", "int": "int32", "short": "int16", "char": "int8", "byte": "uint8",
    "bool": "bool",
}  # fmt: skip


def _converted(x: SparseTensor, entries: Tensor) -> SparseTensor:
    """Return `x` itself if its entries are the given ones, else these at its places."""
    if entries is x.entries:
        return x
    return make(x.places.to(entries.device), entries, x.extent, x.coalesced)


def to(self: SparseTensor, *args: Any, **options: Any) -> SparseTensor:
    """Return the tensor in another dtype and/or on another device; itself if nothing changes."""
    args = tuple([a.entries if isinstance(a, SparseTensor) else a for a in args])
    return _converted(self, self.entries.to(*args, **options))


def _caster(name: str) -> Callable[[SparseTensor], SparseTensor]:
    dtype = dtype_of(name)

    def method(self: SparseTensor) -> SparseTensor:
        return _converted(self, cast(self.entries, dtype))

    method.__doc__ = f"Return the tensor as {name}."
    return method


def _type(self: SparseTensor, dtype: Any = None) -> Any:
    """Return the name of the kind of tensor; with a dtype, the tensor in it."""
    if dtype is None:
        return str(self.entries.type()).replace("torch.", "torch.sparse.")
    return _converted(self, self.entries.type(dtype))


def clone(input: SparseTensor, **options: Any) -> SparseTensor:
    """Return a copy."""
    return make(input.places.clone(), input.entries.clone(), input.extent, input.coalesced)


def detach(input: SparseTensor) -> SparseTensor:
    """Return the same memory without history."""
    return like(input, input.entries.detach())


def _size(self: SparseTensor, dim: int | None = None) -> Any:
    return self.extent if dim is None else self.extent[dim]


def _scaled_in_place(name: str) -> Callable[..., SparseTensor]:
    def method(self: SparseTensor, other: Any) -> SparseTensor:
        if not parts.is_number(other):
            raise refused(f"{name}() by anything but a number")
        getattr(self.entries, name)(other)
        return self

    method.__doc__ = f"In place: {name[:-1]} by a number."
    return method


def _other_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an operator leave operands that are neither tensors nor numbers to their own class."""

    def method(self: SparseTensor, other: Any) -> Any:
        if not isinstance(other, (Tensor, *parts.NUMBERS)):
            return NotImplemented
        return function(self, other)

    return method


def _reduce(self: SparseTensor, protocol: Any) -> Any:
    """What pickle keeps."""
    kept = {**self.__tracegraph_parts__(), "values": self.entries.detach()}
    return _rebuild, (kept, bool(self.entries.requires_grad), dict(self.__dict__))


def _rebuild(kept: dict[str, Any], requires_grad: bool, extra: dict[str, Any]) -> SparseTensor:
    made = parts.assemble(kept)
    made.__dict__.update(extra)
    return parts.requires_grad_(made) if requires_grad else made


def _deepcopy(self: SparseTensor, memo: dict[int, Any]) -> SparseTensor:
    """Copy memory and leaf state."""
    entries = self.entries.__deepcopy__(memo)
    made = make(self.places.clone(), entries, self.extent, self.coalesced)
    made.leaf = self.leaf
    made.__dict__.update(self.__dict__)
    memo[id(self)] = made
    return made


def _copy(self: SparseTensor) -> SparseTensor:
    """Return another sparse tensor over the same parts."""
    made = like(self, self.entries)
    made.leaf = self.leaf
    made.__dict__.update(self.__dict__)
    return made


def _length(self: SparseTensor) -> int:
    """The size of the first dim."""
    if not self.extent:
        raise TypeError("len() of a 0-d tensor")
    return int(self.extent[0])


def _count(self: SparseTensor) -> Any:
    return self.extent.numel()


def _dtype(self: SparseTensor) -> DType:
    return self.entries.dtype


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "_indices": lambda self: self.places,
    "_values": lambda self: self.entries.detach(),
    "_nnz": lambda self: self.entries.shape[0],
    "indices": parts.indices,
    "values": parts.values,
    "coalesce": parts.coalesce,
    "is_coalesced": lambda self: self.coalesced,
    "sparse_dim": lambda self: self.places.shape[0],
    "dense_dim": lambda self: self.entries.ndim - 1,
    "to_dense": parts.to_dense,
    "to_sparse": parts.to_sparse,
    "to_sparse_coo": parts.to_sparse,
    "sparse_mask": parts.sparse_mask,
    "requires_grad_": parts.requires_grad_,
    "copy_": parts.copy_,
    "mul_": _scaled_in_place("mul_"),
    "div_": _scaled_in_place("div_"),
    "to": to,
    "cpu": lambda self: to(self, "cpu"),
    "cuda": lambda self, device=None, non_blocking=False: to(self, device or "cuda"),
    "type": _type,
    "type_as": lambda self, other: _converted(self, cast(self.entries, other.dtype)),
    "size": _size,
    "dim": lambda self: len(self.extent),
    "ndimension": lambda self: len(self.extent),
    "nelement": _count,
    "element_size": lambda self: self.entries.element_size(),
    "get_device": lambda self: self.entries.get_device(),
    "is_contiguous": lambda self, memory_format=None: False,
    "__repr__": parts.text,
    "__str__": parts.text,
    "__format__": lambda self, spec: parts.text(self),
    "__getitem__": places.getitem,
    "__len__": _length,
    "__iter__": lambda self: iter([self[i] for i in range(_length(self))]),
    "__copy__": _copy,
    "__deepcopy__": _deepcopy,
    "__reduce_ex__": _reduce,
    "__neg__": algebra.neg,
    "__pos__": lambda self: self,
    "__abs__": OPERATIONS["abs"],
    "__add__": _other_kind(algebra.add),
    "__radd__": _other_kind(lambda self, other: algebra.add(other, self)),
    "__sub__": _other_kind(algebra.sub),
    "__rsub__": _other_kind(lambda self, other: algebra.sub(other, self)),
    "__mul__": _other_kind(algebra.mul),
    "__rmul__": _other_kind(algebra.mul),
    "__truediv__": _other_kind(algebra.div),
    "__floordiv__": _other_kind(algebra.floor_divide),
    "__pow__": _other_kind(algebra.pow),
    "__imul__": _scaled_in_place("mul_"),
    "__itruediv__": _scaled_in_place("div_"),
    "__matmul__": _other_kind(algebra.matmul),
    "__rmatmul__": _other_kind(lambda self, other: algebra.matmul(other, self)),
}

_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "clone": clone,
    "detach": detach,
    "numel": _count,
    "is_floating_point": lambda input: input.entries.is_floating_point(),
    "is_complex": lambda input: False,
    "is_signed": lambda input: input.entries.is_signed(),
    "bool": _caster("bool"),
}

_PROPERTIES: Final[dict[str, Any]] = {
    "dtype": property(_dtype),
    "shape": property(lambda self: self.extent),
    "ndim": property(lambda self: len(self.extent)),
    "device": property(lambda self: self.entries.device),
    "layout": property(lambda self: sparse_coo),
    "is_sparse": True,
    "T": property(lambda self: places.permute(self, *reversed(range(len(self.extent))))),
    "mT": property(lambda self: places.transpose(self, -2, -1)),
    "requires_grad": property(
        lambda self: self.entries.requires_grad, lambda self, value: self.requires_grad_(value)
    ),
    "is_leaf": property(lambda self: self.leaf or not self.entries.requires_grad),
    "grad": property(parts.grad, parts.set_grad),
    "grad_fn": property(lambda self: None if self.leaf else self.entries._node),
    "data": property(detach),
    "itemsize": property(lambda self: self.entries.itemsize),
    **{
        name: property(operator.attrgetter(f"entries.{name}"))
        for name in ("is_cuda", "is_cpu", "is_xpu", "is_mps", "is_quantized", "is_meta")
    },
}


def _compared(name: str) -> Callable[..., Any]:
    """Return `==` or `!=`: refused for what could be compared by elements, else by identity."""

    def method(self: SparseTensor, other: Any) -> Any:
        if isinstance(other, (Tensor, *parts.NUMBERS)):
            raise refused(f"{name}()")
        return NotImplemented

    return method


def _refusal(name: str, value: Any) -> Any:
    if isinstance(value, property):
        return property(lambda self: _refuse(f".{name}"))
    return lambda self, *args, **kwargs: _refuse(f"{name}()")


def _refuse(name: str) -> Any:
    raise refused(name)


_KEPT: Final = frozenset((*Tensor.__slots__, "__new__", "__init__", "__module__", "__doc__"))


_NO_METHODS: Final = ("cat", "concat", "concatenate", "stack", "zeros_like", "empty_like")


def complete() -> None:
    """Bind everything to the class."""
    OPERATIONS.update(_FUNCTIONS)
    own = {
        **OPERATIONS,
        **{name: _caster(dtype) for name, dtype in _CASTS.items()},
        **_METHODS,
        **_PROPERTIES,
    }
    own |= {"__eq__": _compared("eq"), "__ne__": _compared("ne"), "__hash__": object.__hash__}
    for name in _NO_METHODS:
        del own[name]
    for name, value in vars(Tensor).items():
        if name not in own and name not in _KEPT and (callable(value) or hasattr(value, "fget")):
            own[name] = _refusal(name, value)
    for name, value in own.items():
        setattr(SparseTensor, name, value)


complete()
