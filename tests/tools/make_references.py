"""Make tests/references/*.json with PyTorch: `python -m tests.tools.make_references`."""

from __future__ import annotations

import json
from typing import Any

import torch

from tests import references, test_documents, test_workloads


def documents() -> dict[str, Any]:
    """Return what every program of tests/seeds prints and gives."""
    made = {}
    for name in test_documents.PROGRAMS:
        text, results = test_documents.outcome(name, "torch")
        made[name] = {
            "text": text,
            "results": {key: references.summary(array) for key, array in results.items()},
        }
    return made


def programs() -> dict[str, Any]:
    """Return what every workload gives."""
    return {
        name: {
            key: references.summary(array)
            for key, array in test_workloads.outcome(torch, name).items()
        }
        for name in test_workloads.workloads.NAMES
    }


def main() -> None:
    """Write the files."""
    torch.set_num_threads(1)
    references.FOLDER.mkdir(exist_ok=True)
    for name, made in (("documents", documents()), ("workloads", programs())):
        text = json.dumps(made, indent=1, sort_keys=True) + "\n"
        (references.FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
