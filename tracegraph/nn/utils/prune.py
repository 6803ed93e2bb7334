"""Pruning: a tensor of a module is `name_orig` times a mask of zeros and ones, `name_mask`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from tracegraph.api.creation import ones_like, zeros_like
from tracegraph.api.norms import norm
from tracegraph.api.random import rand, randperm
from tracegraph.api.shape import cat
from tracegraph.api.sorting import topk
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.modules.module import Module

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
    "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
    "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove",
]  # fmt: skip


def _check_amount(amount: float) -> None:
    """Refuse what is neither a share nor a count."""
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if amount < 0 or (isinstance(amount, float) and amount > 1):
        raise ValueError(
            f"amount={amount} should either be a float in the range [0.0, 1.0] or a non-negative "
            "integer"
        )


def _count(amount: float, size: int) -> int:
    """How many of `size` elements an amount means."""
    count = amount if isinstance(amount, int) else round(amount * size)
    if count > size:
        raise ValueError(
            f"amount={amount} should be smaller than the number of parameters to prune={size}"
        )
    return count


class BasePruningMethod(ABC):
    """A pre-hook that computes the pruned tensor; a subclass defines `compute_mask`."""

    PRUNING_TYPE = "unstructured"

    _tensor_name: str

    def __call__(self, module: Any, inputs: Any) -> None:
        """Compute the pruned tensor before a forward."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask for a tensor that `default_mask` has pruned already."""

    def apply_mask(self, module: Any) -> Tensor:
        """Return the tensor times its mask."""
        name = self._tensor_name
        mask, orig = module._buffers[name + "_mask"], module._parameters[name + "_orig"]
        return mask.to(dtype=orig.dtype) * orig

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None,
        importance_scores: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return a pruned copy of a tensor."""
        mask = ones_like(t) if default_mask is None else default_mask
        scores = t if importance_scores is None else importance_scores
        return t * self.compute_mask(scores, mask)

    @classmethod
    def apply(
        cls, module: Any, name: str, *args: Any, importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> BasePruningMethod:  # fmt: skip
        """Prune a tensor of a module, on top of what has pruned it before."""
        method = cls(*args, **kwargs)
        method._tensor_name = name
        earlier = _hook_of(module, name)
        present = getattr(module, name)
        if earlier is None:
            mask = ones_like(present)
        else:
            key, known = earlier
            del module._forward_pre_hooks[key]
            mask = getattr(module, name + "_mask")
            method = _joined(known, method)
        scores = present if importance_scores is None else importance_scores
        if scores.shape != present.shape:
            raise AssertionError("importance_scores should have the same shape as the parameter")
        if earlier is None:
            del module._parameters[name]
            module.register_parameter(name + "_orig", present)
        module.register_buffer(name + "_mask", method.compute_mask(scores.detach(), mask))
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def remove(self, module: Any) -> None:
        """Make the pruned tensor a Parameter again, for good."""
        name = self._tensor_name
        weight = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        orig = module._parameters.pop(name + "_orig")
        orig.data = weight.data
        del module._buffers[name + "_mask"]
        setattr(module, name, orig)


def _hook_of(module: Any, name: str) -> tuple[int, BasePruningMethod] | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key, hook
    return None


def _joined(first: BasePruningMethod, second: BasePruningMethod) -> PruningContainer:
    if not isinstance(first, PruningContainer):
        first = PruningContainer(first)
    first.add_pruning_method(second)
    return first


class PruningContainer(BasePruningMethod):
    """Methods of one tensor, the last of which prunes what the others have left."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._methods: tuple[BasePruningMethod, ...] = ()
        if args:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Add a method for the same tensor.

        Raises:
            TypeError: no pruning method.
            ValueError: it is for another tensor.
        """
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method._tensor_name != self._tensor_name:
            raise ValueError(
                "Can only add pruning methods acting on the parameter named "
                f"'{self._tensor_name}' to PruningContainer {self}."
            )
        self._methods += (method,)

    def __len__(self) -> int:
        return len(self._methods)

    def __iter__(self) -> Any:
        return iter(self._methods)

    def __getitem__(self, idx: int) -> BasePruningMethod:
        return self._methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the old mask with what the last method takes away from the rest."""
        method = self._methods[-1]
        mask = default_mask.to(dtype=t.dtype)
        out: Tensor
        if method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            rest = tuple(i for i in range(t.ndim) if i != dim)
            left = mask.abs().sum(rest).nonzero().squeeze(1)
            part = method.compute_mask(t.index_select(dim, left), mask.index_select(dim, left))
            out = mask.index_copy(dim, left, part.to(dtype=mask.dtype))
        elif method.PRUNING_TYPE == "unstructured":
            kept = mask == 1
            part = method.compute_mask(t[kept], mask[kept])
            out = mask.masked_scatter(kept, part.to(dtype=mask.dtype))
        else:
            out = mask * method.compute_mask(t, mask)
        return out


