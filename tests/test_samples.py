"""Samples in files: what is stored, and that `verify_file` finds what is wrong, and only that."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tests.test_archive import VALUES, changed, forged, members, places
from tracegraph import nn
from tracegraph.cli import main
from tracegraph.files.container import Container, write_container
from tracegraph.files.digests import digest_of, gap_between, tell
from tracegraph.files.verification import Verification
from tracegraph.ops.table import OPS
from tracegraph.passes import canonical


def draw(*shape: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return torch.tensor(random.uniform(-1, 1, shape).astype(np.float32))


class Net(nn.Module):
    """Layers, statistics, dropout, indices and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.25)
        self.last = nn.Linear(8, 3)

    def forward(self, ids: Any, x: Any) -> Any:
        h = self.norm(torch.relu(self.first(self.embed(ids) + x)))
        y = self.last(self.drop(h))
        return y.softmax(-1), y.argmax(-1)


@pytest.fixture
def step() -> Callable[..., Any]:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def train_step(ids: Any, x: Any) -> Any:
        optimizer.zero_grad()
        probabilities, best = net(ids, x)
        loss = (probabilities**2).mean()
        loss.backward()
        optimizer.step()
        return loss, best

    return train_step


IDS, X = torch.tensor([[1, 2, 3], [9, 0, 4]]), draw(2, 3, 6)


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.tg"
    torch.save(torch.trace(Net().eval(), (IDS, X)), path, samples=True)
    return path


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Write a file anew, with good checksums, after a change of its members."""
    with Container.open(path) as container:
        members = {n: bytes(container.read(n)) for n in container.names() if n != "manifest.json"}
    change(members)
    write_container(path, members)


def fault_of(found: Verification) -> Any:
    (fault,) = found.faults
    assert "the first node that differs" in fault.text
    return fault


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_good_file_passes(net_file: Path, level: int) -> None:
    found = torch.verify_file(net_file, level=level)
    assert found.passed and not found.faults, str(found)
    assert "sample 0 of forward: 26 nodes agree" in str(found) or "nodes agree" in str(found)


def test_a_training_step_passes_and_nothing_changes(
    step: Callable[..., Any], tmp_path: Path
) -> None:
    traced = torch.trace(step, (IDS, X))
    before = {n: t.detach().clone() for n, t in traced.state.items()}
    random = torch.get_rng_state()
    torch.save({"train_step": traced}, tmp_path / "a.tg", samples=True)
    torch.save({"train_step": traced}, tmp_path / "b.tg", samples={"train_step": [(IDS, X)]})
    content = (tmp_path / "a.tg").read_bytes()
    assert content == (tmp_path / "b.tg").read_bytes()
    for level in (0, 1, 2):
        found = torch.verify_file(tmp_path / "a.tg", level=level)
        assert found.passed, str(found)
    assert (tmp_path / "a.tg").read_bytes() == content
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t.detach(), before[n]) for n, t in traced.state.items())


def test_a_changed_weight_is_named(net_file: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        head = json.loads(members["format.json"])
        number = head["state"]["first.weight"]["tensor"]
        member = json.loads(members["tensors/index.json"])["tensors"][number]["member"]
        weight = np.frombuffer(members[member], np.float32).copy()
        weight[7] += 1e-5
        members[member] = weight.tobytes()

    rewrite(net_file, change)
    fault = fault_of(torch.verify_file(net_file))
    assert (fault.node.op, fault.node.attrs["name"]) == ("state", "first.weight")
    assert "first.weight" in fault.text


def test_a_changed_attribute_is_found_at_its_line(net_file: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        text = members["graphs/forward.json"]
        assert b'"eps":1e-05' in text
        members["graphs/forward.json"] = text.replace(b'"eps":1e-05', b'"eps":1e-02')

    rewrite(net_file, change)
    fault = fault_of(torch.verify_file(net_file))
    assert fault.node.op == "layer_norm"
    assert fault.node.loc.file == __file__ and "self.norm(" in fault.text


@pytest.fixture
def wrong_kernel() -> Iterator[Callable[[str, Callable[..., Any]], None]]:
    """Put another kernel into a row."""
    before: list[tuple[Any, Any]] = []

    def put(name: str, change: Callable[..., Any]) -> None:
        row = OPS[name]
        kernel = row.kernel
        before.append((row, kernel))
        object.__setattr__(row, "kernel", lambda xp, *a, **k: change(xp, kernel(xp, *a, **k), *a))

    yield put
    for row, kernel in before:
        object.__setattr__(row, "kernel", kernel)


def test_a_wrong_kernel_is_found_at_the_first_node_that_runs_it(
    net_file: Path, wrong_kernel: Any
) -> None:
    wrong_kernel("relu", lambda xp, y, x: xp.where(x > 0, x, x * np.float32(0.01)))
    fault = fault_of(torch.verify_file(net_file))
    assert fault.node.op == "relu" and "torch.relu(self.first(" in fault.text
    assert "values lie in [-0.0" in fault.text


def test_one_wrong_element_of_many_is_found(tmp_path: Path, wrong_kernel: Any) -> None:
    traced = torch.trace(lambda x: torch.sin(x) * 2, (draw(1000, 1000),))
    torch.save(traced, tmp_path / "large.tg", samples=True)

    def change(xp: Any, y: Any, x: Any) -> Any:
        y = y.copy()
        y[500, 500] = 5.0
        return y

    wrong_kernel("sin", change)
    fault = fault_of(torch.verify_file(tmp_path / "large.tg"))
    assert fault.node.op == "sin"


def test_a_wrong_number_of_nan_is_told(tmp_path: Path, wrong_kernel: Any) -> None:
    torch.save(torch.trace(torch.sqrt, (draw(8),)), tmp_path / "nan.tg", samples=True)
    assert torch.verify_file(tmp_path / "nan.tg").passed
    wrong_kernel("sqrt", lambda xp, y, x: xp.nan_to_num(y))
    assert "0 NaN instead of" in fault_of(torch.verify_file(tmp_path / "nan.tg")).text


def test_integers_must_be_equal(net_file: Path, wrong_kernel: Any) -> None:
    wrong_kernel("argmax", lambda xp, y, x: y + (y == 0))
    fault = torch.verify_file(net_file).faults[0]
    assert fault.node.op == "argmax" and "other values" in fault.text


@pytest.mark.parametrize("op", ["linear", "layer_norm", "softmax", "relu"])
def test_other_rounding_passes(net_file: Path, wrong_kernel: Any, op: str) -> None:
    """What another machine's kernels do: results that are off by some units in the last place."""
    random = np.random.default_rng(1)

    def off(y: Any) -> Any:
        return y * (1 + random.normal(0, 2e-7, y.shape)).astype("f")

    wrong_kernel(op, lambda xp, y, *_: tuple(map(off, y)) if isinstance(y, tuple) else off(y))
    found = torch.verify_file(net_file)
    assert found.passed, str(found)


