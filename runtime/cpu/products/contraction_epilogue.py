"""What is done to a sum of products before it is stored: bias, activation, residual."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.scalars import Emitter, Library
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value
from tracegraph.runtime.cpu.products.launches import PLAIN, Epilogue

# What an operand has an element for: each column (a bias), each row, each place (a residual), or
# all of them (a 0-d array).
Extent = Literal["column", "row", "place", "scalar"]


class Operand(NamedTuple):
    """An array that an epilogue reads."""

    extent: Extent
    dtype: DType


class Output(NamedTuple):
    """What becomes of sums: the dtypes of the results, what the epilogue reads, and itself."""

    results: tuple[DType, ...]
    operands: tuple[Operand, ...] = ()
    epilogue: Epilogue = PLAIN


def define_epilogue(library: Library, output: Output, dtype: DType, width: int) -> None:
    """Write the function @epilogue: vectors of sums and of operands to results.

    Operands and results are as they lie in memory.

    Raises:
        UnsupportedError: a step has no native form, or the results are not what was promised.
    """

    def body(m: Emitter, total: Value, *bits: Value) -> tuple[Value, ...]:
        loaded = [
            widened(m, x, operand.dtype) for x, operand in zip(bits, output.operands, strict=True)
        ]
        made = output.epilogue.body(m, total, *loaded)
        values = made if isinstance(made, tuple) else (made,)
        dtypes = [value.dtype for value in values]
        if dtypes != [result.compute for result in output.results]:
            raise UnsupportedError(f"an epilogue gives {dtypes} for {output.results}")
        return tuple(narrowed(m, x, r) for x, r in zip(values, output.results, strict=True))

    stored = [stored_dtype(operand.dtype) for operand in output.operands]
    library.define("epilogue", width, body, (dtype, *stored), cold=False)
