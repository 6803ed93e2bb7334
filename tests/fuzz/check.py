"""What must hold of every program.

a. eager tracegraph does what eager PyTorch does: results, State, gradients, errors;
b. a trace changes nothing, and replays do what eager calls do, bit for bit, State included;
c. saving twice gives the same bytes, and what is loaded replays equally;
d. no result shares memory with an input, with State or with another result;
e. optimised programs agree: level 1 bit for bit, level 2 closely.
"""

from __future__ import annotations

import dataclasses
import io
import traceback
import warnings
from collections import Counter
from contextlib import nullcontext
from typing import Any

import numpy as np

import tracegraph as tg
from tests.fuzz.program import FILE, Built, Program, build
from tests.fuzz.values import Flat, array_of, difference, flat, identities, leaves, share
from tracegraph.passes.pipeline import LEVELS
from tracegraph.replay.layouts import LayoutError

CALLS = 3
SEED = 7


class Mismatch(AssertionError):
    """A program for which something does not hold; the message shows it as Python."""

    def __init__(self, what: str, detail: str, program: Program) -> None:
        super().__init__(f"{what}: {detail}\n\n{program}")
        self.what = what
        self.detail = detail
        self.program = program


@dataclasses.dataclass
class Outcome:
    """What one call left behind: flat values by path, and the error with its line, if any."""

    result: Flat
    inputs: Flat
    state: Flat
    error: Exception | None = None
    line: int = 0

    @property
    def kind(self) -> str:
        """The builtin class that a user would catch."""
        for kind in (IndexError, TypeError, RuntimeError, ValueError):
            if isinstance(self.error, kind):
                return f"{kind.__name__} at line {self.line}"
        return f"{type(self.error).__name__} at line {self.line}" if self.error else "no error"


# Running.


def call(built: Built, function: Any, number: int) -> Outcome:
    """Call once and keep what it left."""
    args = built.inputs(number)
    try:
        result = flat(function(*args))
        error, line = None, 0
    except Exception as caught:
        result, error = {}, caught
        line = next((f.lineno for f in reversed(traceback.extract_tb(caught.__traceback__))
                     if f.filename == FILE), 0) or 0  # fmt: skip
    return Outcome(result, flat(args), flat(built.state, grads=True), error, line)


def tracegraph_program(program: Program) -> Built:
    """The program on tracegraph, its random numbers from the start."""
    tg.manual_seed(SEED)
    return build(program, tg, lambda *shape: tg.rand(*shape, dtype=tg.float64))


def torch_program(program: Program) -> Built:
    """The program on PyTorch with tracegraph's random numbers."""
    import torch

    generator = tg.Generator().manual_seed(SEED)

    def uniform(*shape: int) -> Any:
        return torch.from_numpy(np.array(
            tg.rand(*shape, dtype=tg.float64, generator=generator)._data))  # fmt: skip

    return build(program, torch, uniform)


# Where PyTorch overwrote or freed what we keep.
REFUSALS = ("modified by an inplace", "a second time")
# What PyTorch draws otherwise.
OWN_RANDOM = ("dropout(", "randn(", "rand_like(", "normal_(")


def eager(built: Built) -> list[Outcome]:
    """Call several times, until an error."""
    outcomes = []
    for number in range(CALLS):
        if number:
            built.between(number)
        outcomes.append(call(built, built.function, number))
        if outcomes[-1].error is not None:
            break
    return outcomes


