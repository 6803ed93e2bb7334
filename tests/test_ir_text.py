"""The text form: prints as documented, parses back exactly, and says where a fault is."""

from __future__ import annotations

import math
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.random_graphs import graphs
from tracegraph.dtypes import ALL, BY_NUMPY, bfloat16, float32, int64
from tracegraph.errors import GraphError, ParseError
from tracegraph.ir.graph import CONSTANT, Graph, Loc
from tracegraph.ir.text import literal, parse_graph, print_graph
from tracegraph.passes.pipeline import run_passes
from tracegraph.tensor_type import TensorType

MLP = """\
graph @mlp(%x: f32[4,16], %fc.weight: f32[16,4] = state "fc.weight") -> (f32[4,4]) {
  %0: f32[4,4] = matmul(%x, %fc.weight)         # model.py:12
  %1: f32[4,4] = relu(%0)
  return %1
}
"""
EVERYTHING = """\
graph @"a b"(
  %x: f32[2,3],                               # model.py:3
  %lr: f64[] = default 0.1,
  %rate: f32[] = input "rate"(default=inf, name_of=("a", 1, (), (2,))),
  %odd_name: i64[2] = input "odd name",
  %net.w: f32[2,3] = state "net.w",           # "C:/a b/c.py":7 in <lambda> @net
  %net_w: f32[2,3] = state "net w"(kind="buffer")  # @"odd scope"
) -> (i64[1,3], i64[2]) {
  %0: f32[] = constant(value=-0.0)
  %1, %2: f32[1,3], i64[1,3] = topk(%x; k=1, dim=0, largest=true)  # model.py:4 in forward @net.fc
  %3: f32[2,3] = mul(%x, %0)
  write "net.w" = %3
  write "lr" = %lr
  return %2, %odd_name
}
"""


def same_graph(a: Graph, b: Graph) -> bool:
    """Whether graphs are equal in everything but `seq`, bits of constants included."""
    if (a.name, len(a), list(a.states), list(a.writes)) != (
        b.name, len(b), list(b.states), list(b.writes)
    ):  # fmt: skip
        return False
    places_a = {n: i for i, n in enumerate([*a.inputs, *a.states.values(), *_inner(a)])}
    places_b = {n: i for i, n in enumerate([*b.inputs, *b.states.values(), *_inner(b)])}

    def refs(values, places):
        return [(places[v.node], v.index) for v in values]

    if refs(a.results(), places_a) != refs(b.results(), places_b):
        return False
    return all(
        (m.op, m.types, m.loc, m.scope, list(m.regions)) == (
            n.op, n.types, n.loc, n.scope, list(n.regions))
        and refs(m.inputs, places_a) == refs(n.inputs, places_b)
        and exact(m.attrs) == exact(n.attrs)
        and all(map(same_graph, m.regions.values(), n.regions.values()))
        for m, n in zip(places_a, places_b, strict=True)
    )  # fmt: skip


def _inner(graph: Graph):
    return [n for n in graph.order() if n.op not in ("input", "state")]


