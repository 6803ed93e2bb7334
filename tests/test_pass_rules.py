"""Each rule as text: what it makes of a graph, and what it must leave alone (pass_rules.txt)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.random_graphs import assert_close, assert_same_bits, evaluate, operands
from tracegraph.dtypes import ALL, REALS, DType, bool_, float16, float32, float64, int32, int64
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
from tracegraph.ops.table import OPS
from tracegraph.passes.algebra import is_lossless
from tracegraph.passes.canonical import commutes_exactly
from tracegraph.passes.pipeline import BY_NAME, run_passes


class Case(NamedTuple):
    """One entry of pass_rules.txt; `after` is None where nothing may change."""

    passes: list[str]
    header: str
    before: str
    after: str | None


def read_cases() -> dict[str, Case]:
    text = (Path(__file__).parent / "pass_rules.txt").read_text(encoding="utf-8")
    cases = {}
    for part in text.split("\n== ")[1:]:
        title, _, rest = part.partition("\n")
        first, _, body = rest.partition("\n")
        passes, _, header = first.partition(" | ")
        before, _, after = body.partition("\n--\n")
        assert title not in cases, f"two cases named {title!r}"
        unchanged = after.strip() == "unchanged"
        cases[title] = Case(passes.split(), header, before, None if unchanged else after)
    return cases


CASES = read_cases()


def graph_of(header: str, lines: str) -> Graph:
    """A graph from a header and its lines; the types of the results are looked up."""
    body = [line.strip() for line in lines.strip().splitlines()]
    types = {}
    for line in body:
        if "=" in line and not line.startswith("write"):
            names, _, known = line.partition(" = ")[0].partition(": ")
            types |= dict(zip(names.split(", "), known.split(", "), strict=True))
    for part in header.split(", %"):
        name, _, known = part.partition(": ")
        types["%" + name.lstrip("%")] = known.split(" =")[0]
    returned = [r for r in body[-1].removeprefix("return").split(", ") if r]
    result = ", ".join(types[r.strip()] for r in returned)
    text = "\n".join(body)
    return parse_graph(f"graph @g({header}) -> ({result}) {{\n{text}\n}}")


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    passes, header, before, after = CASES[name]
    graph = graph_of(header, before)
    verify(graph)
    wanted = print_graph(graph_of(header, after)) if after is not None else print_graph(graph)
    original = graph.copy()
    changes = run_passes(graph, passes, check=True)
    assert print_graph(graph) == wanted
    assert (changes > 0) == (after is not None)
    if name != "what raises stays":
        arrays = operands(original)
        got, before_values = evaluate(graph, *arrays), evaluate(original, *arrays)
        if all(BY_NAME[name].exact for name in passes):
            assert_same_bits(got, before_values)
        else:
            assert_close(got, before_values)


def test_lossless_casts_are_found() -> None:
    """A cast there and back keeps every extreme value, where `is_lossless` says so."""
    assert is_lossless(float16, float32)
    assert is_lossless(int32, float64)
    assert not is_lossless(int64, float64)
    assert not is_lossless(int32, float32)
    assert not is_lossless(float32, int64)
    assert is_lossless(bool_, float16)
    for a in REALS:
        for b in ALL:
            if is_lossless(a, b):
                values = extremes(a)
                with np.errstate(all="ignore"):
                    back = values.astype(b.np).astype(a.np)
                assert back.tobytes() == values.tobytes(), (a, b)


def extremes(dtype: DType):
    if dtype.kind == 0:
        return np.array([False, True])
    if not dtype.is_floating_point:
        info = np.iinfo(dtype.np)
        return np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], dtype=dtype.np)
    bits = np.arange(0, 2**16, 17, dtype=np.uint16)
    patterns = np.repeat(bits, dtype.itemsize // 2).view(dtype.np)
    with np.errstate(all="ignore"):
        return patterns[np.isfinite(patterns)]


def test_whether_operands_commute_is_asked_of_the_kernel() -> None:
    assert commutes_exactly(OPS["add"], float32)
    assert commutes_exactly(OPS["mul"], float16)
    assert commutes_exactly(OPS["eq"], float64)
    assert commutes_exactly(OPS["maximum"], int64)
    assert not commutes_exactly(OPS["sub"], float32)
    assert not commutes_exactly(OPS["maximum"], float32)
    assert not commutes_exactly(OPS["bitwise_and"], float32)


def test_states_that_nothing_reads_or_writes_go() -> None:
    graph = graph_of('%x: f32[], %s: f32[] = state "s", %t: f32[] = state "t"', "return %t")
    assert run_passes(graph, ["dead_code"], check=True) == 1
    assert list(graph.states) == ["t"]
    assert len(graph.inputs) == 1
