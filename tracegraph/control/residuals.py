"""The gradient of a step, recorded beside it: what the step computed is kept, and given to it.

The other way, to run the step again, is `nodes.pull_back`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracegraph.autograd.grad_mode import GradMode
from tracegraph.capture.recording import Recorder
from tracegraph.capture.rows import Entry, RowValue, entry_in
from tracegraph.control.nodes import (
    Flat,
    cut,
    gradients,
    history_kept,
    is_float_tensor,
    starting_at,
)
from tracegraph.control.regions import Region, RegionRecorder, capture
from tracegraph.eager.dispatch import front
from tracegraph.eager.storage import Storage
from tracegraph.eager.tape import Node, make_leaf
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import AutogradError
from tracegraph.ir.graph import CONSTANT, INPUT


class GradientRecorder(RegionRecorder):
    """Records the gradient of a recorded step; `residuals` are what it reads of it."""

    def __init__(self, around: Recorder, step: Recorder) -> None:
        super().__init__(around)
        self.step = step
        self.closed = self.closed - {step.token}
        self.residuals: dict[Storage, RowValue] = {}

    def value_of(self, t: Tensor) -> RowValue:
        """Return the present Value of a tensor; gradients go through none of what is read."""
        return Recorder.value_of(self, t)

    def _capture(self, storage: Storage) -> Entry:
        made = entry_in(storage)
        if made is None or made.token is not self.step.token:
            return super()._capture(storage)
        row, known = self.step.rows[made.value[0]], type_of(wrap(storage.array))
        if row.op == CONSTANT:
            return Entry(self.token, self._constant(row.attrs["value"], known), known, "outer")
        name = f"residual{len(self.residuals)}"
        self.residuals[storage] = made.value
        value = self.taken[storage] = (self._append(INPUT, (), {"name": name}, (known,)), 0)
        entry = self.states[storage] = Entry(self.token, value, known, "outer", name)
        return entry


class Gradient(NamedTuple):
    """The gradient of a step as a region.

    Its operands are gradients of the float results that are carried, sums for the tensors from
    outside that need gradients, and gradients of the other float results; it gives gradients of
    what is carried, the sums, and gradients of the slices. It reads memory of the step, whose
    Values there are `residuals`, and `outer`, memory from outside; `given` are the step's operands.
    """

    region: Region
    residuals: dict[Storage, RowValue]
    given: list[RowValue]
    outer: list[Storage]

    @property
    def computed(self) -> list[RowValue]:
        """What the step has to give besides, each once."""
        return list(dict.fromkeys(v for v in self.residuals.values() if v not in self.given))

    def stacks(
        self, carries: Sequence[Tensor], xs: Sequence[Tensor], computed: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the residuals of all steps, stacked, from stacks of operands and of `computed`."""
        values = [*self.given, *self.computed]
        known = dict(zip(values, [*carries, *xs, *computed], strict=True))
        return [known[v] for v in self.residuals.values()]


def step_with_gradient(
    around: Recorder, step: Flat, operands: Sequence[Tensor], count: int, graded: Sequence[Tensor]
) -> tuple[Region, Gradient | None]:
    """Record a step, whose first `count` operands are carried, and its gradient.

    The step's region gives what is carried again as its last results. The gradient is None where
    it cannot be had from what was computed: memory that it needs was overwritten, for one.
    """
    inner: list[Tensor] = []
    outs: list[Tensor] = []
    ends: list[tuple[Node | None, int]] = []

    def forward(*given: Tensor) -> list[Tensor]:
        with GradMode(True), starting_at(graded, False):
            inner[:] = map(front.copy, given)
            for t in filter(is_float_tensor, inner):
                make_leaf(t)
            ends[:] = [(t._node, t._index) for t in graded]
            outs[:] = step(*inner)
        return [*outs, *given[:count]]

    def backward(*given: Tensor) -> list[Tensor]:
        starts, sums, grads = cut(given, [carried, len(graded)])
        wanted = [*filter(is_float_tensor, inner), *graded]
        with GradMode(False), history_kept(graded):
            for t, (node, index) in zip(graded, ends, strict=True):
                t._node, t._index, t._lineage = node, index, None
            floats = [t for t in outs if is_float_tensor(t)]
            found = gradients(floats, [*starts, *grads], wanted, False)
            now, on, more = cut(found, [carried, len(found) - carried - len(graded)])
            return [*now, *(a + b for a, b in zip(sums, more, strict=True)), *on]

    region = capture(around, forward, operands)
    carried = sum(map(is_float_tensor, outs[:count]))
    recorder = GradientRecorder(around, region.recorder)
    floats = [t for t in outs if is_float_tensor(t)]
    try:
        back = capture(around, backward, [*floats[:carried], *graded, *floats[carried:]], recorder)
    except AutogradError:
        return region, None
    if back.written:
        return region, None
    given = [entry.value for entry in region.recorder.inputs]
    outer = [s for s in back.outer if s not in recorder.residuals]
    return region, Gradient(back, recorder.residuals, given, outer)
