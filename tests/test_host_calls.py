"""`host_call`: Python by import path in eager code, traces and files; refused unless allowed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tests import host_functions as host
from tracegraph.cli import main
from tracegraph.compiler import make_program
from tracegraph.errors import AutogradError, FileFormatError, GraphError, OpError, TraceError
from tracegraph.files.container import Container, write_container
from tracegraph.ir.parsing import parse_graph
from tracegraph.ir.text import print_graph
from tracegraph.ir.verify import verify
from tracegraph.ops import host as host_ops

ROOT = Path(__file__).resolve().parent.parent
MEDIAN = "tests.host_functions:median_filter"


def draw(*shape: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return torch.tensor(random.uniform(-1, 1, shape).astype(np.float32))


@pytest.fixture(autouse=True)
def no_calls() -> None:
    host.CALLS.clear()


def filtered(x: Any) -> Any:
    return torch.host_call(host.median_filter, x * 2, like=x) + 1


def test_eager_just_calls() -> None:
    x = draw(5)
    wanted = host.median_filter(x.numpy() * 2) + 1
    np.testing.assert_array_equal(filtered(x).numpy(), wanted)
    y, count = torch.host_call(
        host.scaled, x, 2.0, types=[(torch.float32, (5,)), (torch.int64, ())]
    )
    np.testing.assert_array_equal(y.numpy(), x.numpy() * 2)
    assert count.item() == (x.numpy() > 0).sum() and count.dtype == torch.int64
    doubled = torch.host_call(lambda a: a + a, x, like=x)
    np.testing.assert_array_equal(doubled.numpy(), x.numpy() * 2)


def test_a_trace_keeps_the_call_by_name(tmp_path: Path) -> None:
    traced = torch.trace(filtered, (draw(5),))
    (node,) = [n for n in traced.graph if n.op == "host_call"]
    assert node.attrs["function"] == MEDIAN
    verify(traced.graph)
    text = print_graph(traced.graph)
    assert print_graph(parse_graph(text)) == text
    x = draw(5, seed=3)
    for level in (0, 1, 2):
        np.testing.assert_array_equal(traced.program(level=level)(x).numpy(), filtered(x).numpy())


def test_a_file_that_calls_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / "f.tg"
    torch.save(torch.trace(filtered, (draw(5),)), path)
    with pytest.raises(FileFormatError, match=rf"{MEDIAN} at .*test_host_calls.py:\d+.*allow_host"):
        torch.load(path)
    with pytest.raises(FileFormatError, match=MEDIAN):
        torch.load(path, allow_host_calls=["tests.host_functions:log"])
    x = draw(5, seed=2)
    np.testing.assert_array_equal(
        torch.load(path, allow_host_calls=[MEDIAN])(x).numpy(), filtered(x).numpy()
    )


def in_process(code: str, *args: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_nothing_of_a_file_is_imported_before_it_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "f.tg"
    torch.save(torch.trace(filtered, (draw(5),)), path)
    code = """
import sys
import tracegraph as torch
for wanted in ((), None):
    try:
        loaded = torch.load(sys.argv[1], allow_host_calls=wanted)
        loaded(torch.ones(5))
    except RuntimeError as error:
        print("run:", "was not allowed" in str(error))
    except ValueError as error:
        print("load:", "allow_host_calls" in str(error))
