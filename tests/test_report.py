"""Reports on traces: what was frozen, how it was read; strict, allow_bake; the live watch."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import math
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.test_scaling import calls
from tracegraph import nn
from tracegraph.audit.report import Bake, Report, told_from_data
from tracegraph.cli import main
from tracegraph.errors import BakeError, FileFormatError, GuardError, TraceError

LIMIT = 3.0
table = np.arange(3.0, dtype="f")
Pair = collections.namedtuple("Pair", "low high")
pair = Pair(0.5, 2)


@dataclasses.dataclass
class Config:
    heads: int = 2
    gain: float = 1.25


class Block(nn.Module):
    def __init__(self, config: Config, k: float) -> None:
        super().__init__()
        self.config, self.k = config, k
        self.norm = nn.LayerNorm(4)

    @property
    def width(self) -> int:
        return 4 // self.config.heads

    @staticmethod
    def act(x: Any, slope: float) -> Any:
        return x.relu() * slope

    def forward(self, x: Any) -> Any:
        x = self.norm(x).reshape(-1, self.config.heads, self.width) * self.config.gain
        return self.act(x, 0.2).reshape(-1, 4) * self.k


def find(report: Report, expression: str) -> Bake:
    (bake,) = [b for b in report.bakes if b.expression == expression]
    return bake


def line_of(text: str) -> str:
    """file:line of the only line of this file with some text."""
    lines = Path(__file__).read_text(encoding="utf-8").split("\n")
    (number,) = [i for i, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return f"{__file__}:{number}"


def test_each_way_that_a_value_is_read() -> None:
    scale, seen = 2.5, [1.0, 2.0]
    options = {"rate": 0.5}

    def helper() -> float:
        return options["rate"]

    def f(x: Any, power: float, shift: float = 0.25) -> Any:
        n = x.shape[0]
        root = math.sqrt(n)
        x = x * scale + seen[1]  # closures
        for i in range(len(seen)):
            x = x * i - root
        x = x + helper() + shift + power
        top = float(x.max())
        return x.clamp(max=LIMIT) / top + tg.tensor([1.0, 2.0, 3.0]) + tg.from_numpy(table)

    report = tg.trace(f, (tg.ones(3), 2.0), allow_bake=["top"]).report()
    how = {b.expression: (b.how, b.values, b.suspicious) for b in report.bakes}
    assert how["scale"] == ("closure", ("2.5",), True)
    assert how["seen[1]"] == ("attribute", ("2.0",), True)
    assert how["options['rate']"] == ("attribute", ("0.5",), True)
    assert how["LIMIT"] == ("literal", ("3.0",), False)
    assert how["shift"] == ("default", ("0.25",), False)
    assert how["x.shape[0]"] == ("shape", ("3",), False)
    assert how["root"][0] == "shape" and find(report, "root").origin == "x.shape[0]"
    assert how["float(x.max())"][0] == "item" and how["float(x.max())"][2]
    assert find(report, "top").origin == "float(x.max())" and how["top"][2]
    assert find(report, "i").how == "local" and find(report, "i").suspicious
    assert find(report, "for i in range(len(seen))").how == "iteration"
    assert how["tg.tensor([1.0, 2.0, 3.0])"] == ("array", ("f32[3]",), False)
    assert how["tg.from_numpy(table)"] == ("array", ("f32[3]",), True)
    assert find(report, "tg.from_numpy(table)").origin == "table"
    assert find(report, "scale").places == (line_of("# closures"),)
    assert report["values"] == {"power": 2.0}
    assert {b.expression for b in report.suspicious} >= {"scale", "options['rate']", "top"}
    assert all(b.remedy for b in report.bakes)


def test_modules_are_told_by_their_path_and_grouped() -> None:
    config = Config()
    model = nn.Sequential(*[Block(config, 1.5 + i % 2) for i in range(30)])
    report = tg.trace(model, (tg.ones(2, 4),), check=False).report()
    k = find(report, "self.k")
    assert k.values == ("1.5", "2.5") and k.owner_count == 30
    assert k.owners[:2] == ("0", "1") and len(k.owners) < 30
    assert find(report, "self.config.heads").values == ("2",)
    eps = find(report, "LayerNorm.eps")
    assert (eps.how, eps.values, eps.suspicious) == ("setting", ("1e-05",), False)
    assert find(report, "slope").how == "argument"
    assert "of 30 modules: 0, 1, 2, ..." in str(report)
    assert len(str(report)) < 5000


def test_comprehensions_lambdas_and_named_tuples() -> None:
    count = 3

    def f(x: Any) -> Any:
        shift = lambda y: y + pair.low  # noqa: E731
        return shift(sum(x * i for i in range(count)))

    report = tg.trace(f, (tg.ones(2),)).report()
    assert find(report, "pair.low").values == ("0.5",)
    assert find(report, "count").how == "closure"
    assert find(report, "i").origin == "range(count), count" and find(report, "i").suspicious
    assert not report["unread"]


def test_values_of_clocks_and_random_numbers_are_suspicious() -> None:
    def f(x: Any) -> Any:
        started = time.perf_counter()
        return x + started

    report = tg.trace(f, (tg.ones(2),), check=False).report()
    assert find(report, "time.perf_counter()").how == "call"
    started = find(report, "started")
    assert started.suspicious and started.origin == "time.perf_counter()"


def test_what_else_a_trace_relied_on() -> None:
    optimizer = tg.optim.SGD([tg.ones(3, requires_grad=True)], lr=0.5)
    weight = optimizer.param_groups[0]["params"][0]

    def f(x: Any) -> Any:
        if x.sum() > 0:  # a guard
            x = x * 2
        optimizer.zero_grad()
        loss = (x * weight).sum()
        loss.backward()
        optimizer.step()
        return loss, x.nonzero()

    report = tg.trace(f, (tg.ones(3),)).report()
    (guard,) = report["guards"]
    assert guard == {
        "predicate": "x.sum() > 0", "outcomes": [True], "line": line_of("# a guard"),
    }  # fmt: skip
    assert report["hypers"]["optimizer.lr"] == 0.5
    assert "nonzero" in report["sizes"][0]["size"]
    assert report["state"] and report["writes"]
    text = str(report)
    assert "x.sum() > 0 is True" in text and "hyper-parameter optimizer.lr = 0.5" in text


def test_code_without_source_is_told_and_watched_all_the_same() -> None:
    namespace: dict[str, Any] = {"q": 3.0}
    exec("def g(x):\n    return x * q\n", namespace)
    traced = tg.trace(namespace["g"], (tg.ones(2),))
    report = traced.report()
    assert not report.bakes and report["unread"] == ["<string>:1"]
    assert "no source at hand of" in str(report)
    namespace["q"] = 4.0
    with pytest.raises(GuardError, match=r"q was 3.0 when it was traced and is 4.0 now"):
        traced(tg.ones(2))


def test_a_report_is_near_linear_and_small_for_many_nodes() -> None:
    def work(count: int) -> int:
        def f(x: Any) -> Any:
            for i in range(count):
                x = x * 1.01 + i
            return x

        traced = tg.trace(f, (tg.ones(1),), check=False)
        found: list[Any] = []
        made = calls(lambda: found.append(traced.report().to_data()))
        assert len(json.dumps(found[0])) < 3000
        return made

    work(10)
    assert work(5000) < 12 * work(500)


# In files.


def made() -> Any:
    gain = 2.0
    return tg.trace(lambda x: x * gain, (tg.ones(2),))


def test_a_file_keeps_the_report(tmp_path: Path) -> None:
    traced = made()
    path = tmp_path / "model.tg"
    traced.save(path)
    loaded = tg.load(path)
    assert str(loaded.report()["forward"]) == str(traced.report())
    assert loaded.forward.report().bakes == traced.report().bakes
    loaded.save(tmp_path / "again.tg")
    assert (tmp_path / "again.tg").read_bytes() == path.read_bytes()


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.tg"
    tg.save({"forward": made(), "other": made()}, path)
    assert main(["report", str(path)]) == 0
    out = capsys.readouterr().out
    assert "# entry point other" in out and "gain = 2.0" in out
    assert main(["report", str(path), "forward", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["forward"]["bakes"][0]["expression"] == "gain"


@pytest.mark.parametrize(
    "data",
    [
        {"bakes": [{"expression": 3}]}, {"bakes": [{"how": "magic"}]}, {"bakes": 7},
        {"literals": "many"}, {"unread": [1]}, {"checked": {"a": 2}}, {"bakes": [[]]},
    ],
)  # fmt: skip
def test_a_report_that_a_file_made_up_is_refused(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        told_from_data(data)


def test_a_report_is_a_mapping() -> None:
    report = made().report()
    assert dict(report) == report.to_data() and len(report) == len(list(report))
    assert "1 suspicious" in repr(report)


# What may leave the graph.


def reading(x: Any) -> Any:
    top = x.max().item()
    return x / top  # reading


@pytest.mark.parametrize(
    "allowed", ["x.max().item()", "x.max( ).item()", "top", "test_report.py:LINE"]
)
def test_a_value_may_be_frozen_by_name(allowed: str) -> None:
    line = reading.__code__.co_firstlineno + 1
    traced = tg.trace(reading, (tg.arange(4.0),), allow_bake=[allowed.replace("LINE", str(line))])
    assert np.array_equal(traced(tg.ones(4)).numpy(), np.full(4, 1 / 3, "f"))
    (bake,) = [b for b in traced.report().bakes if b.how == "item"]
    assert bake == Bake("x.max().item()", "item", ("3.0",), (f"{__file__}:{line}",), True)


@pytest.mark.parametrize("allowed", [[], ["x.min().item()"], ["report.py:1"], ["to"]])
def test_other_values_are_refused(allowed: list[str]) -> None:
    with pytest.raises(BakeError) as caught:
        tg.trace(reading, (tg.arange(4.0),), allow_bake=allowed)
    line = reading.__code__.co_firstlineno + 1
    for text in ("`x.max().item()`", f"{__file__}:{line}", "3.0", "allow_bake=['x.max().item()']"):
        assert text in str(caught.value)


def test_everything_may_be_frozen_where_the_trace_is_not_strict() -> None:
    def f(x: Any) -> Any:
        low, copied = min(x.tolist()), pickle.loads(pickle.dumps(x))
        text = f"{x[0]:.1f}"
        return x - low + np.asarray(x)[1] + float(x[2]) + len(text) + copied

    x = tg.arange(3.0) + 1
    traced = tg.trace(f, (x,), strict=False)
    assert np.array_equal(traced(x).numpy(), f(x).numpy())
    hows = [b.expression for b in traced.report().suspicious if b.how == "item"]
    assert {"x.tolist()", "float(x[2])", "np.asarray(x)"} <= set(hows)
    assert traced.report()["checked"]


def test_an_array_that_was_let_go_cannot_be_written() -> None:
    def f(x: Any) -> Any:
        x.numpy()[0] = 5
        return x + 1

    with pytest.raises(ValueError, match="read-only"):
        tg.trace(f, (tg.ones(2),), strict=False)


# The watch.


def test_only_what_the_code_reads_is_watched() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.other, self.steps = 2.0, 1.0, 0

        def forward(self, x: Any) -> Any:
            self.steps += 1
            return x * self.scale

    class Note:
        scale = 7.0

    model, note = Model(), Note()

    def f(x: Any) -> Any:
        assert note is not None
        return model(x)

    traced = tg.trace(f, (tg.ones(2),))
    model.other, model.steps, note.scale = 5.0, 40, 9.0
    model.scale = 4.0 / 2
    assert traced(tg.ones(2)).tolist() == [2.0, 2.0]
    model.scale = 3.0
    for _ in range(2):
        with pytest.raises(GuardError, match=r"self.scale.* was 2.0 .* and is 3.0 now"):
            traced(tg.ones(2))
    model.scale = 2.0
    assert traced(tg.ones(2)).tolist() == [2.0, 2.0]
    del model.scale
    with pytest.raises(GuardError, match="is None now"):
        traced(tg.ones(2))


def test_values_that_may_change_are_not_watched() -> None:
    rate = 2.0

    def f(x: Any) -> Any:
        return x * rate

    traced = tg.trace(f, (tg.ones(2),), allow_bake=["rate"])
    rate = 9.0
    assert traced(tg.ones(2)).tolist() == [2.0, 2.0]
    assert find(traced.report(), "rate").values == ("2.0",)


def test_a_refused_replay_writes_nothing() -> None:
    total, rate = tg.zeros(2), 2.0

    def f(x: Any) -> Any:
        total.add_(x * rate)
        return total.sum()

    traced = tg.trace(f, (tg.ones(2),))
    rate = 3.0
    with pytest.raises(GuardError):
        traced(tg.ones(2))
    assert total.tolist() == [0.0, 0.0]


def test_a_loaded_file_keeps_what_was_frozen() -> None:
    gain = 2.0
    traced = tg.trace(lambda x: x * gain, (tg.ones(2),))
    file = io.BytesIO()
    tg.save(traced, file)
    gain = 5.0
    file.seek(0)
    assert tg.load(file)(tg.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(GuardError, match=r"gain was 2\.0"):
        traced(tg.ones(2))


def test_errors_are_of_one_family() -> None:
    assert issubclass(BakeError, TraceError) and issubclass(FileFormatError, ValueError)


def test_functions_that_did_not_run_are_not_listed() -> None:
    rate, other = 2.0, 3.0

    def unused(x: Any) -> Any:
        return x * other

    def scaled(x: Any) -> Any:
        return x * rate

    table = {"unused": unused}

    def f(x: Any) -> Any:
        return scaled(x) if table else x

    traced = tg.trace(f, (tg.ones(2),))
    assert {b.expression for b in traced.report().suspicious} == {"rate"}
    other = 4.0
    assert traced(tg.ones(2)).tolist() == [2.0, 2.0]


def test_what_only_the_caller_of_trace_reads_is_not_watched() -> None:
    script = """
import tracegraph as torch
from tracegraph import nn

def make():
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    def step():
        optimizer.zero_grad()
        loss = net(torch.ones(1, 2)).sum()
        loss.backward()
        optimizer.step()
        return loss
    return step

losses = []
for rounds in range(3):
    traced = torch.trace(make(), ())
    traced()
    rounds = rounds + 10
    losses.append(traced().item())
assert len(losses) == 3
"""
    namespace: dict[str, Any] = {"__name__": "script"}
    exec(compile(script, "script.py", "exec"), namespace)
