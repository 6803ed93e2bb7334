"""What a Module holds: parameters, buffers and children, registered by assignment and walked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tracegraph.eager.tensors import Tensor
from tracegraph.nn.parameter import Buffer, Parameter

HOOKS: Final = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_backward_pre_hooks", "_backward_hooks",
    "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
INNER: Final = frozenset(
    (*HOOKS, "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training")
)


def typename(value: Any) -> str:
    """Return the name of a value's type as error messages show it."""
    if isinstance(value, Tensor):
        return str(value.type())
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"


class Tree:
    """The part of Module that registers and finds what it holds."""

    training: bool
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _non_persistent_buffers_set: set[str]

    def register_parameter(self, name: str, param: Any) -> None:
        """Add a Parameter (or None, a place that is kept free) under a name.

        Raises:
            AttributeError: before `Module.__init__()`.
            KeyError: the name is taken, empty, or has a dot.
            TypeError: not a Parameter.
            ValueError: a computed tensor.
        """
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{typename(param)}' object to parameter '{name}' "
                "(torch.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                f"created explicitly. To express '{name}' as a function of another Tensor, compute "
                "the value in the forward() method."
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add a tensor that is state but no Parameter; `persistent` puts it in the state dict.

        Raises:
            AttributeError: before `Module.__init__()`.
            KeyError: the name is taken, empty, or has a dot.
            TypeError: not a tensor.
        """
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{typename(tensor)}' object to buffer '{name}' "
                "(torch Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Any) -> None:
        """Add a child (or None) under a name.

        Raises:
            TypeError: not a Module.
            KeyError: the name is taken, empty, or has a dot.
        """
        if module is not None and not isinstance(module, Tree):
            raise TypeError(f"{typename(module)} is not a Module subclass")
        self._check_name("module", name, self._modules)
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, kind: str, name: Any, places: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {typename(name)}")
        if hasattr(self, name) and name not in places:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            got = f", got: {name}" if kind == "module" else ""
            raise KeyError(f'{kind} name can\'t contain "."{got}')
        if not name:
            raise KeyError(f'{kind} name can\'t be empty string ""')

    # Attribute access.

    def __getattr__(self, name: str) -> Any:
        held = self.__dict__
        place = held.get("_parameters")
        if place is not None:
            if name in place:
                return place[name]
            place = held["_modules"]
            if name in place:
                return place[name]
            place = held["_buffers"]
            if name in place:
                return place[name]
        raise AttributeError(
            f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self
        )

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__
        if isinstance(value, Tensor):
            self._set_tensor(name, value)
        elif isinstance(value, Tree):
            if "_modules" not in held:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._drop(name, self._modules)
            self._modules[name] = value
        elif "_modules" in held and self._place_of(name) is not None:
            self._set_other(name, value)
        else:
            object.__setattr__(self, name, value)

    def _place_of(self, name: str) -> dict[str, Any] | None:
        for place in (self._parameters, self._modules, self._buffers):
            if name in place:
                return place
        return None

    def _set_tensor(self, name: str, value: Tensor) -> None:
        held = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in held:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._drop(name, self._parameters)
            self.register_parameter(name, value)
        elif isinstance(value, Buffer):
            if "_buffers" not in held:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            self._drop(name, self._buffers)
            self.register_buffer(name, value, value.persistent)
        elif "_buffers" in held and self._place_of(name) is not None:
            self._set_other(name, value)
        else:
            object.__setattr__(self, name, value)

    def _set_other(self, name: str, value: Any) -> None:
        """Put None, or a tensor into a buffer's place, where something is registered."""
        place = self._place_of(name)
        assert place is not None
        if value is not None and not (place is self._buffers and isinstance(value, Tensor)):
            kind, wanted = (
                ("parameter", "torch.nn.Parameter or None") if place is self._parameters
                else ("child module", "torch.nn.Module or None") if place is self._modules
                else ("buffer", "torch.nn.Buffer, torch.Tensor or None")
            )  # fmt: skip
            raise TypeError(
                f"cannot assign '{typename(value)}' as {kind} '{name}' ({wanted} expected)"
            )
        place[name] = value

    def _drop(self, name: str, keep: dict[str, Any]) -> None:
        """Forget what stands under a name anywhere but in `keep`, where it keeps its order."""
        for place in (self.__dict__, self._parameters, self._buffers, self._modules):
            if place is not keep:
                place.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        place = self._place_of(name)
        if place is None:
            super().__delattr__(name)
        else:
            del place[name]
            self._non_persistent_buffers_set.discard(name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._modules}
        return sorted(n for n in {*names, *self._buffers} if not n[0].isdigit())

    # Walks.

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, module) for this module and all below it, each once, parents first."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Any]:
        """Yield this module and all below it, each once, parents first."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, module) for the modules right below this one, each once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Any]:
        """Yield the modules right below this one, each once."""
        for _, module in self.named_children():
            yield module

    def _named_members(
        self, members: Callable[[Any], Any], prefix: str = "", recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        """Yield (path, member) for what `members(module)` lists as (name, member or None)."""
        seen = set()
        walk = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in walk if recurse else [(prefix, self)]:
            for name, value in members(module):
                if value is None or value in seen:
                    continue
                if remove_duplicate:
                    seen.add(value)
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, Parameter), shared ones once under their first path."""
        return self._named_members(
            lambda module: module._parameters.items(), prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Yield the Parameters, shared ones once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, buffer), shared ones once under their first path."""
        return self._named_members(
            lambda module: module._buffers.items(), prefix, recurse, remove_duplicate
        )

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        """Yield the buffers, shared ones once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Any:
        """Return the module at a dotted path; "" is this module.

        Raises:
            AttributeError: nothing is there, or no module.
        """
        found: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(found, name):
                raise AttributeError(f"{found._get_name()} has no attribute `{name}`")
            found = getattr(found, name)
            if not isinstance(found, Tree):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return found

    def set_submodule(self, target: str, module: Any, strict: bool = False) -> None:
        """Put a module at a dotted path; `strict` refuses a path where nothing stands.

        Raises:
            ValueError: an empty path, or not a module.
            AttributeError: the parent is missing, or (strict) nothing stands there.
        """
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Tree):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Tree):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def _get_tensor(self, target: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        found = getattr(module, name)
        if kind == "parameter" and not isinstance(found, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        if kind == "buffer" and name not in module._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return found

    def get_parameter(self, target: str) -> Any:
        """Return the Parameter at a dotted path.

        Raises:
            AttributeError: nothing is there, or no Parameter.
        """
        return self._get_tensor(target, "parameter")

    def get_buffer(self, target: str) -> Any:
        """Return the buffer at a dotted path.

        Raises:
            AttributeError: nothing is there, or no buffer.
        """
        return self._get_tensor(target, "buffer")
