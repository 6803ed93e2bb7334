"""Guards and conds in the IR: text, file data, verifier, passes, interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from tracegraph.errors import GraphError, UnseenPathError
from tracegraph.ir.serial import graph_from_data, graph_to_data
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
from tracegraph.ir.vocabulary import Vocabulary
from tracegraph.ops.table import OPS
from tracegraph.passes.pipeline import run_passes
from tracegraph.runtime.interpreter import InterpreterProgram

TEXT = """\
graph @f(
  %x: f32[3],
  %w: f32[3] = state "w"
) -> (f32[3], f32[3]) {
  %0: f32[] = sum(%x; dim=(0,), keepdim=false)  # model.py:3 in f
  %1: f32[] = constant(value=0.0)
  %2: b8[] = gt(%0, %1)
  %3: f32[3] = add(%x, %x)
  %4, %5: f32[3], f32[3] = cond(%2, %x, %w, %3; cases=(true, false), text="s > 0") {  # a.py:4 in f
    case0 = graph @case0(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3], f32[3]) {
      %0: f32[3] = mul(%a, %b)
      %1: f32[3] = mul(%a, %b)
      %2: f32[3] = sub(%0, %1)
      return %2, %c
    }
    case1 = graph @case1(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3], f32[3]) {
      return %a, %a
    }
  }
  guard(%2; expected=true, text="bool(p)")  # model.py:5 in f
  return %4, %5
}
"""


VOCABULARY = Vocabulary(
    {"versions": {n: op.version for n, op in OPS.items()}, "decompositions": []}, lambda *_: None
)


def graph():
    return parse_graph(TEXT)


def run(g, x, w=(1, 2, 3)):
    arrays = np.asarray(x, np.float32), np.asarray(w, np.float32)
    return InterpreterProgram(g).run([arrays[0]], {"w": arrays[1]})[0]


def test_text_and_data_round_trip() -> None:
    g = graph()
    verify(g)
    text = print_graph(g)
    assert print_graph(parse_graph(text)) == text
    arrays: list[np.ndarray] = []
    data = graph_to_data(g, lambda a: arrays.append(a) or len(arrays) - 1, lambda node: None)
    assert print_graph(graph_from_data(data, arrays, VOCABULARY)) == text


def test_the_arm_of_the_case_runs_and_others_stop_the_replay() -> None:
    a, b = run(graph(), [1, 2, 3])
    assert a.tolist() == [0, 0, 0] and b.tolist() == [2, 4, 6]
    with pytest.raises(UnseenPathError, match=r"bool\(p\) at model.py:5 is False .* but True in"):
        run(graph(), [-1, -2, -3])


def test_results_share_no_memory_with_sources_or_each_other() -> None:
    text = TEXT.replace('  guard(%2; expected=true, text="bool(p)")  # model.py:5 in f\n', "")
    x = np.asarray([-1, -2, -3], np.float32)
    a, b = InterpreterProgram(parse_graph(text)).run([x], {"w": x.copy()})[0]
    assert not (np.shares_memory(a, x) or np.shares_memory(a, b) or np.shares_memory(b, x))


def test_passes_work_inside_of_arms_and_keep_guards() -> None:
    g = graph()
    g.outputs = [g.inputs[0].out]
    for level in (1, 2):
        made = g.copy()
        run_passes(made, level, check=True)
        assert [n.op for n in made.order()].count("guard") == 1
        assert not any(n.op == "cond" for n in made.order())  # complete and unread
    g = graph()
    run_passes(g, 1, check=True)
    cond = next(n for n in g.order() if n.op == "cond")
    assert sum(n.op == "mul" for n in cond.regions["case0"].order()) == 1


def test_equal_guards_become_one() -> None:
    line = '  guard(%2; expected=true, text="bool(p)")  # model.py:5 in f\n'
    g = parse_graph(TEXT.replace(line, line + line))
    assert run_passes(g, ["merge_common"]) == 2  # and `mul` in case0
    assert sum(n.op == "guard" for n in g.order()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cases=(true, false)", "cases=(true, true)", "different values"),
        ("cases=(true, false)", "cases=(1, 0)", "cannot be 1"),
        ("cases=(true, false)", "cases=(true,)", "need as many regions"),
        ("guard(%2; expected=true", "guard(%0; expected=true", "one bool or integer"),
        ("guard(%2; expected=true", "guard(%2; expected=3", "cannot be 3"),
        (
            "case1(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3], f32[3]) {\n      return %a, %a",
            "case1(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3]) {\n      return %a",
            "gives other types",
        ),
        ("cond(%2, %x, %w, %3;", "cond(%2, %x, %w;", "takes"),
        ("case1 = graph", "other = graph", "need as many regions"),
    ],
)
def test_faults_are_found(old: str, new: str, message: str) -> None:
    text = TEXT.replace(old, new)
    with pytest.raises(GraphError, match=message):
        verify(parse_graph(text))


LOOPS = """\
graph @f(%x: f32[3,2], %h: f32[2], %n: i64[]) -> (f32[2], f32[3,2], i64[]) {
  %0, %1: f32[2], f32[3,2] = scan(%h, %x, %n; carried=1, scanned=1, length=3, reverse=false) {
    body = graph @body(%c: f32[2], %s: f32[2], %m: i64[]) -> (f32[2], f32[2]) {
      %0: f32[2] = add(%c, %s)
      %1: f32[2] = mul(%0, %s)
      return %0, %1
    }
  }
  %2: i64[] = while_loop(%n, %n; carried=1) {
    condition = graph @condition(%i: i64[], %m: i64[]) -> (b8[]) {
      %0: i64[] = constant(value=100)
      %1: b8[] = lt(%i, %0)
      return %1
    }
    body = graph @body(%i: i64[], %m: i64[]) -> (i64[]) {
      %0: i64[] = mul(%i, %m)
      return %0
    }
  }
  return %0, %1, %2
}
"""


@pytest.mark.parametrize("reverse", [False, True])
def test_loops_run(reverse: bool) -> None:
    g = parse_graph(LOOPS.replace("reverse=false", f"reverse={str(reverse).lower()}"))
    verify(g)
    assert print_graph(parse_graph(print_graph(g))) == print_graph(g)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    h = np.ones(2, np.float32)
    last, ys, n = InterpreterProgram(g).run([x, h, np.asarray(3)], {})[0]
    sums = h + np.cumsum(x[::-1] if reverse else x, 0)
    np.testing.assert_array_equal(last, sums[-1])
    np.testing.assert_array_equal(ys, (sums[::-1] if reverse else sums) * x)
    assert n == 243


def test_a_scan_of_nothing() -> None:
    text = LOOPS.replace("f32[3,2]", "f32[0,2]").replace("length=3", "length=0")
    g = parse_graph(text)
    verify(g)
    h = np.ones(2, np.float32)
    last, ys, _ = InterpreterProgram(g).run([np.ones((0, 2), np.float32), h, np.asarray(3)], {})[0]
    assert last.tolist() == [1, 1] and ys.shape == (0, 2) and ys.dtype == np.float32


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length=3", "length=2", "slices along its first dim"),
        ("scanned=1", "scanned=7", "scanned is 7"),
        ("carried=1, scanned", "carried=-1, scanned", "carried is -1"),
        ("carried=1)", "carried=2)", "must give the types that are carried"),
        ("return %0, %1\n    }", "return %1\n    }", "the header must give|first"),
        ("(b8[]) {", "(i64[]) {", "one bool|header"),
        ("reverse=false", "reverse=0", "reverse is a bool"),
        ("condition = graph", "test = graph", "the regions are"),
    ],
)
def test_faults_of_loops_are_found(old: str, new: str, message: str) -> None:
    assert old in LOOPS
    with pytest.raises(GraphError, match=message):
        verify(parse_graph(LOOPS.replace(old, new)))
