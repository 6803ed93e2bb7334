"""The demo, on a slice of its data: what it exports is what the other process finds."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph as torch

EXAMPLES = Path(__file__).resolve().parent.parent / "docs/examples"


def load_example(name: str) -> ModuleType:
    """Import a script of docs/examples without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    return load_example("demo")


@pytest.fixture(scope="module")
def exported(demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the demo writes, after one epoch on 256 images."""
    folder = tmp_path_factory.mktemp("demo")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    images, labels = demo.read_digits()
    model = demo.Classifier()
    step = demo.make_train_step(model)
    demo.train(model, step, images[:256], labels[:256], epochs=1)
    logits = demo.classify_eagerly(model, images[:40])
    later = demo.batches_of(images, labels, 3)
    demo.export(model, step, images[:40], later[0], folder / "digits.tg")
    losses = [step(x, y).item() for x, y in later]
    demo.write_expected(folder, images[:40], logits, later, losses, model)
    torch.set_rng_state(state)
    return folder


def test_the_data_are_the_digits(demo: ModuleType) -> None:
    images, labels = demo.read_digits()
    assert tuple(images.shape) == (1797, 1, 8, 8) and images.dtype is torch.float32
    assert (images.min().item(), images.max().item()) == (0.0, 1.0)
    counts = np.bincount(labels.numpy()).tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_other_process_finds_the_same_bits(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_example("replay_digits").replay(exported)
    out = capsys.readouterr().out
    assert "bit for bit" in out and "3 losses equal" in out and "16 parameters" in out


@pytest.mark.parametrize("name", ["logits", "losses", "state.conv1.weight"])
def test_the_other_process_notices_a_difference(name: str, exported: Path, tmp_path: Path) -> None:
    with np.load(exported / "expected.npz") as arrays:
        expected: dict[str, Any] = dict(arrays)
    expected[name] = np.nextafter(expected[name], np.float32(9), dtype=np.float32)
    np.savez(tmp_path / "expected.npz", **expected)
    (tmp_path / "digits.tg").write_bytes((exported / "digits.tg").read_bytes())
    with pytest.raises(AssertionError, match="differ"):
        load_example("replay_digits").replay(tmp_path)


def test_the_other_process_imports_nothing_of_the_first() -> None:
    tree = ast.parse((EXAMPLES / "replay_digits.py").read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom)
            else []
        )
    }  # fmt: skip
    assert imported - set(sys.stdlib_module_names) == {"numpy", "tracegraph"}
