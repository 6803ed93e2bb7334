"""Ops that a program defines: eager, taped, traced, in files with their decomposition."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tracegraph import autograd, library
from tracegraph.errors import OpError, TraceGraphError
from tracegraph.ir.parsing import parse_graph
from tracegraph.ir.text import print_graph
from tracegraph.ir.verify import verify
from tracegraph.ops.table import CUSTOM, OPS

ROOT = Path(__file__).resolve().parent.parent


def draw(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return torch.tensor(np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype))


@pytest.fixture(autouse=True)
def only_ours() -> Iterator[None]:
    yield
    CUSTOM.clear()


def silu2(**options: Any) -> library.CustomOp:
    return library.define(
        "my::silu2(x) -> y", lambda m, x, *, beta=1.0: x * m.sigmoid(x * beta), **options
    )


def moments() -> library.CustomOp:
    """Two results, an operand that may be left out, an attribute without default."""

    def decompose(m: Any, x: Any, shift: Any = None, *, dim: int) -> Any:
        y = x if shift is None else x - shift
        mean = m.mean(y, dim=(dim,), keepdim=True)
        return mean, m.mean(y * y, dim=(dim,), keepdim=True) - mean * mean

    return library.define("my::moments(x, shift?) -> mean, var", decompose)


def test_an_op_runs_by_its_decomposition_or_its_kernel() -> None:
    op = silu2()
    x = draw(3, 4)
    np.testing.assert_allclose(op(x).numpy(), (x * torch.sigmoid(x)).numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        op(x, beta=2.0).numpy(), (x * torch.sigmoid(x * 2)).numpy(), rtol=1e-6
    )
    _, var = moments()(x, dim=1)
    np.testing.assert_allclose(var.numpy()[:, 0], x.numpy().var(1), rtol=1e-4, atol=1e-6)
    library.undefine("my::silu2")
    calls = []

    def kernel(xp: Any, a: Any, *, beta: float) -> Any:
        calls.append(beta)
        return a / (1 + xp.exp(-a * beta))

    fast = silu2(kernel=kernel)
    np.testing.assert_allclose(fast(x).numpy(), (x * torch.sigmoid(x)).numpy(), rtol=1e-6)
    assert calls == [1.0]


@pytest.mark.parametrize("rule", [None, "given"])
def test_gradients_to_second_order(rule: str | None) -> None:
    def vjp(m: Any, g: Any, x: Any, beta: float) -> Any:
        s = m.sigmoid(x * beta)
        return g * (s + x * beta * s * (1 - s))

    op = silu2(vjp=None if rule is None else (vjp,))
    x = draw(5, dtype=np.float64).requires_grad_()
    assert autograd.gradcheck(op, (x,)) and autograd.gradgradcheck(op, (x,))
    assert op(x).grad_fn.name() == "My::silu2Backward0"
    several = moments()
    shift = draw(1, 4, dtype=np.float64).requires_grad_()
    matrix = draw(3, 4, seed=1, dtype=np.float64).requires_grad_()
    for function in (
        lambda x: several(x, dim=1),
        lambda x: several(x, shift, dim=0),
        lambda x: several(x, x, dim=1),
    ):
        assert autograd.gradcheck(function, (matrix,))
        assert autograd.gradgradcheck(function, (matrix,))
    matrix.grad = None
    several(matrix, dim=1)[1].sum().backward()
    torch_grad = autograd.grad(matrix.var(1, correction=0).sum(), matrix)[0]
    np.testing.assert_allclose(matrix.grad.numpy(), torch_grad.numpy(), atol=1e-12)


def test_an_op_without_gradient() -> None:
    op = library.define(
        "my::steps(x) -> y", lambda m, x: m.floor(x), vjp=library.NOT_DIFFERENTIABLE
    )
    assert not op(draw(3).requires_grad_()).requires_grad


def test_a_trace_has_one_node_that_runs_on_every_level() -> None:
    op = silu2()
    traced = torch.trace(lambda x: op(x * 2, beta=0.5).sum(), (draw(4),))
    assert [n.op for n in traced.graph].count("my::silu2") == 1
    verify(traced.graph)
    text = print_graph(traced.graph)
    assert "my::silu2(%" in text and print_graph(parse_graph(text)) == text
    x = draw(4, seed=3).requires_grad_()
    wanted = op(x * 2, beta=0.5).sum()
    for level in (0, 1, 2):
        found = traced.program(level=level)(x)
        np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=1e-6)
    for again in (False, True):
        mine, theirs = (
            autograd.grad(y, x, create_graph=again)[0]
            for y in (traced(x), op(x * 2, beta=0.5).sum())
        )
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-6)


def test_a_training_step_through_an_op() -> None:
    op = silu2()
    w = draw(4, seed=1).requires_grad_()

    def step(x: Any) -> Any:
        w.grad = None
        loss = op(x * w).sum()
        loss.backward()
        with torch.no_grad():
            w.sub_(w.grad * 0.1)
        return loss

    traced = torch.trace(step, (draw(4),))
    before = w.detach().clone()
    found = [traced(draw(4, seed=s)).item() for s in range(3)]
    after = w.detach().clone()
    with torch.no_grad():
        w.copy_(before)
    wanted = [step(draw(4, seed=s)).item() for s in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(after.numpy(), w.detach().numpy(), rtol=1e-6)


def test_a_file_runs_where_nobody_has_defined_the_op(tmp_path: Path) -> None:
    op, pair = silu2(), moments()
    x = draw(3, 4)

    def f(x: Any) -> Any:
        mean, var = pair(op(x, beta=3.0), dim=1)
        return mean + var

    torch.save(torch.trace(f, (x,)), tmp_path / "f.tg", samples=True)
    assert {n.op for n in torch.load(tmp_path / "f.tg").graph} >= {"my::silu2", "my::moments"}
    code = """
