"""`scan` and `while_loop` of flat operands, run step by step or recorded as one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegraph.api.creation import zeros, zeros_like
from tracegraph.api.shape import stack
from tracegraph.capture.recording import Recorder
from tracegraph.control.branching import either
from tracegraph.control.nodes import (
    Flat,
    Pull,
    as_predicate,
    attached,
    commit,
    cut,
    is_float_tensor,
    needs_graph,
    pull_back,
    refuse_graded_writes,
    run_node,
    spread,
    union,
)
from tracegraph.control.regions import Region, build, capture, whole_of
from tracegraph.dtypes import int64
from tracegraph.eager import modes
from tracegraph.eager.storage import Storage, bare, sized
from tracegraph.eager.tensors import Tensor, type_of, wrap, xp_of
from tracegraph.errors import AutogradError, TraceError
from tracegraph.ir.control import SCAN, WHILE_LOOP

Step = Callable[..., tuple[list[Tensor], list[Tensor]]]


def sweep(
    step: Step, carried: Sequence[Tensor], xs: Sequence[Tensor], length: int, reverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Run `carried, ys = step(*carried, *slices of xs)` for each slice; ys come back stacked."""
    recorder = modes.RECORDER.get() if modes.recording else None
    if recorder is not None:
        return _recorded_sweep(recorder, step, list(carried), list(xs), length, reverse)
    now = list(carried)
    if not length:
        with Recorder() as alone:
            region = _step_region(alone, step, now, xs, length)
        ys = region.types[len(now) :]
        return now, [zeros(0, *t.shape, dtype=t.dtype) for t in ys]
    rows = []
    for i in reversed(range(length)) if reverse else range(length):
        now, outs = step(*now, *(x[i] for x in xs))
        rows.append(outs)
    columns = zip(*(reversed(rows) if reverse else rows), strict=True)
    return now, [stack(list(column)) for column in columns]


def _step_region(
    recorder: Recorder, step: Step, carried: Sequence[Tensor], xs: Sequence[Tensor], length: int
) -> Region:
    def flat(*operands: Tensor) -> list[Tensor]:
        now, ys = step(*operands)
        return [*now, *ys]

    slices = [_slice_of(x) for x in xs]
    return capture(recorder, flat, [*carried, *slices])


def _slice_of(x: Tensor) -> Tensor:
    """The first slice, zeros if there is none."""
    known, data = type_of(x), bare(x._data)
    known = known.with_shape(known.shape[1:])
    first = data[0, ...] if len(data) else xp_of(data).zeros(data.shape[1:], data.dtype)
    return wrap(sized(known, first))


def _recorded_sweep(
    recorder: Recorder, step: Step, carried: list[Tensor], xs: list[Tensor], length: int,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    region = _step_region(recorder, step, carried, xs, length)
    graded = needs_graph([*carried, *xs], region.graded)
    count = len(carried)
    plain = len(region.types) - count  # results that the caller asked for
    if graded:
        refuse_graded_writes([region])
        plain_step = step

        def step(*flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            now, ys = plain_step(*flat)
            return now, [*ys, *flat[:count]]

        region = _step_region(recorder, step, carried, xs, length)
    written = region.written
    others = [s for s in region.outer if s not in written]
    order = [*range(count), *written, *range(count, count + len(xs)), *others]
    body = build(region, "body", order, written)
    ys = len(region.types) - count
    now, made, after = (
        body.outputs[:count],
        body.outputs[count : count + ys],
        body.outputs[count + ys :],
    )
    body.outputs = [*now, *after, *made]
    if graded:
        body.outputs += [n.out for n in body.inputs[count : count + len(written)]]
    attrs = {"carried": count + len(written), "scanned": len(xs), "length": length,
             "reverse": reverse}  # fmt: skip
    operands = [*carried, *map(whole_of, written), *xs, *map(whole_of, others)]
    results = run_node(recorder, SCAN, operands, attrs, {"body": body})
    first = count + len(written)
    last, stacked, contents = (
        results[:count], results[first : first + ys], results[first + ys :]
    )  # fmt: skip
    commit(written, results[count:first])
    if graded:
        pull = _sweep_pull(step, len(xs), written, contents, length, reverse)
        operands = [*carried, *xs, *region.graded]
        outs = attached([*last, *stacked], operands, stacked[plain:], pull(count, plain))
        last, stacked = outs[:count], outs[count:]
    return last, stacked[:plain]


def _sweep_pull(
    step: Step, scanned: int, written: Sequence[Storage], contents: Sequence[Tensor],
    length: int, reverse: bool,
) -> Callable[[int, int], Pull]:  # fmt: skip
    """Return the gradient of a sweep whose step gives what it was given as its last ys."""

    def flat(*operands: Tensor) -> list[Tensor]:
        now, ys = step(*operands)
        return [*now, *ys]

    def of(count: int, plain: int) -> Pull:
        def pull(saved: Sequence[Tensor], grads: Sequence[Tensor]) -> Sequence[Any]:
            carried, xs, rest = cut(saved, [count, scanned])
            graded, carries = rest[: len(rest) - count], rest[len(rest) - count :]
            is_float = [*map(is_float_tensor, carried)]
            starts = [g for g, f in zip(grads[:count], is_float, strict=True) if f]
            floats = [t for t in grads[count:] if is_float_tensor(t)]
            sizes = [len(starts), len(graded), count, len(written), scanned]

            def back(*given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
                carry, sums, was, content, slices, g_ys = cut(given, sizes)
                waiting = iter([*carry, *g_ys])
                expected = [*carried, *grads[count:]]
                pulled = [next(waiting) if is_float_tensor(t) else None for t in expected]
                found = pull_back(flat, [*was, *slices], written, content, graded, pulled)
                now, on, more = cut(found, [len(carry), sum(map(is_float_tensor, slices))])
                return [*now, *(a + b for a, b in zip(sums, more, strict=True))], list(on)

            last, g_xs = sweep(
                back, [*starts, *map(zeros_like, graded)],
                [*carries, *contents, *xs, *floats], length, not reverse,
            )  # fmt: skip
            found = [*last[: len(starts)], *g_xs, *last[len(starts) :]]
            return spread(found, [*carried, *xs, *graded])

        return pull

    return of


# Loops whose length is data.


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

        last = sweep(step, carried, [], bound, False)[0]
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
