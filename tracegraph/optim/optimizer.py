"""Optimizer: parameter groups, per-parameter state, saving and loading both, hooks."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tracegraph.autograd import enable_grad
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign
from tracegraph.eager.tape import HookHandle
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import SparseError

Group = dict[str, Any]
ParamsT = Iterable[Any]

required: Final = object()
"""A default that every parameter group must replace."""


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a class's `step` with the step hooks run around it."""

    @functools.wraps(step)
    def method(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        for hook in list(self._before_step):
            changed = hook(self, args, kwargs)
            if changed is not None:
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        self._steps_done += 1
        for hook in list(self._after_step):
            hook(self, args, kwargs)
        return result

    return method


class Optimizer:
    """Base of all optimizers: `param_groups` with their hyper-parameters, and `state`.

    A subclass calls `super().__init__(params, defaults)` and defines `step(closure=None)`.

    Raises:
        TypeError: `params` is a tensor, or holds something that is no tensor.
        ValueError: no parameters, a parameter twice, or one that is no leaf.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of tensors or dicts, not a tensor")
        self.defaults = defaults
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._trace_name = "optimizer"
        self._steps_done = 0
        self._before_step: list[Any] = []
        self._after_step: list[Any] = []
        self._saving: list[Any] = []
        self._loading: list[Any] = []
        self._after_loading: list[Any] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients; `closure` computes the loss again."""
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def _loss_of(self, closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            return None
        with enable_grad():
            return closure()

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with hyper-parameters of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and isinstance(params[0], tuple):
            param_group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        param_group["params"] = params
        taken = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but got {type(p).__name__}")
            if p.is_sparse:
                raise SparseError("optimizers take dense tensors: give it the values() instead")
            if not self.defaults.get("differentiable") and not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(p) in taken:
                raise ValueError("some parameters appear in more than one parameter group")
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters: they are updated "
                "more than once in a step",
                stacklevel=3,
            )
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required {name}")
            param_group.setdefault(name, default)
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach()
                    p.grad.zero_()

    # Saving and loading.

    def state_dict(self) -> dict[str, Any]:
        """Return `{"state": {index: slots}, "param_groups": [...]}`; parameters are numbered."""
        for hook in list(self._saving):
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {
            numbers[id(p)] if isinstance(p, Tensor) else p: slots for p, slots in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; slots that exist keep their memory, so traces stay valid.

        Raises:
            ValueError: other numbers of groups or parameters.
        """
        for hook in list(self._loading):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        for group, other in zip(self.param_groups, saved, strict=True):
            if len(group["params"]) != len(other["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
        owners: dict[Any, Tensor] = {}
        for group, other in zip(self.param_groups, saved, strict=True):
            owners.update(zip(other["params"], group["params"], strict=True))
            group.update({name: v for name, v in other.items() if name != "params"})
        loaded = {owners.get(key, key): value for key, value in state_dict["state"].items()}
        for p in [p for p in self.state if p not in loaded]:
            del self.state[p]
        for p, slots in loaded.items():
            self.state[p] = _loaded(self.state.get(p), slots, p, "")
        self.__setstate__({"state": self.state, "param_groups": self.param_groups})
        for hook in list(self._after_loading):
            hook(self)

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` before each step."""
        return _register(self._before_step, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return _register(self._after_step, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer)` before the state is saved."""
        return _register(self._saving, hook)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over attributes; subclasses fill in what older saved states lack."""
        vars(self).update(state)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer)` after a state was loaded."""
        return _register(self._after_loading, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(optimizer, state_dict)` before a state is loaded; it may return another."""
        return _register(self._loading, hook)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
            lines.append("")
        return "\n".join(lines[:-1]) + "\n)"

    # Traces.

    def _hyper(self, group: Group, name: str, index: int | None = None) -> Any:
        """Return a hyper-parameter for arithmetic: a number, in a trace an input of the graph."""
        value = group[name] if index is None else group[name][index]
        recorder = modes.RECORDER.get() if modes.recording else None
        if recorder is None or isinstance(value, Tensor):
            return value
        number = next(i for i, known in enumerate(self.param_groups) if known is group)
        place = f"param_groups.{number}.{name}" if number else name
        if index is None:
            return recorder.hyper(f"{self._trace_name}.{place}", read=lambda: group[name])
        path = f"{self._trace_name}.{place}.{index}"
        return recorder.hyper(path, read=lambda: group[name][index])

    def __tracegraph_materialize__(self) -> None:
        """Make every slot that the first step would make; nothing for rules unknown here."""

    def __tracegraph_state__(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield (slot, parameter, tensor) of the whole state."""
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p, slots in self.state.items():
            if id(p) in known and isinstance(slots, dict):
                for name, t in slots.items():
                    if isinstance(t, Tensor):
                        yield name, p, t

    def __tracegraph_containers__(self) -> Iterator[Any]:
        """Yield the mutable containers that a step may change."""
        yield self.state
        yield from (slots for slots in self.state.values() if isinstance(slots, dict))
        yield self.param_groups
        for group in self.param_groups:
            yield group
            yield group["params"]


def _register(hooks: list[Any], hook: Callable[..., Any]) -> HookHandle:
    hooks.append(hook)
    return HookHandle(hooks, hook)


def _loaded(old: Any, value: Any, p: Any, name: str) -> Any:
    """Return a saved value as state of `p`: a copy, in the memory of `old` where that fits."""
    if isinstance(value, Tensor):
        if name != "step" and isinstance(p, Tensor):
            dtype = type_of(p).dtype if type_of(p).dtype.kind == FLOAT_KIND else None
            value = value.to(device=p.device, dtype=dtype)
        if isinstance(old, Tensor) and type_of(old) == type_of(value):
            return assign(old, value.detach())
        return value.detach().clone()
    if isinstance(value, dict):
        known = old if isinstance(old, dict) else {}
        return {k: _loaded(known.get(k), v, p, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_loaded(None, v, p, name) for v in value)
    return value
