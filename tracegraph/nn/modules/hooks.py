"""Hooks around a Module's call: before and after forward, and where gradients pass its edges."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from tracegraph.autograd import Function
from tracegraph.eager import modes
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn.modules.state_dict import Handle, Stateful, hang

EVERYWHERE: Final[dict[str, OrderedDict[int, Any]]] = {
    name: OrderedDict()
    for name in ("pre", "forward", "with_kwargs", "always_called", "backward_pre", "backward")
}
"""Hooks of all modules; they run before a module's own."""


class _Watch:
    everything = False


def _watch() -> None:
    _Watch.everything = any(EVERYWHERE.values())


class GlobalHandle(Handle):
    """Removes a hook of all modules."""

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        super().remove()
        _watch()


def _hang_everywhere(kind: str, hook: Any, *options: str) -> Handle:
    handle = GlobalHandle(EVERYWHERE[kind], *(EVERYWHERE[name] for name in options))
    for place in (EVERYWHERE[kind], *(EVERYWHERE[name] for name in options)):
        place[handle.id] = hook
    _watch()
    return handle


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Call `hook(module, args)` before every module's forward."""
    return _hang_everywhere("pre", hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> Handle:
    """Call `hook(module, args, output)` after every module's forward."""
    options = ("with_kwargs",) * with_kwargs + ("always_called",) * always_call
    return _hang_everywhere("forward", hook, *options)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Call `hook(module, grad_output)` for every module."""
    return _hang_everywhere("backward_pre", hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> Handle:
    """Call `hook(module, grad_input, grad_output)` for every module."""
    return _hang_everywhere("backward", hook)


register_module_backward_hook = register_module_full_backward_hook


class Boundary:
    """The gradients of one call, between its outputs (first) and its inputs."""

    def __init__(self, module: Hooked) -> None:
        self.module = module
        self.grad_output: tuple[Any, ...] = ()
        self.arity = 0
        self.places: list[int] = []

    def entered(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments, tensors among them through the inner edge of the module."""
        self.arity = len(args)
        self.places = [i for i, a in enumerate(args) if _is_dense(a)]
        if not any(args[i].requires_grad for i in self.places):
            self.places = []
            return args
        inner = list(args)
        passed = _Entry.apply(self, *(args[i] for i in self.places))
        for place, t in zip(self.places, passed, strict=True):
            inner[place] = t
        return tuple(inner)

    def left(self, result: Any) -> Any:
        """Return the result, tensors in it (at the top level) through the outer edge."""
        several = isinstance(result, (tuple, list))
        items = list(result) if several else [result]
        places = [i for i, t in enumerate(items) if _is_dense(t)]
        if not places:
            return result
        for place, t in zip(places, _Exit.apply(self, *(items[i] for i in places)), strict=True):
            items[place] = t
        if not several:
            return items[0]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)

    def at_exit(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let pre-hooks see and change the gradients of the outputs."""
        for hook in _hooks("backward_pre", self.module._backward_pre_hooks).values():
            changed = hook(self.module, grads)
            if changed is not None:
                grads = changed if isinstance(changed, tuple) else (changed,)
        self.grad_output = grads
        if not self.places:
            self._run((None,) * self.arity)
        return grads

    def at_entry(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let hooks see and change the gradients of the inputs."""
        full: list[Any] = [None] * self.arity
        for place, grad in zip(self.places, grads, strict=True):
            full[place] = grad
        changed = self._run(tuple(full))
        return tuple(changed[place] for place in self.places)

    def _run(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in _hooks("backward", self.module._backward_hooks).values():
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                if len(changed) != len(grad_input):
                    raise OpError(
                        "Backward hook returned an invalid number of grad_input, got "
                        f"{len(changed)}, but expected {len(grad_input)}"
                    )
                grad_input = changed
        return grad_input


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_sparse


def _hooks(kind: str, own: dict[int, Any]) -> dict[int, Any]:
    """Return the hooks to run now, in order: those of all modules, then a module's own."""
    return {**EVERYWHERE[kind], **own}


class _Entry(Function):
    @staticmethod
    def forward(ctx: Any, boundary: Boundary, *tensors: Tensor) -> Any:
        ctx.boundary = boundary
        ctx.mark_non_differentiable(*(t for t in tensors if not t.requires_grad))
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, *ctx.boundary.at_entry(grads))


class _Exit(Function):
    @staticmethod
    def forward(ctx: Any, boundary: Boundary, *tensors: Tensor) -> Any:
        ctx.boundary = boundary
        ctx.mark_non_differentiable(*(t for t in tensors if not t.requires_grad))
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, *ctx.boundary.at_exit(grads))


