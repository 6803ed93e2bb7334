"""The op table: every row, collected once from the family modules in a fixed order, then frozen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Final

from tracegraph.ops import (
    activation,
    contraction,
    convolution,
    creation,
    dense,
    factorisations,
    gathering,
    indexing,
    linear_algebra,
    loss,
    lu,
    norm_layers,
    normalisation,
    pointwise,
    pooling,
    random,
    recurrent,
    recurrent_grad,
    reduction,
    resampling,
    scans,
    shape,
    sorting,
    special,
    windows,
)
from tracegraph.ops.core import Op

FAMILIES: Final[tuple[ModuleType, ...]] = (
    creation,
    indexing,
    gathering,
    pointwise,
    special,
    random,
    reduction,
    normalisation,
    scans,
    sorting,
    shape,
    contraction,
    linear_algebra,
    factorisations,
    lu,
    activation,
    dense,
    convolution,
    pooling,
    windows,
    resampling,
    norm_layers,
    loss,
    recurrent,
    recurrent_grad,
)


def _collect() -> dict[str, Op]:
    table: dict[str, Op] = {}
    for family in FAMILIES:
        for row in vars(family).values():
            if isinstance(row, Op):
                if table.get(row.name, row) is not row:
                    raise RuntimeError(f"two rows named {row.name!r} in the op table")
                table[row.name] = row
    return table


OPS: Final[Mapping[str, Op]] = MappingProxyType(_collect())


def run_op(op: Op, xp: Any, *arrays: Any, **attrs: Any) -> Any:
    """Compute an op over arrays of `xp` (NumPy or CuPy): the meaning of the op."""
    if op.kernel is not None:
        return op.kernel(xp, *arrays, **attrs)
    assert op.decompose is not None
    return op.decompose(array_ops(xp), *arrays, **attrs)


@cache
def array_ops(xp: Any) -> SimpleNamespace:
    """Return `m` for decompositions that run on raw arrays of `xp`."""
    return SimpleNamespace(**{name: partial(run_op, op, xp) for name, op in OPS.items()})
