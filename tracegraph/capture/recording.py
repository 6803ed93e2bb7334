"""The recorder: what dispatch tells while a trace runs, as a flat list of rows.

A Value is named by (row, result) here. The Graph is built once, at the end: appending to a list
costs a fraction of adding a node to a networkx graph. Memory is followed by Storage: each Storage
that the trace has met has an Entry with the present Value of its whole and of the views taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tracegraph.audit.sources import expression_at
from tracegraph.capture.gradients import GradientMarks
from tracegraph.capture.layouts import Layouts, levels
from tracegraph.capture.operands import Operands
from tracegraph.capture.provenance import Permit, Provenance
from tracegraph.capture.rows import LOCAL, NO_REGIONS, Entry, Row, Rows, RowValue, entry_in
from tracegraph.capture.sizes import Declared, Sizes
from tracegraph.capture.snapshots import Snapshots
from tracegraph.devices import Device
from tracegraph.dtypes import BOOL_KIND, int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.storage import AbstractArray, Chain, Storage
from tracegraph.eager.tensors import (
    Tensor,
    storage_of,
    type_of,
    type_of_data,
    wrap,
)
from tracegraph.errors import TraceError
from tracegraph.ir.control import GUARD
from tracegraph.ir.graph import CONSTANT, INPUT, STATE, Graph, Loc
from tracegraph.ops.core import MARK, Op
from tracegraph.ops.table import OPS
from tracegraph.random import known_generators
from tracegraph.tensor_type import TensorType

_CPU = Device("cpu")
_RESHAPE = OPS["reshape"]

_grad_on = modes.GRAD.get
_frame = sys._getframe
_new = object.__new__
_row = tuple.__new__  # a NamedTuple's own takes keywords, and twice the time


class Recorder(GradientMarks, Provenance, Operands):
    """Records what runs in this context between `__enter__` and `__exit__`."""

    def __init__(
        self, names: Mapping[Storage, str] | None = None,
        captured: dict[Storage, str] | None = None, permit: Permit | None = None,
        declared: Declared | None = None,
    ) -> None:  # fmt: skip
        GradientMarks.__init__(self)
        Provenance.__init__(self, permit)
        Operands.__init__(self)
        self.captured = {} if captured is None else captured
        self.rows = Rows()
        self._raw = self.rows.raw
        self.token = object()
        self.names = names or {}
        self.scopes: list[str] = [""]
        self.module_paths: dict[int, str] = {}
        self.states: dict[Storage, Entry] = {}
        self.inputs: list[Entry] = []
        self.hypers: dict[str, tuple[Callable[[], float], Tensor]] = {}
        self.snapshots = Snapshots()
        self.layouts = Layouts(self)
        self.training_flags: dict[int, tuple[str, Any, bool]] = {}
        self._context: Any = None
        self.closed: set[object] = set()  # tokens of regions whose recording has ended
        self.sizes = Sizes(self, declared or {})

    def __enter__(self) -> Recorder:
        if modes.recording and modes.RECORDER.get() is not None:
            raise TraceError("a trace is already running in this context")
        self._context = modes.push_recorder(self)
        self._root = sys._getframe(1)
        self.sizes.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.sizes.__exit__()
        modes.pop_recorder(self._context)
        self._root = None

    # Values.

    def _append(
        self, op: str, inputs: tuple[RowValue, ...], attrs: dict[str, Any],
        types: tuple[TensorType, ...], regions: Mapping[str, Graph] = NO_REGIONS,
        loc: Loc | None = None,
    ) -> int:  # fmt: skip
        rows, loc = self._raw, loc or self.here()
        rows.append(_row(Row, (op, inputs, attrs, types, loc, self.scopes[-1], regions)))
        return len(rows) - 1

    def entry_of(self, t: Tensor) -> Entry:
        """Return the Entry of a tensor's Storage; one never met is State."""
        storage = storage_of(t)
        entry = entry_in(storage)
        if entry is not None and entry.token is self.token:
            return entry
        entry = self.states.get(storage)
        if entry is None:
            entry = self._capture(storage)
        return entry

    def refuse_closed(self, storage: Storage) -> None:
        """Refuse memory that was made inside of a region, where only the region knows it.

        Raises:
            TraceError: naming the line.
        """
        entry = entry_in(storage)
        if entry is not None and entry.token in self.closed:
            raise TraceError(
                f"a tensor that was made inside of the function of a cond, while_loop, scan or map "
                f"is used outside of it at {self.here()}: return it from that function"
            )

    def _capture(self, storage: Storage) -> Entry:
        self.refuse_closed(storage)
        known = type_of_data(storage.array)
        name = self.names.get(storage) or next(
            (n for n, g in known_generators().items() if storage_of(g._state) is storage), None
        )
        if name is None:
            loc = self.here()
            place = "unknown" if loc is None else f"{os.path.basename(loc.file)}:{loc.line}"
            name = f"captured.{place}.{len(self.captured)}"
            name = self.captured.setdefault(storage, name)
        row = self._append(STATE, (), {"name": name}, (known,))
        entry = self.states[storage] = Entry(self.token, (row, 0), known, STATE, name)
        return entry

    def value_of(self, t: Tensor) -> RowValue:
        """Return the present Value of a tensor; a stale view is taken again from its whole."""
        entry = self.entry_of(t)
        if entry.origin is not None and self.grades():
            self.settle(entry)
        chain = t._chain
        if not chain:
            return entry.value
        value = entry.views.get(chain)
        if value is None:
            value = self._view(entry, chain)
        if entry.sharing is not None:
            self.layouts.read(entry, chain, value)
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

    def _constant(self, array: Any, known: TensorType) -> RowValue:
        return (self._append(CONSTANT, (), {"value": array}, (known,)), 0)

    def bind(self, t: Tensor, value: RowValue, kind: str = LOCAL, name: str = "") -> Entry:
        """Say that a tensor with fresh memory holds `value`."""
        storage = storage_of(t)
        entry = storage.entry = Entry(self.token, value, type_of(t), kind, name)
        return entry

    def record(
        self, op: Op, args: Sequence[Any], attrs: dict[str, Any], outs: Sequence[Tensor],
        loc: Loc | None,
    ) -> None:  # fmt: skip
        """Note one dispatched op; copies are the Value they copy."""
        if op.name == "copy":
            self.same_value(outs[0], args[0])
            return
        out = outs[0]
        if len(outs) == 1 and not out._chain and out._data.__class__ is np.ndarray:
            self.record_one(op, args, attrs, out, loc)
            if op is _RESHAPE:
                self.layouts.reshaped(args[0], out)
            return
        graded = self.grades()
        types = tuple([type_of_data(out._data) for out in outs])
        row = self._append(op.name, self._inputs(args, graded), attrs, types, loc=loc)
        if not graded:
            self.ungraded.add(row)
        if self.kept is not None:
            self.keep(row, outs)
        for index, out in enumerate(outs):
            if out._chain and out._storage is not None:
                self.entry_of(out).views[out._chain] = (row, index)
            else:
                self.bind(out, (row, index))
        if op is _RESHAPE:
            self.layouts.reshaped(args[0], out)

    def record_one(
        self, op: Op, args: Sequence[Any], attrs: dict[str, Any], out: Tensor,
        loc: Loc | None = None,
    ) -> None:  # fmt: skip
        """Note one op whose only result is a NumPy array of its own: the short way.

        Where no line is given, that of the frame above the caller is meant if it is the user's.
        """
        if loc is None:
            if not self._forced:
                frame = _frame(2)
                loc = self._locs.get((id(frame.f_code), frame.f_lasti))
            if loc is None:
                loc = self.here()
            if out._node is not None:
                out._node.loc = loc
        graded = self.writing or _grad_on()
        inputs = self._inputs(args, graded)
        data, rows = out._data, self._raw
        row = len(rows)
        rows.append((op.name, inputs, attrs, data.dtype, data.shape, loc, self.scopes[-1]))
        if not graded:
            self.ungraded.add(row)
        if self.kept is not None:
            self.keep(row, (out,))
        storage = out._storage
        if storage is None:
            storage = out._storage = _new(Storage)  # as its __init__ does, in half the time
            storage.array, storage.version, storage.unseen = data, 0, None
        storage.entry = (self.token, (row, 0))

    def same_value(self, out: Tensor, source: Tensor) -> None:
        """Note that fresh memory holds the same Value as `source`."""
        value = self.value_of(source)
        self.bind(out, value if self.grades() else self.without_gradient(value))

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
        self.unseen = self._is_alias(t)
        storage = t._storage
        assert storage is not None
        if entry.kind != LOCAL:
            self.snapshots.keep(storage)

    def write(self, t: Tensor, new: Tensor) -> None:
        """Note that the memory of `t` now holds `new`: the whole gets a new Value.

        Through a detached view, or under no_grad, gradients of the whole go on to what it held.
        """
        if not t._chain:
            entry, value = self.entry_of(t), self.value_of(new)
            self.note_write(entry, self.grades() and not self.unseen, True)
            entry.value, entry.views, entry.written, self.unseen = value, {}, True, False
            self.layouts.like[value] = entry.made
            if entry.sharing is not None:
                self.layouts.wrote(entry, ())
            return
        repeats = any(op.name in ("expand", "strided") for op, _ in t._chain)
        if repeats and t._data.__class__ is np.ndarray and not t._data.size:
            return  # nothing is written, and such a view has no way back
        entry = self.entry_of(t)
        value = self.value_of(new)
        entry.written = True
        split = max((i for i, s in enumerate(t._chain, 1) if MARK in s[0].traits), default=0)
        known = {t._chain: value}
        steps = t._chain
        if split:
            alias, inner = t._chain[:split], t._chain[split:]
            steps = tuple(s for s in t._chain if MARK not in s[0].traits)
            if inner and self.grades():
                held = entry.views.get(alias) or self._view(entry, alias)
                value = known[alias] = self._written_back(held, inner, value)
                steps = tuple(s for s in alias if MARK not in s[0].traits)
        self.note_write(entry, self.grades() and not split and not self.unseen, not steps)
        self.unseen = False
        if entry.sharing is not None and not split and entry.kind != STATE:
            entry.value = self._kept_apart(entry, t._chain, value, known)
        else:
            entry.value = self._written_back(entry.value, steps, value) if steps else value
        entry.views = {chain: v for chain, v in known.items() if chain}
        self.layouts.like[entry.value] = self.layouts.like[known[t._chain]] = entry.made
        if entry.sharing is not None:
            self.layouts.wrote(entry, t._chain)

    def _kept_apart(
        self, entry: Entry, chain: Chain, value: RowValue, known: dict[Chain, RowValue]
    ) -> RowValue:
        """Return the whole once a view is overwritten; `known` gets views that may be copies.

        So what is read through these does not come from the whole, which would tell the two apart.
        """
        steps = len(chain)
        for n in reversed(levels(entry.sharing, chain)):
            if n < steps:
                held = entry.views.get(chain[:n]) or self._view(entry, chain[:n])
                value = known[chain[:n]] = self._written_back(held, chain[n:steps], value)
                steps = n
        return self._written_back(entry.value, chain[:steps], value)

    def _written_back(self, whole: RowValue, steps: Chain, value: RowValue) -> RowValue:
        """Return a Value once what `steps` view of it has been overwritten."""
        stages = [self.abstract(whole, self.rows[whole[0]].types[whole[1]])]
        piece = self.abstract(value, self.rows[value[0]].types[value[1]])
        writing, self.writing = self.writing, self.grades()
        grad = modes.GRAD.set(False)
        try:
            for op, items in steps[:-1]:
                stages.append(dispatch(op, (stages[-1],), dict(items)))
            for stage, (op, items) in zip(reversed(stages), reversed(steps), strict=True):
                assert op.write_back is not None
                piece = op.write_back(front, stage, piece, **dict(items))
        finally:
            modes.GRAD.reset(grad)
            self.writing = writing
        return self.value_of(piece)

    def abstract(self, value: RowValue, known: TensorType) -> Tensor:
        """Return a tensor without data that stands for a Value."""
        t = wrap(AbstractArray(known))
        self.bind(t, value)
        return t

    # What must not happen silently.

    def decide(self, t: Tensor, outcome: bool | int, text: str | None = None) -> None:
        """Note that Python goes on with the one bool or integer of a tensor.

        A replay whose tensor holds another value stops, or takes the branch of another example.
        `text` is the expression, that of the user's line if None.
        """
        frame = self.frame()
        if text is None:
            text = "" if frame is None else expression_at(frame.f_code, frame.f_lasti)
        grad = modes.GRAD.set(False)
        try:
            value = front.reshape(t, shape=()) if t._data.ndim else t
            if not isinstance(outcome, bool):
                value = front.cast(value, dtype=int64)
            elif type_of(value).dtype.kind != BOOL_KIND:
                value = front.ne(value, 0)
        finally:
            modes.GRAD.reset(grad)
        self._append(GUARD, (self.value_of(value),), {"expected": outcome, "text": text}, ())

    def control(
        self, op: str, operands: Sequence[Tensor], attrs: dict[str, Any],
        regions: Mapping[str, Graph], outs: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Note a control flow op and its results."""
        inputs = tuple(self.crossing(self.value_of(t)) for t in operands)
        row = self._append(op, inputs, attrs, tuple(map(type_of, outs)), regions)
        if not self.grades():
            self.ungraded.add(row)
        for index, out in enumerate(outs):
            self.bind(out, (row, index))

    def note(self, op: str, attrs: dict[str, Any]) -> None:
        """Note something that takes and gives no Values."""
        self._append(op, (), attrs, ())
