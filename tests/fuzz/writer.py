"""Writes random programs: State, inputs, statements of every kind, and a nest of results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.fuzz.choices import Choices
from tests.fuzz.program import Program

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = (
    (2, 3), (3,), (), (3, 3), (4,), (2, 1, 3), (1, 3), (2, 2, 2), (4, 2), (1,), (0, 3), (5,),
)  # fmt: skip
# eps is large: steps by a gradient that is rounding noise would be noise.
OPTIMIZERS = (
    ("SGD", "lr=0.1, momentum=0.5"), ("SGD", "lr=0.1"), ("Adam", "lr=0.1, eps=0.01"),
    ("SGD", "lr=0.1, momentum=0.5, dampening=0.25"), ("AdamW", "lr=0.1, eps=0.01"),
    ("Adagrad", "lr=0.1, eps=0.01"), ("RMSprop", "lr=0.1, eps=0.01"),
)  # fmt: skip
SCALARS = ("2.0", "0.5", "-1.5", "3", "-1", "0.25", "1.0", "0.0")


@dataclasses.dataclass(frozen=True)
class Var:
    """A tensor that a program can name. `kind` is f, i or b.

    `locked`: a leaf that requires a gradient, or a view of one; `spread`: expanded memory; `root`:
    the memory that it may share with others of the same root.
    """

    name: str
    shape: Shape
    kind: str = "f"
    locked: bool = False
    spread: bool = False
    root: int = -1

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dummy(self) -> np.ndarray:
        """An array of this shape without memory, for shape inference."""
        return np.broadcast_to(np.zeros(()), self.shape)


class Writer:
    """A program in the making."""

    def __init__(self, choices: Choices, statements: list[tuple[int, Callable[..., None]]]) -> None:
        self.c = choices
        self.statements = statements
        self.setup: list[str] = []
        self.inputs: list[tuple[str, str]] = []
        self.body: list[str] = []
        self.vars: list[Var] = []
        self.params: list[Var] = []
        self.state: list[Var] = []
        self.optimizers: list[tuple[str, list[Var]]] = []
        self.heads: list[str] = []
        self.depth = 0
        self.no_grad = 0
        self.count = 0
        self.laid = False

    # Lines and names.

    def line(self, text: str) -> None:
        """Add a statement, inside the block that is open."""
        if self.depth:
            self.body[-1] += "\n" + "    " * self.depth + text
        else:
            self.body.append(text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Open a block (`with ...:`); an empty one gets `pass`."""
        self.line(head)
        self.depth += 1
        known, size = len(self.vars), len(self.body[-1])
        try:
            yield
        finally:
            if len(self.body[-1]) == size:
                self.line("pass")
            self.depth -= 1
            del self.vars[known + 100 :]

    def new(self, value: str, shape: Shape, kind: str = "f", **flags: Any) -> Var:
        """Write `v7 = value` and return the variable."""
        flags.setdefault("root", self.count)
        made = Var(f"v{self.count}", tuple(shape), kind, **flags)
        self.count += 1
        self.line(f"{made.name} = {value}")
        self.vars.append(made)
        return made

    def view(self, of: Var, value: str, shape: Shape, spread: bool = False) -> Var:
        """As `new`, for a value that shares memory with `of`."""
        return self.new(value, shape, of.kind, locked=of.locked, spread=of.spread or spread,
                        root=of.root)  # fmt: skip

    def share(self, v: Var, other: Var) -> None:
        """Note that two variables may be one memory from now on."""
        self.vars = [
            dataclasses.replace(x, root=other.root) if x.root == v.root else x for x in self.vars
        ]
        self.state = [next(x for x in self.vars if x.name == s.name) for s in self.state]

    # Choosing operands.

    def find(self, wanted: Callable[[Var], bool]) -> Var | None:
        """A variable that fits; recent ones more often."""
        fitting = [v for v in self.vars if wanted(v)]
        if not fitting:
            return None
        if self.c.chance(50):
            fitting = fitting[-4:]
        return fitting[len(fitting) - 1 - self.c.integer(0, len(fitting) - 1)]

    def floats(self, ndim: int | None = None, least: int = 0) -> Var:
        """A float variable with `ndim` dims, or at least `least`; made if there is none."""
        found = self.find(lambda v: v.kind == "f" and v.ndim >= least and ndim in (None, v.ndim))
        if found is None:
            shape = (2, 3, 2)[: max(ndim or 0, least)]
            found = self.new(f"T.full({shape}, 1.5, dtype=D)", shape)
        return found

    def anything(self, least: int = 0) -> Var:
        """A variable of any kind."""
        return self.find(lambda v: v.ndim >= least) or self.floats(least=least)

    def target(self) -> Var | None:
        """A float variable to write to; seldom one that refuses."""
        risky = self.c.chance(3)
        return self.find(
            lambda v: (
                v.kind == "f" and (risky or ((not v.locked or bool(self.no_grad)) and not v.spread))
            )
        )

    def operand(self, shape: Shape, target: Var | None = None, whole: bool = False) -> str:
        """An expression that broadcasts to `shape`, and shares no memory with a target of writes.

        `whole`: all of the target is written, so that it may be its own operand.
        """
        if self.c.chance(35):
            return self.scalar()
        fits = [v for v in self.vars if v.kind == "f" and _fits(v.shape, shape)]
        if not fits:
            return self.scalar()
        found = fits[len(fits) - 1 - self.c.integer(0, len(fits) - 1)]
        shared = target is not None and target.root == found.root
        shared = shared and not (whole and target is found)
        return found.name + ".clone()" if shared else found.name

    def tensor_operand(self, shape: Shape, target: Var | None = None) -> str:
        """As `operand`, always a tensor."""
        found = self.operand(shape, target, whole=True)
        return f"T.full((), {found}, dtype=D)" if found in SCALARS else found

    def scalar(self) -> str:
        """A Python number."""
        return self.c.pick(SCALARS)

    # The program.

    def make_state(self) -> None:
        """Write the setup: `box` with attributes, closures `c0`, `c1`."""
        self.setup.append("box = Box()")
        for i in range(self.c.integer(0, 2)):
            self._state_tensor(f"box.w{i}", i + 1, trained=True)
        for i in range(self.c.integer(0, 2)):
            self._state_tensor(f"box.h{i}", i + 11, trained=False)
        for i in range(self.c.integer(0, 1)):
            self._state_tensor(f"c{i}", i + 21, trained=self.c.chance(30))
        if self.c.chance(20) and self.state:
            base = self.c.pick(self.state)
            if base.ndim and base.shape[0]:
                self.setup.append(f"box.view = {base.name}.detach()[0]")
                self._known("box.view", base.shape[1:], False, base.root)
        if self.c.chance(15):
            self.setup.append("box.items = [tensor(31, 2), {'a': tensor(32, 3)}]")
            self._known("box.items[0]", (2,), False)
            self._known("box.items[1]['a']", (3,), False)
        if self.c.chance(10):
            self.setup += ["global g0", "g0 = tensor(33, 3)"]
            self._known("g0", (3,), False)
        if self.params and self.c.chance(30):
            name, options = self.c.pick(OPTIMIZERS)
            listed = ", ".join(p.name for p in self.params)
            self.setup.append(f"opt = T.optim.{name}([{listed}], {options})")
            self.optimizers.append(("opt", list(self.params)))

    def _state_tensor(self, name: str, seed: int, trained: bool) -> None:
        shape = self.c.pick(SHAPES)
        trained = trained and self.c.chance(80)
        sizes = "".join(f", {n}" for n in shape)
        tail = ".requires_grad_()" if trained else ""
        text = f"tensor({seed}{sizes})"
        if self.c.chance(10):
            self.laid = True
            text = f"laid('turned', {text}).clone()"
        self.setup.append(f"{name} = {text}{tail}")
        self._known(name, shape, trained)

    def _known(self, name: str, shape: Shape, trained: bool, root: int | None = None) -> None:
        self.count += 1
        v = Var(name, shape, locked=trained, root=self.count - 1 if root is None else root)
        self.state.append(v)
        self.vars.append(v)
        if trained:
            self.params.append(v)

    def make_inputs(self) -> None:
        """Write the inputs."""
        for i in range(self.c.integer(1, 3)):
            name = f"x{i}"
            first = next((v for v in self.vars if v.name == "x0" and not v.locked), None)
            if first is not None and self.c.chance(4):
                self.inputs.append((name, "x0"))
                self.vars.append(dataclasses.replace(first, name=name))
                continue
            shape = self.c.pick(SHAPES)
            sizes = "".join(f", {n}" for n in shape)
            self.count += 1
            if self.c.chance(5):
                self.inputs.append(
                    (name, f"{{'a': [tensor(10 * call + {50 + i}{sizes})], 'b': 2}}")
                )
                self.vars.append(Var(f"{name}['a'][0]", shape, root=self.count))
                continue
            if self.c.chance(10):
                self.inputs.append((name, f"integers(call + {40 + i}, 3{sizes})"))
                self.vars.append(Var(name, shape, "i"))
                continue
            trained = self.c.chance(8)
            text = f"tensor(10 * call + {50 + i}{sizes})" + ".requires_grad_()" * trained
            if not trained and self.c.chance(25):
                self.laid = True
                orders = [self.c.pick(("rows", "turned", "part", "columns")) for _ in range(3)]
                text = f"laid({orders}[call], {text})"
            self.inputs.append((name, text))
            self.vars.append(Var(name, shape, locked=trained, root=self.count))

    def make_body(self, most: int) -> None:
        """Write statements, at least one."""
        if self.c.chance(60):
            for p in self.params:
                self.line(f"{p.name}.grad = None")
        for _ in range(most):
            self.statement()
            if not self.c.chance(88):
                break

    def make_between(self) -> tuple[str, ...]:
        """Statements that change State between two calls."""
        lines = []
        for v in self.state:
            if not self.c.chance(12):
                continue
            sizes = "".join(f", {n}" for n in v.shape)
            new = self.c.pick(
                (f"tensor(call{sizes})", f"laid('turned', tensor(call{sizes})).clone()")
            )
            if v.locked:
                lines.append(self.c.pick((
                    f"{v.name}.grad = None", f"{v.name}.data.mul_(0.5)", f"{v.name}.data = {new}"
                )))  # fmt: skip
            elif v.name.startswith("box.h"):
                lines.append(self.c.pick((
                    f"{v.name} = {new}", f"{v.name}.data = {new}",
                    f"{v.name}.detach().add_(1.0)")))  # fmt: skip
        if self.optimizers and self.c.chance(30):
            lines.append("opt.zero_grad()")
        return tuple(lines)

    def statement(self) -> None:
        """Write one statement of any kind."""
        self.c.weighted(self.statements)(self)

    def make_result(self) -> str:
        """An expression: a nest of variables, some twice, some State, some inputs."""
        usable = [v for v in self.vars if not v.name.startswith("_")]
        items = [v.name for v in usable[-self.c.integer(1, 5) :]]
        if self.c.chance(40):
            items += [self.c.pick(usable).name for _ in range(self.c.integer(1, 3))]
        form = self.c.integer(0, 6)
        first, rest = items[0], ", ".join(items)
        return (
            f"({rest},)", f"[{rest}]", f"{{'a': {first}, 'b': [{rest}]}}",
            f"Pair({first}, ({rest}, 3, 'text', None))", f"Record({first}, [{rest}])",
            first, f"({rest}, {{1: ({first},)}})",
        )[form]  # fmt: skip

    def program(self, most: int = 25) -> Program:
        """Write all of it."""
        self.make_state()
        self.make_inputs()
        self.make_body(most)
        result = self.make_result()
        body = (*self.heads, *self.body)
        between = self.make_between()
        return Program(tuple(self.setup), tuple(self.inputs), body, result, between)


def _fits(shape: Shape, into: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, into) == into
    except ValueError:
        return False


def write(choices: Choices, most: int = 25) -> Program:
    """Return a random program."""
    from tests.fuzz.families import FAMILIES
    from tests.fuzz.statements import STATEMENTS

    return Writer(choices, [*STATEMENTS, *FAMILIES]).program(most)
