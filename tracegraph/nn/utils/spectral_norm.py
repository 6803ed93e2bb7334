"""Weights divided by their largest singular value. Miyato et al. 2018, arXiv:1802.05957."""

from __future__ import annotations

from typing import Any

from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.parameter import Parameter


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """Return the weight as [size of dim, rest]."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.ndim) if d != dim))
    out: Tensor = weight.reshape(weight.shape[0], -1)
    return out


class SpectralNorm:
    """The hook that computes a weight before each forward, by a step of power iteration."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.name = name
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def iterate(self, module: Any, matrix: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Improve the singular vectors in place; returns copies, which later steps leave alone."""
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        with no_grad():
            for _ in range(steps):
                v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=self.eps))
                u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps))
            return (u.clone(), v.clone()) if steps else (u, v)

    def compute_weight(self, module: Any, do_power_iteration: bool) -> Tensor:
        """Return the weight divided by uᵀ W v."""
        weight = getattr(module, self.name + "_orig")
        matrix = as_matrix(weight, self.dim)
        steps = self.n_power_iterations if do_power_iteration else 0
        u, v = self.iterate(module, matrix, steps)
        out: Tensor = weight / (u * (matrix @ v)).sum()
        return out

    def remove(self, module: Any) -> None:
        """Make the weight a Parameter again."""
        with no_grad():
            weight = self.compute_weight(module, do_power_iteration=False)
        delattr(module, self.name)
        delattr(module, self.name + "_u")
        delattr(module, self.name + "_v")
        delattr(module, self.name + "_orig")
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Any, inputs: Any) -> None:
        """Compute the weight; in training, after a step of power iteration."""
        weight = self.compute_weight(module, do_power_iteration=module.training)
        setattr(module, self.name, weight)


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """Replace a Parameter by `name_orig`, with buffers `name_u` and `name_v`.

    `dim` is the output dim: 1 for transposed convolutions, else 0.

    Raises:
        RuntimeError: it is so replaced already.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            raise RuntimeError(
                f"Cannot register two spectral_norm hooks on the same parameter {name}"
            )
    if dim is None:
        dim = int(getattr(module, "transposed", False))
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module._parameters[name]
    with no_grad():
        matrix = as_matrix(weight, dim)
        u, v = (
            F.normalize(matrix.new_empty(n).normal_(0, 1), dim=0, eps=eps) for n in matrix.shape
        )
    delattr(module, name)
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.data)
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Undo `spectral_norm`.

    Raises:
        ValueError: there is nothing to undo.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"spectral_norm of '{name}' not found in {module}")
