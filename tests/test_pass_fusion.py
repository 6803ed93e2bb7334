"""Fusion: which groups it makes, and which it must not make."""

from __future__ import annotations

import numpy as np
import pytest

from tests.random_graphs import assert_same_bits, evaluate, operands
from tests.test_pass_rules import graph_of
from tracegraph.ir.graph import KERNEL, Graph
from tracegraph.ir.text import print_graph
from tracegraph.ir.verify import verify
from tracegraph.passes.fusion import fuse, kernel_counts
from tracegraph.passes.pipeline import run_passes

SOFTMAX = """\
%0: f32[4,8] = mul(%x, %x)
%1: f32[4,1] = amax(%0; dim=(1,), keepdim=true)
%2: f32[4,8] = sub(%0, %1)
%3: f32[4,8] = exp(%2)
%4: f32[4,1] = sum(%3; dim=(1,), keepdim=true)
%5: f32[4,8] = div(%3, %4)
return %5
"""


def fused(header: str, lines: str, **options) -> tuple[Graph, list[list[str]]]:
    """The fused graph and the ops of each kernel, results checked."""
    graph = graph_of(header, lines)
    verify(graph)
    arrays = operands(graph)
    wanted = evaluate(graph, *arrays)
    fuse(graph, **options)
    verify(graph)
    assert_same_bits(evaluate(graph, *arrays), wanted)
    kernels = [n for n in graph if n.op == KERNEL]
    return graph, [
        [b.op for b in n.regions["body"] if b.op not in ("input", "constant")] for n in kernels
    ]


def test_softmax_is_one_kernel() -> None:
    graph, _ = fused("%x: f32[4,8]", SOFTMAX)
    assert print_graph(graph) == (
        "graph @g(%x: f32[4,8]) -> (f32[4,8]) {\n"
        '  %0: f32[4,8] = kernel(%x; kind="reduction") {\n'
        "    body = graph @kernel(%x0: f32[4,8]) -> (f32[4,8]) {\n"
        + "".join(f"      {line}\n" for line in SOFTMAX.replace("%x", "%x0").splitlines())
        + "    }\n  }\n  return %0\n}\n"
    )


def test_a_pointwise_chain_is_one_kernel_with_numbers_copied_in() -> None:
    graph, kernels = fused(
        "%x: f32[4], %b: f32[2,4]",
        "%0: f32[] = constant(value=2.0)\n%1: f32[2,4] = mul(%b, %0)\n"
        "%2: f32[2,4] = add(%1, %x)\n%3: b8[2,4] = gt(%2, %0)\n%4: f32[2,4] = where(%3, %2, %b)\n"
        "return %4, %3",
    )
    assert kernels == [["mul", "add", "gt", "where"]]
    assert kernel_counts(graph) == {"pointwise": 1}
    (kernel,) = (n for n in graph if n.op == KERNEL)
    assert [v.node.attrs["name"] for v in kernel.inputs] == ["b", "x"]
    assert [str(t) for t in kernel.types] == ["b8[2,4]", "f32[2,4]"]


@pytest.mark.parametrize("ndim", [1, 2])
def test_layer_norm_with_its_neighbours_is_one_kernel(ndim: int) -> None:
    weight = "f32[8]" if ndim == 1 else "f32[4,8]"
    rest = "f32[2,4,1]" if ndim == 1 else "f32[2,1,1]"
    graph = graph_of(
        f"%x: f32[2,4,8], %r: f32[2,4,8], %w: {weight}, %b: {weight}",
        f"%0: f32[2,4,8] = add(%x, %r)\n%1, %2, %3: f32[2,4,8], {rest}, {rest} = "
        f"layer_norm(%0, %w, %b; ndim={ndim}, eps=1e-05)\n"
        '%4: f32[2,4,8] = gelu(%1; approximate="none")\nreturn %4, %0',
    )
    run_passes(graph, 2, check=True)
    assert kernel_counts(graph) == {"reduction": 1}
    assert [n.op for n in graph] == ["input"] * 4 + ["kernel"]


def test_batch_norm_with_running_statistics_is_one_kernel() -> None:
    """The variance has two readers of one height: a group is lifted to take it in."""
    graph = graph_of(
        "%x: f32[8,4,3], %w: f32[4], %v: f32[4]",
        "%0, %1, %2: f32[8,4,3], f32[4], f32[4] = batch_norm(%x, %w; eps=1e-05)\n"
        "%3: f32[8,4,3] = relu(%0)\n%4: f32[4] = add(%v, %2)\nreturn %3, %4",
    )
    run_passes(graph, 2, check=True)
    assert kernel_counts(graph) == {"reduction": 1}
    assert [n.op for n in graph if n.op not in ("input", "constant")] == ["kernel", "add"]


def test_a_path_through_another_op_keeps_two_kernels_apart() -> None:
    """x and x + f(x) in one kernel would read its own result."""
    _, kernels = fused(
        "%x: f32[3,3], %w: f32[3,3]",
        "%0: f32[3,3] = neg(%x)\n%1: f32[3,3] = exp(%0)\n%2: f32[3,3] = matmul(%1, %w)\n"
        "%3: f32[3,3] = add(%0, %2)\n%4: f32[3,3] = tanh(%3)\nreturn %4",
    )
    assert kernels == [["neg", "exp"], ["add", "tanh"]]


def test_single_use_producers_join_late_readers() -> None:
    """m·β depends on nothing late, but is read where the late gradient arrives."""
    _, kernels = fused(
        '%x: f32[3,3], %g: f32[3,3], %m: f32[3,3] = state "m"',
        "%0: f32[3,3] = mul(%m, %m)\n%1: f32[3,3] = matmul(%x, %g)\n%2: f32[3,3] = add(%0, %1)\n"
        'write "m" = %2\nreturn %2',
    )
    assert kernels == [["mul", "add"]]


