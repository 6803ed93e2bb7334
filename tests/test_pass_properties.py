"""Every pass on random graphs: the verifier stays content and results stay the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.random_graphs import assert_same_bits, evaluate, graphs, operands
from tracegraph.ir.graph import Graph
from tracegraph.passes.pipeline import PASSES, run_passes

EXACT = [p.name for p in PASSES if p.exact]


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60)
@given(graph=graphs())
def test_an_exact_pass_keeps_every_bit(name: str, graph: Graph) -> None:
    arrays = operands(graph)
    wanted = evaluate(graph, *arrays)
    run_passes(graph, [name], check=True)
    assert_same_bits(evaluate(graph, *arrays), wanted)
