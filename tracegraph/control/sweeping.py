"""`scan` of flat operands, run step by step or recorded as one node, and its gradient.

The gradient of a recorded scan is a scan the other way. It reads what the steps computed, or runs
each step again from its carries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tracegraph.api.creation import zeros, zeros_like
from tracegraph.api.shape import stack
from tracegraph.capture.recording import Recorder
from tracegraph.control.nodes import (
    Flat,
    Pull,
    attached,
    commit,
    cut,
    is_float_tensor,
    needs_graph,
    pull_back,
    refuse_graded_writes,
    run_node,
    spread,
)
from tracegraph.control.regions import Region, build, capture, whole_of
from tracegraph.control.residuals import Gradient, step_with_gradient
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.storage import bare, sized
from tracegraph.eager.tape import zeros as zeros_of
from tracegraph.eager.tensors import Tensor, type_of, wrap, xp_of
from tracegraph.ir.control import SCAN
from tracegraph.tensor_type import TensorType

Step = Callable[..., tuple[list[Tensor], list[Tensor]]]


def sweep(
    step: Step, carried: Sequence[Tensor], xs: Sequence[Tensor], length: int, reverse: bool,
    checkpoint: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Run `carried, ys = step(*carried, *slices of xs)` for each slice; ys come back stacked."""

    def flat(*operands: Tensor) -> list[Tensor]:
        now, ys = step(*operands)
        return [*now, *ys]

    recorder = modes.RECORDER.get() if modes.recording else None
    if recorder is not None:
        steps = _Steps(flat, len(carried), list(xs), length, reverse)
        return _recorded(recorder, steps, list(carried), checkpoint)
    now = list(carried)
    if not length:
        with Recorder() as alone:
            region = capture(alone, flat, [*now, *map(_slice_of, xs)])
        ys = region.types[len(now) :]
        return now, [zeros(0, *t.shape, dtype=t.dtype) for t in ys]
    rows = []
    for i in reversed(range(length)) if reverse else range(length):
        now, outs = step(*now, *(x[i] for x in xs))
        rows.append(outs)
    columns = zip(*(reversed(rows) if reverse else rows), strict=True)
    return now, [stack(list(column)) for column in columns]


class _Steps(NamedTuple):
    """How a scan goes: its step on flat operands, how many are carried, what it goes along."""

    step: Flat
    carries: int
    xs: list[Tensor]
    length: int
    reverse: bool


def _slice_of(x: Tensor) -> Tensor:
    """The first slice, zeros if there is none."""
    known, data = type_of(x), bare(x._data)
    known = known.with_shape(known.shape[1:])
    first = data[0, ...] if len(data) else xp_of(data).zeros(data.shape[1:], data.dtype)
    return wrap(sized(known, first))


def _recorded(
    recorder: Recorder, steps: _Steps, carried: list[Tensor], checkpoint: bool
) -> tuple[list[Tensor], list[Tensor]]:
    operands = [*carried, *map(_slice_of, steps.xs)]
    region, gradient, count = capture(recorder, steps.step, operands), None, steps.carries
    if not needs_graph([*carried, *steps.xs], region.graded):
        ran = _run(recorder, steps, region, carried, None)
        return ran.last, ran.ys
    refuse_graded_writes([region])
    plain = len(region.types) - count  # results that the caller asked for
    if checkpoint:
        region = capture(recorder, lambda *given: [*steps.step(*given), *given[:count]], operands)
    else:
        graded = region.graded
        region, gradient = step_with_gradient(recorder, steps.step, operands, count, graded)
    ran = _run(recorder, steps, region, carried, gradient)
    pull = _pull(steps, region, [*map(type_of, (*ran.last, *ran.ys))], ran.contents, gradient)
    outs = attached(
        [*ran.last, *ran.ys], [*carried, *steps.xs, *region.graded], [*ran.ys[plain:], *ran.kept],
        pull, materialize=False,
    )  # fmt: skip
    return outs[:count], outs[count : count + plain]


class _Ran(NamedTuple):
    """What a scan gave: what it carried last, ys stacked, and of each step what its gradient reads.

    That is what memory from outside that it writes held before (`contents`), and what it computed.
    """

    last: list[Tensor]
    ys: list[Tensor]
    contents: list[Tensor]
    kept: list[Tensor]


