"""Every pass on random graphs: the verifier stays content, and results stay what they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.random_graphs import assert_close, assert_same_bits, evaluate, graphs, operands
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import print_graph
from tracegraph.passes.pipeline import PASSES, run_passes
from tracegraph.runtime.interpreter import InterpreterProgram

# Fusion is not exact for runtimes that contract to FMA; on the interpreter it is.
EXACT = [p.name for p in PASSES if p.exact] + ["fuse"]


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=50)
@given(graph=graphs())
def test_an_exact_pass_keeps_every_bit(name: str, graph: Graph) -> None:
    arrays = operands(graph)
    wanted = evaluate(graph, *arrays)
    run_passes(graph, [name], check=True)
    assert_same_bits(evaluate(graph, *arrays), wanted)


@given(graph=graphs(max_nodes=40))
def test_all_exact_passes_together_keep_every_bit_and_settle(graph: Graph) -> None:
    arrays = operands(graph)
    wanted = evaluate(graph, *arrays)
    run_passes(graph, 1, check=True)
    assert_same_bits(evaluate(graph, *arrays), wanted)
    text = print_graph(graph)
    assert run_passes(graph, 1, check=True) == 0
    assert print_graph(graph) == text


@given(graph=graphs(max_nodes=40))
def test_level_2_runs_on_the_interpreter(graph: Graph) -> None:
    inputs, states = operands(graph)

    def run() -> list[np.ndarray]:
        outputs, writes = InterpreterProgram(graph).run(inputs, states)
        return [*outputs, *writes.values()]

    wanted = run()
    run_passes(graph, 2, check=True)
    assert_close(run(), wanted)


@given(graph=graphs())
def test_passes_are_deterministic(graph: Graph) -> None:
    texts = []
    for made in (graph.copy(), graph.copy()):
        run_passes(made, 2)
        texts.append(print_graph(made))
    assert texts[0] == texts[1]
