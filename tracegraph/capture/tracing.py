"""`trace`: run a function once, keep what it did as a graph, and replay it.

The function runs eagerly with real values. Tensors that existed before are State, named by the
path to them; what it writes becomes graph outputs that a replay commits. Tracing leaves no mark:
State, containers and the random state are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tracegraph import pytree
from tracegraph.audit.bakes import BakeList
from tracegraph.audit.checking import Call, Outcome, check_trace, outcome_of
from tracegraph.audit.frozen import Findings
from tracegraph.audit.watching import Watch
from tracegraph.capture.arguments import as_arguments, is_leaf, leaf_paths, name_of, named
from tracegraph.capture.attempt import Attempt
from tracegraph.capture.examples import Example
from tracegraph.capture.filling import fill
from tracegraph.capture.provenance import Permit
from tracegraph.capture.sizes import declared_dims, widened
from tracegraph.capture.state import walk
from tracegraph.dims.facts import by_form
from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor, wrap, xp_of
from tracegraph.errors import TraceError
from tracegraph.ir.graph import Graph
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.signature import Signature

_UNKNOWN = Signature((), 0, {}, (), {}, ())


class Traced(EntryPoint):
    """A traced function: call it to replay, look at `.graph`, save it with `tracegraph.save`.

    Replays read and write the very tensors (parameters, buffers, optimizer slots) that the
    function used, and follow the optimizers' present hyper-parameters.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, permit: Permit, dynamic: Any = None,
        check: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(Graph(name), _UNKNOWN, {}, ())
        self._function = function
        self._name = name
        self._permit = permit
        self._dynamic = dynamic
        self._examples: list[Example] = []
        self._calls: list[Call] = []
        self._captured: dict[Storage, str] = {}
        self._findings = Findings()
        self._bakes: BakeList | None = None
        self._checked: dict[str, str] = {}
        self._effects: dict[str, str] = {}
        self._check = check

    def found(self) -> dict[str, Any]:
        """Return what the trace found out besides the graph: the frozen values, the checks."""
        if self._bakes is None:
            self._bakes = BakeList(self._findings, self.graph)
        return {
            "bakes": [b.to_data() for b in self._bakes.with_effects(self._effects)],
            "literals": self._bakes.literals,
            "unread": list(self._bakes.unread),
            "left": self.left_changes(),
            "checked": self._checked,
        }

    def add_example(self, *args: Any, **kwargs: Any) -> Traced:
        """Trace the function for further inputs; where it branches otherwise, the graph does too.

        Returns itself. Modes of modules (train, eval) are those of now.

        Raises:
            TraceError: see `trace`; this `Traced` is then as it was before.
        """
        before = self._dynamic, self._examples, self._calls
        self._add(args, kwargs)
        try:
            self._self_check(len(self._calls) - 1)
        except TraceError:
            self._dynamic = before[0]
            self._take(*before[1:])
            raise
        return self

    def _add(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with by_form():
            example = self._run(args, kwargs)
            known = self._examples
            wider = widened(self._dynamic, known[0].specs, example.specs) if known else None
            if wider is None:
                self._take([*known, example], [*self._calls, Call(args, kwargs)])
                return
            before, self._dynamic = self._dynamic, wider
            try:
                calls = [*self._calls, Call(args, kwargs)]
                self._take([self._run(*call) for call in calls], calls)
            except BaseException:
                self._dynamic = before
                raise

    def _take(self, examples: list[Example], calls: list[Call]) -> None:
        """Make the graph that of some examples; nothing changes if they do not fit."""
        with self.lock:
            fill(self, self._name, examples)
            # One account of State for all of them: what is rebound later is let go.
            self._examples = [example._replace(state=self.held.tensors) for example in examples]
            self._calls = calls
            self.examples = [(*call.args, *call.kwargs.values()) for call in calls]
            self._findings = examples[0].findings
            if len(examples) > 1:
                self._findings = Findings()
                for example in examples:
                    self._findings.merge(example.findings)
            self._bakes = None
            self.watch = Watch(self._findings, self._permit.texts)

    def left_changes(self) -> list[str]:
        """Say what the examples changed in Python objects, which a replay does not."""
        return list(dict.fromkeys(text for e in self._examples for text in e.left))

    def _self_check(self, number: int) -> None:
        """Check the graph on what is like one of the examples."""
        example, call = self._examples[number], self._calls[number]
        if self._check is False:
            example.findings.forget()
            return

        def run(call: Call, *, keep: bool = False) -> Outcome:
            again = self._permit.again(example.findings.baked, keep)
            return self._run(*call, again, outcome_of)

        declared = declared_dims(self._dynamic, [s.name for s in example.specs])
        check = check_trace(self, run, example, call, declared, self._check)
        example.findings.forget()
        self._checked.update(check.told)
        self._effects.update(check.effects)

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], permit: Permit | None = None,
        then: Callable[[Attempt], Any] = Attempt.example,
    ) -> Any:  # fmt: skip
        permit = permit or self._permit
        captured = self._captured if permit is self._permit else dict(self._captured)
        return _run(self._function, args, kwargs, captured, permit, self._dynamic, then)


