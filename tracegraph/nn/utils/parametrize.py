"""Parametrisations: a Parameter that is computed from others each time it is read.

`register_parametrization(module, "weight", f)` keeps the old tensor as
`module.parametrizations.weight.original` and makes `module.weight` mean `f(original)`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.modules.container import ModuleDict, ModuleList
from tracegraph.nn.modules.module import Module
from tracegraph.nn.parameter import Parameter

_CACHE: Final[ContextVar[dict[tuple[int, str], Tensor] | None]] = ContextVar("cache", default=None)


@contextmanager
def cached() -> Iterator[None]:
    """Compute every parametrised tensor at most once inside."""
    token = _CACHE.set({} if _CACHE.get() is None else _CACHE.get())
    try:
        yield
    finally:
        _CACHE.reset(token)


class ParametrizationList(ModuleList):
    """The functions of one tensor, first applied first, and what they are applied to.

    That is `original`, or `original0`, `original1`, ... where the inverse gives several tensors.
    """

    def __init__(self, modules: list[Any], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            inverse = self._inverse(original, must=False)
        self.is_tensor = isinstance(inverse, Tensor)
        if self.is_tensor:
            original.data = inverse.data  # type: ignore[attr-defined]
            self._hold("original", original, isinstance(original, Parameter))
        else:
            self.ntensors = len(inverse)
            for i, part in enumerate(inverse):
                held = Parameter(part) if isinstance(original, Parameter) else part
                self._hold(f"original{i}", held, isinstance(original, Parameter))

    def _hold(self, name: str, t: Any, parameter: bool) -> None:
        if parameter:
            self.register_parameter(name, t)
        else:
            self.register_buffer(name, t)

    def originals(self) -> list[Any]:
        """Return the tensors that the functions are applied to."""
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def _inverse(self, value: Any, must: bool = True) -> Any:
        """Run the inverses backwards; unless all must exist, those that refuse are passed over."""
        for module in reversed(list(self)):
            if hasattr(module, "right_inverse"):
                try:
                    value = module.right_inverse(value)
                except NotImplementedError:
                    if must:
                        raise
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the tensor becomes `value`, as far as the functions can."""
        with no_grad():
            inverse = self._inverse(value)
            for held, part in zip(
                self.originals(), [inverse] if self.is_tensor else inverse, strict=True
            ):
                held.data = part.clone()

    def forward(self) -> Tensor:
        """Return the tensor."""
        first, *rest = self
        value = first(*self.originals())
        for module in rest:
            value = module(value)
        result: Tensor = value
        return result


def _property(name: str) -> property:
    def read(self: Any) -> Tensor:
        cache = _CACHE.get()
        if cache is None:
            value: Tensor = self.parametrizations[name]()
            return value
        key = (id(self), name)
        if key not in cache:
            cache[key] = self.parametrizations[name]()
        return cache[key]

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(read, write)


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    other = self.__new__(type(self))
    memo[id(self)] = other
    other.__dict__.update(copy.deepcopy(self.__dict__, memo))
    _become(other, type_before_parametrizations(self), list(self.parametrizations))
    return other


def _become(module: Any, base: type, names: list[str]) -> None:
    """Give a module a class of its own, with a property for each parametrised name."""
    body: dict[str, Any] = {name: _property(name) for name in names}
    body["__deepcopy__"] = _deepcopy
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), body)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module (or one tensor of it) is parametrised."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict) or not len(found):
        return False
    return tensor_name is None or tensor_name in found


def type_before_parametrizations(module: Module) -> type:
    """Return the class that a module had before it was parametrised."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def register_parametrization(
    module: Any, tensor_name: str, parametrization: Any, *, unsafe: bool = False
) -> Any:
    """Let a Parameter or buffer of a module be computed by `parametrization` from the old one.

    A `right_inverse` of it says how to set the old one; `unsafe` allows other shapes and dtypes.

    Raises:
        ValueError: no such tensor, or the result has another shape or dtype.
    """
    if is_parametrized(module, tensor_name):
        functions = module.parametrizations[tensor_name]
        value = getattr(module, tensor_name).detach()
        functions.append(parametrization)
        with no_grad():
            functions.right_inverse(value)
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        original = getattr(module, tensor_name)
        before = (original.shape, original.dtype)
        functions = ParametrizationList([parametrization], original, unsafe)
        with no_grad():
            after = functions()
        if not unsafe and (after.shape, after.dtype) != before:
            raise ValueError(
                "Registering a parametrization may not change the shape or dtype of the tensor, "
                f"unless the `unsafe` flag is enabled: {before} became "
                f"{(after.shape, after.dtype)}"
            )
        delattr(module, tensor_name)
        base = type_before_parametrizations(module)
        if not is_parametrized(module):
            module.parametrizations = ModuleDict()
        module.parametrizations[tensor_name] = functions
        _become(module, base, list(module.parametrizations))
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element "
            f"with name '{tensor_name}'"
        )
    return module


def remove_parametrizations(module: Any, tensor_name: str, leave_parametrized: bool = True) -> Any:
    """Make a tensor a plain one again: what it is now, or (not `leave_parametrized`) the original.

    Raises:
        ValueError: it is not parametrised, or has several originals to leave.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    functions = module.parametrizations[tensor_name]
    if not leave_parametrized and not functions.is_tensor:
        raise ValueError(
            "You can only leave the original of a parametrization that has one original"
        )
    first = functions.originals()[0]
    with no_grad():
        value = getattr(module, tensor_name) if leave_parametrized else first
    if functions.is_tensor:
        first.data = value.data
    else:
        first = Parameter(value.detach()) if isinstance(first, Parameter) else value
    base = type_before_parametrizations(module)
    del module.parametrizations[tensor_name]
    names = list(module.parametrizations)
    if names:
        _become(module, base, names)
    else:
        del module.parametrizations
        module.__class__ = base
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, first)
    else:
        module.register_buffer(tensor_name, first)
    return module
