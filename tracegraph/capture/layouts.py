"""Where a run relied on whether tensors share memory, as far as layouts of what it got decide it.

`reshape` is a view or a copy, depending on the order in which the elements of its operand lie. A
graph is one of both. So each write is noted that would have reached something else otherwise, and
at the end those notes are kept whose difference reaches a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import proxy, ref

from tracegraph.capture.rows import LOCAL, Entry, Row, RowValue, entry_in
from tracegraph.dims.shapes import hints
from tracegraph.eager.storage import AbstractArray, Chain, Storage, ViewStep
from tracegraph.eager.tensors import Tensor, storage_of
from tracegraph.ir.graph import INPUT, STATE, Loc
from tracegraph.ops.core import ELEMENTWISE, LAID_ALIKE, MARK, VIEW
from tracegraph.ops.table import OPS
from tracegraph.replay.layouts import Layout

if TYPE_CHECKING:
    from tracegraph.capture.examples import Example
    from tracegraph.capture.recording import Recorder

# Traits of ops whose results may lie as an operand does.
_CARRY: Final = frozenset((ELEMENTWISE, VIEW, LAID_ALIKE))


class Sharing:
    """What is known of the views of one memory.

    Those `merged` would be copies in another layout; those in `rows` are in rows in any. `calls`
    have the reshapes that made merged views, by the step of their chains: `writes` counts those to
    the memory, a call those before it and those through it. `group` are memories that are copies of
    each other here and would be one in another layout, `seen` if the caller sees a write to this.
    `asked` is whether memory that callers know was given for a copy in rows.
    """

    __slots__ = ("asked", "calls", "group", "merged", "rows", "seen", "writes")

    def __init__(self) -> None:
        self.merged: set[Chain] = set()
        self.calls: dict[int, tuple[ViewStep, list[int]]] = {}
        self.writes = 0
        self.rows: set[Chain] = set()
        self.group: list[ref[Storage]] = []
        self.seen = False
        self.asked = False


class _Note(NamedTuple):
    """A place that relied on how the memory of an Entry lies.

    It matters if one of `values` is read from row `since` on, in any case with `always`. What lies
    between elements matters if `exact`.
    """

    entry: Entry
    values: frozenset[RowValue]
    since: int
    loc: Loc | str | None
    always: bool = False
    exact: bool = True


def merges(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape puts dims together, which some layouts do not allow without a copy."""
    if 0 in before:
        return False
    kept = {1, *accumulate(after, mul)}
    return any(n not in kept for n in accumulate(before, mul))