def trace(
    function: Callable[..., Any],
    example_inputs: Any = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    more_examples: Sequence[Any] = (),
    dynamic: Mapping[str, Any] | None = None,
    strict: bool = True,
    allow_bake: Iterable[str] = (),
    check: bool | None = None,
    name: str | None = None,
) -> Traced:
    """Run `function(*example_inputs)` and return what it did as a `Traced`.

    Python that looks at tensors (`if x.sum() > 0:`, `int(n)`) becomes guards. With several
    examples, guards that come out differently become branches of the graph; a replay that comes
    to a branch which no example took raises `UnseenPathError` and writes nothing.

    Args:
        function: a function, method or nn module.
        example_inputs: a tensor or a tuple of nested inputs (tensors, arrays, scalars).
        example_kwargs: further inputs by name.
        more_examples: further `example_inputs`, of the same types.
        dynamic: dims of inputs that replays may give other sizes:
            `{"x": {0: Dim("batch", min=1)}, "batch.y": {0: "batch"}}`, by the names that the
            signature shows.
        strict: refuse values that are read from tensors and would be frozen; else `report()`
            lists them.
        allow_bake: those that may be frozen: by expression (`"loss.item()"`), line
            (`"train.py:12"`) or name of the variable. Also names Python values that may change
            after the trace though the graph keeps what they were (`"self.scale"`).
        check: call the function again (with other inputs, seed and dynamic sizes; and with other
            Python numbers where it reads any) and compare with the replay. None: unless it writes
            State, for what Python does besides cannot be undone. See `checking`.
        name: of the graph; the function's own by default.

    Raises:
        BakeError: a tensor's value would be frozen (`item()` of a float, `numpy()`, ...).
        SelfCheckError: the replay does not do what the function does; names the line.
        TraceError: the function cannot be traced truthfully; the message names the line.
    """
    if isinstance(function, Tensor):  # PyTorch's `trace(matrix)`, the sum of the diagonal
        return function.trace()
    permit = Permit(strict, allow_bake)
    traced = Traced(function, name or name_of(function), permit, dynamic, check)
    for inputs in (example_inputs, *more_examples):
        traced._add(as_arguments(inputs), dict(example_kwargs or {}))
    for number in sorted({0, len(more_examples) // 2, len(more_examples)}):
        traced._self_check(number)
    return traced


def _run(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], captured: dict[Storage, str],
    permit: Permit, dynamic: Any, then: Callable[[Attempt], Any],
) -> Any:  # fmt: skip
    """Run a function under a recorder, leaving no mark; `captured` names State without a path."""
    names, values = named(function, args, kwargs)
    leaves, tree = pytree.flatten(tuple(values), is_leaf, "input")
    paths = leaf_paths(names, tree)
    found = walk(function)
    grads = {t: t._grad for t in found.leaves}
    declared = declared_dims(dynamic, paths)
    inputs = (leaves, tree, paths, len(args), names, captured, permit, declared)

    def again() -> Attempt:
        return Attempt(function, walk(function), *inputs)

    attempt = Attempt(function, found, *inputs)
    try:
        attempt.run()
        started = [leaf for leaf in attempt.recorder.missing_grads if leaf._grad is not None]
        if started:
            attempt.undo(grads)
            grads.update((leaf, _zeros_like(leaf)) for leaf in started)
            for leaf in started:
                leaf._grad = grads[leaf]
            attempt = again()
            attempt.run()
            grads.update(dict.fromkeys(started))
        attempt.left = attempt.left_changes()
        if attempt.left:
            attempt.check_again(again, attempt.in_history())
            attempt.check_left()
        attempt.note_rebinding()
        return then(attempt)
    finally:
        attempt.undo(grads)


def _zeros_like(t: Tensor) -> Tensor:
    return wrap(xp_of(t._data).zeros(t._data.shape, t._data.dtype))
