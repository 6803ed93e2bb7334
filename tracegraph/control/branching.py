"""`cond` of flat operands, recorded as one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegraph import pytree
from tracegraph.audit.sources import expression_at
from tracegraph.control.nodes import (
    Flat,
    Pull,
    as_predicate,
    attached,
    commit,
    needs_graph,
    pull_back,
    refuse_graded_writes,
    run_node,
    spread,
    union,
)
from tracegraph.control.regions import build, capture, is_tensor, whole_of
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ir.control import COND, case_name


def branch(pred: Any, functions: Sequence[Callable[..., Any]], operands: Sequence[Tensor]) -> Any:
    """Record `functions[0](*operands)` where `pred` holds, else `functions[1]`; both give nests.

    Raises:
        OpError: they give different nests or types.
    """
    recorder = modes.RECORDER.get()
    frame = recorder.frame()
    text = "" if frame is None else expression_at(frame.f_code, frame.f_lasti)
    regions = [capture(recorder, f, operands) for f in functions]
    first, second = regions
    if first.tree != second.tree or first.types != second.types:
        shown = [f"({', '.join(map(str, r.types))})" for r in regions]
        raise OpError(
            f"the functions of cond must return the same nesting, dtypes and shapes, not "
            f"{shown[0]} and {shown[1]}"
        )
    count = len(operands)
    outer, written = union([r.outer for r in regions]), union([r.written for r in regions])
    graded = union([r.graded for r in regions])
    cases = {
        case_name(i): build(r, case_name(i), [*range(count), *outer], written)
        for i, r in enumerate(regions)
    }
    predicate = as_predicate(pred)
    contents = [front.copy(whole_of(s)) for s in written]
    inputs = [predicate, *operands, *map(whole_of, outer)]
    attrs = {"cases": (True, False), "text": text}
    results = run_node(recorder, COND, inputs, attrs, cases)
    outs, after = results[: len(first.types)], results[len(first.types) :]
    commit(written, after)
    if needs_graph(operands, graded):
        refuse_graded_writes(regions)
        outer_tensors = [*operands, *graded]
        pull = _branch_pull(predicate, functions, count, written, contents)
        outs = attached(outs, outer_tensors, (), pull)
    return pytree.unflatten(first.tree, outs, first.classes)


def _branch_pull(
    predicate: Tensor, functions: Sequence[Callable[..., Any]], count: int,
    written: Sequence[Storage], contents: Sequence[Tensor],
) -> Pull:  # fmt: skip
    kept = count + len(written)

    def pull(saved: Sequence[Tensor], grads: Sequence[Tensor]) -> Sequence[Any]:
        operands, graded = saved[:count], saved[count:]

        def arm(function: Callable[..., Any]) -> Flat:
            def flat(*args: Tensor) -> list[Tensor]:
                return pytree.flatten(function(*args), is_tensor)[0]

            return lambda *given: pull_back(
                flat, given[:count], written, given[count:kept], graded, given[kept:]
            )

        arms = [arm(f) for f in functions]
        found = either(predicate, arms, [*operands, *contents, *grads])
        return spread(found, saved)

    return pull


def either(predicate: Tensor, functions: Sequence[Flat], operands: Sequence[Tensor]) -> Any:
    """Run one of two functions, as one node where a trace is running."""
    if modes.recording and modes.RECORDER.get() is not None:
        return branch(predicate, functions, operands)
    return functions[0 if predicate._data.item() else 1](*operands)
