"""Random draws as launches: a kernel makes the numbers, a nest the state one tick later."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tracegraph import philox
from tracegraph.dtypes import int64
from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Place
from tracegraph.runtime.cpu.lowering.steps import Launch, pointer
from tracegraph.runtime.cpu.moves.draws_code import SLOTS, UNIT_GROUPS, Draw, draw_kernel, lanes_of
from tracegraph.runtime.cpu.nests.nest import LOAD, Step

# About what a word costs, in ns.
_WORD_NS: Final = {"uniform": 0.7, "integers": 1.0, "normal": 3.0}
_TICK: Final = (
    Step(LOAD, (0,), int64), Step(LOAD, (1,), int64), Step("add", (0, 1), int64),
)  # fmt: skip


def lower_draw(low: Lowering, node: Node) -> None:
    """Lower draws of independent numbers."""
    attrs = node.attrs
    distribution, first, span = attrs["distribution"], attrs["low"], attrs["high"] - attrs["low"]
    if distribution == "permutation" or span >= 1 << 64:
        raise UnsupportedError("a permutation, or integers of all 64 bits")
    state = low.dense(low.place(node.inputs[0]))
    values, after = (low.new(v) for v in node.outs)
    dtype = values.dtype
    if distribution == "integers":
        words = philox.words_per_integer(first, attrs["high"])
    else:
        words = philox.words_per_uniform(dtype.np)
    if math.prod(values.shape):
        _add(low, node, Draw(distribution, dtype, words), state, values)
    one = low.held(np.array([0, 1]), int64)
    low.nest((2,), (), _TICK, [state, one], [(2, after)], frozenset(), node, "tick")


def _add(low: Lowering, node: Node, draw: Draw, state: Place, values: Place) -> None:
    elements, lanes = math.prod(values.shape), lanes_of(low.target)
    groups = -(-elements * draw.words // (4 * lanes))
    units = -(-groups // UNIT_GROUPS)
    first, span = node.attrs["low"], node.attrs["high"] - node.attrs["low"]
    signed = span - (1 << 64) if span >= 1 << 63 else span
    known = {
        "low": first, "span": signed, "elements": elements, "groups": groups,
        "units": units, "chunk": 1,
    }  # fmt: skip
    arrays = [pointer(state), pointer(values)]
    words = (*arrays, *(known[name] for name in SLOTS[len(arrays) :]))
    cost = int(elements * draw.words * _WORD_NS[draw.distribution])
    use = Use([state.buffer], [values.buffer])
    kernel = draw_kernel(draw, low.target)
    what = f"draw ({draw.distribution})"
    low.steps.append(Launch(kernel, words, units, cost, use, node, what))
