"""What is done to a sum of products before it is stored: bias, activation, residual.

An epilogue is data, so that equal ones are compiled once. Its steps are rows of the op table over
numbered values: 0 is the sum, then come the operands, then the results of the steps.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.scalar_language import emit_row
from tracegraph.runtime.cpu.scalars import Emitter, Library
from tracegraph.runtime.cpu.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.values import Value

# What an operand has an element for: each column (a bias), each row, each place (a residual), or
# all of them (a 0-d array). A constant has its `number`.
Extent = Literal["column", "row", "place", "scalar", "constant"]


class Operand(NamedTuple):
    """An array, or a constant, that steps read."""

    extent: Extent
    dtype: DType
    number: float = 0.0


class Step(NamedTuple):
    """An elementwise row of the op table, the numbers of the values it reads, its attributes."""

    op: str
    inputs: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...] = ()


class Result(NamedTuple):
    """A value that is stored, with the dtype it is stored as."""

    value: int
    dtype: DType


class Epilogue(NamedTuple):
    """Operands, steps and results, of which there is at least one."""

    results: tuple[Result, ...]
    operands: tuple[Operand, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def arrays(self) -> list[tuple[int, Operand]]:
        """The operands in memory, with their places among the operands."""
        return [(i, x) for i, x in enumerate(self.operands) if x.extent != "constant"]


def plain(dtype: DType) -> Epilogue:
    """Return the epilogue that stores the sums as they are."""
    return Epilogue((Result(0, dtype),))


def define_epilogue(library: Library, epilogue: Epilogue, dtype: DType, width: int) -> None:
    """Write the function @epilogue: vectors of sums and of operands to results.

    Operands and results are as they lie in memory.

    Raises:
        UnsupportedError: a step has no native form.
    """
    arrays = epilogue.arrays

    def body(m: Emitter, total: Value, *bits: Value) -> tuple[Value, ...]:
        loaded = {i: widened(m, x, kind.dtype) for x, (i, kind) in zip(bits, arrays, strict=True)}
        values = [total]
        for i, operand in enumerate(epilogue.operands):
            constant = m.constant(operand.number, operand.dtype.compute)
            values.append(loaded.get(i, constant))
        for step in epilogue.steps:
            inputs = [values[i] for i in step.inputs]
            values.append(emit_row(m, OPS[step.op], inputs, dict(step.attrs)))
        return tuple(narrowed(m, values[r.value], r.dtype) for r in epilogue.results)

    stored = [stored_dtype(operand.dtype) for _, operand in arrays]
    library.define("epilogue", width, body, (dtype, *stored), cold=False)