class Identity(BasePruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask as it is."""
        return default_mask


class _Amount(BasePruningMethod):
    """A method that takes a share, or a number, of elements."""

    def __init__(self, amount: float) -> None:
        _check_amount(amount)
        self.amount = amount

    def _without(self, mask: Tensor, places: Tensor) -> Tensor:
        return mask.reshape(-1).index_fill(0, places, 0).reshape(mask.shape)


class RandomUnstructured(_Amount):
    """Prunes elements drawn at random."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask without some more elements."""
        count = _count(self.amount, t.numel())
        places = topk(rand(t.numel(), device=t.device), count).indices
        return self._without(default_mask, places)


class L1Unstructured(_Amount):
    """Prunes the elements of smallest size."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask without some more elements."""
        count = _count(self.amount, t.numel())
        places = topk(t.abs().reshape(-1), count, largest=False).indices
        return self._without(default_mask, places)


class _Structured(_Amount):
    PRUNING_TYPE = "structured"

    dim: int

    def _along(self, t: Tensor, default_mask: Tensor, order: Tensor) -> Tensor:
        """Keep the slices that `order` names first."""
        size = t.shape[self.dim]
        kept = order[: size - _count(self.amount, size)]
        mask = zeros_like(t).index_fill(self.dim, kept, 1)
        return mask * default_mask.to(dtype=mask.dtype)


class RandomStructured(_Structured):
    """Prunes slices along a dim, drawn at random."""

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask without some more slices."""
        return self._along(t, default_mask, randperm(t.shape[self.dim], device=t.device))


class LnStructured(_Structured):
    """Prunes the slices along a dim that have the smallest norm of order n."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask without some more slices."""
        rest = tuple(i for i in range(t.ndim) if i != self.dim % t.ndim)
        sizes = norm(t, self.n, rest)
        return self._along(t, default_mask, topk(sizes, t.shape[self.dim]).indices)


class CustomFromMask(BasePruningMethod):
    """Prunes by a given mask."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the product of both masks."""
        return default_mask * self.mask.to(dtype=default_mask.dtype)


def identity(module: Any, name: str) -> Any:
    """Reparametrise a tensor without pruning it."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Any, name: str, amount: float) -> Any:
    """Prune a share (or number) of elements at random."""
    RandomUnstructured.apply(module, name, amount=amount)
    return module


def l1_unstructured(
    module: Any, name: str, amount: float, importance_scores: Tensor | None = None
) -> Any:
    """Prune the share (or number) of elements that are smallest, or score lowest."""
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Any, name: str, amount: float, dim: int) -> Any:
    """Prune a share (or number) of slices along a dim at random."""
    RandomStructured.apply(module, name, amount=amount, dim=dim)
    return module


def ln_structured(
    module: Any, name: str, amount: float, n: Any, dim: int,
    importance_scores: Tensor | None = None,
) -> Any:  # fmt: skip
    """Prune the share (or number) of slices along a dim that have the smallest norm."""
    LnStructured.apply(
        module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores
    )
    return module


def custom_from_mask(module: Any, name: str, mask: Tensor) -> Any:
    """Prune by a mask."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Any, str]], pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Any, str], Tensor] | None = None, **kwargs: Any,
) -> None:  # fmt: skip
    """Prune several tensors by one method that sees all their elements side by side.

    Raises:
        TypeError: the method prunes slices.
    """
    pairs, scores = list(parameters), importance_scores or {}
    if pruning_method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {pruning_method.PRUNING_TYPE}"
        )
    flat = [scores.get(pair, getattr(*pair)).detach().reshape(-1) for pair in pairs]
    masks = [getattr(m, n + "_mask", ones_like(getattr(m, n))).reshape(-1) for m, n in pairs]
    method = _joined(_named(Identity(), "temp"), _named(pruning_method(**kwargs), "temp"))
    whole = method.compute_mask(cat(flat), cat(masks))
    start = 0
    for module, name in pairs:
        param = getattr(module, name)
        stop = start + param.numel()
        custom_from_mask(module, name, whole[start:stop].reshape(param.shape))
        start = stop


def _named(method: Any, name: str) -> Any:
    method._tensor_name = name
    return method


def remove(module: Any, name: str) -> Any:
    """Make a pruned tensor an ordinary Parameter.

    Raises:
        ValueError: it is not pruned.
    """
    found = _hook_of(module, name)
    if found is None:
        raise ValueError(
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
        )
    key, hook = found
    hook.remove(module)
    del module._forward_pre_hooks[key]
    return module


def is_pruned(module: Module) -> bool:
    """Whether a tensor of the module, or of one below it, is pruned."""
    return any(
        isinstance(hook, BasePruningMethod)
        for inner in module.modules()
        for hook in inner._forward_pre_hooks.values()
    )
