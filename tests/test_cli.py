"""The command line: what each command prints, its exit status, and errors of one sentence."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tracegraph.cli.arguments import COMMANDS, main
from tracegraph.cli.drawing import boxes_of, lay_out
from tracegraph.cli.info import model_tensors
from tracegraph.cli.output import printable, time_text
from tracegraph.ir.difference import compare_graphs
from tracegraph.ir.parsing import parse_graph
from tracegraph.wording import count_text, size_text

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns its status, stdout and stderr."""

    def call(*argv: Any) -> tuple[int, str, str]:
        status = main([str(a) for a in argv])
        return (status, *capsys.readouterr())

    return call


def weight() -> torch.Tensor:
    return torch.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), requires_grad=True)


def make_step() -> Callable[..., Any]:
    w, momentum = weight(), torch.zeros(3, 4)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        w.grad = None
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            momentum.mul_(0.9).add_(w.grad)
            w.sub_(momentum * 0.01)
        return loss

    return step


def trace_layer(function: Callable[..., Any], name: str = "forward") -> Any:
    """Trace `function(x @ w)` with a fixed w."""
    w = weight()
    return torch.trace(lambda x: function(x @ w), (torch.ones(5, 3),), name=name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `both.tg` (forward and train_step), `pair.tg` (nested) and `nest.tg`."""
    folder = tmp_path_factory.mktemp("files")
    step = torch.trace(make_step(), (torch.ones(5, 3), torch.zeros(5, 4)))
    forward = trace_layer(lambda h: h.abs() + 1)
    torch.save({"forward": forward, "train_step": step}, folder / "both.tg")
    pair = torch.trace(
        lambda batch, scale: {"sum": batch["a"] + batch["b"], "n": batch["n"] * scale},
        ({"a": torch.ones(2), "b": torch.ones(2), "n": torch.arange(3)}, 3),
        name="pair",
    )
    torch.save(pair, folder / "pair.tg")
    torch.save({"a": weight(), "b": [torch.ones(2), 1]}, folder / "nest.tg")
    return folder


def test_info_lists_entry_points_inputs_and_state(files: Path, run: Run) -> None:
    status, out, _ = run("info", files / "both.tg")
    assert status == 0
    for part in (
        "format 1.0, by tracegraph",
        "entry point forward: ",
        "entry point train_step: ",
        "writes 2 tensors",
        "input x: f32[5,3]",
        "input y: f32[5,4]",
        "gives f32[5,4]",
        "written by train_step",
        "read by forward",
    ):
        assert part in out
    assert "3 State tensors, 144 B" in out
    assert run("info", files / "pair.tg")[1].count("input batch.") == 3


def test_info_of_plain_tensors(files: Path, run: Run) -> None:
    status, out, _ = run("info", files / "nest.tg")
    assert (status, "2 tensors, 56 B" in out) == (0, True)
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [
        ["a", "f32[3,4]"],
        ["b.0", "f32[2]"],
    ]


def test_optimizer_slots_and_gradients_are_not_counted_as_the_model(tmp_path: Path) -> None:
    w, layer = weight(), {"w": weight()}
    optimizer = torch.optim.SGD([w, layer["w"]], lr=0.1, momentum=0.9)

    def step(x: torch.Tensor) -> None:
        (x @ (w + layer["w"])).sum().backward()
        optimizer.step()

    torch.save({"step": torch.trace(step, (torch.ones(5, 3),))}, tmp_path / "step.tg")
    loaded = torch.load(tmp_path / "step.tg")
    assert len(loaded.state_dict()) == 6
    assert list(model_tensors(loaded)) == ["w", "layer.w"]


def test_show_prints_graphs_that_parse_back(files: Path, run: Run) -> None:
    status, out, _ = run("show", files / "both.tg", "train_step", "--full")
    assert status == 0
    assert compare_graphs(parse_graph(out), torch.load(files / "both.tg").train_step.graph) == []
    status, out, _ = run("show", files / "both.tg")
    assert [line for line in out.splitlines() if line.startswith("#")] == [
        "# entry point forward",
        "# entry point train_step",
    ]


def test_show_draws_svg_and_dot(files: Path, run: Run, tmp_path: Path) -> None:
    drawing = tmp_path / "graph.svg"
    status, out, _ = run("show", files / "both.tg", "train_step", "--svg", drawing)
    assert (status, "train_step" in out) == (0, True)
    tree = xml.etree.ElementTree.parse(drawing)
    texts = {e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")}
    graph = torch.load(files / "both.tg").train_step.graph
    assert {n.op for n in graph if n.op not in ("input", "state", "constant")} <= texts
    assert {"input x", "input y", "output 0"} <= texts
    status, out, _ = run("show", files / "both.tg", "--dot", "-")
    assert out.startswith('digraph "forward" {') and out.count("->") >= 3


def test_a_drawing_has_no_boxes_on_one_another_and_flows_downwards(files: Path) -> None:
    picture = boxes_of(torch.load(files / "both.tg").train_step.graph)
    width, height = lay_out(picture)
    boxes = list(picture)
    for i, a in enumerate(boxes):
        assert a.x - a.width / 2 >= 0 and a.x + a.width / 2 <= width
        assert a.y - a.height / 2 >= 0 and a.y + a.height / 2 <= height
        for b in boxes[i + 1 :]:
            apart = abs(a.x - b.x) >= (a.width + b.width) / 2 - 1e-6
            assert apart or abs(a.y - b.y) >= (a.height + b.height) / 2
    assert all(a.y < b.y for a, b in picture.edges)


def test_run_takes_random_inputs_the_same_for_a_seed(files: Path, run: Run) -> None:
    outs = [run("run", files / "both.tg", "--seed", seed)[1] for seed in (1, 1, 2)]
    values = [next(line for line in o.splitlines() if "output" in line) for o in outs]
    assert values[0] == values[1] != values[2]
    status, out, _ = run("run", files / "pair.tg", "--repeat", 3)
    assert status == 0
    assert "output.sum: f32[2]" in out and "output.n: i64[3]" in out
    assert out.splitlines()[-1].split()[:3] == ["later", "calls", "3"]


def test_run_reads_and_writes_arrays(files: Path, run: Run, tmp_path: Path) -> None:
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "in.npz", x=x)
    wanted = torch.load(files / "both.tg")(x).numpy()
    for given in (["--input", f"x={tmp_path / 'x.npy'}"], ["--npz", tmp_path / "in.npz"]):
        status, out, _ = run("run", files / "both.tg", *given, "--output", tmp_path / "out.npz")
        assert status == 0 and "random" not in out
        with np.load(tmp_path / "out.npz") as written:
            assert np.array_equal(written["output"], wanted)


def test_run_takes_bfloat16_arrays_which_npy_files_hold_as_bytes(run: Run, tmp_path: Path) -> None:
    x = torch.ones(3, dtype=torch.bfloat16)
    torch.save(torch.trace(lambda x: x + 1, (x,)), tmp_path / "half.tg")
    np.save(tmp_path / "x.npy", x.numpy())
    given = f"x={tmp_path / 'x.npy'}"
    assert run("run", tmp_path / "half.tg", "--input", given)[1].startswith("output: bf16[3] [2.0")


@dataclasses.dataclass
class Batch:
    x: Any
    y: Any


def test_run_stands_in_for_dataclasses_whose_source_is_not_there(run: Run, tmp_path: Path) -> None:
    made = Batch(torch.ones(2), (torch.ones(3),))
    torch.save(torch.trace(lambda batch: batch.x.sum() + batch.y[0], (made,)), tmp_path / "a.tg")
    status, out, _ = run("run", tmp_path / "a.tg")
    assert (status, "output: f32[3]" in out) == (0, True)
    assert "input batch.y.0: f32[3]" in run("info", tmp_path / "a.tg")[1]


def test_verify_passes_good_files_and_names_the_damaged_member(
    files: Path, run: Run, tmp_path: Path
) -> None:
    status, out, _ = run("verify", files / "both.tg")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == {"ok"}
    assert "graph train_step: " in out
    assert run("verify", files / "nest.tg")[0] == 0
    data = bytearray((files / "nest.tg").read_bytes())
    data[data.index(np.float32(-1).tobytes() + weight().detach().numpy()[0, 1].tobytes())] ^= 1
    (tmp_path / "bad.tg").write_bytes(data)
    status, out, _ = run("verify", tmp_path / "bad.tg")
    assert (status, "FAIL" in out, "tensors/000000.bin" in out) == (1, True, True)
    (tmp_path / "text.tg").write_text("hello")
    assert run("verify", tmp_path / "text.tg")[0] == 1


@pytest.fixture
def save_layer(tmp_path: Path) -> Callable[..., Path]:
    """Save a traced layer under a name and return its path."""

    def save(name: str, function: Callable[..., Any]) -> Path:
        torch.save(trace_layer(function), tmp_path / name)
        return tmp_path / name

    return save


def changes(out: str) -> list[str]:
    """The lines of a diff that tell of graphs, without source lines."""
    told = [line for line in out.splitlines() if line[:3] in ("  -", "  +")]
    return [line.split("  # ")[0].strip() for line in told]


def test_diff_of_equal_files_is_empty_whatever_the_order(
    save_layer: Callable[..., Path], run: Run
) -> None:
    a = save_layer("a.tg", lambda h: h.exp() * h.sin())

    def swapped(h: torch.Tensor) -> torch.Tensor:
        right = h.sin()
        return h.exp() * right

    status, out, _ = run("diff", a, save_layer("b.tg", swapped))
    assert (status, "hold the same" in out) == (0, True)


def test_diff_tells_a_change_once_and_not_what_follows_from_it(
    save_layer: Callable[..., Path], run: Run
) -> None:
    a = save_layer("a.tg", lambda h: (h.neg() + 1).exp().sin() * 2)
    status, out, _ = run("diff", a, save_layer("b.tg", lambda h: (h.neg() + 3).exp().sin() * 2))
    assert status == 1
    assert changes(out) == ["- add(neg(...), 1.0): f32[5,4]", "+ add(neg(...), 3.0): f32[5,4]"]
    status, out, _ = run("diff", a, save_layer("c.tg", lambda h: (h.neg() + 1).exp().cos() * 2))
    assert changes(out) == ["- sin(exp(...)): f32[5,4]", "+ cos(exp(...)): f32[5,4]"]
    status, out, _ = run("diff", a, save_layer("d.tg", lambda h: (h.neg() + 1).sin() * 2))
    assert changes(out) == [
        "- exp(add(...)): f32[5,4]",
        "- sin(exp(...)): f32[5,4]",
        "+ sin(add(...)): f32[5,4]",
    ]


def test_diff_of_results_that_only_swap_places(save_layer: Callable[..., Path], run: Run) -> None:
    a = save_layer("a.tg", lambda h: (h.exp(), h.sin()))
    out = run("diff", a, save_layer("b.tg", lambda h: (h.sin(), h.exp())))[1]
    assert changes(out)[0].startswith("- output 0 = exp") and len(changes(out)) == 4


def test_diff_of_tensors_and_entry_points(files: Path, run: Run, tmp_path: Path) -> None:
    loaded = torch.load(files / "both.tg")
    state = loaded.state_dict()
    name = next(n for n in state if n.endswith("momentum"))
    loaded.load_state_dict({name: state[name] + 0.25}, strict=False)
    torch.save({"train_step": loaded.train_step}, tmp_path / "c.tg")
    status, out, _ = run("diff", files / "both.tg", tmp_path / "c.tg")
    assert status == 1
    assert "entry point forward: only in the first" in out
    assert f"tensor {name}: 12 of 12 elements differ, at most by 0.25" in out
    torch.save({"a": weight(), "b": [torch.ones(2), 2]}, tmp_path / "nest.tg")
    assert "value b 1: 1 -> 2" in run("diff", files / "nest.tg", tmp_path / "nest.tg")[1]
    assert "kind: " in run("diff", files / "nest.tg", tmp_path / "c.tg")[1]


def test_diff_counts_nan_as_equal_to_nan(run: Run, tmp_path: Path) -> None:
    values = torch.tensor([float("nan"), float("inf"), 1.0])
    torch.save([values], tmp_path / "a.tg")
    torch.save([values.clone()], tmp_path / "b.tg")
    assert run("diff", tmp_path / "a.tg", tmp_path / "b.tg")[0] == 0
    torch.save([torch.tensor([0.0, float("inf"), 1.0])], tmp_path / "b.tg")
    out = run("diff", tmp_path / "a.tg", tmp_path / "b.tg")[1]
    assert "tensor 0: 1 of 3 elements differ, at most by nan" in out


def test_bench_times_each_level(files: Path, run: Run) -> None:
    status, out, _ = run("bench", files / "both.tg", "--repeat", 3)
    assert status == 0
    rows = [line.split() for line in out.splitlines()[2:]]
    how = [["interpreter", "0"], ["interpreter", "1"], ["interpreter", "2"], ["native", "2"]]
    wanted = [[name, *row] for name in ("forward", "train_step") for row in how]
    assert [row[:3] for row in rows] == wanted
    out = run("bench", files / "both.tg", "forward", "--repeat", 3, "--runtime", "native")[1]
    assert [line.split()[:3] for line in out.splitlines()[2:]] == [["forward", "native", "2"]]


def test_compile_fills_the_cache_and_explains(files: Path, run: Run, tmp_path: Path) -> None:
    def compiled(*more: Any) -> tuple[str, set[Path]]:
        environment = {**os.environ, "TRACEGRAPH_CACHE_DIR": str(tmp_path / "cache")}
        done = command("compile", files / "both.tg", *more, env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, set((tmp_path / "cache").iterdir())

    out, entries = compiled()
    assert out.count("# entry point ") == 2 and entries
    assert f"kept in {tmp_path / 'cache'}" in out and "matmul" in out
    out, again = compiled("--entry", "forward")
    assert out.startswith("# entry point forward\n") and "train_step" not in out
    kept = {path: path.read_bytes() for path in again}
    assert compiled()[1] == again and {p: p.read_bytes() for p in again} == kept


def test_the_runtime_can_be_chosen(files: Path, run: Run) -> None:
    values = {}
    for runtime in ("interpreter", "native"):
        status, out, _ = run("run", files / "both.tg", "--runtime", runtime)
        assert status == 0
        values[runtime] = out.splitlines()[1]
    assert len({v.split(" [")[0] for v in values.values()}) == 1
    for more in ([], ["--runtime", "native"], ["--runtime", "interpreter", "--level", "0"]):
        assert run("verify", files / "both.tg", *more)[0] == 0


def test_sizes_of_dynamic_dims_are_given(run: Run, tmp_path: Path) -> None:
    dims = {"x": {0: torch.Dim("batch", min=1, max=64)}}
    traced = torch.trace(lambda x: x * 2, (torch.ones(4, 3),), dynamic=dims, name="forward")
    torch.save(traced, tmp_path / "a.tg")
    assert "output: f32[7,3]" in run("run", tmp_path / "a.tg", "--size", "batch=7")[1]
    assert "1 steps batch=5:" in run("compile", tmp_path / "a.tg", "--size", "batch=5")[1]
    assert run("bench", tmp_path / "a.tg", "--size", "batch=5", "--repeat", 3)[0] == 0
    for name in ("run", "bench", "compile"):
        status, _, err = run(name, tmp_path / "a.tg")
        assert (status, "give --size batch=N" in err) == (2, True)


ERRORS = {
    "no command given a name": (["nothing"], "invalid choice: 'nothing'"),
    "no file": (["info"], "the following arguments are required: FILE"),
    "missing file": (["info", "{}/missing.tg"], "No such file or directory"),
    "folder": (["show", "{}"], "Is a directory"),
    "foreign file": (["info", "{}/x.npy"], "this is not a tracegraph file"),
    "unknown entry": (["show", "{}/both.tg", "step"], "no entry point 'step'"),
    "tensors only": (["run", "{}/nest.tg"], "holds tensors without graphs"),
    "unknown input": (["run", "{}/both.tg", "--input", "z={}/x.npy"], "there is no input 'z'"),
    "no equals sign": (["run", "{}/both.tg", "--input", "x.npy"], "wants NAME=FILE.npy"),
    "wrong shape": (["run", "{}/both.tg", "--input", "x={}/x.npy"], "expected f32[5,3]"),
    "one input missing": (
        ["run", "{}/both.tg", "--entry", "train_step", "--input", "x={}/x.npy"],
        "inputs are missing: y",
    ),
    "no such device": (["run", "{}/both.tg", "--device", "tpu"], "no device type 'tpu'"),
    "no such runtime": (["run", "{}/both.tg", "--runtime", "magic"], "no runtime 'magic'"),
    "bad size": (["run", "{}/both.tg", "--size", "batch"], "expected NAME=N, got 'batch'"),
    "bad number": (["run", "{}/both.tg", "--repeat", "0"], "expected a whole number above 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_one_sentence_and_status_2(name: str, files: Path, run: Run) -> None:
    np.save(files / "x.npy", np.zeros(3, np.float32))
    argv, wanted = ERRORS[name]
    status, _, err = run(*(a.replace("{}", str(files)) for a in argv))
    assert status == 2
    assert err.startswith("tracegraph: error: ") and err.count("\n") == 1
    assert wanted in err


def test_an_error_that_nobody_foresaw_names_its_type_and_debug_shows_it(
    files: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: Any) -> int:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("tracegraph.cli.info.run", fail)
    status, _, err = run("info", files / "both.tg")
    text = "tracegraph: error: ZeroDivisionError: a b; --debug shows the traceback\n"
    assert (status, err) == (2, text)
    with pytest.raises(ZeroDivisionError):
        main(["info", "--debug", "x"])


def test_interrupts_end_with_status_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("tracegraph.cli.info.run", interrupt)
    assert run("info", "x") == (130, "", "")


def command(*argv: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tracegraph", *map(str, argv)]
    return subprocess.run(arguments, text=True, check=False, **options)


def test_output_that_nobody_reads_or_that_finds_no_room(files: Path) -> None:
    shell = f"{sys.executable} -m tracegraph show {files / 'both.tg'} | true"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    full = Path("/dev/full")
    if full.exists():
        with full.open("w") as out:
            done = command("info", files / "both.tg", stdout=out, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert done.stderr == "tracegraph: error: No space left on device\n"


def test_the_module_is_a_command_with_help_and_version() -> None:
    done = command("--help", capture_output=True)
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert command("--version", capture_output=True).stdout.startswith("tracegraph ")


def test_names_in_a_file_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    torch.save({"\x1b[31mred": torch.ones(1)}, tmp_path / "a.tg")
    out = run("info", tmp_path / "a.tg")[1]
    assert "\x1b" not in out and "\\x1b[31mred" in out
    assert printable("é\n\u202e") == "é\\n\\u202e"


def test_numbers_as_people_read_them() -> None:
    assert [size_text(n) for n in (0, 1023, 1024, 1536, 5 << 30)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB",
    ]  # fmt: skip
    assert [time_text(s) for s in (0, 1.234e-6, 99.96e-6, 0.9999, 1.5, 1234)] == [
        "0.00 us", "1.23 us", "100 us", "1.00 s", "1.50 s", "1234 s",
    ]  # fmt: skip
    assert count_text(1, "entry") == "1 entry" and count_text(2000, "entry") == "2,000 entries"
