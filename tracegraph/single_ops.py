"""Single ops as native programs, for large operands (see `ops/heavy.py`).

A program is made for an op with given attributes, shapes and dtypes when it is first called, and
kept. What a weight becomes for it (packed in the order in which the kernel reads it) is kept too,
as long as the weight lives and is not written, where nobody records gradients. Nothing here decides
by what happened before, so results do not depend on it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tracegraph.compiler import Again, optimize
from tracegraph.dtypes import BY_NUMPY, FLOATS
from tracegraph.eager import modes
from tracegraph.eager.storage import Storage, stamp
from tracegraph.eager.tensors import Tensor, storage_of
from tracegraph.errors import DeviceError, OpError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import Graph, Value
from tracegraph.ops.core import COMPOSITE, ELEMENTWISE, Op
from tracegraph.ops.memory_order import copy_as, image_like
from tracegraph.runtime.cpu.arrays import Arenas
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.kept import Store
from tracegraph.runtime.cpu.lowering.fused import is_native
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES
from tracegraph.runtime.cpu.program import Compiled, NativeProgram
from tracegraph.tensor_type import TensorType

# Programs that are kept. One for other sizes takes a millisecond: it compiles nothing.
_MAX_PROGRAMS: Final = 1024
# Programs that need no more memory for themselves share it; others give it back after each call.
_LASTING_BYTES: Final = 1 << 20
# What level 2 does for a single op; the rest would double the time.
_PASSES: Final = ("decompose", "fuse")
# Ops whose result keeps channels side by side; what is elementwise lies as its operand does, and
# other results lie in rows.
_OF_IMAGES: Final = frozenset(("batch_norm", "batch_norm_inference"))
# Ops whose kernel gives the same bits. It is left strided operands, and lays the result alike.
_EXACT: Final = frozenset(("where",))
# Ops that read a transposed operand where it lies; others are given a copy.
_READ_ANY_ORDER: Final = frozenset(("linear", "matmul"))
# Ops whose second operand is a weight: what is made of it may be kept, so many bytes in all.
_WEIGHTED: Final = frozenset(("convolution", "linear"))
_KEPT_BYTES: Final = 1 << 28
# With fewer rows, products by a weight as it lies may add in another order than by a packed one.
_LEAST_ROWS: Final = 16

# Shape and dtype of an array, and the order of dims in which it lies in memory: None if row-major.
Operand = tuple[tuple[int, ...], Any, tuple[int, ...] | None]


class _Made(NamedTuple):
    """What runs calls: on all operands, and on those beside a weight that is prepared.

    Both give the same bits. Where there is neither, the op's kernel has to compute.
    """

    plain: Again | None = None
    weighted: Compiled | None = None


_programs: Final[dict[Any, _Made]] = {}
_arenas: Final = Arenas(most=_LASTING_BYTES)
_lock: Final = threading.Lock()
# Of memory: the stamp that it had, and what was made of it then.
_stores: Final[WeakKeyDictionary[Storage, tuple[Any, Store]]] = WeakKeyDictionary()


def compute(
    op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any], tensors: Sequence[Any] = ()
) -> Any:
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
        made = _programs[key]
    except KeyError:
        made = _make(key, op, operands, attrs)
    results = _run(made, given, tensors)
    if results is None:
        return None
    if given[0] is not arrays[0]:
        if ELEMENTWISE in op.traits:
            results[0] = copy_as(results[0], arrays[0])
        elif op.name in _OF_IMAGES:
            results[0] = image_like(arrays[0], results[0])
    return results[0] if len(results) == 1 else tuple(results)


def _run(made: _Made, given: list[Any], tensors: Sequence[Any]) -> list[Any] | None:
    """Return the results of a call; None where there are none."""
    plain, weighted = made
    if weighted is None:
        return plain(given) if plain is not None else None
    known, store = _store_of(tensors[1]) if tensors and not modes.GRAD.get() else (None, None)
    if store is None:
        if plain is not None:
            return plain(given)
        store = Store()
    return weighted.again_from(store, known, {"x1": given[1]}, [given[0], *given[2:]])


def _store_of(weight: Any) -> tuple[Any, Store | None]:
    """Return the stamp of a weight and where what it becomes is kept; no place if it is not."""
    if not isinstance(weight, Tensor) or weight._chain:
        return None, None
    storage = storage_of(weight)
    now = stamp(storage)
    then, store = _stores.get(storage, (None, None))
    if now is None or (store is not None and then == now):
        return now, store
    with _lock:
        _stores.pop(storage, None)
        held = sum(other.bytes for _, other in _stores.values())
        if held + weight._data.nbytes > _KEPT_BYTES:
            return None, None
        store = Store()
        _stores[storage] = (now, store)
    return now, store


def _memory_order(x: Any) -> tuple[int, ...] | None:
    """Return the order of dims that makes an array row-major; None if there is none."""
    order = tuple(sorted(range(x.ndim), key=lambda dim: -x.strides[dim]))
    flags = x.transpose(order).flags
    return order if flags.c_contiguous and flags.aligned else None


def _make(key: Any, op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> _Made:
    with _lock:
        if key not in _programs:
            if len(_programs) >= _MAX_PROGRAMS:
                _programs.pop(next(iter(_programs)))
            _programs[key] = _made(op, operands, attrs)
        return _programs[key]


def _made(op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> _Made:
    """Return what runs calls.

    A convolution that another kernel computes where its weight is prepared is always computed so.
    """
    plain = _compiled(op, operands, attrs, ())
    if plain is None:
        return _Made()
    run = plain.again({}, lambda names: ())
    rows = math.prod(operands[0][0][:-1])
    if op.name not in _WEIGHTED or (op.name == "linear" and rows < _LEAST_ROWS):
        return _Made(run)
    weighted = _compiled(op, operands, attrs, ("x1",))
    if weighted is None or not weighted.packs_state:
        return _Made(run)
    is_same = op.name == "linear" or {*weighted.blocks.kernels} <= {*plain.blocks.kernels}
    return _Made(run if is_same else None, weighted)


def _compiled(
    op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any], weights: Sequence[str]
) -> Compiled | None:
    """Return a plan that is one native call, with State of the names of `weights`."""
    if BY_NUMPY.get(operands[-1 if op.name in _EXACT else 0][1]) not in FLOATS:
        return None
    graph = Graph(op.name)
    values: list[Value] = []
    for number, (shape, dtype, order) in enumerate(operands):
        if dtype not in BY_NUMPY:
            return None
        name = f"x{number}"
        add = graph.add_state if name in weights else graph.add_input
        value = add(name, TensorType(BY_NUMPY[dtype], shape)).out
        if order is not None:
            back = tuple(map(order.index, range(len(order))))
            value = graph.add("permute", (value,), {"dims": back}).out
        values.append(value)
    try:
        graph.outputs = list(graph.add(op.name, values, attrs).outs)
        with collector_paused():
            if COMPOSITE in op.traits and op.name not in TEMPLATES:
                graph = optimize(graph, _PASSES, accept=is_native)
            made = NativeProgram(graph, weights, arenas=_arenas).plan()
    except (OpError, DeviceError, UnsupportedError):
        return None
    return made if made.is_one_call else None
