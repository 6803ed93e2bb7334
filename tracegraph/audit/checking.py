"""The self-check of a trace: the function runs again on other inputs, and the replay must agree.

One more call of the function, on perturbed inputs, with another seed and with other sizes of
dynamic dims, is compared with a replay of the graph on the reference interpreter. If the function
reads Python numbers that the graph froze, one more call with these changed tells which of them
matter. Inputs are clones, and State, gradients, containers and random state are put back. Where the
function does not take the other inputs, or they take a path that no example took, it is called with
the same inputs. Of many examples three are checked.

Functions that write State are not called again unless asked, but for those that name a clock or
Python's random numbers, or read tensors that no path leads to: one more call must record the same.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from tracegraph import pytree
from tracegraph.audit.divergence import (
    changed_constant,
    close,
    faults,
    first_fault,
    first_node,
)
from tracegraph.audit.frozen import Findings, Frozen, names_in, reads_of
from tracegraph.audit.perturbing import Perturbed, other_sizes
from tracegraph.capture.arguments import is_leaf, leaf_paths
from tracegraph.capture.examples import Example
from tracegraph.capture.provenance import Recording, recording_of
from tracegraph.compiler import make_program
from tracegraph.dims.symint import SymInt, hint_of
from tracegraph.eager.storage import bare
from tracegraph.eager.tensors import Tensor, wrap
from tracegraph.errors import GuardError, SelfCheckError, TraceError
from tracegraph.ir.graph import STATE
from tracegraph.ops.core import EFFECT
from tracegraph.ops.table import OPS
from tracegraph.random import known_generators
from tracegraph.replay.entry import EntryPoint
from tracegraph.runtime.cpu import WORKER

_OTHER_SEED = 0x5EED
# Names whose presence in the code calls for a second run even of functions that write State.
_CLOCKS = frozenset(("random", "time", "perf_counter", "monotonic", "datetime", "uuid4", "secrets",
                     "urandom", "default_rng", "RandomState"))  # fmt: skip


class Outcome(NamedTuple):
    """What one run of the function gave: copies of outputs and written State, recorded rows.

    `kept` are the results of each row, if they were asked for.
    """

    outputs: list[Any]
    writes: dict[str, Any]
    recording: Recording
    kept: dict[int, list[Any]]


class Call(NamedTuple):
    """Arguments of one call of the function."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def perturbed(self, entry: EntryPoint, resized: Any = None) -> Call:
        """Return another call, of the same types but for resized leaves."""
        values = (*self.args, *self.kwargs.values())
        names = entry.signature.names
        leaves, tree = pytree.flatten(values, is_leaf)
        other = Perturbed(resized)
        made = [other.leaf(x, p) for x, p in zip(leaves, leaf_paths(names, tree), strict=True)]
        values = pytree.unflatten(tree, made, pytree.classes_in(values))
        count = len(self.args)
        return Call(values[:count], dict(zip(self.kwargs, values[count:], strict=True)))


def outcome_of(attempt: Any) -> Outcome:
    """Return what an attempt gave; to be called before it is undone."""
    recorder = attempt.recorder
    writes = {}
    held = {e.name: s.array for s, e in recorder.states.items()}
    held.update((e.name, t._data) for e, t in zip(recorder.inputs, attempt.aliases, strict=False))
    for entry in (*recorder.states.values(), *recorder.inputs):
        places = attempt.rebinding.get(entry.name)
        if entry.written and entry.name not in attempt.fixed:
            array = held[entry.name] if places is None else places[0].read()._data
            writes[entry.name] = bare(array).copy()
    outputs = [_plain(leaf, copy=True) for leaf in attempt.returned]
    return Outcome(outputs, writes, recording_of(recorder), recorder.kept or {})


class Run(Protocol):
    """Calls the function under a recorder, which keeps every result if it is asked to."""

    def __call__(self, call: Call, *, keep: bool = False) -> Outcome:
        """Return what the call gave."""


def _plain(leaf: Any, copy: bool = False) -> Any:
    """Return a leaf of a result as an array or a Python value."""
    if isinstance(leaf, Tensor):
        array = bare(leaf._data)
        return array.copy() if copy else array
    return hint_of(leaf) if isinstance(leaf, SymInt) else leaf


