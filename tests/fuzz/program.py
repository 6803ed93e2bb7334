"""What a program is: text that builds State, a function and its inputs, for any module `T`."""

from __future__ import annotations

import dataclasses
import linecache
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

FILE = "<program>"


@dataclasses.dataclass(frozen=True)
class Program:
    """Lines of Python. `setup` makes State; `inputs` are (name, expression with `call`).

    `between` is what happens to State between two calls, outside of the traced function.
    """

    setup: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    body: tuple[str, ...]
    result: str
    between: tuple[str, ...] = ()

    def source(self) -> str:
        """The text of a function `build` that returns State, the function, and its inputs."""
        names = ", ".join(name for name, _ in self.inputs)
        tail = "," if self.inputs else ""
        lines = ["def build():"]
        lines += _indented(self.setup, 1)
        lines += [f"    def f({names}):", *_indented(self.body, 2), f"        return {self.result}"]
        lines += ["    def inputs(call):"]
        lines += _indented([f"{name} = {value}" for name, value in self.inputs], 2)
        lines += [f"        return ({names}{tail})", "    def between(call):"]
        lines += _indented([*self.between, "pass"], 2)
        lines += ["    return dict(locals()), f, inputs, between", ""]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.source()


def _indented(lines: Any, depth: int) -> list[str]:
    return ["    " * depth + part for line in lines for part in line.split("\n")]


class Box:
    """An object of the user's with attributes."""


Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Record:
    """A dataclass of the user's."""

    first: Any
    second: Any


@dataclasses.dataclass
class Built:
    """A program made real on one module: the function, its inputs of a call, what it holds."""

    function: Callable[..., Any]
    inputs: Callable[[int], tuple[Any, ...]]
    between: Callable[[int], None]
    read: Callable[[], dict[str, Any]]

    @property
    def state(self) -> dict[str, Any]:
        """State by name, as it is now."""
        return self.read()


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Quarters in [-2, 2]."""
    return np.random.RandomState(seed % (1 << 31)).randint(-8, 9, shape) / 4.0


def build(program: Program, T: Any, uniform: Callable[..., Any]) -> Built:
    """Run the program's text on a module; `uniform(*shape)` gives its random numbers."""

    def tensor(seed: int, *shape: int) -> Any:
        return T.tensor(numbers(seed, shape), dtype=T.float64)

    def integers(seed: int, high: int, *shape: int) -> Any:
        values = np.random.RandomState(seed).randint(0, high, shape)
        return T.tensor(values, dtype=T.int64)

    def laid(how: str, t: Any) -> Any:
        if how == "turned" and t.ndim > 1:
            return t.transpose(0, -1).clone(memory_format=T.contiguous_format).transpose(0, -1)
        if how == "columns":
            return T.stack([t, t], -1)[..., 0]
        return T.cat([t, t], -1)[..., : t.shape[-1]] if how == "part" and t.ndim else t

    def grad(loss: Any, inputs: list[Any], **options: Any) -> list[Any]:
        found = T.autograd.grad(loss, inputs, allow_unused=True, **options)
        return [T.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]

    def grad_of(t: Any) -> Any:
        return T.zeros_like(t) if t.grad is None else t.grad

    class Cube(T.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    names = {
        "T": T, "D": T.float64, "Box": Box, "Pair": Pair, "Record": Record, "Cube": Cube,
        "tensor": tensor, "integers": integers, "laid": laid, "uniform": uniform, "grad": grad,
        "grad_of": grad_of,
    }  # fmt: skip
    source = program.source()
    linecache.cache[FILE] = (len(source), None, source.splitlines(True), FILE)
    exec(compile(source, FILE, "exec"), names)
    held, function, inputs, between = names["build"]()

    def state() -> dict[str, Any]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        now = {**held, **{name: cell.cell_contents for name, cell in cells}}
        if "g0" in names:
            now["g0"] = names["g0"]
        return {k: v for k, v in now.items() if k != "opt" and not callable(v)}

    return Built(function, inputs, between, state)
