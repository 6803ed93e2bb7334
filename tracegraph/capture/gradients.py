"""What a recorder notes of gradients: where they end, and where they go on unseen by ops.

`detach`, `no_grad` and Python that runs in a backward pass leave no row behind. Marks stand in for
them where what they made is read (see ops/gradient_marks.py), so that a replay which is
differentiated gives the gradients of the function, or refuses. Under no_grad nothing is marked:
training steps and predictions have no more rows for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tracegraph.capture.provenance import is_users
from tracegraph.capture.rows import entry_in
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.storage import Lineage, Storage
from tracegraph.eager.tape import is_spent
from tracegraph.eager.tensors import Tensor, lineage_of, storage_of, type_of
from tracegraph.ir.graph import STATE
from tracegraph.ops.core import MARK

RowValue = tuple[int, int]


class GradientMarks:
    """The part of a Recorder that marks gradients.

    `ungraded` are rows that ran under no_grad; `graded` the tensors among State that require
    gradients, by their memory; `apart` the histories of other tensors over such memory; `writing`
    is set while the recorder itself works out a write that carries gradients; `missing_grads` the
    leaves whose `.grad` was read, and None at entry.
    """

    rows: Sequence[Any]
    token: object
    inputs: list[Any]
    _append: Any
    entry_of: Any
    value_of: Any
    here: Any

    def __init__(self) -> None:
        self.ungraded: set[int] = set()
        self.graded: dict[Storage, Tensor] = {}
        self.apart: set[Lineage] = set()
        self.writing = False
        self.unseen = False  # the write that begins is through another tensor over a parameter
        self._detached: dict[RowValue, RowValue] = {}
        self.missing_grads: list[Tensor] = []
        self._grad_set: dict[int, Tensor] = {}
        self._whole: set[Any] = set()  # nodes of the tape from which a gradient can go back

    def grades(self) -> bool:
        """Whether results of what is recorded now carry gradients."""
        return self.writing or modes.GRAD.get()

    def read(self, t: Tensor, value: RowValue) -> RowValue:
        """Return what an op reads for a tensor's Value.

        Gradients end where it was made under no_grad, and at other tensors over a parameter's
        memory (`w.detach()` before the trace). If these have a history of their own, which no
        State of the graph has, gradients are refused.
        """
        if not self._is_alias(t) or not self.grades():
            return self.crossing(value)
        if t._node is None:
            return self._detach(value)
        known = self.rows[value[0]].types[value[1]]
        reason = "it goes to another tensor over the memory of this State"
        return (self._append("refuse_gradient", (value,), {"reason": reason}, (known,)), 0)

    def _is_alias(self, t: Tensor) -> bool:
        if t._lineage is not None and t._lineage in self.apart:
            return True
        return t._node is None and t._storage in self.graded

    def crossing(self, value: RowValue) -> RowValue:
        """Return a Value as it is read; gradients end where it was made under no_grad."""
        return self._detach(value) if value[0] in self.ungraded and self.grades() else value

    def is_state(self, t: Tensor) -> bool:
        """Whether a tensor was there before the trace, and is no input."""
        kind: str = self.entry_of(t).kind
        return kind == STATE

    def without_gradient(self, value: RowValue) -> RowValue:
        """Return a Value that gradients end at."""
        return value if value[0] in self.ungraded else self._detach(value)

    def _detach(self, value: RowValue) -> RowValue:
        made = self._detached.get(value)
        known = self.rows[value[0]].types[value[1]]
        if made is None and known.dtype.kind >= FLOAT_KIND:
            made = self._detached[value] = (self._append("detach", (value,), {}, (known,)), 0)
        return made or value

    def note_write(self, entry: Any, graded: bool, whole: bool) -> None:
        """Note that memory is about to be written: seen by autograd or not, all of it or a part."""
        if graded and whole:
            entry.origin = None
        elif graded and entry.origin is not None:
            self.settle(entry)
        elif not graded and entry.origin is None and entry.type.dtype.kind >= FLOAT_KIND:
            entry.origin = entry.value

    def settle(self, entry: Any) -> None:
        """Let gradients of memory that was written unseen go where they went before."""
        origin, entry.origin = entry.origin, None
        kept: dict[Any, RowValue] = {}
        if origin[0] in self.ungraded:
            entry.value = self._detach(entry.value)
            if entry.sharing is not None:  # what may be a copy is not taken from the whole
                merged = entry.views.keys() & entry.sharing.merged
                kept = {chain: self._detach(entry.views[chain]) for chain in merged}
        else:
            row = self._append("pass_gradient", (entry.value, origin), {}, (entry.type,))
            entry.value = (row, 0)
        entry.views = kept | {
            chain: value for chain, value in entry.views.items()
            if any(MARK in op.traits for op, _ in chain)
        }  # fmt: skip

    def settle_inputs(self) -> None:
        """Note which inputs were last written under no_grad: they keep the history they have."""
        for entry in self.inputs:
            if entry.origin is not None:
                self.settle(entry)

    def refuse_gradient(self, t: Tensor, reason: str) -> None:
        """Note that how the gradient of a tensor goes on is Python that is not in the graph."""
        if type_of(t).dtype.kind < FLOAT_KIND:
            return
        entry, value = self.entry_of(t), self.value_of(t)
        row = self._append("refuse_gradient", (value,), {"reason": reason}, (type_of(t),))
        if t._chain:
            entry.views[t._chain] = (row, 0)
        else:
            entry.value = (row, 0)

    def note_no_gradient(self, t: Tensor) -> None:
        """Note that the user's code was told that a tensor requires no gradient.

        It may do something else where the tensor does: gradients of a replay are refused then.
        """
        frame = sys._getframe(2)
        ends = any(MARK in op.traits for op, _ in t._chain) or self._is_alias(t)
        if ends or not is_users(frame.f_code) or self.value_of(t)[0] in self.ungraded:
            return
        self.refuse_gradient(t, f"Python read at {self.here()} that none is required")

    def note_grad_set(self, leaf: Tensor) -> None:
        """Note that the program itself set a leaf's `.grad`."""
        self._grad_set[id(leaf)] = leaf

    def note_grad_read(self, leaf: Tensor) -> None:
        """Note that `.grad` is read or added to: None at entry, of a leaf that was there before."""
        if leaf._grad is None and id(leaf) not in self._grad_set:
            self._grad_set[id(leaf)] = leaf
            entry = entry_in(storage_of(leaf))
            if entry is None or entry.token is not self.token or entry.kind == STATE:
                self.missing_grads.append(leaf)

    def output_of(self, t: Tensor) -> RowValue:
        """Return the Value of a result; gradients end at one that has lost its history."""
        value: RowValue = self.value_of(t)
        spent = t._node is not None and is_spent(t._node, self._whole)
        ends = spent or value[0] in self.ungraded or self._is_alias(t)
        return self._detach(value) if ends else value

    def forget_tensors(self) -> None:
        """Let go of tensors and of the tape, at the end."""
        self.graded, self.apart, self._whole = {}, set(), set()

    def note_aliases(self, tensors: Iterable[Tensor]) -> None:
        """Note which tensors among State require gradients, and which others share their memory."""
        by_memory: dict[Storage, list[Tensor]] = {}
        for t in tensors:
            by_memory.setdefault(storage_of(t), []).append(t)
            if t._node is not None and not t._chain:
                self.graded.setdefault(storage_of(t), t)
        for storage, shared in by_memory.items():
            wholes = [self.graded[storage]] if storage in self.graded else [
                t for t in shared if not t._chain
            ]  # fmt: skip
            if len(wholes) == 1 and len(shared) > 1:
                self.apart |= {lineage_of(t) for t in shared} - {lineage_of(wholes[0])}
