"""The other process of the demo: no model source, no training code, just the file.

python docs/examples/replay_digits.py FOLDER        (what demo.py wrote)
"""

import sys
from pathlib import Path

import numpy as np

import tracegraph


def replay(folder: Path) -> None:
    """Classify and train from the file; stop at the first bit that differs from eager code."""
    with np.load(folder / "expected.npz") as arrays:
        expected = dict(arrays)
    file = tracegraph.load(folder / "digits.tg")

    logits = file.classify(expected["images"])
    assert (logits.numpy() == expected["logits"]).all(), "the logits differ"
    print(f"  classify: {len(logits)} rows of logits equal those of eager code, bit for bit")

    steps = list(zip(expected["batch_images"], expected["batch_labels"], strict=True))
    losses = [file.train_step(x, y).item() for x, y in steps]
    assert (np.float32(losses) == expected["losses"]).all(), "the losses differ"
    print(f"  train_step: {len(losses)} losses equal, {losses[0]:.6f} ... {losses[-1]:.6f}")

    state = {name.removeprefix("model."): t for name, t in file.state_dict().items()}
    names = [name for name in expected if name.startswith("state.")]
    for name in names:
        array = state[name.removeprefix("state.")].numpy()
        assert (array == expected[name]).all(), f"{name} differs"
    print(f"  State: {len(names)} parameters and buffers equal after these steps")


if __name__ == "__main__":
    replay(Path(sys.argv[1]))
