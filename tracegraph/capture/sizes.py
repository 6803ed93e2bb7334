"""Symbolic sizes of one trace: what is declared dynamic, and what the trace came to rely on.

A trace goes by the sizes of its example. What the user's code decides by a size is a guard, as
what it decides by a tensor is; what tracegraph itself has to know (two sizes are one, one divides
another) is a fact, which every replay checks first.
"""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final

from tracegraph.dims import expressions
from tracegraph.dims.declared import Dim
from tracegraph.dims.expressions import Expr, Symbol
from tracegraph.dims.facts import Facts
from tracegraph.dims.relations import EQ, GE, NE, Relation, relation
from tracegraph.dims.symint import DECIDER, OURS, SymInt, size_of, variable
from tracegraph.dtypes import float64, int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front, size_tensor
from tracegraph.errors import TraceError
from tracegraph.ir.control import FACT
from tracegraph.tensor_type import Shape

if TYPE_CHECKING:
    from tracegraph.capture.recording import Recorder

Declared = Mapping[str, Mapping[int, Any]]

_MACHINERY: Final = (os.path.dirname(os.path.abspath(expressions.__file__)) + os.sep, __file__)
_COMPARED: Final = {EQ: "eq", NE: "ne", GE: "ge"}


class Sizes:
    """Decides about sizes by those of the example, and records what that relied on."""

    traces = True
    by_form = False

    def __init__(self, recorder: Recorder, declared: Declared) -> None:
        self._of = weakref.ref(recorder)  # a recorder holds its sizes
        self.facts = Facts()
        self.dims: dict[str, SymInt] = {}
        self._declared = declared
        self._kept: set[str] = set()  # dims that the user said shall vary
        self._token: Token[Any] | None = None
        self._entered = False

    def __enter__(self) -> Sizes:
        self._entered = True
        if self.dims:
            self._start()
        return self

    def _start(self) -> None:
        """Decide from here on; a trace without symbolic sizes pays nothing for those of others."""
        if self._entered and self._token is None:
            modes.count_sizes(1)
            self._token = DECIDER.set(self)

    def __exit__(self, *exc: object) -> None:
        self._entered = False
        if self._token is not None:
            DECIDER.reset(self._token)
            modes.count_sizes(-1)
            self._token = None

    @property
    def recorder(self) -> Recorder:
        """Whose sizes these are."""
        recorder = self._of()
        assert recorder is not None
        return recorder

    # Dims of inputs, and sizes that follow from data.

    def shape(self, path: str, sizes: Sequence[int]) -> Shape:
        """Return the shape of an input with its dynamic dims symbolic.

        Raises:
            TraceError: the declaration does not fit the example.
        """
        shape: list[Any] = list(sizes)
        for axis, dim in self._declared.get(path, {}).items():
            if not -len(shape) <= axis < len(shape):
                raise TraceError(f"dynamic: {path} has {len(shape)} dims, no dim {axis}")
            shape[axis] = self._dim(path, axis, dim, sizes[axis])
        return tuple(shape)

    def _dim(self, path: str, axis: int, dim: Dim, size: int) -> SymInt:
        if not dim.min <= size <= (size if dim.max is None else dim.max):
            raise TraceError(
                f"dynamic: dim {axis} of {path} is {size} in the example, outside of {dim}"
            )
        known = self.dims.get(dim.name)
        if known is None:
            symbol = Symbol(dim.name, dim.min, dim.max, hint=size)
            known = self.dims[dim.name] = variable(symbol)
            if dim.declared:
                self._kept.add(dim.name)
        elif known.hint != size:
            raise TraceError(
                f"dynamic: dim {axis} of {path} is {size} in the example, another dim named "
                f"{dim.name!r} is {known.hint}; give dims that differ different names"
            )
        return known

    def found(self, name: str, count: int) -> SymInt:
        """Return a size that a node finds in its operands, under a name like `name`."""
        number, free = 0, name
        while free in self.dims:
            number += 1
            free = f"{name}{number}"
        size = self.dims[free] = variable(Symbol(free, data=True, hint=count))
        self._start()
        return size

    # Deciding.

    def decide(self, asked: Relation, outcome: bool) -> bool:
        """Whether a relation holds in the example; what follows from no fact is noted."""
        if self.facts.knows(asked) is None:
            holds = asked if outcome else asked.negated()
            if _asked_by_user():
                self._guard(size_of(asked.expr), outcome, _COMPARED[asked.kind])
            else:
                self._check_kept(holds)
            self._note(holds)
        return outcome

    def read(self, size: SymInt) -> int:
        """The size in the example; it is fixed from here on."""
        asked = relation(EQ, size.expr - expressions.number(size.hint))
        if self.facts.knows(asked) is None:
            if _asked_by_user():
                self._guard(size, size.hint)
            else:
                self._check_kept(asked)
            self._note(asked)
        return size.hint

    def fix(self, size: SymInt) -> int:
        """As `read`, where a function of PyTorch's (`len`, iteration) reads for the user."""
        asked = relation(EQ, size.expr - expressions.number(size.hint))
        if self.facts.knows(asked) is None:
            self._guard(size, size.hint)
            self._note(asked)
        return size.hint

    def number(self, size: SymInt) -> Any:
        """The size as a 0-d float64 tensor."""
        return size_tensor(size, float64)

    def _guard(self, size: Any, outcome: bool | int, compared: str | None = None) -> None:
        """Record a guard on a size, or on how it compares with 0."""
        recorder = self._recorder(size.expr)
        token = modes.push_recorder(recorder)
        try:
            value = size_tensor(size, int64)
            if compared is not None:
                value = getattr(front, compared)(value, 0)
            recorder.decide(value, outcome)
        finally:
            modes.pop_recorder(token)

    def _recorder(self, expr: Expr) -> Recorder:
        """Who notes what is said of an expression: sizes found in a region are known only there."""
        found = any(symbol.data for symbol in expr.symbols().values())
        return (modes.RECORDER.get() or self.recorder) if found else self.recorder

    def _check_kept(self, fact: Relation) -> None:
        """Refuse a fact that leaves one size to a dim that the user said shall vary."""
        if fact.pinned is None or fact.pinned[0].name not in self._kept:
            return
        symbol, only = fact.pinned
        raise TraceError(
            f"{self.recorder.here()} needs {fact}: the trace would hold for {symbol.name} = {only} "
            f"alone, but {symbol.name!r} was declared dynamic. Make the other size follow it (use "
            f"x.shape, not a number), or do not declare it"
        )

    def _note(self, fact: Relation) -> None:
        self.facts.add(fact)
        self._recorder(fact.expr).note(FACT, {"relation": fact})


