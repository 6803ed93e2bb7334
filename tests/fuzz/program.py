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
    """Lines of Python. `setup` makes State; `inputs` are (name, expression with `call`)."""

    setup: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    body: tuple[str, ...]
    result: str

    def source(self) -> str:
        """The text of a function `build` that returns State, the function, and its inputs."""
        names = ", ".join(name for name, _ in self.inputs)
        tail = "," if self.inputs else ""
        lines = ["def build():"]
        lines += _indented(self.setup, 1)
        lines += [f"    def f({names}):", *_indented(self.body, 2), f"        return {self.result}"]
        lines += ["    def inputs(call):"]
        lines += _indented([f"{name} = {value}" for name, value in self.inputs], 2)
        lines += [f"        return ({names}{tail})", "    return dict(locals()), f, inputs", ""]
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
    """A program made real on one module: State by name, the function, inputs of a call."""

    T: Any
    state: dict[str, Any]
    function: Callable[..., Any]
    inputs: Callable[[int], tuple[Any, ...]]
    reseed: Callable[[], None]


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Quarters in [-2, 2]."""
    return np.random.RandomState(seed % (1 << 31)).randint(-8, 9, shape) / 4.0


def build(program: Program, T: Any, uniform: Callable[..., Any], seed: int = 7) -> Built:
    """Run the program's text on a module; `uniform(*shape)` gives its random numbers."""

    def tensor(seed: int, *shape: int) -> Any:
        return T.tensor(numbers(seed, shape), dtype=T.float64)

    def integers(seed: int, high: int, *shape: int) -> Any:
        values = np.random.RandomState(seed).randint(0, high, shape)
        return T.tensor(values, dtype=T.int64)

    def grad(loss: Any, inputs: list[Any], **options: Any) -> list[Any]:
        found = T.autograd.grad(loss, inputs, allow_unused=True, **options)
        return [T.zeros_like(t) if g is None else g for g, t in zip(found, inputs)]

    def grad_of(t: Any) -> Any:
        return T.zeros_like(t) if t.grad is None else t.grad

    names = {
        "T": T, "Box": Box, "Pair": Pair, "Record": Record, "tensor": tensor, "grad": grad,
        "integers": integers, "uniform": uniform, "grad_of": grad_of, "D": T.float64,
    }  # fmt: skip
    source = program.source()
    linecache.cache[FILE] = (len(source), None, source.splitlines(True), FILE)
    exec(compile(source, FILE, "exec"), names)
    state, function, inputs = names["build"]()
    state = {k: v for k, v in state.items() if not callable(v) or isinstance(v, Box)}
    return Built(T, state, function, inputs, lambda: None)
