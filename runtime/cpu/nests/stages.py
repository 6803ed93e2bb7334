"""When each value of a loop nest is known: stages, passes over rows, what is kept between them.

The values of a nest fall into stages. A fold ends a stage: what depends on it comes in a later
one. A row is passed over once for each stage that folds something, and once more where full
results are left to be written. What a pass needs again it computes again, unless it is costly and
the nest `saves`: then it is kept on the stack.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from tracegraph.dtypes import bool_
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.code.scalar_language import INLINE
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, NUMBER, Array, Nest


def costly(op: str) -> bool:
    """Whether a row of the op table is more than an instruction or two."""
    return op not in _CHEAP


_CHEAP: Final = frozenset(
    {LOAD, NUMBER, *FOLDS, "add", "sub", "mul", "neg", "relu", "where", "cast", "eq", "ne", "lt",
     "le", "gt", "ge", "clamp_min", "clamp_max", "logical_not", "bitwise_not", "bitwise_and",
     "bitwise_or", "bitwise_xor"} | {name for name in INLINE if name in OPS}
    - {"floor_divide", "fmod", "remainder", "trunc_divide", "div", "sqrt", "rsqrt", "power"}
)  # fmt: skip


class Stages(NamedTuple):
    """When each value of a nest is known.

    `stage[v]`: the pass in which a full value can be computed, or after as many passes a row.
    """

    stage: tuple[int, ...]
    is_full: tuple[bool, ...]
    passes: int
    saved: dict[int, int]  # value -> the pass that computes it


def staged(nest: Nest) -> Stages:
    """Return the stages of a nest."""
    stage: list[int] = []
    full: list[bool] = []
    for step in nest.steps:
        if step.op == LOAD:
            stage.append(0)
            full.append(not nest.operands[step.inputs[0]].is_row)
        elif step.op in FOLDS:
            stage.append(stage[step.inputs[0]] + 1)
            full.append(False)
        else:
            stage.append(max((stage[i] for i in step.inputs), default=0))
            full.append(any(full[i] for i in step.inputs))
    folds = [stage[v] for v, s in enumerate(nest.steps) if s.op in FOLDS]
    ends = [stage[r.value] + 1 for r in nest.results if not r.is_row or full[r.value]]
    passes = max([*folds, *ends], default=0)
    stages = Stages(tuple(stage), tuple(full), passes, {})
    return stages._replace(saved=_saved(nest, stages)) if nest.saves else stages


def _saved(nest: Nest, stages: Stages) -> dict[int, int]:
    """Return the costly full values that a later pass needs again."""
    found: dict[int, int] = {}
    for p in range(1, stages.passes):
        for v in needed(nest, stages, _targets(nest, stages, p), set(), p):
            first, step = stages.stage[v], nest.steps[v]
            if first < p and costly(step.op) and step.dtype is not bool_:
                found.setdefault(v, first)
    return found


def _targets(nest: Nest, stages: Stages, p: int) -> list[int]:
    """Return the full values that pass p is made for: what it folds, what it stores."""
    found = [nest.steps[v].inputs[0] for v in folds_of(nest, stages, p)]
    return found + [nest.results[i].value for i in stored(nest, stages, p)]


def stored(nest: Nest, stages: Stages, p: int) -> list[int]:
    """Return the results that pass p stores."""
    return [
        i
        for i, r in enumerate(nest.results)
        if not is_row(r, stages) and stages.stage[r.value] == p
    ]


def is_row(result: Array, stages: Stages) -> bool:
    """Whether a result is stored once a row."""
    return result.is_row and not stages.is_full[result.value]


def needed(nest: Nest, stages: Stages, wanted: Iterable[int], known: set[int], p: int) -> list[int]:
    """Return the full values to compute for others, in order; known ones are not."""
    found: set[int] = set()
    stack = list(wanted)
    while stack:
        v = stack.pop()
        if v in found or v in known or not stages.is_full[v]:
            continue
        found.add(v)
        if nest.steps[v].op != LOAD:
            stack += nest.steps[v].inputs
    return sorted(found)


def folds_of(nest: Nest, stages: Stages, p: int) -> list[int]:
    """Return the folds that pass p does."""
    return [v for v, s in enumerate(nest.steps) if s.op in FOLDS and stages.stage[v] == p + 1]