import sys
import tracegraph as torch
loaded = torch.load(sys.argv[1])
assert not any("::" in node.op for node in loaded.graph)
print(loaded(torch.tensor(eval(sys.argv[2]))).tolist())
assert torch.verify_file(sys.argv[1]).passed
"""
    command = [sys.executable, "-c", code, str(tmp_path / "f.tg"), repr(x.tolist())]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.array(eval(done.stdout)), f(x).numpy(), rtol=1e-5)


def test_another_version_uses_what_the_file_says(tmp_path: Path) -> None:
    op = silu2(version=1)
    x = draw(3)
    torch.save(torch.trace(lambda x: op(x), (x,)), tmp_path / "f.tg")
    wanted = op(x).numpy()
    library.undefine("my::silu2")
    other = library.define("my::silu2(x) -> y", lambda m, x, *, beta=1.0: x * 100.0, version=2)
    loaded = torch.load(tmp_path / "f.tg")
    assert all(n.op != "my::silu2" for n in loaded.graph)
    np.testing.assert_allclose(loaded(x).numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(other(x).numpy(), x.numpy() * 100, rtol=1e-6)


def test_names_and_arguments_are_checked() -> None:
    with pytest.raises(OpError, match="has a namespace: my::silu2"):
        library.define("silu2(x) -> y", lambda m, x: x)
    silu2()
    with pytest.raises(OpError, match=r"already; undefine\('my::silu2'\)"):
        silu2()
    with pytest.raises(OpError, match="nobody has defined"):
        library.undefine("my::other")
    with pytest.raises(OpError, match="nobody has defined"):
        library.undefine("relu")
    pair = moments()
    with pytest.raises(OpError, match="needs the attribute dim"):
        pair(draw(2, 2))
    with pytest.raises(OpError, match="has no attribute keepdim"):
        pair(draw(2, 2), dim=1, keepdim=True)
    with pytest.raises(TraceGraphError, match="do not broadcast"):
        pair(draw(2, 2), draw(5, 7), dim=1)


def test_a_type_rule_of_ones_own() -> None:
    def rule(x: Any) -> Any:
        if x.ndim != 2:
            raise OpError("wants a matrix")
        return x.with_shape((x.shape[1], x.shape[0]))

    op = library.define("my::flip(x) -> y", lambda m, x: m.permute(x, dims=(1, 0)) + 0.0, type=rule)
    assert op(draw(2, 3)).shape == (3, 2)
    traced = torch.trace(lambda x: op(x), (draw(2, 3),))
    assert traced.graph.outputs[0].type.shape == (3, 2)
    with pytest.raises(TraceGraphError, match="wants a matrix"):
        torch.trace(lambda x: op(x), (draw(2),))


def test_our_rows_stay_as_they_are() -> None:
    count = len(OPS)
    silu2()
    assert len(OPS) == count and "my::silu2" in OPS and "my::silu2" not in list(OPS)
    with pytest.raises(TypeError):
        OPS["relu"] = OPS["exp"]  # type: ignore[index]
