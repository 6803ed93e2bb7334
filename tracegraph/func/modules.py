"""Modules as functions of their Parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracegraph.api.shape import stack
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.modules.batchnorm import _BatchNorm
from tracegraph.nn.modules.module import Module
from tracegraph.nn.utils.stateless import functional_call as _call


def functional_call(
    module: Module, parameter_and_buffer_dicts: Any, args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Return `module(*args, **kwargs)` with other tensors in the places that the dicts name.

    Raises:
        ValueError: a name occurs in two dicts, or tied Parameters get different tensors.
        OpError: with `strict`, names that are missing or not known.
    """
    given = parameter_and_buffer_dicts
    if isinstance(given, Mapping):
        tensors = given if isinstance(given, dict) else dict(given)
    else:
        tensors = {}
        for part in given:
            twice = tensors.keys() & part.keys()
            if twice:
                raise ValueError(f"{sorted(twice)} appeared in multiple dictionaries")
            tensors.update(part)
    return _call(module, tensors, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(
    models: Sequence[Module],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the Parameters and the buffers of equal modules, stacked along a new first dim.

    Raises:
        OpError: no module, or modules of different classes or modes.
    """
    if not models:
        raise OpError("stack_module_state: Expected at least one model, got 0.")
    first = models[0]
    if any(type(m) is not type(first) or m.training != first.training for m in models):
        raise OpError("stack_module_state: Expected all models to be of one class and mode.")
    learnt = {
        name: stack([dict(m.named_parameters())[name] for m in models]).detach()
        .requires_grad_(p.requires_grad)
        for name, p in first.named_parameters()
    }  # fmt: skip
    kept = {
        name: stack([dict(m.named_buffers())[name] for m in models])
        for name, _ in first.named_buffers()
    }
    return learnt, kept


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Let the batch norms of a module, in place, use the batch alone and keep no statistics."""
    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
