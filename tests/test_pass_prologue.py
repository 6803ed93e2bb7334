"""Batch-norm folding, and the part of a graph that depends on State only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.random_graphs import assert_close, evaluate
from tests.test_pass_rules import graph_of
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import print_graph
from tracegraph.ir.verify import verify
from tracegraph.passes.pipeline import run_passes
from tracegraph.passes.prologue import fold_batch_norm, parts_of, split_prologue, state_only

STATES = ", ".join(
    f'%{name}: f32[{shape}] = state "{name}"'
    for name, shape in {"w": "4,3,3,3", "b": "4", "m": "4", "v": "4", "g": "4", "s": "4"}.items()
)
CONV = "stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1"
BIAS = f"""\
%0: f32[2,4,5,5] = convolution(%x, %w; {CONV})
%1: f32[1,4,1,1] = reshape(%b; shape=(1, 4, 1, 1))
%2: f32[2,4,5,5] = add(%0, %1)
%3: f32[2,4,5,5] = batch_norm_inference(%2, %m, %v, %g, %s; eps=1e-05)
%4: f32[2,4,5,5] = relu(%3)
return %4
"""
PLAIN = BIAS.replace("%2, %m, %v, %g, %s", "%0, %m, %v")
HEADER = f"%x: f32[2,3,5,5], {STATES}"


def arrays_of(graph: Graph) -> tuple[list[Any], dict[str, Any]]:
    generator = np.random.default_rng(0)

    def make(node: Any) -> Any:
        return generator.uniform(0.5, 2, node.types[0].shape).astype(np.float32)

    return [make(n) for n in graph.inputs], {k: make(n) for k, n in graph.states.items()}


@pytest.mark.parametrize("lines", [BIAS, PLAIN], ids=["bias and affine", "plain"])
def test_batch_norm_folds_into_a_convolution(lines: str) -> None:
    graph = graph_of(HEADER, lines)
    run_passes(graph, ["dead_code"])
    arrays = arrays_of(graph)
    wanted = evaluate(graph, *arrays)
    assert run_passes(graph, ["fold_batch_norm"], check=True) == 1
    assert "batch_norm_inference" not in print_graph(graph)
    assert_close(evaluate(graph, *arrays), wanted)


def test_batch_norm_folds_into_a_linear_layer() -> None:
    graph = graph_of(
        '%x: f32[5,3], %w: f32[4,3] = state "w", %b: f32[4] = state "b", %m: f32[4] = state "m", '
        '%v: f32[4] = state "v"',
        "%0: f32[5,4] = linear(%x, %w, %b)\n"
        "%1: f32[5,4] = batch_norm_inference(%0, %m, %v; eps=1e-05)\nreturn %1",
    )
    arrays = arrays_of(graph)
    wanted = evaluate(graph, *arrays)
    assert run_passes(graph, ["fold_batch_norm"], check=True) == 1
    assert_close(evaluate(graph, *arrays), wanted)


UNFIT = {
    "the result is read elsewhere": BIAS.replace(
        "return %4", "%5: f32[2,4,5,5] = neg(%2)\nreturn %4, %5"),
    "the result is returned": BIAS.replace("return %4", "return %4, %0"),
    "the statistics change": BIAS.replace("return %4", 'write "m" = %v\nreturn %4'),
    "the weight is an input": BIAS.replace("%w;", "%y;"),
    "an addition that is no bias": BIAS.replace("add(%0, %1)", "add(%0, %0)"),
    "a residual": BIAS.replace("add(%0, %1)", "add(%0, %z)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_batch_norm_stays_where(name: str) -> None:
    graph = graph_of(HEADER + ", %y: f32[4,3,3,3], %z: f32[2,4,5,5]", UNFIT[name])
    assert fold_batch_norm(graph) == 0
    verify(graph)


def test_the_prologue_holds_what_depends_on_state_only() -> None:
    graph = graph_of(HEADER, BIAS)
    arrays = arrays_of(graph)
    wanted = evaluate(graph, *arrays)
    run_passes(graph, 2, check=True)
    prologue = split_prologue(graph)
    verify(prologue)
    verify(graph)
    assert prologue.inputs == []
    assert sorted(prologue.states) == ["b", "g", "m", "s", "v", "w"]
    assert list(graph.states) == ["prologue.0", "prologue.1"]
    assert [n.op for n in graph if n.op not in ("input", "state")] == [
        "reshape", "convolution", "kernel",
    ]  # fmt: skip
    packed = evaluate(prologue, [], arrays[1])
    states = {f"prologue.{i}": array for i, array in enumerate(packed)}
    assert_close(evaluate(graph, arrays[0], states), wanted)
    assert split_prologue(graph).outputs == []


def test_parts_of_a_prologue_share_no_node() -> None:
    graph = graph_of(
        '%x: f32[3], %w: f32[3] = state "w", %n: f32[3] = state "n"',
        "%0: f32[3] = exp(%w)\n%1: f32[3] = neg(%0)\n%2: f32[3] = sin(%n)\n"
        "%3: f32[3] = mul(%w, %n)\n%4: f32[3] = mul(%x, %0)\n%5: f32[3] = mul(%4, %2)\n"
        "%6: f32[3] = mul(%5, %1)\n%7: f32[3] = mul(%6, %3)\nreturn %7",
    )
    arrays = arrays_of(graph)
    prologue = split_prologue(graph)
    whole = evaluate(prologue, [], arrays[1])
    parts = parts_of(prologue)
    assert sorted(len(numbers) for numbers, _ in parts) == [1, 1, 2]
    for numbers, part in parts:
        verify(part)
        states = {name: arrays[1][name] for name in part.states}
        for number, array in zip(numbers, evaluate(part, [], states), strict=True):
            assert np.array_equal(array, whole[number])


def test_views_of_state_stay_and_results_may_be_split() -> None:
    graph = graph_of(
        '%x: f32[2,3], %w: f32[4,3] = state "w", %n: f32[3] = state "n", '
        '%p: f32[3] = state "prologue.0"',
        "%0: f32[3,4] = permute(%w; dims=(1, 0))\n%1: f32[2,4] = matmul(%x, %0)\n"
        "%2: f32[3] = exp(%p)\n%3: f32[1,3] = reshape(%2; shape=(1, 3))\n"
        '%4: f32[2,3] = mul(%x, %3)\n%5: f32[3] = neg(%2)\nwrite "n" = %5\nreturn %1, %4',
    )
    arrays = arrays_of(graph)
    wanted = evaluate(graph, *arrays)
    assert [n.op for n in graph if n in state_only(graph)] == ["permute", "exp", "reshape", "neg"]
    prologue = split_prologue(graph)
    verify(graph)
    verify(prologue)
    assert [n.op for n in prologue] == ["state", "exp", "neg"]
    assert list(graph.states) == ["w", "n", "prologue.1", "prologue.2"]
    packed = evaluate(prologue, [], {"prologue.0": arrays[1]["prologue.0"]})
    states = {**arrays[1], "prologue.1": packed[0], "prologue.2": packed[1]}
    assert_close(evaluate(graph, arrays[0], states), wanted)


def test_what_reads_written_state_is_computed_each_time() -> None:
    graph = graph_of(
        '%x: f32[2], %s: f32[2] = state "s"',
        '%0: f32[2] = exp(%s)\n%1: f32[2] = add(%0, %x)\nwrite "s" = %1\nreturn %0',
    )
    assert state_only(graph) == set()
    assert split_prologue(graph).outputs == []
