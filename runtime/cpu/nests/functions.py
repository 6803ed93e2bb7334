"""What a loop nest does to a vector and to a row, as functions of the module.

`pass<p>` is what happens to a vector in pass p, `rows<p>` what happens to a row before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tracegraph.dtypes import DType, bool_
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.code.scalar_language import emit_row
from tracegraph.runtime.cpu.code.scalars import Emitter, Library
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.values import Value, constant_text, element_type
from tracegraph.runtime.cpu.code.writer import vector_of
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, NUMBER, Nest, Step
from tracegraph.runtime.cpu.nests.stages import folds_of, is_row, needed, staged, stored


def evaluate(
    m: Emitter, steps: Sequence[Step], values: dict[int, Value], order: Iterable[int]
) -> None:
    """Write the values of some steps in order; loads and folds are there, numbers are made.

    Raises:
        UnsupportedError: a value has no native form.
    """
    for v in order:
        if v in values:
            continue
        step = steps[v]
        for i in (v, *step.inputs):
            if steps[i].op == NUMBER and i not in values:
                number = dict(steps[i].attrs)["value"]
                values[i] = m.constant(number, steps[i].dtype.compute)
        if step.op == NUMBER:
            continue
        made = emit_row(m, OPS[step.op], [values[i] for i in step.inputs], dict(step.attrs))
        if step.dtype.compute is not step.dtype:  # a 16-bit float is rounded by every op
            made = widened(m, narrowed(m, made, step.dtype), step.dtype)
        values[v] = made


class Function(NamedTuple):
    """A function of the module: what it takes and gives."""

    symbol: str
    inputs: list[int]  # values
    outputs: list[int]
    kinds: list[str]  # LLVM element types of the outputs

    def returned(self, width: int) -> str:
        """Return the LLVM type of the result."""
        kinds = [vector_of(kind, width) for kind in self.kinds]
        return kinds[0] if len(kinds) == 1 else f"{{ {', '.join(kinds)} }}"


class Functions:
    """The functions of a nest, defined in a library.

    `passes[p]` and `rows[p]` are those of pass p; before it and after the last one a row may have
    nothing to do. Rows are computed one at a time, or in lanes.
    """

    def __init__(self, nest: Nest, library: Library, width: int) -> None:
        self.nest, self.library, self.width = nest, library, width
        self.stages = staged(nest)
        self.row_width = 1 if nest.lanes == "folded" else width
        self.passes = [self._pass(p) for p in range(self.stages.passes)]
        self.rows = [self._row(p) for p in range(self.stages.passes + 1)]

    def compute(self, v: int) -> DType:
        """Return the dtype that a value is computed in."""
        return self.nest.steps[v].dtype.compute

    def passed(self, v: int) -> DType:
        """Return the dtype that a function gets a value in: a load as it lies in memory."""
        step = self.nest.steps[v]
        return stored_dtype(step.dtype) if step.op == LOAD else self.compute(v)

    def _pass(self, p: int) -> Function:
        """Define what pass p does to a vector."""
        nest, stages = self.nest, self.stages
        folded = [nest.steps[v].inputs[0] for v in folds_of(nest, stages, p)]
        results = stored(nest, stages, p)
        kept = [v for v, first in stages.saved.items() if first == p]
        known = {v for v, first in stages.saved.items() if first < p}
        wanted = [*folded, *kept, *(nest.results[i].value for i in results)]
        order = needed(nest, stages, wanted, known, p)
        return self._function(f"pass{p}", self.width, order, [*folded, *kept], results)

    def _row(self, p: int) -> Function | None:
        """Define what happens to a row before pass p, or after the last pass."""
        nest, stages = self.nest, self.stages
        own = [
            v
            for v, s in enumerate(nest.steps)
            if stages.stage[v] == p and not stages.is_full[v] and s.op not in (LOAD, NUMBER, *FOLDS)
        ]
        results = [i for i, r in enumerate(nest.results) if is_row(r, stages)]
        results = [i for i in results if stages.stage[nest.results[i].value] == p]
        if not own and not results:
            return None
        return self._function(f"rows{p}", self.row_width, own, own, results)

    def _function(
        self, symbol: str, width: int, order: Sequence[int], outputs: list[int], results: list[int]
    ) -> Function:
        """Define a function that computes values in order, and gives some and some results."""
        steps, stored_values = self.nest.steps, [self.nest.results[i].value for i in results]
        wanted = [*order, *outputs, *stored_values]
        inputs = self._inputs(order, wanted)
        kinds = [element_type(self.compute(v)) for v in outputs]
        kinds += [element_type(stored_dtype(self.nest.results[i].dtype)) for i in results]

        def body(m: Emitter, *given: Value) -> tuple[Value, ...]:
            values = {v: self._received(m, v, x) for v, x in zip(inputs, given, strict=True)}
            evaluate(m, steps, values, wanted)
            made = [values[v] for v in outputs]
            for i, v in zip(results, stored_values, strict=True):
                made.append(narrowed(m, values[v], self.nest.results[i].dtype))
            return tuple(made)

        self._define(symbol, width, body, [self.passed(v) for v in inputs])
        return Function(symbol, inputs, [*outputs, *(-1 - i for i in results)], kinds)

    def _define(
        self, symbol: str, width: int, body: Callable[..., tuple[Value, ...]], dtypes: list[DType]
    ) -> None:
        self.library.define(symbol, width, body, dtypes, cold=False)

    def _inputs(self, order: Sequence[int], wanted: Sequence[int]) -> list[int]:
        """Return what a function is given: loads, and what is known already."""
        steps, made = self.nest.steps, set(order)
        used = {i for v in order if steps[v].op != LOAD for i in steps[v].inputs} | {*wanted}
        return sorted(
            v for v in used if steps[v].op != NUMBER and (v not in made or steps[v].op == LOAD)
        )

    def _received(self, m: Emitter, v: int, x: Value) -> Value:
        step = self.nest.steps[v]
        if step.op in FOLDS and step.dtype.compute is not step.dtype:
            x = narrowed(m, x, step.dtype)
            return widened(m, x, step.dtype)
        return widened(m, x, step.dtype) if step.op == LOAD else x

    def fold(self, v: int, width: int) -> str:
        """Return the name of the function that folds two vectors of what the fold v folds."""
        op, dtype = self.nest.steps[v].op, self.compute(v)
        symbol = f"fold.{op}.{dtype.code}x{width}"
        self._define(symbol, width, lambda m, x, y: (combined(m, op, x, y),), [dtype, dtype])
        return symbol

    def identity(self, v: int) -> str:
        """Return the vector that the fold v starts with."""
        step, dtype = self.nest.steps[v], self.compute(v)
        text = constant_text(neutral(step.op, dtype), dtype)
        return text if self.width == 1 else f"splat ({element_type(dtype)} {text})"


def combined(m: Emitter, op: str, x: Value, y: Value) -> Value:
    """Return two values folded."""
    if op == "sum":
        return x + y
    if op == "prod":
        return x * y
    if op in ("any", "all"):
        return x | y if op == "any" else x & y
    if x.dtype is bool_:
        return x | y if op == "amax" else x & y
    found: Value = m.maximum(x, y) if op == "amax" else m.minimum(x, y)
    return found


def neutral(op: str, dtype: DType) -> float:
    """Return the number that a fold starts with."""
    if op in ("sum", "prod"):
        return int(op == "prod")
    if dtype is bool_:
        return op in ("all", "amin")
    if dtype.is_floating_point:
        return float("-inf") if op == "amax" else float("inf")
    least, most = _range(dtype)
    return least if op == "amax" else most


def _range(dtype: DType) -> tuple[int, int]:
    bits = 8 * dtype.itemsize
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.is_signed else (0, (1 << bits) - 1)
