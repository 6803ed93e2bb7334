"""Guards and conds in the IR: text, file data, verifier, passes, interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from tracegraph.errors import GraphError, UnseenPathError
from tracegraph.ir.serial import graph_from_data, graph_to_data
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
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
    data = graph_to_data(g, lambda a: arrays.append(a) or len(arrays) - 1)
    assert print_graph(graph_from_data(data, arrays)) == text


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
