"""Keywords that PyTorch takes besides: `out=`, NumPy's `axis=`, second names of parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tracegraph.api.method_forms import resize_
from tracegraph.api.promotion import cast
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import AutogradError, DTypeError, OpError, SparseError
from tracegraph.ops.parameters import parameter_names

_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
_SECOND_NAMES: dict[str, dict[str, str]] = {
    "clamp_max": {"max": "other"},
    "clamp_min": {"min": "other"},
    "pow": {"exponent": "other", "self": "input"},
    "swapaxes": {"axis0": "dim0", "axis1": "dim1"},
    "tensor_split": {"indices": "indices_or_sections", "sections": "indices_or_sections"},
}


def accept_keywords(name: str, function: Callable[..., Any], with_out: bool) -> Callable[..., Any]:
    """Return the function with all names of its parameters, and `out=` if asked for."""
    known = parameter_names(function)
    renamed = {new: old for new, old in _NUMPY_NAMES.items() if old in known and new not in known}
    renamed |= _SECOND_NAMES.get(name, {})
    if not renamed and not with_out:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            try:
                return function(*args)
            except SparseError as error:
                return error.elsewhere(name, args, kwargs)
        for given, meant in renamed.items():
            if given in kwargs:
                kwargs[meant] = kwargs.pop(given)
        out = kwargs.pop("out", None) if with_out else None
        try:
            result = function(*args, **kwargs)
        except SparseError as error:
            result = error.elsewhere(name, args, kwargs)
        return result if out is None else _store(out, result)

    return call


def _store(out: Any, result: Any) -> Any:
    """Write a result into the tensor(s) given as `out`, which take its shape."""
    if isinstance(out, Tensor):
        return _store_one(out, result)
    if len(out) != len(result):
        raise OpError(f"expected {len(result)} tensors as out, but got {len(out)}")
    stored = [_store_one(o, r) for o, r in zip(out, result, strict=True)]
    return type(result)(*stored) if hasattr(result, "_fields") else tuple(stored)


def _store_one(out: Tensor, result: Tensor) -> Tensor:
    mine, theirs = type_of(out).dtype, type_of(result).dtype
    if theirs.kind > mine.kind:
        raise DTypeError(
            f"result type {theirs.name.capitalize()} can't be cast to the desired output type "
            f"{mine.name.capitalize()}"
        )
    if modes.GRAD.get() and (result._node is not None or out._node is not None):
        raise AutogradError(
            "functions with out=... arguments don't support automatic differentiation, but one of "
            "the arguments requires grad."
        )
    if out.shape != result.shape:
        resize_(out, tuple(result.shape))
    return assign(out, cast(result, mine))
