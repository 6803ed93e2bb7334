"""`Variable`: what tensors with gradients were called in PyTorch before 0.4."""

from __future__ import annotations

from tracegraph.eager.tensors import Tensor


class _VariableType(type):
    """Calls give tensors; every tensor is an instance."""

    def __call__(cls, data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:
        """Return a tensor over the same memory, a leaf if a gradient is wanted."""
        made: Tensor = data.detach() if requires_grad else data
        return made.requires_grad_() if requires_grad else made

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor)


class Variable(metaclass=_VariableType):
    """A tensor, by its old name: `Variable(data, requires_grad=True)`."""
