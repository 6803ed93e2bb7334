"""Modules called with other tensors in the place of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.modules.module import Module

__all__ = ["functional_call"]

Place = tuple[dict[str, Any], str]


def _places(module: Module) -> dict[str, Place]:
    """Where each Parameter and buffer is kept, by path; a shared one under all its paths."""
    found: dict[str, Place] = {}
    for path, inner in module.named_modules(remove_duplicate=False):
        for held in (inner._parameters, inner._buffers):
            for name in held:
                found[f"{path}.{name}" if path else name] = (held, name)
    return found


def _tied(places: Mapping[str, Place], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a tensor that is kept under several paths the same replacement under all.

    Raises:
        ValueError: different ones are given.
    """
    groups: dict[int, list[str]] = {}
    for path, (held, name) in places.items():
        if held[name] is not None:
            groups.setdefault(id(held[name]), []).append(path)
    full = dict(given)
    for paths in groups.values():
        chosen = [given[path] for path in paths if path in given]
        if any(t is not chosen[0] for t in chosen):
            raise ValueError(
                "functional_call got multiple values for keys "
                f"{sorted(path for path in paths if path in given)}, which are tied. Consider "
                "using tie_weights=False"
            )
        if chosen:
            full.update(dict.fromkeys(paths, chosen[0]))
    return full


@contextmanager
def reparametrized(
    module: Module, tensors: dict[str, Tensor], tie_weights: bool = True, strict: bool = False
) -> Iterator[None]:
    """Let a module use other tensors inside a `with` statement; `tensors` gets rebound buffers.

    Raises:
        OpError: with `strict`, names that are missing or not known; else those are passed over.
        ValueError: see `_tied`.
    """
    places = _places(module)
    full = _tied(places, tensors) if tie_weights else dict(tensors)
    unknown = [path for path in tensors if path not in places]
    missing = [path for path in places if path not in full]
    if strict and (unknown or missing):
        raise OpError(
            f"Error(s) in reparametrizing: Unexpected key(s): {unknown}. Missing key(s): {missing}."
        )
    before = {path: held[name] for path, (held, name) in places.items() if path in full}
    try:
        for path in before:
            held, name = places[path]
            held[name] = full[path]
        yield
    finally:
        for path, old in before.items():
            held, name = places[path]
            if path in tensors:
                tensors[path] = held[name]
            held[name] = old


_reparametrize_module = reparametrized


def functional_call(
    module: Module, parameters_and_buffers: dict[str, Tensor], args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Return the module called with other tensors; see `tracegraph.func.functional_call`."""
    items = () if args is None else args if isinstance(args, tuple) else (args,)
    with reparametrized(module, parameters_and_buffers, tie_weights, strict):
        return module(*items, **(kwargs or {}))
