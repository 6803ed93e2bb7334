"""Inputs of an entry point: from files, or drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tracegraph import pytree
from tracegraph.dims.shapes import evaluated, symbols_of
from tracegraph.dtypes import FLOAT_KIND, bool_, from_pairs
from tracegraph.errors import SignatureError
from tracegraph.replay.entry import EntryPoint
from tracegraph.tensor_type import TensorType

Call = tuple[tuple[Any, ...], dict[str, Any]]


def read_inputs(entry: EntryPoint, given: list[str], npz: str | None) -> dict[str, Any]:
    """Return inputs by leaf name: arrays from files, numbers for hyper-parameters.

    Args:
        entry: whose inputs they are.
        given: `NAME=FILE.npy`, or `NAME=NUMBER` for a hyper-parameter.
        npz: a file of arrays by name.

    Raises:
        SignatureError: a name that the entry point does not have, or text of another form.
    """
    found: dict[str, Any] = {}
    if npz is not None:
        with np.load(npz) as arrays:
            found.update(arrays)
    hypers = {h.name for h in entry.hypers}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise SignatureError(f"--input wants NAME=FILE.npy, got {text!r}")
        found[name] = _number(name, value) if name in hypers else np.load(value)
    known = [s.name for s in entry.signature.specs if s.type is not None]
    for name in found:
        if name not in hypers and name not in known:
            listed = ", ".join([*known, *sorted(hypers)])
            raise SignatureError(f"there is no input {name!r}; there are: {listed}")
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SignatureError(f"hyper-parameter {name} wants a number, got {text!r}") from None


def make_call(
    entry: EntryPoint, given: Mapping[str, Any], seed: int, sizes: Mapping[str, int]
) -> Call:
    """Return arguments for a call: given inputs, and random ones where none are given.

    Random floats are standard normal; integers are 0 or 1, which every index allows. `sizes` are
    those of dynamic dims.

    Raises:
        SignatureError: inputs were given, but not all; or a size is not known.
    """
    signature = entry.signature
    generator = np.random.default_rng(seed)
    missing = [s.name for s in signature.specs if s.type is not None and s.name not in given]
    hypers = {h.name: given[h.name] for h in entry.hypers if h.name in given}
    if missing and len(given) > len(hypers):
        raise SignatureError(f"inputs are missing: {', '.join(missing)}")
    leaves = []
    for spec in signature.specs:
        if spec.type is None:
            leaves.append(spec.value)
        elif spec.name in given:
            leaves.append(_as_stored(given[spec.name], spec.type))
        else:
            leaves.append(_random(generator, _of_sizes(spec.type, sizes)))
    values = pytree.unflatten(signature.inputs, leaves, pytree.dataclasses_in(signature.inputs))
    named = dict(zip(signature.names[signature.positional :], values[signature.positional :],
                     strict=True))  # fmt: skip
    return tuple(values[: signature.positional]), {**named, **hypers}


def _as_stored(array: Any, wanted: TensorType) -> Any:
    """Give an array its dtype back where .npy files cannot tell it (bfloat16 comes as bytes)."""
    if array.dtype.kind == "V" and array.dtype.itemsize == wanted.dtype.np.itemsize:
        return array.view(wanted.dtype.np)
    return array


def _of_sizes(wanted: TensorType, sizes: Mapping[str, int]) -> TensorType:
    """Return a type with the sizes of dynamic dims put in."""
    for name in symbols_of(wanted.shape):
        if name not in sizes:
            raise SignatureError(f"the size {name} is not known: give --size {name}=N")
    return TensorType(wanted.dtype, evaluated(wanted.shape, sizes))


def _random(generator: np.random.Generator, wanted: TensorType) -> Any:
    if wanted.dtype.is_complex:
        pairs = TensorType(wanted.dtype.to_real(), (*wanted.shape, 2))
        return from_pairs(_random(generator, pairs), wanted.dtype)
    if wanted.dtype.kind == FLOAT_KIND:
        return generator.standard_normal(wanted.shape).astype(wanted.dtype.np)
    draws = generator.integers(0, 2, wanted.shape)
    return np.asarray(draws).astype(bool if wanted.dtype is bool_ else wanted.dtype.np)