print("tests.host_functions" in sys.modules)
loaded = torch.load(sys.argv[1], allow_host_calls=["tests.host_functions:median_filter"])
print(loaded(torch.ones(5)).tolist())
"""
    done = in_process(code, path)
    assert done.stdout.splitlines() == [
        "load: True", "run: True", "False", "[3.0, 3.0, 3.0, 3.0, 3.0]"
    ], done.stderr  # fmt: skip


def test_an_allowed_path_that_does_not_exist(tmp_path: Path) -> None:
    def forge(members: dict[str, bytes]) -> None:
        text = members["graphs/forward.json"]
        members["graphs/forward.json"] = text.replace(MEDIAN.encode(), b"tests.nowhere:f")

    path = tmp_path / "f.tg"
    torch.save(torch.trace(filtered, (draw(5),)), path)
    with Container.open(path) as container:
        members = {n: bytes(container.read(n)) for n in container.names() if n != "manifest.json"}
    forge(members)
    write_container(path, members)
    with pytest.raises(OpError, match="no function that can be imported"):
        torch.load(path, allow_host_calls=["tests.nowhere:f"])


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x, id="lambda"),
        pytest.param(functools.partial(host.same), id="partial"),
        pytest.param(host.CALLS.append, id="method"),
        pytest.param((lambda a: lambda x: x + a)(1), id="closure"),
        pytest.param(type("Local", (), {"__call__": lambda self, x: x})(), id="object"),
    ],
)
def test_a_trace_refuses_what_has_no_import_path(function: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match="import path"):
        torch.trace(lambda x: torch.host_call(function, x, like=x), (draw(2),))


def test_functions_below_a_class_have_a_path() -> None:
    traced = torch.trace(lambda x: torch.host_call(host.Holder.double, x, like=x), (draw(2),))
    (node,) = [n for n in traced.graph if n.op == "host_call"]
    assert node.attrs["function"] == "tests.host_functions:Holder.double"
    x = draw(2, seed=1)
    assert torch.equal(traced(x), x + x)


def test_a_call_whose_result_nobody_reads_still_runs_each_time() -> None:
    def f(x: Any) -> Any:
        torch.host_call(host.log, x, like=x)
        torch.host_call(host.log, x, like=x)
        torch.host_call(host.log, torch.ones(2), like=x)
        return x + 1

    traced = torch.trace(f, (draw(2),))
    for level in (0, 1, 2):
        program = traced.program(level=level)
        host.CALLS.clear()
        program(draw(2))
        program(draw(2))
        assert host.CALLS == ["log"] * 6


def test_a_trace_calls_once() -> None:
    """What Python does besides cannot be undone, so a trace does not check itself unasked."""
    torch.trace(filtered, (draw(5),))
    assert host.CALLS == ["median_filter"]


def test_what_a_function_may_not_do() -> None:
    x = draw(3)
    for function, word in (
        (host.other_type, r"returned float64\[3\], not f32\[3\]"),
        (host.other_count, "returned 2 results, not 1"),
        (host.writes, "read-only"),
    ):
        with pytest.raises(OpError, match=word):
            torch.host_call(function, x, like=x)
    y = torch.host_call(host.same, x, like=x)
    y.fill_(7)
    assert not (x == 7).any()
    with pytest.raises(TypeError, match="`like` or `types`"):
        torch.host_call(host.same, x)


def test_a_gradient_comes_from_vjp() -> None:
    def f(x: Any, scale: Any, vjp: Any = host.scaled_vjp) -> Any:
        y, count = torch.host_call(
            host.scaled, x, scale, types=[(torch.float32, (4,)), (torch.int64, ())], vjp=vjp
        )
        return (y * y).sum() * count

    traced = torch.trace(f, (draw(4), torch.tensor(2.0)))
    x, scale = draw(4, seed=2).requires_grad_(), torch.tensor(3.0, requires_grad=True)
    wanted = torch.autograd.grad(((x * scale) ** 2).sum() * (x > 0).sum(), [x, scale])
    for function in (f, traced):
        found = torch.autograd.grad(function(x, scale), [x, scale])
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    with pytest.raises(AutogradError, match="has no gradient"):
        f(x, scale, vjp=None).backward()
    with pytest.raises(OpError, match=r"import path.*or detach\(\)"):
        torch.host_call(lambda a: a, x, like=x)


def test_a_training_step_with_a_host_call_is_saved(tmp_path: Path) -> None:
    w = draw(4, seed=5).requires_grad_()

    def step(x: Any) -> Any:
        y, _ = torch.host_call(
            host.scaled, w * x, torch.tensor(2.0),
            types=[(torch.float32, (4,)), (torch.int64, ())], vjp=host.scaled_vjp,
        )  # fmt: skip
        (g,) = torch.autograd.grad(y.sum(), w)
        with torch.no_grad():
            w.sub_(g * 0.1)
        return g

    torch.save({"step": torch.trace(step, (draw(4),))}, tmp_path / "s.tg")
    names = [f"tests.host_functions:{n}" for n in ("scaled", "scaled_vjp")]
    with pytest.raises(FileFormatError):
        torch.load(tmp_path / "s.tg", allow_host_calls=names[:1])
    loaded = torch.load(tmp_path / "s.tg", allow_host_calls=names)
    loaded.step(draw(4))
    step(draw(4))
    np.testing.assert_allclose(loaded.state_dict()["w"].numpy(), w.detach().numpy(), rtol=1e-6)


def test_a_part_with_a_host_call_becomes_a_part_of_a_larger_graph(tmp_path: Path) -> None:
    torch.save(torch.trace(filtered, (draw(5),)), tmp_path / "f.tg")
    part = torch.load(tmp_path / "f.tg", allow_host_calls=[MEDIAN])
    whole = torch.trace(lambda x: part(x) * 2, (draw(5),))
    assert [n.attrs["function"] for n in whole.graph if n.op == "host_call"] == [MEDIAN]
    x = draw(5, seed=4)
    assert torch.equal(whole(x), filtered(x) * 2)


def test_the_command_line_asks_for_leave(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "f.tg"
    torch.save(torch.trace(filtered, (draw(5),)), path, samples=True)
    known = dict(host_ops._KNOWN)
    host_ops._KNOWN.clear()
    try:
        assert main(["show", str(path)]) == 0 and MEDIAN in capsys.readouterr().out
        assert main(["info", str(path)]) == 0
        assert main(["run", str(path)]) == 2
        assert "was not allowed" in capsys.readouterr().err
        assert main(["verify", str(path)]) == 1
        assert "was not allowed" in capsys.readouterr().out
        assert main(["verify", str(path), "--allow-host-call", MEDIAN]) == 0
        assert main(["run", str(path), "--allow-host-call", MEDIAN]) == 0
        assert torch.verify_file(path, allow_host_calls=[MEDIAN]).passed
    finally:
        host_ops._KNOWN.update(known)


def test_the_text_of_a_graph_gives_no_leave() -> None:
    graph = parse_graph(
        "graph @f(%x: f32[2]) -> (f32[2]) {\n  %0: f32[2] = host_call(%x; "
        'function="os:system", types=((f32, (2,)),), vjp=none)\n  return %0\n}'
    )
    verify(graph)
    with pytest.raises(OpError, match="was not allowed"):
        make_program(graph).run([np.ones(2, np.float32)], {})
    assert "os:system" not in host_ops._KNOWN


def test_types_of_a_file_must_fit() -> None:
    with pytest.raises(GraphError, match="a result type is a dtype with a shape"):
        verify(
            parse_graph(
                "graph @f(%x: f32[2]) -> (f32[2]) {\n  %0: f32[2] = host_call(%x; "
                'function="a:b", types=(1,), vjp=none)\n  return %0\n}'
            )
        )
