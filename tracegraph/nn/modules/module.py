"""Module: the base class of layers and models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, Final, Self

from tracegraph.autograd import no_grad
from tracegraph.devices import Device
from tracegraph.dtypes import FLOAT_KIND, DType, bfloat16, dtype_of, float16, float32, float64
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.modules.hooks import (
    Hooked,
    register_module_backward_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from tracegraph.nn.modules.tree import HOOKS, INNER
from tracegraph.nn.parameter import is_lazy

__all__ = [
    "Module", "register_module_backward_hook", "register_module_forward_hook",
    "register_module_forward_pre_hook", "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]  # fmt: skip

_PLAIN: Final = (bool, int, float, str, bytes, type, FunctionType, ModuleType, DType, Device)


def _indented(text: str) -> str:
    """Indent all lines but the first by two."""
    return text.replace("\n", "\n  ")


def _addindent(s_: str, numSpaces: int) -> str:
    """Indent all lines but the first; programs call it in a `__repr__` of their own."""
    return s_.replace("\n", "\n" + " " * numSpaces)


def parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, DType | None]:
    """Return (device, dtype) from the arguments of `to`."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for a in args:
        if isinstance(a, Tensor):
            device, dtype = a.device, a.dtype
        elif isinstance(a, DType):
            dtype = a
        elif a is not None and not isinstance(a, bool):
            device = a
    return device, None if dtype is None else dtype_of(dtype)


class Module(Hooked):
    """Base class of layers and models: holds Parameters, buffers and other Modules.

    Assigning one to an attribute registers it. Subclasses write `forward`.
    """

    call_super_init = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            name = type(self).__name__
            if kwargs:
                raise TypeError(
                    f"{name}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
                )
            raise TypeError(
                f"{name}.__init__() takes 1 positional argument but {len(args) + 1} were given"
            )
        held = self.__dict__
        held["training"] = True
        held["_parameters"] = {}
        held["_buffers"] = {}
        held["_non_persistent_buffers_set"] = set()
        for name in HOOKS:
            held[name] = OrderedDict()
        held["_modules"] = {}
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass writes this."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the module runs eagerly; `tracegraph.trace` makes graphs."""

    # Modes.

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it in training mode (or, with False, out of it).

        Raises:
            ValueError: `mode` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Put this module and all below it in evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say whether the Parameters accumulate gradients."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all Parameters, or set them to zero."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.requires_grad_(False) if parameter.grad.is_leaf else (
                    parameter.grad.detach_()
                )
                parameter.grad.zero_()

    def apply(self, fn: Callable[[Any], Any]) -> Self:
        """Call `fn` on every module below, children first, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # Conversions: Parameters keep their identity, so that optimizers go on holding them.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert every Parameter, gradient and buffer with `fn`."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for parameter in self._parameters.values():
            if parameter is None:
                continue
            with no_grad():
                _replace(parameter, fn(parameter))
                if parameter.grad is not None:
                    _replace(parameter.grad, fn(parameter.grad))
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert in place: `to(device)`, `to(dtype)`, `to(device, dtype)`, `to(tensor)`.

        A dtype changes floating tensors only.

        Raises:
            TypeError: a dtype that is not floating.
        """
        device, dtype = parse_to(args, kwargs)
        if dtype is not None and dtype.kind < FLOAT_KIND:
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )

        def convert(t: Tensor) -> Tensor:
            wanted = dtype if t.dtype.kind >= FLOAT_KIND else None
            out: Tensor = t.to(device=device, dtype=wanted)
            return out

        return self._apply(convert)

    def type(self, dst_type: Any) -> Self:
        """Cast all Parameters and buffers."""
        return self._apply(lambda t: t.to(dtype_of(dst_type)))

    def _floats(self, dtype: DType) -> Self:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def float(self) -> Self:
        """Cast floating Parameters and buffers to float32."""
        return self._floats(float32)

    def double(self) -> Self:
        """Cast floating Parameters and buffers to float64."""
        return self._floats(float64)

    def half(self) -> Self:
        """Cast floating Parameters and buffers to float16."""
        return self._floats(float16)

    def bfloat16(self) -> Self:
        """Cast floating Parameters and buffers to bfloat16."""
        return self._floats(bfloat16)

    def cuda(self, device: Any = None) -> Self:
        """Move to a GPU."""
        return self._apply(lambda t: t.cuda(device))

    def cpu(self) -> Self:
        """Move to main memory."""
        return self._apply(lambda t: t.cpu())

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move to a device; what the tensors hold there is not defined."""
        return self._apply(lambda t: t.to(device=device), recurse)

    def share_memory(self) -> Self:
        """Return the module: memory of this process is shared by its threads only."""
        return self

    # Text.

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """Return what stands in the parentheses of `repr`; subclasses write this."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {_indented(repr(m))}" for name, m in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({extra})"
        if not lines and not children:
            return f"{self._get_name()}()"
        body = "\n  ".join((*lines, *children))
        return f"{self._get_name()}(\n  {body}\n)"

    # Copies: `copy.deepcopy` and pickle go over `__dict__`; tied tensors stay tied.

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())

    # Traces.

    def __tracegraph_state__(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) for what a trace looks for tensors in."""
        for place in (self._parameters, self._buffers, self._modules):
            for name, value in place.items():
                if value is not None:
                    yield name, value
        for name, value in self.__dict__.items():
            if name not in INNER and value is not None and not isinstance(value, _PLAIN):
                yield name, value

    def __tracegraph_containers__(self) -> Iterator[dict[str, Any]]:
        """Yield the dicts whose contents a trace puts back when it is done."""
        yield self.__dict__
        yield self._parameters
        yield self._buffers
        yield self._modules


def _replace(t: Any, new: Tensor) -> None:
    """Let `t` stand for the memory of `new`."""
    if new is not t:
        t.data = new


def has_lazy(module: Module) -> bool:
    """Whether a module has Parameters or buffers that wait for their shape."""
    own = (*module._parameters.values(), *module._buffers.values())
    return any(is_lazy(t) for t in own)
