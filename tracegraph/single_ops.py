"""Single ops as native programs, for large operands (see `ops/heavy.py`).

A program is made for an op with given attributes, shapes and dtypes when it is first called, and
kept. Nothing here decides by what happened before, so results do not depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from tracegraph.compiler import Again, optimize
from tracegraph.dtypes import BY_NUMPY, FLOATS
from tracegraph.errors import DeviceError, OpError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import Graph, Value
from tracegraph.ops.core import COMPOSITE, ELEMENTWISE, Op
from tracegraph.runtime.cpu.arrays import Arenas
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.fused import is_native
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.tensor_type import TensorType

# Programs that are kept. One for other sizes takes a millisecond: it compiles nothing.
_MAX_PROGRAMS: Final = 1024
# Programs that need no more memory for themselves share it; others give it back after each call.
_LASTING_BYTES: Final = 1 << 20
# What level 2 does for a single op; the rest would double the time.
_PASSES: Final = ("decompose", "fuse")
# Ops whose result lies in memory as the first operand does; others give row-major order.
_LAID_ALIKE: Final = frozenset(("batch_norm", "batch_norm_inference"))
_READ_AND_MAKE: Final = (("readonly",), ("writeonly", "allocate"))
# Ops whose kernel gives the same bits. It is left strided operands, and lays the result alike.
_EXACT: Final = frozenset(("where",))
# Ops that read a transposed operand where it lies; others are given a copy.
_READ_ANY_ORDER: Final = frozenset(("linear", "matmul"))

# Shape and dtype of an array, and the order of dims in which it lies in memory: None if row-major.
Operand = tuple[tuple[int, ...], Any, tuple[int, ...] | None]

# What runs a call; None where the op's kernel has to compute.
Made = Again | None
_programs: Final[dict[Any, Made]] = {}
_arenas: Final = Arenas(most=_LASTING_BYTES)
_lock: Final = threading.Lock()


def compute(op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Return the result or results of an op, fresh arrays; None where its kernel has to compute.

    That is so for what is no plain array of floats, what has no native form, and what the native
    form refuses: the kernel says best what is wrong with its operands.
    """
    while arrays[-1] is None:
        arrays = arrays[:-1]
    operands: list[Operand] = []
    given = []
    for x in arrays:
        if x.__class__ is not np.ndarray:
            return None
        flags, order = x.flags, None
        if not (flags.c_contiguous and flags.aligned):
            if op.name in _EXACT:
                return None
            order = _memory_order(x) if op.name in _READ_ANY_ORDER else None
            x = x.copy() if order is None else x.transpose(order)
        given.append(x)
        operands.append((x.shape, x.dtype, order))
    key = (op.name, repr(attrs), *operands)
    try:
        run = _programs[key]
    except KeyError:
        run = _made(key, op, operands, attrs)
    if run is None:
        return None
    results = run(given)
    if results is None:
        return None
    if given[0] is not arrays[0] and (ELEMENTWISE in op.traits or op.name in _LAID_ALIKE):
        results[0] = _laid_as(arrays[0], results[0])
    return results[0] if len(results) == 1 else tuple(results)


def _memory_order(x: Any) -> tuple[int, ...] | None:
    """Return the order of dims that makes an array row-major; None if there is none."""
    order = tuple(sorted(range(x.ndim), key=lambda dim: -x.strides[dim]))
    flags = x.transpose(order).flags
    return order if flags.c_contiguous and flags.aligned else None


def _laid_as(x: Any, result: Any) -> Any:
    """Return a result in the order of memory that NumPy's functions give for an operand."""
    made: Any = np.nditer((x, None), ["zerosize_ok"], _READ_AND_MAKE).operands[1]
    np.copyto(made, result)
    return made


def _made(key: Any, op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> Made:
    with _lock:
        if key not in _programs:
            if len(_programs) >= _MAX_PROGRAMS:
                _programs.pop(next(iter(_programs)))
            _programs[key] = _compiled(op, operands, attrs)
        return _programs[key]


def _compiled(op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> Made:
    if BY_NUMPY.get(operands[-1 if op.name in _EXACT else 0][1]) not in FLOATS:
        return None
    graph = Graph(op.name)
    values: list[Value] = []
    for shape, dtype, order in operands:
        if dtype not in BY_NUMPY:
            return None
        value = graph.add_input(f"x{len(values)}", TensorType(BY_NUMPY[dtype], shape)).out
        if order is not None:
            back = tuple(map(order.index, range(len(order))))
            value = graph.add("permute", (value,), {"dims": back}).out
        values.append(value)
    try:
        graph.outputs = list(graph.add(op.name, values, attrs).outs)
        with collector_paused():
            if COMPOSITE in op.traits and op.name not in TEMPLATES:
                graph = optimize(graph, _PASSES, accept=is_native)
            made = NativeProgram(graph, arenas=_arenas).plan()
    except (OpError, DeviceError, UnsupportedError):
        return None
    return made.again({}, lambda names: ()) if made.is_one_call else None
