"""Signature: what a call of an entry point takes and gives, and checking a call against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tracegraph import pytree
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import SignatureError
from tracegraph.tensor_type import TensorType


class LeafSpec(NamedTuple):
    """One input leaf: a tensor of a type, or a Python value that the trace relied on."""

    name: str
    type: TensorType | None
    value: Any


class Hyper(NamedTuple):
    """A hyper-parameter: a scalar input with a default; `read` gives the present value."""

    name: str
    default: float
    read: Callable[[], float] | None = None

    def value(self) -> float:
        """The present value."""
        return self.default if self.read is None else self.read()


def hyper_arrays(hypers: Sequence[Hyper], values: Mapping[str, Any]) -> list[Any]:
    """Return hyper-parameters as arrays: those that a call gives, else their present values."""
    arrays = []
    for hyper in hypers:
        given = values.get(hyper.name)
        arrays.append(np.asarray(hyper.value() if given is None else given, np.float64))
    return arrays


class Way(NamedTuple):
    """What a path returns: the `outputs` tree over `results`.

    A result {"value": i} is graph output i (with "number" as a Python int), {"constant": v} a
    Python value.
    """

    outputs: pytree.Tree
    results: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Signature:
    """What a call takes and gives.

    `names` of arguments (`positional` of them by place), the `inputs` tree over `specs`, and what
    comes back. Where paths return different things, that is one of several ways, and the first
    output of the graph is the number of the way.
    """

    names: tuple[str, ...]
    positional: int
    inputs: pytree.Tree
    specs: tuple[LeafSpec, ...]
    outputs: pytree.Tree
    results: tuple[dict[str, Any], ...]
    others: tuple[Way, ...] = ()

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """What can come back."""
        return (Way(self.outputs, self.results), *self.others)

    @cached_property
    def flat(self) -> bool:
        """Whether each argument is a tensor."""
        leaves = self.inputs.get("tuple")
        if leaves is None or any(tree != {"leaf": i} for i, tree in enumerate(leaves)):
            return False
        return all(spec.type is not None for spec in self.specs)

    @cached_property
    def plain(self) -> tuple[tuple[str, Any, Any], ...] | None:
        """Name, shape and NumPy dtype of each argument, where all are tensors of a fixed type."""
        types = [spec.type for spec in self.specs]
        if not self.flat:
            return None
        if any(t is None or any(n.__class__ is not int for n in t.shape) for t in types):
            return None
        return tuple((s.name, s.type.shape, s.type.dtype.np) for s in self.specs if s.type)

    def __str__(self) -> str:
        return f"({', '.join(f'{s.name}: {s.type or repr(s.value)}' for s in self.specs)})"


def is_leaf(value: Any) -> bool:
    """Whether a value is a leaf of nested inputs."""
    return isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, str)) or hasattr(
        value, "__cuda_array_interface__"
    )


def bind(
    label: str, signature: Signature, hypers: Sequence[Hyper], args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> tuple[Any, ...]:  # fmt: skip
    """Return the arguments of a call in the order of the signature's names.

    Raises:
        SignatureError: too many, unknown, given twice or missing.
    """
    names = signature.names
    if len(args) > len(names):
        raise SignatureError(f"{label} takes {len(names)} arguments {signature}, got {len(args)}")
    bound = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            known = ", ".join((*names, *(h.name for h in hypers)))
            raise SignatureError(f"{label} has no argument {name!r}; it has: {known}")
        if name in bound:
            raise SignatureError(f"argument {name!r} was given twice")
        bound[name] = value
    missing = [n for n in names if n not in bound]
    if missing:
        raise SignatureError(f"{label} misses argument {missing[0]!r} of {signature}")
    return tuple(bound[n] for n in names)


def plainly(signature: Signature, args: Sequence[Any]) -> dict[str, Any] | None:
    """Return the tensors of a call by name, if they are what a plain signature wants."""
    plain = signature.plain
    if plain is None or len(plain) != len(args):
        return None
    for (_, shape, dtype), x in zip(plain, args, strict=True):
        data = x._data if x.__class__ is Tensor else None
        if data.__class__ is not np.ndarray or data.shape != shape or data.dtype != dtype:
            return None
    return {name: x for (name, _, _), x in zip(plain, args, strict=True)}


def checked(leaf: Any, spec: LeafSpec, sizes: dict[str, tuple[Any, str]]) -> Any:
    """Return an input leaf that has the type which the signature wants.

    `sizes` has the dynamic dims that earlier leaves of the call have fixed, and where; it gets
    those of this leaf.

    Raises:
        SignatureError: it has another.
    """
    if isinstance(leaf, Tensor):
        got = type_of(leaf)
    elif isinstance(leaf, (bool, int, float, str)):
        raise SignatureError(f"argument {spec.name}: expected {spec.type}, got {leaf!r}")
    else:
        leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        try:
            got = type_of(wrap(leaf))
        except KeyError:
            raise SignatureError(
                f"argument {spec.name}: expected {spec.type}, got an array of dtype {leaf.dtype}"
            ) from None
    assert spec.type is not None
    fits = got.dtype is spec.type.dtype and len(got.shape) == len(spec.type.shape)
    if not fits or not all(
        have == want if want.__class__ is int else _fix(spec, axis, want, have, sizes)
        for axis, (have, want) in enumerate(zip(got.shape, spec.type.shape, strict=True))
    ):
        raise SignatureError(f"argument {spec.name}: expected {spec.type}, got {got}")
    return leaf


def _fix(spec: LeafSpec, axis: int, dim: Any, size: Any, sizes: dict[str, tuple[Any, str]]) -> bool:
    """Note the size of a dynamic dim.

    Raises:
        SignatureError: out of its bounds, or another than this call has given elsewhere.
    """
    symbol = dim.expr.symbol
    place = f"dim {axis} of argument {spec.name}"
    if size < symbol.min or (symbol.max is not None and size > symbol.max):
        most = "" if symbol.max is None else f" and at most {symbol.max}"
        raise SignatureError(
            f"{place} is {size}, but {symbol.name} is at least {symbol.min}{most}, "
            f"in {spec.name}: {spec.type}"
        )
    known, where = sizes.setdefault(symbol.name, (size, place))
    if known != size:
        raise SignatureError(f"{symbol.name} is {known} as {where}, and {size} as {place}")
    return True
