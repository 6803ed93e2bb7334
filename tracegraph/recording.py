"""The recorder: what dispatch tells while a trace runs, as a flat list of rows.

A Value is named by (row, result) here. The Graph is built once, at the end: appending to a list
costs a fraction of adding a node to a networkx graph. Memory is followed by Storage: each Storage
that the trace has met has an Entry with the present Value of its whole and of the views taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracegraph import modes
from tracegraph.devices import Device
from tracegraph.dispatch import dispatch, front
from tracegraph.dtypes import DType
from tracegraph.errors import BakeError, TraceError
from tracegraph.ir.graph import CONSTANT, INPUT, STATE, Graph, Loc, Value
from tracegraph.ops.core import Op
from tracegraph.storage import AbstractArray, Chain, Storage
from tracegraph.tensor_type import TensorType
from tracegraph.tensors import Tensor, storage_of, type_of, wrap

_CPU = Device("cpu")

RowValue = tuple[int, int]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_OURS = (_PACKAGE, os.path.realpath(os.path.join(_PACKAGE, "passes")),
         os.path.realpath(os.path.join(_PACKAGE, "runtime")))  # fmt: skip


class Row(NamedTuple):
    """One recorded operation."""

    op: str
    inputs: tuple[RowValue, ...]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    loc: Loc | None
    scope: str


class Entry:
    """What a recorder knows of one Storage."""

    __slots__ = ("kind", "name", "token", "type", "value", "views", "whole", "written")

    def __init__(
        self, token: object, value: RowValue, type: TensorType, kind: str, name: str = ""
    ) -> None:
        self.token = token
        self.value = value
        self.type = type
        self.kind = kind
        self.name = name
        self.views: dict[Chain, RowValue] = {}
        self.written = False
        self.whole: Tensor | None = None


class Recorder:
    """Records what runs in this context between `__enter__` and `__exit__`."""

    def __init__(self, names: Mapping[Storage, str] | None = None) -> None:
        self.rows: list[Row] = []
        self.token = object()
        self.names = names or {}
        self.scopes: list[str] = [""]
        self.module_paths: dict[int, str] = {}
        self.states: dict[Storage, Entry] = {}
        self.inputs: list[Entry] = []
        self.hypers: dict[str, tuple[Callable[[], float], Tensor]] = {}
        self.snapshots: list[tuple[Any, Any]] = []
        self.missing_grads: list[Tensor] = []
        self.training_flags: dict[int, tuple[str, Any, bool]] = {}
        self._saved: set[int] = set()
        self._grad_set: dict[int, Tensor] = {}
        self._scalars: dict[Any, RowValue] = {}
        self._locs: dict[Any, Loc] = {}
        self._forced: list[Any] = []
        self._context: Any = None

    def __enter__(self) -> Recorder:
        if modes.recording and modes.RECORDER.get() is not None:
            raise TraceError("a trace is already running in this context")
        self._context = modes.push_recorder(self)
        return self

    def __exit__(self, *exc: object) -> None:
        modes.pop_recorder(self._context)

    # Provenance.

    def here(self) -> Loc | None:
        """Return the user's source line that is running (or whose gradient is)."""
        if self._forced and self._forced[-1] is not None:
            forced: Loc = self._forced[-1]
            return forced
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_OURS):
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None:
            return None
        key = (frame.f_code, frame.f_lasti)
        loc = self._locs.get(key)
        if loc is None:
            code = frame.f_code
            loc = self._locs[key] = Loc(code.co_filename, frame.f_lineno, code.co_name)
        return loc

    def enter(self, loc: Any) -> None:
        """Attribute what follows to `loc` (a forward op whose gradient runs)."""
        self._forced.append(loc)

    def leave(self, loc: Any) -> None:
        """Undo `enter`."""
        self._forced.pop()

    # Values.

    def _append(
        self, op: str, inputs: tuple[RowValue, ...], attrs: dict[str, Any],
        types: tuple[TensorType, ...],
    ) -> int:  # fmt: skip
        self.rows.append(Row(op, inputs, attrs, types, self.here(), self.scopes[-1]))
        return len(self.rows) - 1

    def entry_of(self, t: Tensor) -> Entry:
        """Return the Entry of a tensor's Storage; one never met is State."""
        storage = storage_of(t)
        entry: Entry | None = storage.entry
        if entry is not None and entry.token is self.token:
            return entry
        entry = self.states.get(storage)
        if entry is None:
            entry = self._capture(storage)
        return entry

    def _capture(self, storage: Storage) -> Entry:
        known = TensorType(*_array_type(storage.array))
        name = self.names.get(storage)
        if name is None:
            loc = self.here()
            place = "unknown" if loc is None else f"{os.path.basename(loc.file)}:{loc.line}"
            name = f"captured.{place}.{len(self.states)}"
        row = self._append(STATE, (), {"name": name}, (known,))
        entry = self.states[storage] = Entry(self.token, (row, 0), known, STATE, name)
        return entry

    def value_of(self, t: Tensor) -> RowValue:
        """Return the present Value of a tensor; a stale view is taken again from its whole."""
        entry = self.entry_of(t)
        chain = t._chain
        if not chain:
            return entry.value
        value = entry.views.get(chain)
        if value is None:
            value = self._view(entry, chain)
        return value

    def _view(self, entry: Entry, chain: Chain) -> RowValue:
        start = len(chain) - 1
        while start and chain[:start] not in entry.views:
            start -= 1
        value = entry.views[chain[:start]] if start else entry.value
        for depth in range(start, len(chain)):
            op, items = chain[depth]
            attrs = dict(items)
            types = op.infer([self.rows[value[0]].types[value[1]]], attrs)
            value = (self._append(op.name, (value,), attrs, types), 0)
            entry.views[chain[: depth + 1]] = value
        return value

    def _operand(self, x: Any, dtype: DType) -> RowValue:
        if isinstance(x, Tensor):
            return self.value_of(x)
        key = (type(x), repr(x), dtype)
        value = self._scalars.get(key)
        if value is None:
            array = np.asarray(x, dtype=dtype.np)
            value = self._scalars[key] = self._constant(array, TensorType(dtype, ()))
        return value

    def _constant(self, array: Any, known: TensorType) -> RowValue:
        return (self._append(CONSTANT, (), {"value": array}, (known,)), 0)

    def bind(self, t: Tensor, value: RowValue, kind: str = "local", name: str = "") -> Entry:
        """Say that a tensor with fresh memory holds `value`."""
        storage = storage_of(t)
        entry = storage.entry = Entry(self.token, value, type_of(t), kind, name)
        return entry

    def record(
        self, op: Op, args: Sequence[Any], attrs: dict[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Note one dispatched op; copies are the Value they copy."""
        if op.name == "copy":
            self.same_value(outs[0], args[0])
            return
        dtype = next((type_of(a).dtype for a in args if isinstance(a, Tensor)), None)
        inputs = tuple(self._operand(a, dtype) for a in args if a is not None)  # type: ignore[arg-type]
        types = tuple(map(type_of, outs))
        row = self._append(op.name, inputs, attrs, types)
        for index, out in enumerate(outs):
            if out._chain and out._storage is not None:
                self.entry_of(out).views[out._chain] = (row, index)
            else:
                self.bind(out, (row, index))

    def same_value(self, out: Tensor, source: Tensor) -> None:
        """Note that fresh memory holds the same Value as `source`."""
        self.bind(out, self.value_of(source))

    def constant(self, t: Tensor) -> None:
        """Note a tensor made from Python or NumPy data during the trace: it is frozen."""
        self.bind(t, self._constant(_CPU.place(t._data), type_of(t)))

    def add_input(self, name: str, t: Tensor, **attrs: Any) -> RowValue:
        """Declare a tensor as the next input of the graph."""
        row = self._append(INPUT, (), {"name": name, **attrs}, (type_of(t),))
        self.inputs.append(self.bind(t, (row, 0), INPUT, name))
        return (row, 0)

    def hyper(self, name: str, read: Callable[[], float]) -> Tensor:
        """Return a hyper-parameter as a 0-d f64 input with its present value as default."""
        known = self.hypers.get(name)
        if known is None:
            t = wrap(np.asarray(read(), dtype=np.float64))
            self.add_input(name, t, default=float(read()))
            known = self.hypers[name] = (read, t)
        return known[1]

    # Writes.

    def before_write(self, t: Tensor) -> None:
        """Keep what State or an input held, so that tracing can be undone."""
        entry = self.entry_of(t)
        storage = t._storage
        assert storage is not None
        if entry.kind != "local" and id(storage) not in self._saved:
            self._saved.add(id(storage))
            self.snapshots.append((storage, storage.array.copy()))

    def write(self, t: Tensor, new: Tensor) -> None:
        """Note that the memory of `t` now holds `new`: the whole gets a new Value."""
        entry = self.entry_of(t)
        value = self.value_of(new)
        entry.written = True
        if not t._chain:
            entry.value = value
            entry.views.clear()
            return
        whole = self.abstract(entry.value, entry.type)
        stages = [whole]
        grad = modes.GRAD.set(False)
        try:
            for op, items in t._chain[:-1]:
                stages.append(dispatch(op, (stages[-1],), dict(items)))
            piece = self.abstract(value, type_of(t))
            for stage, (op, items) in zip(reversed(stages), reversed(t._chain), strict=True):
                assert op.write_back is not None
                piece = op.write_back(front, stage, piece, **dict(items))
        finally:
            modes.GRAD.reset(grad)
        entry.value = self.value_of(piece)
        entry.views.clear()
        entry.views[t._chain] = value

    def abstract(self, value: RowValue, known: TensorType) -> Tensor:
        """Return a tensor without data that stands for a Value."""
        t = wrap(AbstractArray(known))
        self.bind(t, value)
        return t

    # What must not happen silently.

    def bake(self, t: Tensor, how: str, value: Any) -> None:
        """Refuse a value that would leave the graph and be frozen.

        Raises:
            BakeError: naming the line, how it was read and the value.
        """
        loc = self.here()
        raise BakeError(
            f"{how} at {loc} would freeze the value {value!r} of a traced tensor into the graph: "
            "the replay could not follow other values. Compute with tensors instead (where, "
            "masks, indexing), or take the decision outside of the traced function."
        )

    def note_grad_set(self, leaf: Tensor) -> None:
        """Note that the program itself set a leaf's `.grad`."""
        self._grad_set[id(leaf)] = leaf

    def note_grad_read(self, leaf: Tensor) -> None:
        """Note that `.grad` is read or added to: None at entry, of a leaf that was there before."""
        if leaf._grad is None and id(leaf) not in self._grad_set:
            self._grad_set[id(leaf)] = leaf
            entry = storage_of(leaf).entry
            if entry is None or entry.token is not self.token or entry.kind == STATE:
                self.missing_grads.append(leaf)

    # The end.

    def build(self, name: str, outputs: Sequence[RowValue]) -> Graph:
        """Return the Graph of all rows, with the writes to State and inputs."""
        graph = Graph(name)
        values: list[tuple[Value, ...]] = []
        for seq, row in enumerate(self.rows):
            node = graph.add(
                row.op, (values[r][i] for r, i in row.inputs), row.attrs, row.types,
                seq=seq, loc=row.loc, scope=row.scope,
            )  # fmt: skip
            values.append(node.outs)
            if row.op == INPUT:
                graph.inputs.append(node)
            elif row.op == STATE:
                graph.states[row.attrs["name"]] = node
        graph.outputs = [values[r][i] for r, i in outputs]
        for entry in (*self.states.values(), *self.inputs):
            if entry.written:
                graph.writes[entry.name] = values[entry.value[0]][entry.value[1]]
        return graph


def _array_type(array: Any) -> tuple[DType, tuple[int, ...]]:
    known = type_of(wrap(array))
    return known.dtype, known.shape