class Checker:
    """Checks programs one by one; `seen` counts what they came to."""

    def __init__(self, torch: bool = True, levels: tuple[int, ...] = LEVELS) -> None:
        self.torch = torch
        self.levels = levels
        self.seen: Counter[str] = Counter()

    def __call__(self, program: Program) -> None:
        """Check all of it.

        Raises:
            Mismatch: with what differs and the program.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.program = program
            built = tracegraph_program(program)
            mine = eager(built)
            self._grads_apart(built)
            if self.torch and not any(name in str(program) for name in OWN_RANDOM):
                self._against_torch(mine)
            self._traced(mine)

    def _grads_apart(self, built: Built) -> None:
        """Gradients share memory with nothing."""
        everything = leaves(built.state)
        for grad in [t.grad for t in leaves(built.state, grads=False) if t.is_leaf]:
            for other in everything:
                if grad is not None and grad is not other and share(grad, other):
                    self._fail("gradients", "a gradient shares memory with State")

    def _fail(self, what: str, detail: str) -> None:
        raise Mismatch(what, detail, self.program)

    def _equal(self, what: str, a: Outcome, b: Outcome, exact: bool = True, skip: str = "\0",
               flags: bool = False) -> None:  # fmt: skip
        for part in ("result", "inputs", "state"):
            x, y = getattr(a, part), getattr(b, part)
            found = difference(x, y, exact, flags, skip)
            if found and exact and _sums(self.program) and not difference(x, y, False, flags, skip):
                self.seen["allowed: sums of another memory layout, rounded otherwise"] += 1
            elif found:
                self._fail(what, f"{part} {found}")

    def _against_torch(self, mine: list[Outcome]) -> None:
        theirs = eager(torch_program(self.program))
        for number, (a, b) in enumerate(zip(mine, theirs, strict=False)):
            refused = next((t for t in REFUSALS if t in str(b.error)), None)
            if refused and a.kind != b.kind:
                if refused in str(a.error) and a.line > b.line:
                    self.seen[f"allowed: PyTorch refuses earlier: {refused}"] += 1
                else:
                    self._otherwise(refused, number, a)
                return
            if ".data" in str(self.program) and self._differs(a, b):
                self.seen["allowed: a write through .data that the gradients do not see"] += 1
                return
            if _lies_apart(self.program) and self._differs(a, b):
                self.seen["allowed: a write through reshape of what lies in rows here only"] += 1
                return
            allowed = _allowed(a, b, self.program)
            if allowed:
                self.seen[f"allowed: {allowed}"] += 1
                return
            if a.kind != b.kind:
                self._fail(f"eager error ({str(a.error or b.error)[:30]})",
                           f"call {number}: {a.kind} ({a.error}) where PyTorch has "
                           f"{b.kind} ({b.error})")  # fmt: skip
            skip = "\0" if a.error is None else ".grad"  # a backward pass stopped half-way
            self._equal(f"eager call {number}", a, b, exact=False, flags=True, skip=skip)

    def _otherwise(self, why: str, number: int, mine: Outcome) -> None:
        """PyTorch refuses and we do not: then we must give what it gives where it does not."""
        import torch

        patient = _patient(self.program)
        for program, copies in ((self.program, True), (patient, False), (patient, True)):
            kept = torch.autograd.graph.allow_mutation_on_saved_tensors
            with kept() if copies else nullcontext():
                theirs = eager(torch_program(program))
            if number < len(theirs) and theirs[number].kind == mine.kind:
                break
            allowed = _allowed(mine, theirs[-1], self.program)
            if allowed:
                self.seen[f"allowed: {allowed}"] += 1
                return
        else:
            self._fail(f"eager error ({why})", f"call {number}: {theirs[-1].error}")
        if ".data" in str(self.program) and self._differs(mine, theirs[number]):
            self.seen["allowed: a write through .data that the gradients do not see"] += 1
            return
        if mine.error is None:
            self._equal(f"eager ({why})", mine, theirs[number], exact=False, flags=True)
        self.seen[f"allowed: PyTorch refuses: {why}"] += 1

    @staticmethod
    def _differs(a: Outcome, b: Outcome) -> bool:
        return a.kind != b.kind or any(
            difference(getattr(a, part), getattr(b, part), False, True)
            for part in ("result", "inputs", "state")
        )

    def _traced(self, expected: list[Outcome]) -> None:
        built = tracegraph_program(self.program)
        args = built.inputs(0)
        before = (
            flat(built.state, grads=True),
            flat(args),
            {"rng": array_of(tg.get_rng_state()).tolist()},
        )
        places = identities(built.state)
        try:
            traced = tg.trace(built.function, args, check=False)
        except Exception as error:
            if expected[0].error is None:
                self._refused(error, expected)
            self._unchanged(before, built, args, places)
            self.seen["an error, traced or not"] += 1
            return
        if expected[0].error is not None:
            self._fail("trace error", f"eager raises {expected[0].error!r}, the trace does not")
        self._unchanged(before, built, args, places)
        self._replayed(built, traced, expected)

    def _refused(self, error: Exception, expected: list[Outcome]) -> None:
        if not isinstance(error, tg.errors.TraceError):
            self._fail("trace error", f"the trace raises {error!r}, eager does not")
        self.seen[f"refused: {str(error)[:60]}"] += 1

    def _unchanged(self, before: Any, built: Built, args: Any, places: Any) -> None:
        after = (
            flat(built.state, grads=True),
            flat(args),
            {"rng": array_of(tg.get_rng_state()).tolist()},
        )
        for old, new in zip(before, after, strict=True):
            found = difference(old, new, exact=True, flags=True)
            if found:
                self._fail("tracing left a mark", found)
        if places != identities(built.state):
            self._fail("tracing left a mark", "attributes hold other tensors")

    def _replayed(self, built: Built, traced: Any, expected: list[Outcome]) -> None:
        # A gradient that is made anew in each call is no State: a replay leaves it as it was.
        resets = (".grad = None", "zero_grad")
        anew = any(text in line for text in resets for line in self.program.body)
        skip = ".grad" if anew else "\0"
        self._start = {n: t._data.copy() for n, t in traced.state_dict().items()}
        loaded, graph = self._saved(traced), traced.graph
        # What happens between calls leaves State that no trace knows: such programs run once.
        for level in self.levels if not self.program.between else (1,):
            traced.load_state_dict(self._start)
            run = traced.program("cpu", level=level)
            what = f"replay at level {level}"
            reached = self._replays(what, built, run, expected, level < 2, skip, traced)
            expected = expected[:reached]  # the file does not have what the trace refused
        self.seen["replayed"] += 1
        if self.program.between:
            return
        end = {n: (t._data.copy(), False) for n, t in traced.state_dict().items()}
        if traced.graph is not graph:
            traced.load_state_dict(self._start)
            loaded = self._saved(traced)
        other = dataclasses.replace(built, read=dict)
        self._replays("loaded", other, loaded, [
            dataclasses.replace(e, state={}) for e in expected], True, skip)  # fmt: skip
        got = {n: (t._data, False) for n, t in loaded.state_dict().items()}
        if self.levels and all(e.error is None for e in expected):
            found = difference(end, got, exact=max(self.levels) < 2, flags=False)
            if found:
                self._fail("loaded", f"State {found}")

    def _saved(self, traced: Any) -> Any:
        """Write the trace to a file, twice, and load it."""
        first, second = io.BytesIO(), io.BytesIO()
        tg.save(traced, first)
        tg.save(traced, second)
        if first.getvalue() != second.getvalue():
            self._fail("file", "two saves differ")
        first.seek(0)
        return tg.load(first)

    def _replays(
        self,
        what: str,
        built: Built,
        run: Any,
        expected: list[Outcome],
        exact: bool,
        skip: str,
        traced: Any = None,
    ) -> int:
        """Call as often as eager code was; returns how many calls there were until a refusal."""
        for number, want in enumerate(expected):
            if want.error is not None:
                break
            if number:
                built.between(number)
            args = built.inputs(number)
            try:
                result = self._answer(run, args, traced)
            except tg.errors.TraceError as error:
                self.seen[f"refused: example: {str(error)[:50]}"] += 1
                return number
            except LayoutError:
                self.seen["refused: an input in another memory layout"] += 1
                return number
            except tg.errors.GuardError as error:
                why = next((text for text in _MOVED if text in str(error)), None)
                if not self.program.between or why is None:
                    self._fail(what, f"call {number} raises {error!r}")
                self.seen[f"refused: State: {why}"] += 1
                return number
            except Exception as error:
                self._fail(what, f"call {number} raises {error!r}")
            self._apart(what, result, args, built)
            got = Outcome(flat(result), flat(args), flat(built.state, grads=True))
            if not built.state:
                got.state = {}
            self._equal(f"{what}, call {number}", want, got, exact, skip)
        return len(expected)

    def _answer(self, run: Any, args: Any, traced: Any) -> Any:
        """Replay; a path that was not seen yet becomes an example of the trace first."""
        try:
            return run(*args)
        except tg.errors.UnseenPathError:
            if traced is None:
                raise
            traced.add_example(*args)
            for name, t in traced.state_dict().items():
                self._start.setdefault(name, t._data.copy())
            self.seen["examples added"] += 1
            return run(*args)

    def _apart(self, what: str, result: Any, args: Any, built: Built) -> None:
        """Results share memory with nothing."""
        outs = leaves(result)
        others = [*leaves(args), *leaves(built.state)]
        for i, t in enumerate(outs):
            for other in (*outs[i + 1 :], *others):
                if t is other or share(t, other):
                    self._fail(
                        what, "a result shares memory with another result, an input or State"
                    )


# Why a replay may refuse what happened to State between two calls.
_MOVED = ("several places share", "lies in memory in another order")


def _allowed(mine: Outcome, theirs: Outcome, program: Program) -> str:
    """Why one of the two may raise alone: names a difference that is meant."""
    if mine.error is None or mine.line > theirs.line:
        for text in (
            "refer to a single memory location",
            "function that returns multiple views",
            "a leaf Variable that requires grad is being used",
        ):  # stale views
            if text in str(theirs.error):
                return f"PyTorch refuses: {text}"
    for text in ("more than one element of the written-to", "expanded memory"):
        if theirs.error is None and text in str(mine.error):
            return "a write to expanded memory that PyTorch lets pass"
    return ""


def _lies_apart(program: Program) -> bool:
    """Whether results of operands in several memory orders, which lie in rows, are reshaped."""
    text = str(program)
    return "laid(" in text and any(name in text for name in (".reshape(", ".flatten(", ".ravel("))


def _sums(program: Program) -> bool:
    """Whether a program's results may depend on the strides of what is summed."""
    return any(name in str(program) for name in ("@", ".sum(", ".mean(", ".prod(", "mse_loss("))


def _patient(program: Program) -> Program:
    """The program with every backward pass keeping the graph."""
    changes = ((".backward()", ".backward(retain_graph=True)"),
               ("])[0]", "], retain_graph=True)[0]"),
               ("create_graph=False", "retain_graph=True"))  # fmt: skip

    def changed(line: str) -> str:
        for old, new in changes:
            line = line.replace(old, new)
        return line

    return dataclasses.replace(program, body=tuple(map(changed, program.body)))