def _asked_by_user() -> bool:
    """Whether the user's code, not tracegraph's, asks (through C code or not)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_MACHINERY)
        or str(frame.f_globals.get("__name__")).startswith("numpy.")
    ):
        frame = frame.f_back
    return not frame.f_code.co_filename.startswith(OURS)


def declared_dims(dynamic: Any, paths: Sequence[str]) -> Declared:
    """Return what `trace(dynamic=...)` was given as Dims by input and axis.

    Raises:
        TraceError: no such input.
        TypeError: not of the form `{"x": {0: Dim("batch")}}`.
    """
    found: dict[str, dict[int, Dim]] = {}
    for path, axes in (dynamic or {}).items():
        if path not in paths:
            raise TraceError(f"dynamic: no input is named {path!r}; there are: {', '.join(paths)}")
        for axis, dim in _by_axis(axes).items():
            if isinstance(axis, bool) or not isinstance(axis, int) or not _is_dim(dim):
                raise TypeError(f"dynamic[{path!r}] is like {{0: Dim('batch')}}, not {axes!r}")
            made = dim if isinstance(dim, Dim) else Dim(dim)
            found.setdefault(path, {})[axis] = made
    return found


def widened(dynamic: Any, first: Sequence[Any], other: Sequence[Any]) -> dict[str, Any] | None:
    """Return `dynamic` with the dims that differ between two examples' inputs; None if none do.

    `first` and `other` are the LeafSpecs of the examples.
    """
    found = {path: dict(_by_axis(axes)) for path, axes in (dynamic or {}).items()}
    taken = {getattr(dim, "name", dim) for axes in found.values() for dim in axes.values()}
    differ = False
    for mine, theirs in zip(first, other, strict=False):
        if mine.type is None or theirs.type is None or mine.name != theirs.name:
            continue
        for axis, pair in enumerate(zip(mine.type.shape, theirs.type.shape, strict=False)):
            if SymInt not in map(type, pair) and pair[0] != pair[1]:
                dim = Dim(_free_name(f"{mine.name}_{axis}", taken))
                dim.declared = False
                found.setdefault(mine.name, {})[axis] = dim
                differ = True
    return found if differ else None


def _by_axis(axes: Any) -> Mapping[int, Any]:
    if isinstance(axes, Mapping):
        return axes
    return {axis: dim for axis, dim in enumerate(axes) if dim is not None}


def _free_name(name: str, taken: set[Any]) -> str:
    plain = re.sub(r"\W+", "_", name)
    plain = plain if plain[:1].isalpha() else f"_{plain}"
    while plain in taken:
        plain += "_"
    taken.add(plain)
    return plain


def _is_dim(dim: Any) -> bool:
    return isinstance(dim, (Dim, str))
