"""The one graph of all examples of a function, and the entry point that replays it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.capture.examples import Example
from tracegraph.capture.layouts import layouts_of
from tracegraph.capture.merging import merge_paths
from tracegraph.capture.rows import graph_of
from tracegraph.capture.variants import VARIANT, Variant, is_same
from tracegraph.capture.ways import aligned
from tracegraph.dims.facts import by_form
from tracegraph.errors import TraceError
from tracegraph.ir.graph import Graph
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.held_state import HeldState


def fill(entry: EntryPoint, name: str, examples: Sequence[Example]) -> None:
    """Make an entry point replay every path of some examples of one function.

    Raises:
        TraceError: the examples take or give different things; the entry point is as it was.
    """
    if len(examples) > 1:
        _check_alike(examples)
        _check_gradients(examples)
        _check_histories(examples)
    variants, numbers = _variants(examples)
    paths, signature = aligned(examples)
    hypers = {h.name: h for e in examples for h in e.hypers}
    order = {h: i for i, h in enumerate((*hypers, VARIANT), 1)}

    is_single = len(examples) == 1

    def make() -> Graph:
        with by_form():
            if is_single:
                graph = graph_of(name, *paths[0])
            else:
                graph = merge_paths(name, paths, numbers if len(variants) > 1 else None)
        graph.inputs.sort(key=lambda n: order.get(n.attrs["name"], 0))
        return graph

    if is_single:  # nothing can be wrong with it, and not every trace is replayed
        entry.graph_later(make)
    else:
        entry.graph = make()
    entry.signature = signature
    entry.variants = variants
    entry.hypers = list(hypers.values())
    entry.classes = _merged([e.classes for e in examples])
    layouts = layouts_of(examples)
    given = {spec.name for spec in signature.specs}
    entry.layouts = {n: layout for n, layout in layouts.items() if n in given}
    rebound = {
        n: places for n, places in _merged([e.rebound for e in examples]).items()
        if all(n in e.rebound for e in examples if n in e.path.writes)
    }  # fmt: skip
    entry.hold(
        HeldState(
            _merged([e.state for e in reversed(examples)]),
            _merged([e.places for e in examples]),
            _merged([e.shared for e in examples]),
            rebound,
            {n: layout for n, layout in layouts.items() if n not in given},
        )
    )


def _merged(parts: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for part in parts:
        found.update(part)
    return found


def _check_alike(examples: Sequence[Example]) -> None:
    first = examples[0]
    for number, other in enumerate(examples[1:], 1):
        if (first.names, first.inputs) != (other.names, other.inputs):
            raise TraceError(
                f"example {number} has arguments of another nesting, {other.signature}, than the "
                f"first, {first.signature}; trace it as an entry point of its own"
            )
        for mine, theirs in zip(first.specs, other.specs, strict=True):
            if mine.type != theirs.type:
                raise TraceError(
                    f"argument {mine.name} is {mine.type} in the first example and {theirs.type} "
                    f"in example {number}; examples of one trace have the same types"
                )


def _check_gradients(examples: Sequence[Example]) -> None:
    """Refuse gradients that are None before, and set by some of the examples only."""
    for name in {name for e in examples for name in e.path.writes}:
        places = [e.places[name] for e in examples if name in e.places]
        some = [name in e.path.writes for e in examples]
        if not all(some) and places and places[0].read() is None:
            raise TraceError(
                f"{name} is None before the call, and after it in example {some.index(False)}, but "
                f"not in example {some.index(True)}; a replay of both would leave zeros. Set it to "
                "zeros before you trace: zero_grad(set_to_none=False)"
            )


def _check_histories(examples: Sequence[Example]) -> None:
    """Refuse State that is a part of the gradient history after an example, and met by another.

    What an example does in a call after itself was checked when it ran.
    """
    leaving = [(i, example) for i, example in enumerate(examples) if example.in_history]
    for number, example in leaving:
        for other, later in enumerate(examples):
            for name in example.in_history & later.state.keys() if other != number else ():
                raise TraceError(
                    f"{name} is a part of the gradient history after example {number}, and example "
                    f"{other} meets it: its gradients would go back into the earlier call, which a "
                    f"replay cannot do. Use {name}.detach()"
                )


def _variants(examples: Sequence[Example]) -> tuple[list[Variant], list[int]]:
    """Tell examples apart by Python arguments and modules' modes; returns which is which."""
    if len(examples) == 1:
        return [Variant({}, dict(examples[0].modes))], [0]
    scalars = [{s.name: s.value for s in e.specs if s.type is None} for e in examples]
    differ = [n for n, v in scalars[0].items() if not all(is_same(v, s[n]) for s in scalars)]
    variants: list[Variant] = []
    numbers = []
    for example, values in zip(examples, scalars, strict=True):
        wanted = {n: values[n] for n in differ}
        for number, known in enumerate(variants):
            if known.fits(wanted) and all(
                known.modes.get(p, m)[1] == m[1] for p, m in example.modes.items()
            ):
                variants[number] = Variant(wanted, {**known.modes, **example.modes})
                numbers.append(number)
                break
        else:
            numbers.append(len(variants))
            variants.append(Variant(wanted, dict(example.modes)))
    return variants, numbers
