"""Faults to plant, one at a time: the proof that the checks would see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from tests.fuzz.check import Checker, Mismatch
from tests.fuzz.choices import seeded
from tests.fuzz.writer import write
from tracegraph.capture import filling, merging
from tracegraph.capture.attempt import Attempt
from tracegraph.capture.recording import Recorder
from tracegraph.eager import dispatch, tape
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.replay.held_state import HeldState
from tracegraph.replay.layouts import Layout
from tracegraph.runtime.interpreter import InterpreterProgram

Plant = Callable[[], Any]
_write = Recorder.write
_scalar = Recorder._scalar
_cond = merging._cond
_inputs = Recorder._inputs
_graph_of = filling.graph_of
_commit = HeldState.commit


def _stale_views(self: Recorder, t: Tensor, new: Tensor) -> None:
    views = dict(self.entry_of(t).views)
    _write(self, t, new)
    entry = self.entry_of(t)
    entry.views = {**views, **entry.views}


def _no_write_back(self: Recorder, t: Tensor, new: Tensor) -> None:
    if not t._chain:
        return _write(self, t, new)
    entry = self.entry_of(t)
    entry.written = True
    entry.views[t._chain] = self.value_of(new)


def _lost_write(name: str, rows: Any, outputs: Any, writes: Any) -> Any:
    return _graph_of(name, rows, outputs, dict(list(writes.items())[:1]))


def _same_tick(self: HeldState, writes: Any, given: Any) -> None:
    _commit(self, {n: w for n, w in writes.items() if "random" not in n}, given)


def _baked(self: Recorder, args: Any, graded: bool) -> Any:
    found = _inputs(self, args, graded)
    return tuple(
        self._constant(x._data.copy(), type_of(x)) if _is_scalar(x) else value
        for x, value in zip((x for x in args if x is not None), found, strict=True)
    )


def _is_scalar(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.shape and isinstance(x._data, np.ndarray)


def _one_constant(self: Recorder, x: Any, args: Any) -> Any:
    key = (type(x), "any", None)
    if key not in self._scalars:
        self._scalars[key] = _scalar(self, x, args)
    return self._scalars[key]


def _no_guard(self: Recorder, t: Tensor, outcome: Any, text: Any = None) -> None:
    """Python goes on, and the graph knows nothing of it."""


def _other_way(scope: Any, branch: Any, ways: Any, depth: int) -> Any:
    return _cond(scope, branch, [ways[0], *ways[:-1]] if depth == 0 else ways, depth)


def _no_undo(self: Attempt, grads: Any) -> None:
    self.recorder.snapshots.clear()


def _patch(owner: Any, name: str, value: Any) -> Plant:
    return lambda: mock.patch.object(owner, name, value)


BUGS: dict[str, Plant] = {
    "a view is not taken again after a write": _patch(Recorder, "write", _stale_views),
    "a write through a view does not reach the whole": _patch(Recorder, "write", _no_write_back),
    "a write of State is lost": _patch(filling, "graph_of", _lost_write),
    "replays draw the same random numbers": _patch(HeldState, "commit", _same_tick),
    "0-d operands are frozen": _patch(Recorder, "_inputs", _baked),
    "numbers of one type are one constant": _patch(Recorder, "_scalar", _one_constant),
    "a guard is dropped": _patch(Recorder, "decide", _no_guard),
    "another way of a branch is taken": _patch(merging, "_cond", _other_way),
    "State is not put back after the trace": _patch(Attempt, "undo", _no_undo),
    "overwritten saved tensors go unnoticed": _patch(tape, "overwritten", lambda *a: None),
    "results share memory": _patch(
        InterpreterProgram, "_must_copy", lambda self: [False] * len(self.graph.results())),
    "any layout is taken": _patch(Layout, "refusal", lambda self, array: None),
    "views do not follow the history of their base": _patch(dispatch, "refresh", lambda t: None),
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a fault for a while."""
    with BUGS[name]():
        yield


def hunt(limit: int, seed: int = 0, **options: Any) -> tuple[int, Mismatch] | None:
    """Return how many programs it took to find a mismatch, and the mismatch, or None."""
    check = Checker(**options)
    for number in range(limit):
        program = write(seeded(seed + number))
        try:
            check(program)
        except Mismatch as found:
            return number + 1, found
    return None