class SelfCheck:
    """Checks one example of a trace.

    `run` calls the function again; `recording` is what was recorded when it was traced.
    """

    def __init__(self, entry: EntryPoint, run: Run, findings: Findings) -> None:
        self.entry = entry
        self.run = run
        self.recording = findings.recording
        self.findings = findings
        self._program: Any = None
        self._replayed: Any = None
        self.told: dict[str, str] = {}
        self.effects: dict[str, str] = {}

    def same_inputs(self, call: Call) -> None:
        """Check that the function does the same when it is called again.

        Raises:
            SelfCheckError: naming the first line where it does not.
        """
        fault = first_fault(self.recording, self.run(call).recording)
        if fault is not None:
            raise SelfCheckError(fault)
        self.told["a second call"] = "records the same"

    def other_inputs(self, call: Call, tries: Iterable[tuple[str, Call]]) -> None:
        """Check perturbed inputs: the first of `tries` that the function and the replay take.

        Raises:
            SelfCheckError: naming the first node and line where function and replay differ.
        """
        missed = "they take a path that the examples do not cover"
        for what, other in tries:
            try:
                self._compare(other)
            except SelfCheckError:
                raise
            except (GuardError, TraceError) as error:
                missed = f"not covered: {_sentence(error)}"
            except Exception as error:
                missed = f"the function does not take them: {error!r:.120}"
            else:
                self.told[what] = "the replay gives what the function gives"
                return
        self.told["other inputs"] = missed
        try:
            self._compare(call, seed=0)
        except SelfCheckError:
            raise
        except Exception as error:
            raise SelfCheckError(f"a second call with the same inputs raises {error!r}") from error
        self.told["a second call"] = "the replay gives what the function gives"

    def _compare(self, call: Call, seed: int = _OTHER_SEED) -> None:
        """Compare function and replay for one call."""
        with _other_seed(seed):
            wanted = self.run(call)
            try:
                result, writes = self._replay(call)
            except GuardError:
                raise
            except Exception as error:
                raise SelfCheckError(
                    f"the function takes other inputs of the same types, the replay fails: {error}"
                ) from error
        if len(result) != len(wanted.outputs):
            self._blame("the nesting", wanted.recording, call)
        pairs = [(f"result {i}", a, b) for i, (a, b) in
                 enumerate(zip(wanted.outputs, result, strict=True))]  # fmt: skip
        pairs += [(n, a, writes[n]) for n, a in wanted.writes.items() if n in writes]
        moved = changed_constant(self.recording, wanted.recording)
        if moved is not None:
            raise SelfCheckError(moved)
        for what, a, b in pairs:
            if not close(a, b):
                with _other_seed(seed):
                    self._blame(what, wanted.recording, call)

    def _replay(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        """Run the graph on the interpreter; nothing is committed."""
        entry = self.entry
        device = entry._home(call.args)
        arrays, _, hypers = entry._arguments(device, call.args, dict(call.kwargs))
        self._replayed = (device, [*arrays, *hypers])
        if self._program is None:
            self._program = make_program(entry.graph, device, "interpreter", 0)
        outputs, writes = self._program.run(self._replayed[1], entry.state)
        leaves, _ = pytree.flatten(entry.results(map(wrap, outputs)), is_leaf)
        return [_plain(leaf) for leaf in leaves], dict(writes)

    def _blame(self, what: str, recording: Recording, call: Call) -> None:
        fault = first_fault(self.recording, recording)
        if fault is None and len(self.recording.rows) == len(self.entry.graph):
            kept = self.run(call, keep=True).kept
            device, inputs = self._replayed
            node = first_node(self.entry.graph, device, inputs, self.entry.state, kept)
            fault = None if node is None else f"the first node that differs is {node}"
        raise SelfCheckError(
            f"{what} of the replay is not what the function gives for other inputs of the same "
            f"types: {fault or 'every recorded op is the same'}"
        )

    def other_numbers(self, call: Call) -> None:
        """See which frozen numbers the graph depends on: change them all, and run once more.

        Where the function does not take other integers (sizes, counts), only floats are changed.
        """
        numbers = [(i, s) for i in self.findings.values.values() if (s := setter_of(i)) is not None]
        numbers = [(i, s) for i, s in numbers if self._is_operand(i)]
        floats = [(i, s) for i, s in numbers if isinstance(i.value, float)]
        if numbers and _others_run():
            self.told["changed Python values"] = "not tried while other threads run"
            return
        for some in (numbers, floats) if len(floats) < len(numbers) else (floats,):
            if some and self._with_others(call, some):
                return

    def _is_operand(self, item: Frozen) -> bool:
        return any(
            read.role == "value" and code not in self.findings.foreign
            for read, code in reads_of(self.findings, item)
        )

    def _with_others(self, call: Call, numbers: Sequence[tuple[Frozen, Any]]) -> bool:
        """Run with other numbers; whether the function took them."""
        try:
            for item, change in numbers:
                change(other_number(item.value))
            recording = self.run(call).recording
        except Exception as error:
            self.told["changed Python values"] = f"the function does not take them: {error!r:.120}"
            return False
        finally:
            for item, change in numbers:
                change(item.value)
        self._note_effects([item for item, _ in numbers], recording)
        return True

    def _note_effects(self, changed: Sequence[Frozen], other: Recording) -> None:
        moved = [self.recording.rows[row].loc for row in faults(self.recording, other)]
        places = {(loc.file, loc.line) for loc in moved if loc is not None}
        for item in changed:
            for read, code in reads_of(self.findings, item):
                if not moved:
                    self.effects[read.text] = "another value changes nothing"
                elif len(changed) == 1 or (code.co_filename, read.line) in places:
                    self.effects[read.text] = "another value changes the graph"
        self.told["changed Python values"] = (
            f"{len(moved)} nodes depend on them" if moved else "the graph depends on none"
        )


def needs_second_run(findings: Findings) -> bool:
    """Whether the code names clocks or random numbers, or read tensors that no path leads to."""
    states = (row.attrs["name"] for row in findings.recording.rows if row.op == STATE)
    unnamed = any(name.startswith("captured.") for name in states)
    sites = {site.code for site in findings.sites.values()}
    return unnamed or any(_CLOCKS & names_in(code) for code in sites)


@contextmanager
def _other_seed(change: int) -> Iterator[None]:
    """Let the default generators stand elsewhere meanwhile."""
    before = [(g._state._data, g._state._data.copy()) for g in known_generators().values()]
    try:
        for array, _ in before:
            array[0] ^= change
        yield
    finally:
        for array, kept in before:
            array[...] = kept


def other_number(value: float) -> float:
    """Return a number near another."""
    return value + 1 if isinstance(value, int) else value * 1.25 + 0.5


def setter_of(item: Frozen) -> Callable[[Any], Any] | None:
    """Return what changes a frozen number in its place; None if it is none or cannot be."""
    number = isinstance(item.value, (int, float)) and not isinstance(item.value, bool)
    home = getattr(item.read, "__self__", None)
    if not number or item.now() is not item.value:
        return None
    if isinstance(home, dict):
        return lambda value: home.__setitem__(item.key, value)
    if isinstance(home, types.CellType):
        return lambda value: setattr(home, "cell_contents", value)
    return None


def _sentence(error: Exception) -> str:
    text = str(error).partition(";")[0]
    return text if len(text) <= 160 else text[:157] + "..."


def check_trace(
    entry: EntryPoint, run: Run, example: Example, call: Call, declared: Any, wanted: bool | None
) -> SelfCheck:
    """Check what was traced; `wanted` None does what a function without State or host calls allows.

    Raises:
        SelfCheckError: the function and the replay differ.
    """
    check = SelfCheck(entry, run, example.findings)
    if wanted is False:
        return check
    acts = not entry.graph.writes.keys() <= known_generators().keys() or any(
        EFFECT in node.row.traits for node in entry.graph.nodes if node.op in OPS
    )
    if wanted or (wanted is None and not acts):
        shapes = {s.name: s.type.shape for s in entry.signature.specs if s.type is not None}
        resized: list[Any] = [*other_sizes(declared, shapes), None]
        check.other_inputs(call, (
            ("other inputs, sizes and seed" if r else "other inputs and seed",
             call.perturbed(entry, r)) for r in resized
        ))  # fmt: skip
        check.other_numbers(call)
    elif needs_second_run(example.findings):
        check.same_inputs(call)
    return check


def _others_run() -> bool:
    """Whether threads run that may see changed values: all but native workers."""
    here = threading.current_thread()
    return any(t is not here and not t.name.startswith(WORKER) for t in threading.enumerate())
