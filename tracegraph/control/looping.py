"""`while_loop` of flat operands, recorded as one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.api.creation import zeros
from tracegraph.capture.recording import Recorder
from tracegraph.control.branching import either
from tracegraph.control.nodes import (
    Flat,
    as_predicate,
    attached,
    commit,
    needs_graph,
    run_node,
    union,
)
from tracegraph.control.regions import build, capture, whole_of
from tracegraph.control.sweeping import sweep
from tracegraph.dtypes import int64
from tracegraph.eager import modes
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import AutogradError, TraceError
from tracegraph.ir.control import WHILE_LOOP


def repeat(
    goes_on: Callable[..., Any], body: Flat, carried: Sequence[Tensor], bound: int | None
) -> list[Tensor]:
    """Record `carried = body(*carried)` while `goes_on(*carried)`, at most `bound` times."""
    recorder = modes.RECORDER.get()
    region = capture(recorder, body, carried)
    graded = needs_graph(carried, region.graded)
    if bound is None:
        last = _recorded_loop(recorder, goes_on, body, carried)
        if graded:
            last = attached(last, [*carried, *region.graded], (), _no_bound)
        return last
    if graded:

        def step(*now: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            active = as_predicate(goes_on(*now))
            return either(active, [body, lambda *same: list(same)], now), []

        last = sweep(step, carried, [], bound, False, True)[0]
    else:

        def still(count: Tensor, *now: Tensor) -> Tensor:
            return as_predicate(goes_on(*now)) & (count < bound)

        start = [zeros((), dtype=int64), *carried]
        last = _recorded_loop(recorder, still, lambda count, *now: [count + 1, *body(*now)], start)[
            1:
        ]
    open_still = as_predicate(goes_on(*last))
    recorder.decide(open_still, False, f"while_loop goes on after its bound of {bound} steps")
    return last


def _no_bound(saved: Any, grads: Any) -> Any:
    raise AutogradError(
        "the gradient of a traced while_loop needs the most steps there can be: "
        "while_loop(..., bound=n)"
    )


def _recorded_loop(
    recorder: Recorder, goes_on: Callable[..., Any], body: Flat, carried: Sequence[Tensor]
) -> list[Tensor]:
    test = capture(recorder, lambda *now: [as_predicate(goes_on(*now))], carried)
    region = capture(recorder, body, carried)
    if test.written:
        raise TraceError("the condition of while_loop writes memory from outside, or draws numbers")
    count, written = len(carried), region.written
    others = [s for s in union([test.outer, region.outer]) if s not in written]
    order = [*range(count), *written, *others]
    regions = {
        "condition": build(test, "condition", order, ()),
        "body": build(region, "body", order, written),
    }
    operands = [*carried, *map(whole_of, written), *map(whole_of, others)]
    results = run_node(recorder, WHILE_LOOP, operands, {"carried": count + len(written)}, regions)
    commit(written, results[count:])
    return results[:count]