def exact(value):
    """A stand-in that tells types, −0.0 and the bits of arrays apart."""
    if isinstance(value, dict):
        return {k: exact(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [exact(v) for v in value]
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    return (type(value), repr(value))


def test_prints_as_documented() -> None:
    graph = Graph("mlp")
    x = graph.add_input("x", TensorType(float32, (4, 16))).out
    w = graph.add_state("fc.weight", TensorType(float32, (16, 4))).out
    y = graph.add("matmul", (x, w), loc=Loc("model.py", 12, "")).out
    graph.outputs = [graph.add("relu", (y,)).out]
    assert print_graph(graph) == MLP
    assert same_graph(parse_graph(MLP), graph)


def test_everything_that_the_grammar_has() -> None:
    graph = parse_graph(EVERYTHING)
    assert print_graph(graph) == EVERYTHING
    assert [n.attrs["name"] for n in graph.inputs] == ["x", "lr", "rate", "odd name"]
    assert graph.inputs[2].attrs == {
        "name": "rate", "default": math.inf, "name_of": ("a", 1, (), (2,)),
    }  # fmt: skip
    assert graph.states["net.w"].loc == Loc("C:/a b/c.py", 7, "<lambda>")
    assert graph.states["net w"].scope == "odd scope"
    assert graph.states["net w"].attrs["kind"] == "buffer"
    assert list(graph.writes) == ["net.w", "lr"]
    assert same_graph(parse_graph(print_graph(graph)), graph)


@given(graph=graphs())
def test_random_graphs_parse_back(graph: Graph) -> None:
    text = print_graph(graph)
    parsed = parse_graph(text)
    assert same_graph(parsed, graph)
    assert print_graph(parsed) == text


def test_kernels_with_regions_parse_back() -> None:
    graph = parse_graph(MLP.replace("relu(%0)", 'gelu(%0; approximate="none")'))
    body = graph.add("softmax", (graph.outputs[0],), {"dim": 1})
    graph.outputs = [body.out, graph.add("exp", (body.out,)).out]
    run_passes(graph, 2, check=True)
    text = print_graph(graph)
    assert "body = graph @kernel(" in text
    assert same_graph(parse_graph(text), graph)


def constant_graph(array) -> Graph:
    graph = Graph()
    known = TensorType(BY_NUMPY[array.dtype], array.shape)
    graph.outputs = [graph.add_constant(array, known).out]
    return graph


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3,), (2, 4), (5, 7)])
def test_constants_keep_their_bits(dtype, shape) -> None:
    bits = np.random.default_rng(0).integers(0, 256, size=(*shape, dtype.itemsize), dtype=np.uint8)
    if dtype.name == "bool":
        bits &= 1
    for array in (bits.view(dtype.np).reshape(shape), np.zeros(shape, dtype.np)):
        graph = constant_graph(array)
        assert same_graph(parse_graph(print_graph(graph)), graph)


@given(st.integers(0, 2**32 - 1))
def test_any_float32_and_bfloat16_parses_back(bits: int) -> None:
    word = np.array(bits, dtype=np.uint32)
    half = np.array(bits % 2**16, dtype=np.uint16)
    for array in (word.view(np.float32), half.view(ml_dtypes.bfloat16), half.view(np.float16)):
        graph = constant_graph(array)
        assert same_graph(parse_graph(print_graph(graph)), graph)


def test_numbers_are_as_short_as_they_can_be() -> None:
    assert "value=0.1)" in print_graph(constant_graph(np.array(0.1, np.float32)))
    assert "value=[1.0, nan, -inf])" in print_graph(
        constant_graph(np.array([1, np.nan, -np.inf], ml_dtypes.bfloat16))
    )
    assert 'base64"' in print_graph(constant_graph(np.array(-np.nan, np.float32)))


@pytest.mark.parametrize(
    "value",
    [True, None, 0, -(2**70), 0.1, -0.0, math.inf, math.nan, 'a "b" \n é', (), (1,),
     ((1, 2), (0.5,)), float32, bfloat16],
    ids=repr,
)  # fmt: skip
def test_attribute_values_parse_back(value) -> None:
    graph = Graph()
    graph.add_input("x", TensorType(float32, ()), kind=value)
    (found,) = parse_graph(print_graph(graph)).inputs
    assert exact(found.attrs["kind"]) == exact(value)


def test_attributes_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(GraphError, match="cannot hold a set"):
        literal({1})


def test_showing_summarises_what_is_large() -> None:
    graph = constant_graph(np.arange(100))
    graph.outputs[0].node.loc = Loc("/home/me/project/model.py", 3, "f")
    text = print_graph(graph, full=False)
    assert "constant(value=<100 elements>)  # model.py:3 in f" in text
    with pytest.raises(ParseError, match=r"line 2, column 33: .*full=True"):
        parse_graph(text)


