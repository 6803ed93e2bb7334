"""A trie of recorded paths: they share rows up to a guard that came out differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tracegraph.capture.rows import Row, RowValue
from tracegraph.capture.variants import VARIANT
from tracegraph.dtypes import int64
from tracegraph.errors import TraceError
from tracegraph.ir.control import GUARD
from tracegraph.ir.graph import CONSTANT, INPUT, STATE
from tracegraph.ir.text import same_text
from tracegraph.tensor_type import TensorType


class Path(NamedTuple):
    """What one example did: recorded rows, outputs, and what State and inputs hold at the end."""

    rows: Sequence[Row]
    outputs: Sequence[RowValue]
    writes: Mapping[str, RowValue]


@dataclass(eq=False)
class Step:
    """One row that all paths through its place have in common."""

    row: Row
    inputs: tuple[Ref, ...] = ()


class Ref(NamedTuple):
    """A result of a step."""

    step: Step
    number: int

    @property
    def type(self) -> TensorType:
        """Of the result."""
        return self.step.row.types[self.number]


@dataclass(eq=False)
class Branch:
    """A guard that came out differently."""

    guard: Step
    ways: dict[Any, Block] = field(default_factory=dict)


@dataclass(eq=False)
class Block:
    """Steps, then a branch or the end: the results of the whole function."""

    steps: list[Step] = field(default_factory=list)
    branch: Branch | None = None
    results: tuple[Ref, ...] | None = None


def same_attrs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether attributes are equal, arrays bit for bit."""

    def same(x: Any, y: Any) -> bool:
        if isinstance(x, np.ndarray):
            return x.tobytes() == y.tobytes()
        return type(x) is type(y) and (x == y or x != x)

    return a.keys() == b.keys() and all(same(x, b[k]) for k, x in a.items())


def same_row(a: Row, b: Row) -> bool:
    """Whether two rows do the same on the same line; of guards, whatever their outcome."""
    if a.op == b.op == GUARD:
        return a.attrs["text"] == b.attrs["text"] and a.loc == b.loc
    if a.op != b.op or a.types != b.types or a.loc != b.loc or not same_attrs(a.attrs, b.attrs):
        return False
    return all(same_text(r, b.regions[k]) for k, r in a.regions.items())


class Trie:
    """Paths that share what they have in common from the start."""

    def __init__(self) -> None:
        self.root = Block()
        self.sources: dict[tuple[str, Any], Step] = {}

    def declare(self, path: Path) -> None:
        """Note the inputs and State that a path reads."""
        for row in path.rows:
            if row.op in (INPUT, STATE):
                self._source(row)

    def start(self, variant: int | None) -> Block:
        """Where paths of a variant begin."""
        if variant is None:
            return self.root
        row = Row(INPUT, (), {"name": VARIANT}, (TensorType(int64, ()),), None, "")
        guard = Row(GUARD, (), {"expected": variant, "text": "which variant"}, (), None, "")
        if self.root.branch is None:
            self.root.branch = Branch(Step(guard, (Ref(self._source(row), 0),)))
        return self.root.branch.ways.setdefault(variant, Block())

    def add(self, path: Path, written: Iterable[str], variant: int | None) -> None:
        """Put a path in: along the known steps first, new steps from where it parts."""
        block, at = self.start(variant), 0
        is_new = not block.steps and block.branch is None and block.results is None
        steps: list[Step] = []
        for row in path.rows:
            inputs = tuple(Ref(steps[r], i) for r, i in row.inputs)
            if row.op in (INPUT, STATE) or _is_scalar(row):
                steps.append(self._source(row))
                continue
            if row.op == GUARD:
                branch = self._branch(block, at, Step(row, inputs), is_new)
                steps.append(branch.guard)
                outcome = row.attrs["expected"]
                is_new = outcome not in branch.ways
                block, at = branch.ways.setdefault(outcome, Block()), 0
                continue
            if is_new:
                block.steps.append(Step(row, inputs))
            elif at == len(block.steps) or not _is(block.steps[at], row, inputs):
                _refuse(row, block, at)
            steps.append(block.steps[at])
            at += 1
        outputs = [Ref(steps[r], i) for r, i in path.outputs]
        ends = {n: Ref(steps[r], i) for n, (r, i) in path.writes.items()}
        results = (*outputs, *(ends.get(n) or self._untouched(n) for n in written))
        if is_new:
            block.results = results
        elif at < len(block.steps) or block.results != results:
            _refuse(None, block, at)

    def _source(self, row: Row) -> Step:
        if row.op == CONSTANT:
            key = (row.types[0], row.attrs["value"].tobytes())
            return self.sources.setdefault((CONSTANT, key), Step(row))
        step = self.sources.setdefault((row.op, row.attrs["name"]), Step(row))
        if step.row.types != row.types:
            raise TraceError(
                f"{row.attrs['name']} is {step.row.types[0]} in one example and {row.types[0]} "
                "in another; trace them apart, or make the dims that differ dynamic"
            )
        return step

    def _untouched(self, name: str) -> Ref:
        """What a State or input holds at the end of a path that does not write it."""
        return Ref(self.sources.get((STATE, name)) or self.sources[INPUT, name], 0)

    @staticmethod
    def _branch(block: Block, at: int, guard: Step, is_new: bool) -> Branch:
        if is_new:
            block.branch = Branch(guard)
        known = block.branch
        if at < len(block.steps) or known is None or not _is(known.guard, guard.row, guard.inputs):
            _refuse(guard.row, block, at)
        return known


def _is_scalar(row: Row) -> bool:
    return row.op == CONSTANT and not row.types[0].shape


def _is(step: Step, row: Row, inputs: tuple[Ref, ...]) -> bool:
    return step.inputs == inputs and same_row(step.row, row)


def _refuse(row: Row | None, block: Block, at: int) -> NoReturn:
    """Raise the error of two paths that part without a guard."""
    known = block.branch and block.branch.guard.row
    if at < len(block.steps):
        known = block.steps[at].row
    shown = [f"{r.op} at {r.loc}" if r else "the end of the function" for r in (known, row)]
    raise TraceError(
        f"two examples do different things, {shown[0]} and {shown[1]}, and nothing that the trace "
        "sees tells them apart: the function depends on a Python value that changed between the "
        "examples (a counter, random, time, a global); pass it as an argument or keep it in a "
        "tensor"
    )


def condense(root: Block) -> None:
    """Make guards with one outcome steps of the block that they are in."""
    stack = [root]
    while stack:
        block = stack.pop()
        while block.branch is not None and len(block.branch.ways) == 1:
            (way,) = block.branch.ways.values()
            block.steps += [block.branch.guard, *way.steps]
            block.branch, block.results = way.branch, way.results
        if block.branch is not None:
            stack += block.branch.ways.values()


def first_difference(mine: Sequence[Row], theirs: Sequence[Row]) -> Any:
    """Return the place of the first row that differs, or None."""
    for a, b in zip(mine, theirs, strict=False):
        if a[:2] != b[:2] or a.types != b.types or not same_attrs(a.attrs, b.attrs):
            return a.loc or b.loc or a.op
    if len(mine) != len(theirs):
        row = max(mine, theirs, key=len)[min(len(mine), len(theirs))]
        return row.loc or row.op
    return None