def test_reductions_over_other_dims_are_apart() -> None:
    _, kernels = fused(
        "%x: f32[4,8]",
        "%0: f32[4,8] = exp(%x)\n%1: f32[4,1] = sum(%0; dim=(1,), keepdim=true)\n"
        "%2: f32[1,8] = sum(%0; dim=(0,), keepdim=true)\n%3: f32[4,8] = div(%0, %1)\n"
        "%4: f32[4,8] = div(%3, %2)\nreturn %4",
    )
    assert kernels == [["exp", "sum"], ["sum", "div", "div"]]


def test_a_row_that_broadcasts_along_columns_stays_outside() -> None:
    """x[i,j] − s[j] with s[j] = Σ x[j,:]: of a square, the shapes fit and the meaning does not."""
    _, kernels = fused(
        "%x: f32[4,4]",
        "%0: f32[4,4] = exp(%x)\n%1: f32[4] = sum(%0; dim=(1,), keepdim=false)\n"
        "%2: f32[4,4] = sub(%0, %1)\n%3: f32[4,4] = tanh(%2)\nreturn %3",
    )
    assert kernels == [["exp", "sum"], ["sub", "tanh"]]


def test_small_producers_are_not_computed_per_element() -> None:
    _, kernels = fused(
        "%x: f32[4,8], %w: f32[8]",
        "%0: f32[8] = exp(%w)\n%1: f32[8] = neg(%0)\n%2: f32[4,8] = mul(%x, %1)\n"
        "%3: f32[4,8] = tanh(%2)\nreturn %3",
    )
    assert kernels == [["exp", "neg"], ["mul", "tanh"]]


def test_lone_ops_and_views_are_no_kernels() -> None:
    for lines in (
        "%0: f32[4,8] = exp(%x)\nreturn %0",
        "%0: f32[4,8,1] = reshape(%x; shape=(4, 8, 1))\n"
        "%1: f32[4,8,2] = expand(%0; shape=(4, 8, 2))\nreturn %1",
        "%0: f32[4,1,8] = reshape(%x; shape=(4, 1, 8))\n%1: f32[4,1,8] = neg(%0)\n"
        "%2: f32[4,3,8] = expand(%1; shape=(4, 3, 8))\nreturn %2",
    ):
        _, kernels = fused("%x: f32[4,8]", lines)
        assert kernels == []


def test_an_expand_that_others_read_is_not_stored() -> None:
    graph, kernels = fused(
        "%x: f32[4,8]",
        "%0: f32[4,1] = sum(%x; dim=(1,), keepdim=true)\n%1: f32[4,8] = expand(%0; shape=(4, 8))\n"
        "%2: f32[4,8] = sub(%x, %1)\nreturn %2, %1",
    )
    assert kernels == []
    assert "expand" in [n.op for n in graph]


def test_a_reduction_that_cannot_join_leaves_no_rows_behind() -> None:
    """Rows whose reduction stays outside become a kernel of their own shape."""
    _, kernels = fused(
        "%x: f32[3,3]",
        "%0: f32[3,1] = sum(%x; dim=(1,), keepdim=true)\n%1: f32[3,1] = sqrt(%0)\n"
        "%2: f32[3,1] = neg(%1)\n%3: f32[3,3] = mul(%x, %2)\n%4: f32[3,3] = tanh(%3)\n"
        "%5: f32[3,3] = matmul(%x, %4)\n%6: f32[3,3] = mul(%5, %0)\nreturn %6",
        accept=lambda node: node.op != "sum",
    )
    assert kernels == [["sqrt", "neg"], ["mul", "tanh"]]


def test_kernels_are_bounded() -> None:
    lines = ["%0: f32[4] = neg(%x)"]
    lines += [f"%{i}: f32[4] = {'exp' if i % 2 else 'neg'}(%{i - 1})" for i in range(1, 200)]
    _, kernels = fused("%x: f32[4]", "\n".join([*lines, "return %199"]))
    assert [len(k) for k in kernels] == [8, 64, 64, 64]


def test_a_runtime_may_refuse_nodes() -> None:
    _, kernels = fused("%x: f32[4,8]", SOFTMAX, accept=lambda node: node.op != "exp")
    assert kernels == [["mul", "amax", "sub"], ["sum", "div"]]


def test_what_depends_on_state_only_stays_apart_for_a_prologue() -> None:
    _, kernels = fused(
        '%x: f32[4], %w: f32[4] = state "w"',
        "%0: f32[4] = exp(%w)\n%1: f32[4] = neg(%0)\n%2: f32[4] = mul(%x, %1)\n"
        "%3: f32[4] = tanh(%2)\nreturn %3",
    )
    assert kernels == [["exp", "neg"], ["mul", "tanh"]]


def test_random_meshes_stay_acyclic() -> None:
    """Many readers at many heights: the verifier would find a cycle."""
    generator = np.random.default_rng(0)
    for _ in range(30):
        lines, count = [], 0
        for i in range(60):
            a, b = (f"%{j}" if j >= 0 else "%x" for j in generator.integers(max(-1, i - 12), i, 2))
            op = generator.choice(["add", "mul", "matmul", "row", "maximum"])
            if op == "row":
                lines.append(f"%{i}: f32[3,3] = cumsum({a}; dim=0)")
            else:
                lines.append(f"%{i}: f32[3,3] = {op}({a}, {b})")
            count = i
        fused("%x: f32[3,3]", "\n".join([*lines, f"return %{count}, %{count // 2}"]))
