"""State dicts: a Module's tensors by path, out and in again, with PyTorch's checks and messages."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import StateError
from tracegraph.nn.modules.tree import Tree
from tracegraph.nn.parameter import Parameter, is_lazy

EXTRA = "_extra_state"


class IncompatibleKeys(
    NamedTuple("IncompatibleKeys", [("missing_keys", list[str]), ("unexpected_keys", list[str])])
):
    """What `load_state_dict(strict=False)` could not match."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class Handle:
    """Removes a hook from the dict that holds it: `handle.remove()`, or as a context manager."""

    _ids = itertools.count()

    def __init__(self, hooks: Any, *more: Any) -> None:
        self.id = next(self._ids)
        self._places = (hooks, *more)

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        for place in self._places:
            place.pop(self.id, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def hang(hooks: Any, hook: Any, *more: Any) -> Handle:
    """Put a hook into a dict; returns what removes it from there (and its id from `more`)."""
    handle = Handle(hooks, *more)
    hooks[handle.id] = hook
    return handle


class Keys(NamedTuple):
    """What a load has found wrong so far."""

    missing: list[str]
    unexpected: list[str]
    errors: list[str]


class Stateful(Tree):
    """The part of Module that writes and reads state dicts."""

    _version = 1
    _state_dict_hooks: dict[int, Any]
    _state_dict_pre_hooks: dict[int, Any]
    _load_state_dict_pre_hooks: dict[int, Any]
    _load_state_dict_post_hooks: dict[int, Any]

    def get_extra_state(self) -> Any:
        """Return what else belongs in the state dict; subclasses write this and its pair."""
        raise StateError("a subclass that is asked for extra state must write get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise StateError("a subclass that is given extra state must write set_extra_state()")

    def _persistent_buffers(self) -> list[tuple[str, Any]]:
        hidden = self._non_persistent_buffers_set
        return [(name, b) for name, b in self._buffers.items() if name not in hidden]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Put this module's own tensors into `destination`; subclasses may add to it."""
        for name, t in (*self._parameters.items(), *self._persistent_buffers()):
            if t is not None:
                destination[prefix + name] = t if keep_vars or is_lazy(t) else t.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            destination[prefix + EXTRA] = self.get_extra_state()

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """Return parameters and persistent buffers by path, sharing memory with the module.

        `keep_vars` gives the Parameters themselves instead of detached tensors.
        """
        destination = args[0] if args and destination is None else destination
        prefix = args[1] if len(args) > 1 and prefix == "" else prefix
        keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        note = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = note
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            changed = hook(self, destination, prefix, note)
            destination = destination if changed is None else changed
        return destination

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, state_dict, prefix, metadata)` after each `state_dict()`."""
        return hang(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, state_dict, prefix, metadata)`, which changes it in place, after."""

        def check(*args: Any) -> None:
            if hook(*args) is not None:
                raise StateError("state_dict post-hook must return None")

        return hang(self._state_dict_hooks, check)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, prefix, keep_vars)` before each `state_dict()`."""
        return hang(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> Handle:
        """Call `hook(state_dict, prefix, metadata, strict, missing, unexpected, errors)` first."""

        def with_self(*args: Any) -> Any:
            return hook(self, *args)

        return hang(self._load_state_dict_pre_hooks, with_self if with_module else hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """As `_register_load_state_dict_pre_hook`, with the module as first argument."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, incompatible_keys)` after this module was loaded."""
        return hang(self._load_state_dict_post_hooks, hook)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Take this module's own tensors out of `state_dict`; subclasses may change it first."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                error_msgs,
            )  # fmt: skip
        own = {n: t for n, t in (*self._parameters.items(), *self._persistent_buffers())
               if t is not None}  # fmt: skip
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        for name, t in own.items():
            key = prefix + name
            if key in state_dict:
                self._load_tensor(name, t, key, state_dict[key], assign, error_msgs)
            elif strict:
                missing_keys.append(key)
        self._load_extra(state_dict, prefix, strict, missing_keys, unexpected_keys)
        if strict:
            unexpected_keys.extend(self._unexpected(state_dict, prefix, own))

    def _load_tensor(
        self, name: str, t: Tensor, key: str, given: Any, assign: bool, errors: list[str]
    ) -> None:
        if not isinstance(given, Tensor):
            errors.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
                f"object from checkpoint but received {type(given)}"
            )
            return
        lazy = is_lazy(t)
        if not lazy and not t.shape and len(given.shape) == 1:
            given = given[0]  # files of PyTorch before 0.4 hold 0-d tensors as 1-d
        if not lazy and given.shape != t.shape:
            errors.append(
                f"size mismatch for {key}: copying a param with shape {given.shape} from "
                f"checkpoint, the shape in current model is {t.shape}."
            )
            return
        try:
            with no_grad():
                if assign:
                    self._assign(name, t, given)
                else:
                    if lazy:
                        t.materialize(given.shape)
                    t.copy_(given)
        except Exception as error:
            errors.append(
                f'While copying the parameter named "{key}", whose dimensions in the model are '
                f"{t.shape} and whose dimensions in the checkpoint are {given.shape}, an exception "
                f"occurred : {error.args}."
            )

    def _assign(self, name: str, t: Tensor, given: Tensor) -> None:
        """Put the given tensor itself in the place of `t`."""
        if isinstance(t, Parameter) and not isinstance(given, Parameter):
            given = Parameter(given, requires_grad=t.requires_grad)
        elif isinstance(t, Parameter):
            given.requires_grad_(t.requires_grad)
        setattr(self, name, given)

    def _load_extra(
        self, state_dict: Any, prefix: str, strict: bool, missing: list[str], unexpected: list[str]
    ) -> None:
        key = prefix + EXTRA
        if type(self).set_extra_state is not Stateful.set_extra_state:
            if key in state_dict:
                self.set_extra_state(state_dict[key])
            elif strict:
                missing.append(key)
        elif strict and key in state_dict:
            unexpected.append(key)

    def _unexpected(self, state_dict: Any, prefix: str, own: Mapping[str, Any]) -> list[str]:
        found = []
        for key in state_dict:
            if not key.startswith(prefix) or key == prefix + EXTRA:
                continue
            name, dot, _ = key[len(prefix) :].partition(".")
            if (dot and name not in self._modules) or (not dot and name not in own):
                found.append(key)
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy tensors by path into this module (`assign`: put them in place of its own).

        Raises:
            TypeError: not a mapping.
            StateError: sizes differ, or (strict) keys are missing or unexpected.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        items: Any = OrderedDict(state_dict)
        if metadata is not None:
            items._metadata = metadata
        keys = Keys([], [], [])
        _load(self, items, metadata or {}, "", assign, keys)
        errors = keys.errors
        if strict and keys.unexpected:
            errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(keys.unexpected)}. ")
        if strict and keys.missing:
            errors.insert(0, f"Missing key(s) in state_dict: {_quoted(keys.missing)}. ")
        if errors:
            lines = "\n\t".join(errors)
            raise StateError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{lines}"
            )
        return IncompatibleKeys(keys.missing, keys.unexpected)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _load(
    module: Any, items: Any, metadata: Mapping[str, Any], prefix: str, assign: bool, keys: Keys
) -> None:
    """Load one module, then those below it, each from the part of the dict under its path."""
    note = dict(metadata.get(prefix[:-1], {}))
    if assign:
        note["assign_to_params_buffers"] = True
    module._load_from_state_dict(items, prefix, note, True, *keys)
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            part = {key: value for key, value in items.items() if key.startswith(below)}
            _load(child, part, metadata, below, assign, keys)
    found = IncompatibleKeys(keys.missing, keys.unexpected)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, found) is not None:
            raise StateError(
                "Hooks registered with register_load_state_dict_post_hook are not expected to "
                "return new values, if incompatible_keys need to be modified, it should be done "
                "inplace."
            )
