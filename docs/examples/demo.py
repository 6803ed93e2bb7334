"""Train a digit classifier, trace it and its training step, save both, go on in another process.

python docs/examples/demo.py [FOLDER]        (default: build/demo)
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tracegraph as torch
from tracegraph import nn

HERE = Path(__file__).resolve().parent
BATCH = 64
EPOCHS = 10
LATER_STEPS = 10
TEST_IMAGES = 360


def read_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images f32[1797, 1, 8, 8] in [0, 1] and labels i64[1797], shuffled with a seed."""
    table = np.loadtxt(HERE / "digits.csv.gz", delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(0).permutation(len(table))]
    images = (table[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return torch.from_numpy(images), torch.from_numpy(table[:, 64].copy())


class Classifier(nn.Module):
    """A small convolutional network: f32[batch, 1, 8, 8] -> f32[batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm1(self.conv1(images))))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.head(self.dropout(x.flatten(1)))


def make_train_step(model: nn.Module) -> Callable[..., torch.Tensor]:
    """Return the step that training calls for each batch, with its own Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_function = nn.CrossEntropyLoss()

    def train_step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return train_step


def train(
    model: nn.Module, step: Callable[..., Any], images: torch.Tensor, labels: torch.Tensor,
    epochs: int,
) -> None:  # fmt: skip
    """Train eagerly, with a line for each epoch."""
    data = torch.utils.data.TensorDataset(images, labels)
    batches = torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True)
    model.train()
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        losses = [step(x, y).item() for x, y in batches]
        seconds = time.perf_counter() - started
        print(f"  epoch {epoch:2d}: loss {np.mean(losses):.4f}  ({seconds:.1f} s)", flush=True)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the fraction of rows whose largest logit is at the label."""
    return float((logits.argmax(dim=1) == labels).float().mean())


def classify_eagerly(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of the model in eval mode."""
    model.eval()
    with torch.no_grad():
        return model(images)


def export(
    model: nn.Module, step: Callable[..., Any], images: torch.Tensor, batch: tuple[Any, Any],
    path: Path,
) -> tuple[Any, Any]:  # fmt: skip
    """Trace the classifier and the training step and save both in one file, with one State."""
    model.eval()
    with torch.no_grad():
        classify = torch.trace(model, (images,), name="classify")
    model.train()
    train_step = torch.trace(step, batch)
    torch.save({"train_step": train_step, "classify": classify}, path)
    return classify, train_step


def batches_of(images: torch.Tensor, labels: torch.Tensor, count: int) -> list[tuple[Any, Any]]:
    """Return `count` batches in order."""
    return [
        (images[i * BATCH : (i + 1) * BATCH], labels[i * BATCH : (i + 1) * BATCH])
        for i in range(count)
    ]


def write_expected(
    folder: Path, images: torch.Tensor, logits: torch.Tensor, later: list[tuple[Any, Any]],
    losses: list[Any], model: nn.Module,
) -> None:  # fmt: skip
    """Write what the other process shall find, and its inputs."""
    arrays = {
        "images": images.numpy(),
        "logits": logits.numpy(),
        "batch_images": np.stack([x.numpy() for x, _ in later]),
        "batch_labels": np.stack([y.numpy() for _, y in later]),
        "losses": np.array(losses, np.float32),
    }
    arrays |= {f"state.{name}": t.numpy() for name, t in model.state_dict().items()}
    np.savez(folder / "expected.npz", **arrays)


def print_times(
    name: str, eager: Callable[[], Any], replay: Callable[[], Any], repeat: int = 20
) -> None:
    """Print the median times of two calls, taken in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for call, found in zip((eager, replay), seconds, strict=True):
            started = time.perf_counter()
            call()
            found.append(time.perf_counter() - started)
    shown = [f"{1000 * np.median(found):7.2f} ms" for found in seconds]
    print(f"  {name:14} eager {shown[0]}   replay {shown[1]}")


def run_command(*arguments: str) -> None:
    """Run a Python process of this interpreter; stop the demo if it fails."""
    subprocess.run([sys.executable, *arguments], check=True)


def main() -> None:
    """Run the demo."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "digits.tg"
    torch.manual_seed(0)
    images, labels = read_digits()
    test_images, test_labels = images[:TEST_IMAGES], labels[:TEST_IMAGES]
    images, labels = images[TEST_IMAGES:], labels[TEST_IMAGES:]

    print(f"1. train eagerly on {len(images)} images")
    model = Classifier()
    step = make_train_step(model)
    train(model, step, images, labels, EPOCHS)
    logits = classify_eagerly(model, test_images)
    reached = accuracy(logits, test_labels)
    print(f"  test accuracy on {TEST_IMAGES} other images: {reached:.1%}")
    assert reached > 0.97, "the test accuracy is too low"

    print("2. trace the classifier and the training step, save both")
    later = batches_of(images, labels, LATER_STEPS)
    classify, train_step = export(model, step, test_images, later[0], file)
    print(f"  classify: {len(classify.graph)} nodes, train_step: {len(train_step.graph)} nodes")
    print(f"  {file}: {file.stat().st_size / 1024:.0f} KiB")

    print(f"3. go on with {LATER_STEPS} steps here, eagerly")
    losses = [step(x, y).item() for x, y in later]
    print(f"  losses {losses[0]:.6f} ... {losses[-1]:.6f}")
    write_expected(folder, test_images, logits, later, losses, model)

    print("4. go on from the file in another process, without the model's source")
    run_command(str(HERE / "replay_digits.py"), str(folder))

    print("5. look into the file")
    run_command("-m", "tracegraph", "verify", str(file))
    for entry in ("classify", "train_step"):
        drawing = str(folder / f"{entry}.svg")
        run_command("-m", "tracegraph", "show", str(file), entry, "--svg", drawing)

    print("6. times (median of 20)")
    model.eval()
    print_times("classify", lambda: classify_eagerly(model, test_images),
                lambda: classify(test_images))  # fmt: skip
    model.train()
    print_times("train_step", lambda: step(*later[0]), lambda: train_step(*later[0]))


if __name__ == "__main__":
    main()
