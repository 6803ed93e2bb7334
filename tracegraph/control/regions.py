"""Regions: what a function does, recorded apart from the trace around it, as a closed graph.

The function runs once with real values, so that debuggers work and errors come early; whatever it
writes is put back. Tensors from outside that it reads become further inputs of the region; memory
from outside that it writes becomes further outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tracegraph import pytree
from tracegraph.capture.recording import Recorder
from tracegraph.capture.rows import Entry, RowValue, entry_in, graph_of
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap
from tracegraph.errors import TraceError
from tracegraph.ir.graph import INPUT, Graph, Loc
from tracegraph.tensor_type import TensorType


class Region(NamedTuple):
    """What a function did with some operands: its recorder, and its outputs as a nest of Values.

    `outer` is the memory from outside that it read or wrote, `written` what it wrote, `graded` the
    tensors from outside that require a gradient.
    """

    recorder: RegionRecorder
    operands: list[str]
    outputs: list[RowValue]
    tree: pytree.Tree
    classes: dict[str, type]
    types: tuple[TensorType, ...]
    outer: list[Storage]
    written: list[Storage]
    graded: list[Tensor]


class RegionRecorder(Recorder):
    """Records a function inside of a trace; what it finds outside is captured."""

    def __init__(self, around: Recorder) -> None:
        super().__init__(around.names, around.captured)
        self.around = around
        self.scopes = around.scopes
        self.module_paths = around.module_paths
        self.training_flags = around.training_flags
        self.closed = around.closed
        self.sizes = around.sizes
        self.graded, self.apart = around.graded, around.apart
        self.taken: dict[Storage, RowValue] = {}
        self.needs_gradient: dict[int, Tensor] = {}
        self.graded_write: Loc | None = None

    def __enter__(self) -> RegionRecorder:
        self._context = modes.push_recorder(self)
        return self

    def __exit__(self, *exc: object) -> None:
        modes.pop_recorder(self._context)
        self.closed.add(self.token)

    def hyper(self, name: str, read: Callable[[], float]) -> Tensor:
        """Hyper-parameters are inputs of the whole graph."""
        return self.around.hyper(name, read)

    def value_of(self, t: Tensor) -> RowValue:
        """Return the present Value of a tensor, and note one from outside that needs a gradient."""
        value = super().value_of(t)
        if t._node is not None and storage_of(t) in self.states:
            self.needs_gradient.setdefault(id(t), t)
        return value

    def write(self, t: Tensor, new: Tensor) -> None:
        """Note a write, and where float memory from outside is written with gradients recorded."""
        super().write(t, new)
        is_float = type_of(t).dtype.kind >= FLOAT_KIND
        if storage_of(t) in self.states and is_float and modes.GRAD.get():
            self.graded_write = self.graded_write or self.here()

    def _capture(self, storage: Storage) -> Entry:
        self.refuse_closed(storage)
        known = type_of(wrap(storage.array))
        name = f"outer{len(self.states)}"
        value = self.taken[storage] = (self._append(INPUT, (), {"name": name}, (known,)), 0)
        entry = self.states[storage] = Entry(self.token, value, known, "outer", name)
        return entry


def is_tensor(value: Any) -> bool:
    """Whether a value is a leaf of what goes into or comes out of a region."""
    return isinstance(value, Tensor)


def capture(
    around: Recorder, function: Callable[..., Any], operands: Sequence[Tensor],
    into: RegionRecorder | None = None,
) -> Region:  # fmt: skip
    """Record `function(*operands)` as a region, with a recorder of its own or a given one.

    Raises:
        TraceError: it writes an operand in place, or returns something else than tensors.
    """
    recorder = RegionRecorder(around) if into is None else into
    shells = []
    for number, t in enumerate(operands):
        shells.append(wrap(t._data))
        recorder.add_input(f"x{number}", shells[-1])
    try:
        with recorder:
            result = function(*shells)
            leaves, tree = pytree.flatten(result, is_tensor, "result")
            outputs = [recorder.crossing(recorder.value_of(t)) for t in leaves]
    finally:
        recorder.snapshots.put_back()
    if any(entry.written for entry in recorder.inputs):
        raise TraceError(
            f"the function of a control flow op changes operand "
            f"{next(e.name for e in recorder.inputs if e.written)} in place at {recorder.here()}: "
            "return the new value instead"
        )
    graded = list(recorder.needs_gradient.values())
    for t in graded:
        around.value_of(t)  # it comes from outside of a region around this one, too
    outer = recorder.states
    _note_layouts(recorder, outputs)
    return Region(
        recorder, [e.name for e in recorder.inputs], outputs, tree, pytree.classes_in(result),
        tuple(map(type_of, leaves)), list(outer),
        [s for s, e in outer.items() if e.value != recorder.taken[s]],
        graded,
    )  # fmt: skip


def _note_layouts(recorder: RegionRecorder, outputs: Sequence[RowValue]) -> None:
    """Tell the trace around where a region relied on how memory from outside lies."""
    writes = {e.name: e.value for e in recorder.states.values() if e.written}
    found = recorder.layouts.found(outputs, writes)
    for storage, entry in recorder.states.items() if found else ():
        made = entry_in(storage)
        is_known = made is None or made.token not in recorder.closed
        if entry.name in found and is_known:
            recorder.around.layouts.relied(whole_of(storage), *found[entry.name])


def build(
    region: Region, name: str, inputs: Sequence[int | Storage], extra: Sequence[Storage],
    kept: Iterable[RowValue] = (),
) -> Graph:  # fmt: skip
    """Return a region as a graph.

    `inputs` are its operands (by number) and memory from outside, in the order that the node has
    its operands in; `extra` is memory whose contents it gives after its outputs, then `kept`.
    """
    recorder = region.recorder
    for storage in inputs:
        if isinstance(storage, Storage):
            recorder.states.get(storage) or recorder._capture(storage)
    extras = [recorder.states[s].value for s in extra]
    graph = graph_of(name, recorder.rows, [*region.outputs, *extras, *kept], {})
    names = [region.operands[k] if isinstance(k, int) else recorder.states[k].name for k in inputs]
    known = {n.attrs["name"]: n for n in graph.inputs}
    graph.inputs = [known[n] for n in names]
    for number, node in enumerate(graph.inputs):
        node.attrs["name"] = f"x{number}"
    return graph


def whole_of(storage: Storage) -> Tensor:
    """Return a tensor over all of some memory."""
    whole = wrap(storage.array)
    whole._storage = storage
    return whole
