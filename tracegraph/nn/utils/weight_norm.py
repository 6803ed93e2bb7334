"""Weights as direction times length. Salimans & Kingma 2016, arXiv:1602.07868."""

from __future__ import annotations

from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.nn.parameter import Parameter


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """Return the 2-norm of v over all dims but `dim` (None: over all), dims kept."""
    dims = tuple(i for i in range(v.ndim) if dim is None or i != dim % v.ndim)
    if not dims:
        out: Tensor = v.abs()
    elif dim is None:
        out = (v * v).sum().sqrt()
    else:
        out = (v * v).sum(dims, keepdim=True).sqrt()
    return out


class WeightNorm:
    """The hook that computes a weight before each forward."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Any) -> Tensor:
        """Return g v / ‖v‖."""
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        out: Tensor = v * (g / norm_except(v, self.dim))
        return out

    def remove(self, module: Any) -> None:
        """Make the weight a Parameter again."""
        weight = self.compute_weight(module)
        delattr(module, self.name)
        del module._parameters[self.name + "_g"]
        del module._parameters[self.name + "_v"]
        setattr(module, self.name, Parameter(weight.data))

    def __call__(self, module: Any, inputs: Any) -> None:
        """Compute the weight."""
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Replace a Parameter by `name_g` (its norm over all dims but `dim`) and `name_v`.

    Raises:
        RuntimeError: it is so replaced already.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            raise RuntimeError(
                f"Cannot register two weight_norm hooks on the same parameter {name}"
            )
    dim = None if dim == -1 else dim
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(norm_except(weight, dim).data))
    module.register_parameter(name + "_v", Parameter(weight.data))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Undo `weight_norm`.

    Raises:
        ValueError: there is nothing to undo.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