class Layouts:
    """The part of a Recorder that knows what depends on how elements lie."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = proxy(recorder)  # which holds this
        self._notes: list[_Note] = []
        self._rows: set[RowValue] = set()  # Values whose memory is in rows in any case
        self.like: dict[RowValue, RowValue] = {}  # what lies as another Value does, unread

    def reshaped(self, source: Tensor, out: Tensor, needs_rows: bool = False) -> None:
        """Note a reshape: a view that could be a copy, or the other way round.

        If it `needs_rows`, it is a copy of what lies in any other order.
        """
        if source._data.__class__ is AbstractArray:
            return
        puts_together = needs_rows or merges(hints(source._data.shape), hints(out._data.shape))
        if out._chain:
            joined = len(out._chain) == len(source._chain)
            if not puts_together and not joined:
                return
            known = _sharing(self._recorder.entry_of(source))
            sure = source._chain in known.rows
            again = joined and source._chain in known.merged
            if (puts_together and not sure) or again:
                known.merged.add(out._chain)
                step, before = out._chain[-1], None
                if again and not puts_together:  # the same memory in any layout
                    before = known.calls.get(id(source._chain[-1]))
                known.calls[id(step)] = step, before[1] if before else [known.writes, 0]
            elif sure:
                known.rows.add(out._chain)
        elif puts_together and 0 not in getattr(source._data, "strides", ()):
            self.copied(source, out, True)

    def in_rows(self, source: Tensor, out: Tensor) -> None:
        """Note that a tensor was asked for in rows: itself, or a copy."""
        recorder = self._recorder
        if source._data.__class__ is AbstractArray:
            return
        entry = recorder.entry_of(out)
        if out is source:
            _sharing(entry).asked = entry.kind != LOCAL
        else:
            self.copied(source, out, False)
        _sharing(entry).rows.add(out._chain)
        self._rows.add(recorder.value_of(out))
        if not out._chain:
            self._rows.add(entry.made)

    def copied(self, source: Tensor, out: Tensor, seen: bool) -> None:
        """Note a copy that is none in another layout; `seen` if callers may see a write to it."""
        entry, made = self._recorder.entry_of(source), self._recorder.entry_of(out)
        known = _sharing(entry)
        group = known.group or [ref(storage_of(source))]
        group.append(ref(storage_of(out)))
        known.group = _sharing(made).group = group
        known.seen |= seen and entry.kind != LOCAL

    def relied(self, t: Tensor, exact: bool = True, place: str = "") -> None:
        """Note that what was called relies on the layout of a tensor (at `place`)."""
        entry = self._recorder.entry_of(t)
        loc = place or self._recorder.here()
        self._notes.append(_Note(entry, frozenset(), -1, loc, True, exact))

    def lies_as(self, made: Tensor, like: Tensor) -> None:
        """Note that a fresh tensor lies in memory as another one does."""
        self.like[self._recorder.value_of(made)] = self._recorder.value_of(like)

    def read(self, entry: Entry, chain: Chain, value: RowValue) -> None:
        """Note that a view is read which other names of its memory have written."""
        known: Sharing = entry.sharing
        for n in levels(known, chain):
            call = known.calls.get(id(chain[n - 1]))
            if call is not None and known.writes > sum(call[1]):
                values = frozenset((value,))
                self._notes.append(_Note(entry, values, -1, self._recorder.here()))

    def wrote(self, entry: Entry, chain: Chain) -> None:
        """Note a write through a view of memory that is known by several names."""
        known, recorder = entry.sharing, self._recorder
        loc = recorder.here()
        known.writes += 1
        merged = levels(known, chain)
        for n in merged:
            call = known.calls.get(id(chain[n - 1]))
            if call is not None:
                call[1][1] += 1
        if merged:
            whole = [entry.views[chain[:n]] for n in merged[:-1] if chain[:n] in entry.views]
            self._notes.append(_Note(entry, frozenset((entry.value, *whole)), -1, loc))
        if known.asked:
            values = frozenset((entry.value, *entry.views.values()))
            self._notes.append(_Note(entry, values, len(recorder.rows), loc))
        known.group[:] = [held for held in known.group if held() is not None]
        for held in known.group:
            storage = held()
            if storage is None:
                continue
            other = recorder.states.get(storage) or entry_in(storage)
            if other is None or other is entry or other.token is not recorder.token:
                continue
            values = frozenset((other.value, *other.views.values()))
            for side in (entry, other):
                self._notes.append(
                    _Note(side, values, len(recorder.rows), loc, other.sharing.seen)
                )  # fmt: skip

    def found(
        self, outputs: Iterable[RowValue], writes: Mapping[str, RowValue]
    ) -> dict[str, tuple[bool, str]]:
        """Return inputs and State whose layout the run relied on, whether exactly, and where."""
        if not self._notes:
            return {}
        rows = self._recorder.rows
        last = _last_reads(rows, {*outputs, *writes.values()})
        found: dict[str, tuple[bool, str]] = {}
        known: set[tuple[int, bool]] = set()
        for note in self._notes:
            if note.always or any(last.get(v, -2) >= note.since for v in note.values):
                self._follow(note, known, found)
        return found

    def _follow(
        self, note: _Note, known: set[tuple[int, bool]], found: dict[str, tuple[bool, str]]
    ) -> None:
        """Find the inputs and State that memory lies as."""
        rows, root = self._recorder.rows, note.entry.made
        op = OPS.get(rows[root[0]].op)
        is_made = op is not None and (not op.view or op.name == "reshape")
        exact = note.exact and (is_made or note.entry.kind != LOCAL)  # a copy has no gaps
        stack = [(root, exact)]
        while stack:
            value, exact = stack.pop()
            stops = value in self._rows and (value != root or note.since < 0)
            if stops or (value[0], exact) in known:
                continue
            if value in self.like:
                stack.append((self.like[value], False))
            known.add((value[0], exact))
            row: Row = rows[value[0]]
            if row.op in (INPUT, STATE):
                name = row.attrs["name"]
                if "default" in row.attrs:
                    continue  # a hyper-parameter
                before = found.get(name)
                if before is None or exact > before[0]:
                    found[name] = (exact, str(note.loc))
                continue
            op = OPS.get(row.op)
            if op is None or _CARRY.isdisjoint(op.traits):
                continue
            exact = row.op == "reshape" or (exact and op.view)
            stack += [(v, exact) for v in row.inputs]


def _sharing(entry: Entry) -> Sharing:
    if entry.sharing is None:
        entry.sharing = Sharing()
    known: Sharing = entry.sharing
    return known


def levels(known: Sharing, chain: Chain) -> list[int]:
    """Return after how many steps of a chain there is a view that could be a copy."""
    if not known.merged:
        return []
    return [n for n in range(1, len(chain) + 1) if chain[:n] in known.merged]


def _last_reads(rows: Sequence[Row], ends: Set[RowValue]) -> dict[RowValue, int]:
    """Return which row is the last to read a Value that matters, also by another gradient."""
    last = dict.fromkeys(ends, len(rows))
    for row in sorted(_live(rows, ends), reverse=True):
        op = OPS.get(rows[row].op)
        same = op is not None and MARK in op.traits
        for value in rows[row].inputs:
            read = last.get((row, 0), row) if same else row
            last[value] = max(last.get(value, -1), read)
    return last


def _live(rows: Sequence[Row], ends: Iterable[RowValue]) -> set[int]:
    """The rows that results, writes or guards depend on."""
    stack = [r for r, _ in ends]
    stack += [n for n, row in enumerate(rows) if not row.types]
    live: set[int] = set()
    while stack:
        row = stack.pop()
        if row not in live:
            live.add(row)
            stack += [r for r, _ in rows[row].inputs]
    return live


def layouts_of(examples: Sequence[Example]) -> dict[str, Layout]:
    """Return what some examples relied on: each tensor may lie as it did in one of them."""
    found: dict[str, Layout] = {}
    for example in examples:
        for name, (exact, place) in example.layouts.items():
            orders = tuple(dict.fromkeys(e.orders[name] for e in examples if name in e.orders))
            exact = exact or (name in found and found[name].exact)
            found[name] = Layout(orders, exact, found[name].place if name in found else place)
    return found
