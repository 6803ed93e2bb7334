"""Whether gradients are recorded: `no_grad`, `enable_grad`, `inference_mode`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tracegraph.eager import modes


class GradMode:
    """A context manager and decorator that sets whether gradients are recorded."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(modes.GRAD.set(self.mode))

    def __exit__(self, *exc: object) -> None:
        modes.GRAD.reset(self._tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function (or generator) that runs in this mode."""
        mode = self.mode
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                return (yield from _resumed(function(*args, **kwargs), mode))

            return generator

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with GradMode(mode):
                return function(*args, **kwargs)

        return wrapped


def _resumed(steps: Any, mode: bool) -> Any:
    """Run a generator in a mode; between its steps the caller's mode holds."""
    resume: Callable[[], Any] = functools.partial(next, steps)
    while True:
        with GradMode(mode):
            try:
                item = resume()
            except StopIteration as stop:
                return stop.value
        try:
            sent = yield item
            resume = functools.partial(steps.send, sent)
        except GeneratorExit:
            with GradMode(mode):
                steps.close()
            raise
        except BaseException as error:
            resume = functools.partial(steps.throw, error)


class no_grad(GradMode):
    """Record no gradients inside; a context manager or a decorator (with or without `()`)."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """Return the mode, or a function decorated without parentheses."""
        made = object.__new__(cls)
        if function is None:
            return made
        GradMode.__init__(made, cls._mode())
        return made(function)

    def __init__(self, function: Any = None) -> None:
        super().__init__(self._mode())

    @classmethod
    def _mode(cls) -> bool:
        return False


class enable_grad(no_grad):
    """Record gradients inside, also within `no_grad`."""

    @classmethod
    def _mode(cls) -> bool:
        return True


class inference_mode(GradMode):
    """As `no_grad`; `inference_mode(False)` leaves gradients on."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)
        self._inference: list[Any] = []

    def __enter__(self) -> None:
        super().__enter__()
        self._inference.append(modes.INFERENCE.set(not self.mode))

    def __exit__(self, *exc: object) -> None:
        modes.INFERENCE.reset(self._inference.pop())
        super().__exit__(*exc)


class set_grad_enabled(GradMode):
    """Switch gradients on or off at once; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._tokens.append(modes.GRAD.set(mode))

    def __enter__(self) -> None:
        pass

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs in this mode, which holds nowhere else."""
        modes.GRAD.reset(self._tokens.pop())
        return super().__call__(function)


def is_grad_enabled() -> bool:
    """Whether gradients are recorded in this context."""
    return modes.GRAD.get()


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on."""
    return modes.INFERENCE.get()