class Hooked(Stateful):
    """The part of Module that is called, and that runs hooks."""

    forward: Callable[..., Any]
    _forward_hooks: dict[int, Any]
    _forward_hooks_with_kwargs: dict[int, bool]
    _forward_hooks_always_called: dict[int, bool]
    _forward_pre_hooks: dict[int, Any]
    _forward_pre_hooks_with_kwargs: dict[int, bool]
    _backward_hooks: dict[int, Any]
    _backward_pre_hooks: dict[int, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, with the hooks around it; a trace notes the module's path."""
        if (
            modes.recording
            or self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or _Watch.everything
        ):  # fmt: skip (as `_is_hooked`, which would take another 0.1 us)
            return self._call_watched(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_watched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recorder = modes.RECORDER.get() if modes.recording else None
        if recorder is None:
            return self._call_hooked(args, kwargs)
        path = recorder.module_paths.get(id(self), type(self).__name__)
        recorder.training_flags.setdefault(id(self), (path, self, self.training))
        recorder.scopes.append(path)
        try:
            if not self._is_hooked():
                return self.forward(*args, **kwargs)
            return self._call_hooked(args, kwargs)
        finally:
            recorder.scopes.pop()

    def _is_hooked(self) -> bool:
        return bool(
            self._forward_hooks or self._forward_pre_hooks
            or self._backward_hooks or self._backward_pre_hooks or _Watch.everything
        )  # fmt: skip

    def _call_hooked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        always = _hooks("always_called", self._forward_hooks_always_called)
        try:
            args, kwargs = self._before(args, kwargs)
            boundary = None
            if (
                self._backward_hooks or self._backward_pre_hooks
                or EVERYWHERE["backward"] or EVERYWHERE["backward_pre"]
            ):  # fmt: skip
                boundary = Boundary(self)
                args = boundary.entered(args)
            result = self.forward(*args, **kwargs)
            for key, hook in _hooks("forward", self._forward_hooks).items():
                always.pop(key, None)
                changed = self._after(key, hook, args, kwargs, result)
                result = result if changed is None else changed
            return result if boundary is None else boundary.left(result)
        except Exception:
            hooks = _hooks("forward", self._forward_hooks)
            for key in always:
                self._after(key, hooks[key], args, kwargs, None)
            raise

    def _after(self, key: int, hook: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Run one forward hook."""
        if key in self._forward_hooks_with_kwargs or key in EVERYWHERE["with_kwargs"]:
            return hook(self, args, kwargs, result)
        return hook(self, args, result)

    def _before(self, args: Any, kwargs: Any) -> Any:
        """Run the forward pre-hooks; returns what the call goes on with."""
        for key, hook in _hooks("pre", self._forward_pre_hooks).items():
            if key not in self._forward_pre_hooks_with_kwargs:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
                continue
            changed = hook(self, args, kwargs)
            if changed is None:
                continue
            if not isinstance(changed, tuple) or len(changed) != 2:
                raise OpError(
                    "forward pre-hook must return None or a tuple of (new_args, new_kwargs), but "
                    f"got {changed}."
                )
            args, kwargs = changed
        return args, kwargs

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Handle:
        """Call `hook(module, args)` before forward; what it returns replaces the arguments.

        `with_kwargs`: `hook(module, args, kwargs)`, which returns None or (args, kwargs).
        """
        handle = _add(self._forward_pre_hooks, hook, prepend, self._forward_pre_hooks_with_kwargs)
        if with_kwargs:
            self._forward_pre_hooks_with_kwargs[handle.id] = True
        return handle

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> Handle:  # fmt: skip
        """Call `hook(module, args, output)` after forward; what it returns replaces the output.

        `with_kwargs`: `hook(module, args, kwargs, output)`; `always_call`: also when it raises.
        """
        handle = _add(
            self._forward_hooks, hook, prepend,
            self._forward_hooks_with_kwargs, self._forward_hooks_always_called,
        )  # fmt: skip
        if with_kwargs:
            self._forward_hooks_with_kwargs[handle.id] = True
        if always_call:
            self._forward_hooks_always_called[handle.id] = True
        return handle

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> Handle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs are known.

        What it returns replaces grad_input.
        """
        return _add(self._backward_hooks, hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> Handle:
        """Call `hook(module, grad_output)` when the gradients of the outputs are known.

        What it returns replaces grad_output.
        """
        return _add(self._backward_pre_hooks, hook, prepend)


def _add(hooks: Any, hook: Any, prepend: bool, *more: Any) -> Handle:
    handle = hang(hooks, hook, *more)
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle
