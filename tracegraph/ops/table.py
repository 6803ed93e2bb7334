"""The op table: every row, collected once from the family modules in a fixed order, then frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Final

from tracegraph.dtypes import BY_NUMPY
from tracegraph.ops import (
    activation,
    average_pooling,
    complex_numbers,
    contraction,
    convolution,
    creation,
    dense,
    factorisations,
    fourier,
    gathering,
    gradient_marks,
    host,
    indexing,
    linear_algebra,
    loss,
    lu,
    norm_layers,
    normalisation,
    pointwise,
    polynomials,
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
    special_kernels,
    strided,
    windows,
)
from tracegraph.ops.core import Op, refuse_complex
from tracegraph.ops.heavy import natively

FAMILIES: Final[tuple[ModuleType, ...]] = (
    creation,
    indexing,
    gathering,
    pointwise,
    complex_numbers,
    special,
    special_kernels,
    polynomials,
    random,
    reduction,
    normalisation,
    scans,
    sorting,
    shape,
    strided,
    contraction,
    linear_algebra,
    factorisations,
    lu,
    fourier,
    activation,
    dense,
    convolution,
    pooling,
    average_pooling,
    windows,
    resampling,
    norm_layers,
    loss,
    recurrent,
    recurrent_grad,
    gradient_marks,
    host,
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


class OpTable(Mapping[str, Op]):
    """Our rows, frozen, and behind them those that a program defined (see `library.py`).

    Iteration gives our rows; a name finds either.
    """

    __slots__ = ("_custom", "_ours")

    def __init__(self, ours: dict[str, Op], custom: Mapping[str, Op]) -> None:
        self._ours = MappingProxyType(ours)
        self._custom = custom

    def __getitem__(self, name: str) -> Op:
        row = self._ours.get(name)
        return self._custom[name] if row is None else row

    def get(self, name: str, default: Any = None) -> Any:
        """Return a row, or `default`."""
        row = self._ours.get(name)
        return self._custom.get(name, default) if row is None else row

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._custom

    def __iter__(self) -> Iterator[str]:
        return iter(self._ours)

    def __len__(self) -> int:
        return len(self._ours)


CUSTOM: Final[dict[str, Op]] = {}
"""The rows that a program defined, by their names with a namespace."""

OPS: Final = OpTable(_collect(), CUSTOM)


def run_op(op: Op, xp: Any, *arrays: Any, **attrs: Any) -> Any:
    """Compute an op over arrays of `xp` (NumPy or CuPy): the meaning of the op."""
    if op.heavy:
        found = natively(op, arrays, attrs)
        if found is not None:
            return found
    if op.kernel is not None:
        return op.kernel(xp, *arrays, **attrs)
    assert op.decompose is not None
    if not op.complex:
        refuse_complex(op.name, arrays)
    return op.decompose(array_ops(xp), *arrays, **attrs)


def runner(op: Op, xp: Any) -> Callable[..., Any]:
    """Return `run_op` of an op over `xp`, by the shortest way."""
    return partial(run_op, op, xp) if op.kernel is None or op.heavy else partial(op.kernel, xp)


@cache
def array_ops(xp: Any) -> SimpleNamespace:
    """Return `m` for decompositions and gradient rules that run on raw arrays of `xp`."""
    return SimpleNamespace(**{name: _array_op(op, xp) for name, op in OPS.items()})


def _array_op(op: Op, xp: Any) -> Callable[..., Any]:
    """Return an op on raw arrays; where it takes a dtype, the one of an array will do."""
    if "dtype" in op.attrs:
        return lambda *arrays, dtype, **attrs: run_op(
            op, xp, *arrays, dtype=BY_NUMPY.get(dtype, dtype), **attrs
        )
    return runner(op, xp)