def _run(
    recorder: Recorder, steps: _Steps, region: Region, carried: list[Tensor],
    gradient: Gradient | None,
) -> _Ran:  # fmt: skip
    """Run a region as a scan, record it, and commit what it wrote."""
    written, count = region.written, steps.carries
    others = [s for s in region.outer if s not in written]
    order = [*range(count), *written, *range(count, count + len(steps.xs)), *others]
    kept = () if gradient is None else gradient.computed
    body = build(region, "body", order, written, kept)
    sizes = [count, len(region.types) - count, len(written)]
    now, ys, after, more = cut(body.outputs, sizes)
    before = [n.out for n in body.inputs[count : count + len(written)]]
    body.outputs = [*now, *after, *ys, *before, *more]
    operands = [*carried, *map(whole_of, written), *steps.xs, *map(whole_of, others)]
    results = run_node(recorder, SCAN, operands, _attrs(steps, len(written)), {"body": body})
    last, new, *stacked = cut(results, [count, len(written), sizes[1], len(written)])
    commit(written, new)
    return _Ran(last, *stacked)


def _attrs(steps: _Steps, more: int) -> dict[str, Any]:
    return {"carried": steps.carries + more, "scanned": len(steps.xs), "length": steps.length,
            "reverse": steps.reverse}  # fmt: skip


def _pull(
    steps: _Steps, region: Region, types: Sequence[TensorType], contents: Sequence[Tensor],
    gradient: Gradient | None,
) -> Pull:  # fmt: skip
    """Return the gradient of a scan that gives what its steps were given as its last ys."""
    count, plain = steps.carries, len(types) - steps.carries

    def pull(saved: Sequence[Tensor], given: Sequence[Tensor | None]) -> Sequence[Any]:
        carried, xs, graded, carries, kept = cut(
            saved, [count, len(steps.xs), len(region.graded), count]
        )
        grads = [zeros_of(front, t) if g is None else g for g, t in zip(given, types, strict=True)]
        starts = [g for g in grads[:count] if is_float_tensor(g)]
        sums = list(map(zeros_like, graded))
        recorder = modes.RECORDER.get() if modes.recording else None
        twice = modes.GRAD.get() or any(g is not None for g in given[plain:])
        if gradient is None or recorder is None or twice:
            back = _again(steps, region, carried, graded, grads)
            along = [*carries, *contents, *xs, *filter(is_float_tensor, grads[count:])]
            last, g_xs = sweep(back, [*starts, *sums], along, steps.length, not steps.reverse, True)
        else:
            along = [*filter(is_float_tensor, grads[count:plain])]
            along += gradient.stacks(carries, xs, kept)
            last, g_xs = _run_back(recorder, steps, gradient, [*starts, *sums], along)
        found = [*last[: len(starts)], *g_xs, *last[len(starts) :]]
        return spread(found, [*carried, *xs, *graded])

    return pull


def _run_back(
    recorder: Recorder, steps: _Steps, gradient: Gradient, carried: list[Tensor],
    along: list[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Run the recorded gradient of a step as a scan the other way."""
    count, region = len(carried), gradient.region
    back = _Steps(steps.step, count, along, steps.length, not steps.reverse)
    order = [*range(len(region.operands)), *gradient.residuals, *gradient.outer]
    body = build(region, "body", order, ())
    operands = [*carried, *along, *map(whole_of, gradient.outer)]
    results = run_node(recorder, SCAN, operands, _attrs(back, 0), {"body": body})
    return results[:count], results[count:]


def _again(
    steps: _Steps, region: Region, carried: Sequence[Tensor], graded: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> Step:  # fmt: skip
    """Return the step of the gradient that runs the step again."""
    floats = sum(map(is_float_tensor, carried))
    sizes = [floats, len(graded), steps.carries, len(region.written), len(steps.xs)]

    def given_too(*given: Tensor) -> list[Tensor]:
        return [*steps.step(*given), *given[: steps.carries]]

    def back(*given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        carry, sums, was, content, slices, g_ys = cut(given, sizes)
        waiting = iter([*carry, *g_ys])
        expected = [*carried, *grads[steps.carries :]]
        pulled = [next(waiting) if is_float_tensor(t) else None for t in expected]
        found = pull_back(given_too, [*was, *slices], region.written, content, graded, pulled)
        now, on, more = cut(found, [len(carry), sum(map(is_float_tensor, slices))])
        return [*now, *(a + b for a, b in zip(sums, more, strict=True))], list(on)

    return back