def test_a_tolerance_of_ones_own(net_file: Path, wrong_kernel: Any) -> None:
    wrong_kernel("softmax", lambda xp, y, x: y * np.float32(1.01))
    assert not torch.verify_file(net_file).passed
    assert torch.verify_file(net_file, tolerance=0.1).passed
    assert not torch.verify_file(net_file, tolerance=1e-4).passed


def test_what_only_the_optimised_program_gets_wrong_is_found(
    net_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(make: Any, node: Any) -> Any:
        return node.inputs[0]

    rules = {**canonical._RULES, "relu": [wrong]}
    monkeypatch.setattr(canonical, "_RULES", rules)
    assert torch.verify_file(net_file, level=0).passed
    fault = fault_of(torch.verify_file(net_file))
    assert "once the graph is optimised for cpu" in fault.text
    assert fault.node.op == "relu" and "torch.relu(self.first(" in fault.text


def test_a_branch_is_replayed_by_the_sample_that_took_it(tmp_path: Path) -> None:
    def f(x: Any, mode: str) -> Any:
        return x * 2 if x.sum() > 0 and mode == "a" else x - 1

    one = torch.ones(3)
    traced = torch.trace(f, (one, "a"), more_examples=[(-one, "a"), (one, "b")])
    torch.save(traced, tmp_path / "f.tg", samples=True)
    found = torch.verify_file(tmp_path / "f.tg")
    assert found.passed and "sample 2 of forward" in str(found), str(found)


# What is stored.


def test_a_digest_takes_the_same_space_for_any_size(tmp_path: Path) -> None:
    lengths = []
    for size in (1, 300_000):
        path = tmp_path / f"{size}.tg"
        torch.save(torch.trace(lambda x: (x.exp(), x > 0), (draw(size),)), path, samples=True)
        with zipfile.ZipFile(path) as archive:
            rows = archive.read("samples/forward.0.json").splitlines()[1:-1]
        lengths.append(max(map(len, rows)))
    assert max(lengths) < 160


def test_samples_are_given_for_all_or_by_name(tmp_path: Path) -> None:
    traced = torch.trace(lambda x: x + 1, (draw(2),))
    path = tmp_path / "s.tg"
    torch.save(traced, path)
    assert not any(name.startswith("samples/") for name in Container.open(path).names())
    torch.save(traced, path, samples=[draw(2, seed=1), (draw(2, seed=2),)])
    assert torch.verify_file(path).passed and len(torch.load(path).forward.examples) == 2
    torch.save({"a": traced, "b": traced}, path, samples={"b": True})
    assert "samples/b.json" in Container.open(path).names()
    for wrong, word in (
        ({"c": True}, "samples for 'c'"),
        ([draw(2)], "come as a dict"),
        ({"a": []}, "must be a list"),
        ({"a": draw(2)}, "must be a list"),
    ):
        with pytest.raises(TypeError, match=word):
            torch.save({"a": traced, "b": traced}, path, samples=wrong)


def test_a_loaded_file_is_saved_with_its_samples(net_file: Path, tmp_path: Path) -> None:
    loaded = torch.load(net_file)
    with torch.no_grad():
        next(loaded.parameters()).mul_(2)
    torch.save(loaded, tmp_path / "again.tg", samples=True)
    assert torch.verify_file(tmp_path / "again.tg").passed
    torch.save(loaded, tmp_path / "bare.tg")
    assert "samples/forward.json" not in Container.open(tmp_path / "bare.tg").names()


def test_half_precision_and_symbolic_sizes(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        return (x.half() @ x.half().T).float().softmax(-1)

    traced = torch.trace(f, (draw(4, 8),), dynamic={"x": {0: "batch"}})
    torch.save(traced, tmp_path / "h.tg", samples=[draw(4, 8), draw(7, 8, seed=1)])
    found = torch.verify_file(tmp_path / "h.tg")
    assert found.passed, str(found)


# Command line and bad files.


def test_the_command_tells_the_same(
    net_file: Path, wrong_kernel: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(net_file)]) == 0
    assert "entry point forward: 17 nodes, eval mode, 1 sample" in capsys.readouterr().out
    assert main(["verify", str(net_file), "--runtime", "interpreter", "--level", "0"]) == 0
    wrong_kernel("relu", lambda xp, y, x: x)
    capsys.readouterr()
    assert main(["verify", str(net_file)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  sample 0 of forward: the first node that differs" in out
    assert "test_samples.py:" in out
    assert main(["verify", str(net_file), "--tolerance", "10"]) == 0
    assert main(["verify", str(net_file), "--tolerance", "x"]) == 2
    assert main(["verify", str(net_file), "--runtime", "none"]) == 2


@pytest.mark.parametrize(
    ("member", "old", "new"),
    [
        ("samples/forward.json", b'"variant":0', b'"variant":7'),
        ("samples/forward.json", b'"inputs":[', b'"inputs":["a",'),
        ("samples/forward.0.json", b'"sketch":[', b'"sketch":["a",'),
        ("samples/forward.0.json", b'"digests":[', b'"digests":[7,'),
        ("samples/forward.0.json", b'"sha256"', b'"sha"'),
    ],
)
def test_a_forged_sample_is_an_error_of_ours(
    net_file: Path, member: str, old: bytes, new: bytes
) -> None:
    def change(members: dict[str, bytes]) -> None:
        assert old in members[member]
        members[member] = members[member].replace(old, new, 1)

    rewrite(net_file, change)
    found = torch.verify_file(net_file)
    assert not found.passed and "unexpected" not in str(found)


def test_a_node_without_a_digest_is_not_compared(net_file: Path, wrong_kernel: Any) -> None:
    def change(members: dict[str, bytes]) -> None:
        rows = json.loads(members["samples/forward.0.json"])["digests"]
        members["samples/forward.0.json"] = json.dumps(
            {"digests": [[None] * len(row) for row in rows]}
        ).encode()

    rewrite(net_file, change)
    wrong_kernel("relu", lambda xp, y, x: x)
    fault = torch.verify_file(net_file, runtime="interpreter").faults
    assert fault and all("program" in str(f) or "differs" in str(f) for f in fault)


# Digests.


def test_digests_move_as_values_do() -> None:
    x = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    near = digest_of(x * np.float32(1.000001))
    assert 0 < gap_between(digest_of(x), near) < 1e-4
    assert gap_between(digest_of(x), digest_of(np.roll(x, 1))) > 1e-2
    assert gap_between(digest_of(x), digest_of(x[::-1])) > 1e-2
    assert gap_between(digest_of(x), digest_of(-x)) > 1e-1
    swapped = x.copy()
    swapped[[1, 50_000]] = swapped[[50_000, 1]]
    assert gap_between(digest_of(x), digest_of(swapped)) > 1e-4
    assert gap_between(digest_of(x > 0), digest_of(x >= 0.01)) == np.inf
    odd = x.copy()
    odd[0] = np.nan
    assert gap_between(digest_of(x), digest_of(odd)) == np.inf
    assert tell(digest_of(x), digest_of(odd)) == "1 NaN instead of 0"


def test_digests_do_not_depend_on_layout() -> None:
    x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    assert digest_of(x.T.copy()) == digest_of(x.T)
    assert digest_of(np.zeros((0, 3), np.float32)) == digest_of(np.zeros((0, 3), np.float32))
    huge = np.full(10, 1e308)
    assert digest_of(huge)["max"] == 1e308


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_any_value_in_a_sample_gives_an_error_of_ours_or_a_check(
    every: int, tmp_path: Path
) -> None:
    path = tmp_path / "small.tg"
    w = draw(2, 2)
    traced = torch.trace(lambda x: ((x @ w).relu(), x.argmax(1)), (draw(2, 2),))
    torch.save(traced, path, samples=True)
    data = path.read_bytes()
    listed = {n: json.loads(members(data)[n]) for n in members(data) if n.startswith("samples/")}
    forgeries = [
        (name, place, value) for name, content in listed.items() for place in places(content)
        for value in VALUES
    ]  # fmt: skip
    passed = 0
    for name, place, value in forgeries[::every]:
        path.write_bytes(forged(data, name, changed(listed[name], place, value)))
        try:
            passed += torch.verify_file(path).passed
        except Exception as error:
            raise AssertionError(f"{name} {place} = {value!r}: {error!r}") from error
    assert passed < len(forgeries) // every // 4