FAULTS = {
    "empty": ("", "line 1, column 1: expected 'graph', found the end of the text"),
    "no arrow": ("graph @f() {", "line 1, column 12: expected '->', found '{'"),
    "bad character": ("graph @f(%x: f32[2] ?", r"column 21: expected ',' or '\)', found '\?'"),
    "no type": ("graph @f(%x f32[2])", "column 13: expected ':', found 'f32"),
    "unknown dtype": ("graph @f(%x: f99[2])", "column 14: 'f99.*no tensor type"),
    "negative dim": ("graph @f(%x: f32[-2])", "column 14: 'f32.*no tensor type"),
    "huge dim": ("graph @f(%x: f32[99999999999999999])", "too large"),
    "unknown op": ("  %0: f32[2] = frobnicate(%x)", "line 2, column 16: 'frobnicate' is no op"),
    "input in body": ("  %0: f32[2] = state()", "'state' is written in the header"),
    "unknown value": ("  %0: f32[2] = neg(%y)", "line 2, column 20: %y is not defined before"),
    "defined twice": ("  %x: f32[2] = neg(%x)", "line 2, column 3: %x is defined twice"),
    "types missing": ("  %0, %1: f32[2] = neg(%x)", "2 results need as many types, found 1"),
    "comma for semicolon": ("  %0: f32[2] = sum(%x, dim=(0,))", "column 24: expected ';'"),
    "attribute twice": ("  %0: f32[2] = sum(%x; dim=1, dim=2)", "'dim' is given twice"),
    "not an attribute": ("  %0: f32[2] = sum(%x; 3)", "expected an attribute `name=value`"),
    "no value": ("  %0: f32[2] = sum(%x; dim=)", "expected an attribute value, found '\\)'"),
    "array shape": ("  %0: f32[2] = constant(value=[1.0])", "expected a value of type f32"),
    "ragged array": ("  %0: f32[2,2] = constant(value=[[1.0], 2.0])", "no f32"),
    "array of words": ('  %0: f32[1] = constant(value=["a"])', "expected a number of type float"),
    "fraction": ("  %0: i64[1] = constant(value=[1.5])", "expected a number of type int"),
    "out of range": ("  %0: i8[1] = constant(value=[300])", "no i8"),
    "too few bytes": ('  %0: f32[2] = constant(value=base64"AAAA")', "has 8 bytes, found 3"),
    "bad base64": ('  %0: f32[2] = constant(value=base64"A=AA")', "bad base64"),
    "bad string": ('  %0: f32[2] = sum(%x; dim="\\q")', "is no JSON string"),
    "comment": ("  %0: f32[2] = neg(%x)  # why not", "column 25: expected a comment `# FILE:LINE"),
    "write of nothing": ("  write x = %x", "expected the name of a State or input in quotes"),
    "written twice": ('  write "x" = %x\n  write "x" = %x', "line 3, column 9: 'x' is wri"),
    "no return": ("}", "expected a result such as %0, `write` or `return`, found '}'"),
    "wrong result type": ("  return", r"line 1, column 26: the header must give .*: \(\)"),
    "text after": ("  return %x\n}\nmore", "line 4, column 1: expected the end of the text"),
    "deep": (f"  %0: f32[2] = sum(%x; dim={'(' * 99}", "nested deeper than 50"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_line_column_and_what_was_expected(name: str) -> None:
    text, message = FAULTS[name]
    if text and not text.startswith("graph"):
        text = f"graph @f(%x: f32[2]) -> (f32[2]) {{\n{text}"
        text += "" if "return" in text or "}" in text else "\n  return %x"
        text += "" if text.endswith(("}", "more")) else "\n}"
    with pytest.raises(ParseError, match=message):
        parse_graph(text)


def test_free_comments_and_layout_are_ignored() -> None:
    text = "# a net\n\n" + MLP.replace("\n", "\n\n  # a note\n").replace(", ", ",  ")
    assert print_graph(parse_graph(text)) == MLP


def chain(count: int) -> Graph:
    """A chain that reads one constant again and again."""
    graph = Graph("chain")
    value = graph.add_input("x", TensorType(float32, (4,))).out
    two = graph.add_constant(np.array(2.0, np.float32), TensorType(float32, ())).out
    for line in range(count):
        loc = Loc("model.py", line % 100, "forward")
        value = graph.add("mul", (value, two), loc=loc, scope="net.fc").out
    graph.outputs = [value]
    return graph


def test_printing_and_parsing_are_linear() -> None:
    def seconds(count: int) -> float:
        graph = chain(count)
        start = time.process_time()
        parse_graph(print_graph(graph))
        return time.process_time() - start

    seconds(100)
    assert seconds(20_000) < 25 * max(seconds(2_000), 0.02)


def test_order_within_ties_survives() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(int64, ()))
    values = [graph.add("neg", (x.out,), seq=7).out for _ in range(3)]
    graph.outputs = values[::-1]
    text = print_graph(graph)
    assert text == print_graph(parse_graph(text))
    assert [n.op for n in parse_graph(text)] == ["input", "neg", "neg", "neg"]
    assert CONSTANT not in text
